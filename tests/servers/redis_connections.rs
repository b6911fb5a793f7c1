//! Redis as users run it: over TLS with an authority of their own, and with a user that may do no more than it must.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::servers::{RedisServer, certificates, free_port, settings};
use crate::support::stub_engine::spec;
use mehl_soup::operator_file::OperatorFile;
use mehl_soup::scheduler::{Terms, new_sweep, new_tasks};
use mehl_soup::store::contract::saved;
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Claimant, Completed, Held, Order, Redis, RedisSettings, StoreError};

const LEASE: Duration = Duration::from_secs(30);

/// What a worker and a scheduler ask of a store, from the creation of a sweep to its removal.
async fn a_whole_life(store: &Redis) {
    let (spec, _) = spec();
    store.create_sweep(&new_sweep("s".into(), &spec, Terms::default()), Some("key")).await.unwrap();
    store.add_tasks("s", 0, &new_tasks(&spec)).await.unwrap();
    let ticket = store.open_sweep("s").await.unwrap().unwrap();
    store.confirmed(std::slice::from_ref(&ticket)).await.unwrap();
    let claimant = Claimant { worker: "w".into(), nonce: "n".into() };
    let ClaimAnswer::Claimed(claimed) = store.claim(&ticket, &claimant, LEASE).await.unwrap() else { panic!() };
    assert!(matches!(store.save(&claimed.hold, LEASE, saved(1, b"checkpoint", 1)).await.unwrap(), Held::Yes(_)));
    let completed = Completed { result: "{}".into(), coefficients: vec![1, 2, 3], units: None };
    assert_eq!(store.complete(&claimed.hold, &completed).await.unwrap(), Held::Yes(()));
    assert_eq!(store.result(&claimed.hold.key).await.unwrap(), Some(completed));
    store.beat("w", LEASE, "{}").await.unwrap();
    assert_eq!(store.workers().await.unwrap().len(), 1);
    assert_eq!(store.release_pending("s", 100).await.unwrap(), 5);
    let ready = store.ready("s", 100).await.unwrap();
    assert_eq!(store.choose(&ready).await.unwrap(), 5);
    assert!(store.expire(100, LEASE).await.unwrap().expired.is_empty());
    assert!(store.order("s", Order::Cancel).await.unwrap());
    store.settle("s", 0, 100).await.unwrap();
    assert!(store.sweep("s").await.unwrap().unwrap().is_final());
    assert!(!store.events(&claimed.hold.key).await.unwrap().is_empty());
    while !store.remove("s", 100).await.unwrap() {}
    assert!(store.sweeps().await.unwrap().records.is_empty());
}

#[tokio::test]
async fn over_tls_with_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, key, certificate] = certificates(folder.path());
    let port = free_port();
    let text = |path: &PathBuf| path.to_str().unwrap().to_string();
    let (port_text, ca_text, key_text, certificate_text) =
        (port.to_string(), text(&ca), text(&key), text(&certificate));
    let _server = RedisServer::start(&[
        "--tls-port",
        &port_text,
        "--tls-ca-cert-file",
        &ca_text,
        "--tls-key-file",
        &key_text,
        "--tls-cert-file",
        &certificate_text,
        "--tls-auth-clients",
        "no",
    ]);
    let with = |ca_file: Option<PathBuf>| RedisSettings {
        ca_file: ca_file.map(OperatorFile::new),
        timeout: Duration::from_secs(2),
        ..settings(format!("rediss://localhost:{port}/"))
    };
    a_whole_life(&Redis::connect(&with(Some(ca))).await.unwrap()).await;
    // Nobody that is known to the world has signed it.
    let strange = Redis::connect(&with(None)).await.err().unwrap();
    assert!(matches!(strange, StoreError::Unreachable(_) | StoreError::Setup(_)), "{strange:?}");
    let missing = Redis::connect(&with(Some("none.pem".into()))).await.err().unwrap();
    assert!(matches!(&missing, StoreError::Setup(what) if what.contains("none.pem")), "{missing:?}");
}

/// A server with a user `soup` that may use these commands on keys of installations.
fn with_user(commands: &str) -> RedisServer {
    let rights = format!("--user soup on >secret ~{{*}}:* resetchannels {commands}");
    RedisServer::start(&rights.split(' ').collect::<Vec<_>>())
}

#[tokio::test]
async fn with_a_user_that_may_do_no_more_than_it_must() {
    // As docs/pool.md says. Braces are part of all keys.
    let server = with_user("+@all -@dangerous +info");
    let url = server.url().replace("redis://", "redis://soup:secret@");
    a_whole_life(&Redis::connect(&settings(url)).await.unwrap()).await;
    let wrong = server.url().replace("redis://", "redis://soup:guessed@");
    let error = Redis::connect(&settings(wrong)).await.err().unwrap();
    assert!(matches!(error, StoreError::Setup(_)) && !error.to_string().contains("guessed"), "{error:?}");
    // Rights that are too few are waited for: they can be given while programs run.
    let server = with_user("+@read +info");
    let url = server.url().replace("redis://", "redis://soup:secret@");
    if let Ok(store) = Redis::connect(&settings(url)).await {
        let (spec, _) = spec();
        let error = store.create_sweep(&new_sweep("s".into(), &spec, Terms::default()), None).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)) && error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn a_primary_without_the_replicas_that_it_wants_is_waited_for() {
    // As one that is cut off from them: another may have taken its place.
    let server = RedisServer::start(&["--min-replicas-to-write", "1"]);
    let store = Redis::connect(&settings(server.url())).await.unwrap();
    let (spec, _) = spec();
    let error = store.create_sweep(&new_sweep("s".into(), &spec, Terms::default()), None).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("replicas"), "{error:?}");
    assert!(store.sweeps().await.unwrap().records.is_empty());
}
