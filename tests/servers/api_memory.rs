//! Memory of the scheduler while many clients read the results of a large sweep.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::stream::{StreamExt, iter};
use mehl_soup::runner::engine::{Completion, Effort, Scores};
use mehl_soup::runner::pool::PoolResult;
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Claimant, Completed, Redis};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::paired::UnitScores;
use mehl_soup::sweep::results::{SweepResults, TaskOutcome};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::score::testing::with_errors;
use mehl_soup::sweep::spec::{ComputeDtype, Family};
use mehl_soup::task::{TaskKey, TaskState, Ticket};
use serde_json::json;

use crate::support::servers::{RedisServer, free_port, settings, until};
use crate::support::service::request;

/// Tasks that the search of the sweep asks for.
const TASKS: usize = 12_000;
/// Tasks that are done.
const DONE: usize = 2_000;
/// Clients that read at once.
const READERS: usize = 30;
/// Most resident memory, in MB. With all rows in memory for each reader it took more than 1000.
const MOST: u64 = 110;

struct Scheduler(Child);

impl Drop for Scheduler {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The largest resident memory of a process so far, in MB.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

fn score(loss: f64) -> SplitScore {
    with_errors((loss, 0.1), (0.5, 0.1), 4)
}

/// Has a task done, as a worker would.
async fn complete(store: &Redis, key: TaskKey, completed: &Completed) {
    let claimant = Claimant { worker: "w".into(), nonce: key.to_string() };
    let claim = store.claim(&Ticket::new(key, 1), &claimant, Duration::from_secs(60)).await.unwrap();
    let ClaimAnswer::Claimed(claimed) = claim else { panic!("{claim:?}") };
    store.complete(&claimed.hold, completed).await.unwrap();
}

/// Reads an answer as it comes, and keeps only its status, its length and its last bytes.
fn read(address: &str, path: &str) -> (String, usize, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    let (mut piece, mut head, mut length, mut last) = (vec![0; 1 << 16], String::new(), 0, Vec::new());
    loop {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            return (head, length, last);
        }
        if head.is_empty() {
            head = String::from_utf8_lossy(&piece[..12.min(read)]).into_owned();
        }
        length += read;
        last.extend_from_slice(&piece[..read]);
        last.drain(..last.len().saturating_sub(40));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_a_large_sweep_take_little_memory() {
    let redis = RedisServer::start(&["--maxmemory-policy", "noeviction", "--appendfsync", "no"]);
    let address = format!("127.0.0.1:{}", free_port());
    let settings = settings(redis.url());
    let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup"));
    command.args(["serve", "--listen", &address]).env_clear().env("MEHL_SOUP__REDIS__URL", redis.url());
    command.env("MEHL_SOUP__INSTALLATION", &settings.installation);
    // No broker is needed to read.
    command.env("MEHL_SOUP__AMQP__URL", format!("amqp://127.0.0.1:{}/", free_port()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let scheduler = Scheduler(child);
    let url = format!("http://{address}");
    let get = |path: &str| request("GET", &format!("{url}{path}"), &[], b"");
    until("it listens", || TcpStream::connect(&address).is_ok());
    until("it reaches Redis", || get("/v1/load").status == 200);

    let spec = format!(
        "zoo.ingredients = 'z'\ndata.learn = 'l'\nsoup.method = 'mehl+'\nsearch = {{ strategy = 'random', tasks = {TASKS}, \
         space = {{ learning_rate = {{ log_uniform = [0.001, 0.1] }}, weight_decay = {{ uniform = [0, 1] }}, \
         seed = {{ int = [0, 9000000000000000000] }} }} }}"
    );
    let body = json!({"spec": spec, "format": "toml"}).to_string();
    let created =
        request("POST", &format!("{url}/v1/sweeps"), &[("content-type", "application/json")], body.as_bytes());
    assert_eq!(created.status, 201, "{}", String::from_utf8_lossy(&created.bytes));
    let id = created.json()["id"].as_str().unwrap().to_string();

    let store = Redis::connect(&settings).await.unwrap();
    let manifest = Manifest {
        objective: Default::default(),
        version: Manifest::VERSION,
        family: Family::Vit,
        architecture: serde_json::Value::Null,
        ingredients: vec![],
        base: None,
        data: vec![],
        notes: vec![],
    };
    let manifest = serde_json::to_string(&manifest).unwrap();
    complete(
        &store,
        TaskKey::new(&id, "scores").unwrap(),
        &Completed { result: manifest, coefficients: vec![], units: None },
    )
    .await;
    // The scheduler alone would begin a few tasks at a time. The first are the baselines.
    store.release_pending(&id, DONE + 2).await.unwrap();
    let tasks = store.tasks(&id, 3, DONE).await.unwrap();
    assert!(tasks.iter().all(|task| task.state == TaskState::Queued));
    let done =
        tasks.into_iter().enumerate().map(|(i, task)| {
            let completion = Completion {
                attempts: 1,
                coefficients: vec![],
                scores: Scores { learn: score(1.0), select: score(1.0 / (i + 1) as f64), test: None },
                effort: Effort::default(),
                exact: true,
                model_batch: 2,
                dtype: ComputeDtype::F32,
                units: UnitScores::default(),
            };
            let result = PoolResult { outcome: TaskOutcome::succeeded(&completion, 1), history: vec![] };
            let result = serde_json::to_string(&result).unwrap();
            let store = &store;
            async move {
                complete(store, task.key, &Completed { result, coefficients: vec![0; 16 << 10], units: None }).await
            }
        });
    iter(done).buffer_unordered(16).collect::<()>().await;

    let path = format!("/v1/sweeps/{id}/results");
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (address, path) = (address.clone(), path.clone());
            std::thread::spawn(move || {
                let mut answer = read(&address, &path);
                // On a machine that is busy, Redis may not answer in time. That is said, and tried again.
                until("Redis answers", || {
                    let is_away = answer.0.ends_with(" 503");
                    if is_away {
                        answer = read(&address, &path);
                    }
                    !is_away
                });
                answer
            })
        })
        .collect();
    let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    let after = peak(scheduler.0.id());
    for (head, length, last) in &read {
        assert!(head.ends_with(" 200") && last.ends_with(b"}]}"), "{head}: {}", String::from_utf8_lossy(last));
        assert!(*length > TASKS * 500, "{length}");
    }
    let mut answer = get(&path);
    until("Redis answers", || {
        let is_away = answer.status == 503;
        if is_away {
            answer = get(&path);
        }
        !is_away
    });
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.bytes));
    let results: SweepResults = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!(results.tasks.len(), TASKS + 2);
    assert!(results.tasks[..DONE].iter().all(|row| row.state == TaskState::Succeeded));
    assert!(results.tasks.is_sorted_by_key(|row| row.select.map_or(f64::INFINITY, |select| select.loss)));
    assert!(after < MOST, "{after} MB");
}
