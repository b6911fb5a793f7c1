//! A primary that Sentinels tell, with real ones: it is found, and followed when another takes its place.

use std::time::{Duration, Instant};

use crate::support::servers::{RedisServer, SentinelServer, certificates, free_port, settings, until};
use mehl_soup::store::contract::{claimant, completed, saved, sweep, task};
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Held, Redis, RedisSettings, StoreError};

const LEASE: Duration = Duration::from_secs(1000);
/// From the death of a primary to the first answer of the next: half a second until it is noticed, and an election.
const FAILOVER: Duration = Duration::from_secs(15);
/// A user with the rights that docs/pool.md tells. Replication is without one here, and waits for no second replica.
const USER: &str = "--user soup on >data-secret ~* resetchannels +@all -@dangerous +info --repl-diskless-sync-delay 0";
const SENTINEL_PASSWORD: &str = "requirepass sentinel-secret";

/// A question of the test's own. During a failover servers end connections.
fn ask(port: u16, password: Option<&str>, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let secret = password.map(|password| format!(":{password}@")).unwrap_or_default();
    let client = redis::Client::open(format!("redis://{secret}127.0.0.1:{port}/"))?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query(&mut client.get_connection()?)
}

fn says(port: u16, what: &str) -> bool {
    format!("{:?}", ask(port, None, &["INFO", "replication"])).contains(what)
}

/// Makes a server the replica of another; false while it still loads its data or ends connections.
fn follow(server: u16, primary: u16) -> bool {
    ask(server, None, &["REPLICAOF", "127.0.0.1", &primary.to_string()]).is_ok()
}

/// A primary, a replica that has all of it, and a Sentinel that knows both.
fn three() -> (RedisServer, RedisServer, SentinelServer) {
    let user: Vec<&str> = USER.split(' ').collect();
    let primary = RedisServer::start(&user);
    let port = primary.port().to_string();
    let replica = RedisServer::start(&[&user[..], &["--replicaof", "127.0.0.1", &port]].concat());
    until("the replica has it all", || says(replica.port(), "master_link_status:up"));
    let sentinel = SentinelServer::start(primary.port(), &[SENTINEL_PASSWORD]);
    // It looks at servers every half second instead of every ten, and is as quick otherwise.
    ask(
        sentinel.port(),
        Some("sentinel-secret"),
        &["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "200"],
    )
    .unwrap();
    knows_the_replica(&sentinel);
    (primary, replica, sentinel)
}

fn knows_the_replica(sentinel: &SentinelServer) {
    let question = ["SENTINEL", "REPLICAS", "primary"];
    let is_well = |answer: String| {
        answer.contains("master-link-status") && !answer.contains("s_down") && !answer.contains("disconnected")
    };
    until("the Sentinel knows the replica", || {
        is_well(format!("{:?}", ask(sentinel.port(), Some("sentinel-secret"), &question)))
    });
}

fn with(url: String) -> RedisSettings {
    RedisSettings { timeout: Duration::from_secs(2), ..settings(url) }
}

/// Repeats a call until it is answered; what comes meanwhile may only say that nobody is there.
async fn retry<T>(mut call: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    let began = Instant::now();
    loop {
        let error = match call().await {
            Ok(answer) => return answer,
            Err(error) => error,
        };
        assert!(error.is_retryable(), "{error:?}");
        assert!(began.elapsed() < FAILOVER, "nobody took its place: {error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_is_left_for_the_next() {
    let (mut primary, replica, sentinel) = three();
    let dead = free_port();
    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{}", sentinel.port());
    let url = format!("redis+sentinel://soup:data-secret@{hosts}/primary?sentinel_password=sentinel-secret");
    let store = Redis::connect(&with(url)).await.unwrap();
    store.create_sweep(&sweep("s"), None).await.unwrap();
    store.add_tasks("s", 0, &[task("scores", true), task("a", false)]).await.unwrap();
    let ticket = store.open_sweep("s").await.unwrap().unwrap();
    let ClaimAnswer::Claimed(claimed) = store.claim(&ticket, &claimant("n"), LEASE).await.unwrap() else { panic!() };
    store.save(&claimed.hold, LEASE, saved(1, b"kept", 1)).await.unwrap();
    let before = store.sweep("s").await.unwrap();
    let offset = |port: u16, field: &str| {
        let text: String = redis::from_redis_value(ask(port, None, &["INFO", "replication"]).unwrap()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(field)).map(str::to_string)
    };
    until("the replica has it all", || {
        offset(replica.port(), "slave_repl_offset:") == offset(primary.port(), "master_repl_offset:")
    });

    primary.stop();
    let began = Instant::now();
    // Many at once, as in a service.
    let asked = (0..50).map(|_| retry(async || store.sweep("s").await));
    let answers = futures_util::future::join_all(asked).await;
    println!("followed after {:?}", began.elapsed());
    assert!(answers.iter().all(|answer| *answer == before), "{answers:?}");
    assert!(says(replica.port(), "role:master"));
    let again = retry(async || store.claim(&ticket, &claimant("n"), LEASE).await).await;
    let ClaimAnswer::Claimed(again) = again else { panic!("{again:?}") };
    assert_eq!(again.checkpoint.as_deref(), Some(b"kept".as_slice()));

    // The first comes back, is made a replica (the Sentinel would take half a minute for it), and then the primary again while both are well.
    primary.kill_and_restart();
    until("it is told", || follow(primary.port(), replica.port()));
    until("it is a replica", || says(primary.port(), "role:slave") && says(primary.port(), "master_link_status:up"));
    // Refused as long as the last one is not over.
    let failover = || ask(sentinel.port(), Some("sentinel-secret"), &["SENTINEL", "FAILOVER", "primary"]).is_ok();
    until("the Sentinel begins", failover);
    until("it takes over", || says(primary.port(), "role:master"));
    let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "primary"];
    let named = || format!("{:?}", ask(sentinel.port(), Some("sentinel-secret"), &question));
    until("the Sentinel says so", || named().contains(&primary.port().to_string()));
    // By hand too: a Sentinel that was held up by a busy machine does nothing for half a minute.
    until("it is told too", || follow(replica.port(), primary.port()));
    until("the other one follows", || says(replica.port(), "role:slave"));
    assert_eq!(retry(async || store.complete(&again.hold, &completed("1")).await).await, Held::Yes(()));
    let result = ask(primary.port(), None, &["KEYS", "*result:s/scores"]);
    assert!(format!("{result:?}").contains("result:s/scores"), "it was written to the primary: {result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told() {
    let evicting = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let user: Vec<&str> = USER.split(' ').collect();
    let primary = RedisServer::start(&user);
    let monitor = format!("sentinel monitor evicting 127.0.0.1 {} 1", evicting.port());
    let sentinel = SentinelServer::start(primary.port(), &[SENTINEL_PASSWORD, &monitor]);
    let nobody = free_port();
    let (port, known) = (sentinel.port(), "sentinel_password=sentinel-secret");
    let no_sentinel = primary.port();
    for (url, is_set_up, what) in [
        (format!("soup:data-secret@127.0.0.1:{port}/other?{known}"), true, "no Sentinel knows a primary named `other`"),
        (format!("soup:data-secret@127.0.0.1:{nobody}/primary?{known}"), false, "the Sentinels"),
        (format!("soup:data-secret@127.0.0.1:{no_sentinel}/primary"), true, "entinel"),
        (
            format!("soup:data-secret@127.0.0.1:{port}/primary?sentinel_password=guessed"),
            true,
            "refuse the user or its password",
        ),
        (format!("soup:data-secret@127.0.0.1:{port}/primary"), true, "NOAUTH"),
        (format!("soup:guessed@127.0.0.1:{port}/primary?{known}"), true, "refuse the user or its password"),
        (format!("127.0.0.1:{port}/evicting?{known}"), true, "expected noeviction"),
    ] {
        let began = Instant::now();
        let error = Redis::connect(&with(format!("redis+sentinel://{url}"))).await.err().unwrap();
        let text = error.to_string();
        assert!(began.elapsed() < Duration::from_secs(5), "{url}: {:?}", began.elapsed());
        assert_eq!(
            (error.is_retryable(), matches!(error, StoreError::Setup(_))),
            (!is_set_up, is_set_up),
            "{url}: {error:?}"
        );
        assert!(text.contains(what), "{url}: {text}");
        assert!(!text.contains("secret") && !text.contains("guessed"), "{text}");
    }
    // A primary that is down is waited for.
    drop(primary);
    until("it is noticed", || {
        format!("{:?}", ask(port, Some("sentinel-secret"), &["SENTINEL", "MASTER", "primary"])).contains("s_down")
    });
    let url = format!("redis+sentinel://soup:data-secret@127.0.0.1:{port}/primary?{known}");
    let error = Redis::connect(&with(url)).await.err().unwrap();
    assert!(error.is_retryable() && error.to_string().contains("is down"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let paths = certificates(folder.path());
    let [ca, key, certificate] = paths.each_ref().map(|path| path.to_str().unwrap());
    let port = free_port().to_string();
    let files = ["--tls-ca-cert-file", ca, "--tls-key-file", key, "--tls-cert-file", certificate];
    let _primary = RedisServer::start(&[&["--tls-port", &port, "--tls-auth-clients", "no"], &files[..]].concat());
    let lines = format!(
        "tls-port {{port}}\ntls-auth-clients no\ntls-replication yes\n\
         tls-ca-cert-file {ca}\ntls-key-file {key}\ntls-cert-file {certificate}"
    );
    let sentinel = SentinelServer::start(port.parse().unwrap(), &[&lines]);
    let url = format!("rediss+sentinel://localhost:{}/primary/1", sentinel.port());
    let store = Redis::connect(&RedisSettings {
        ca_file: Some(mehl_soup::operator_file::OperatorFile::new(ca)),
        ..with(url.clone())
    })
    .await
    .unwrap();
    store.create_sweep(&sweep("s"), None).await.unwrap();
    assert_eq!(store.sweep("s").await.unwrap().unwrap().name, "digits");
    let strange = Redis::connect(&with(url)).await.err().unwrap();
    assert!(matches!(strange, StoreError::Unreachable(_) | StoreError::Setup(_)), "{strange:?}");
}
