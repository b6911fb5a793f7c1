//! The HTTP API over a real Redis: what differs from the store of one process.

use std::time::{Duration, Instant};

use crate::support::servers::{RedisServer, new_store, settings};
use crate::support::service::{SPEC, Service};
use mehl_soup::api::ApiSettings;
use mehl_soup::queue::InProcess;
use mehl_soup::scheduler::{Terms, admit, new_sweep, new_tasks};
use mehl_soup::store::Redis;
use mehl_soup::store::traits::*;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::Spec;
use serde_json::json;

fn large(tasks: usize) -> Spec {
    let text = format!("{SPEC}seed = {{ int = [1, {}] }}\n", tasks / 3);
    parse_spec_text(&text, Format::Toml, std::path::Path::new("/base")).unwrap()
}

async fn service(store: Redis, settings: ApiSettings) -> Service<Redis, InProcess> {
    Service::start(store, InProcess::default(), None, settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_with_one_key_make_one_sweep() {
    let service = service(new_store().await, ApiSettings::default()).await;
    let spec = format!("{SPEC}seed = {{ int = [1, 500] }}\n");
    let body = json!({"spec": spec, "format": "toml", "key": "k"});
    let answers = (0..8).map(|_| service.call("POST", "/v1/sweeps", Some(body.clone())));
    let answers = futures_util::future::join_all(answers).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((created, answers.iter().filter(|answer| answer.status == 200).count()), (1, 7));
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
    let id = answers[0].json()["id"].as_str().unwrap().to_string();
    let sweep = service.get(&format!("/v1/sweeps/{id}")).await;
    assert_eq!((&sweep["stage"], &sweep["tasks"]), (&json!("scoring"), &json!(1503)));
    service.work("a");
    service.knobs.iterations.store(1, std::sync::atomic::Ordering::SeqCst);
    service.until(&id, "soups are computed", |sweep| sweep["counts"]["succeeded"].as_u64() > Some(5)).await;
}

async fn has_tasks(store: &Redis) -> bool {
    store.sweeps().await.unwrap().records.first().is_some_and(|sweep| sweep.tasks() > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_was_cut_off_goes_on() {
    let server = RedisServer::start(&[]);
    let settings = settings(server.url());
    let store = Redis::connect(&settings).await.unwrap();
    let spec = large(30_000);
    let tasks = new_tasks(&spec);
    // The process that creates it goes away in the middle.
    let watching = store.clone();
    {
        let (store, spec, tasks) = (store.clone(), spec.clone(), tasks.clone());
        let creation = tokio::spawn(async move { admit(&store, &spec, &tasks, Terms::default(), Some("k")).await });
        while !has_tasks(&watching).await {
            tokio::task::yield_now().await;
        }
        creation.abort();
        assert!(creation.await.unwrap_err().is_cancelled(), "it was still at it");
    }
    let half = store.sweeps().await.unwrap().records.pop().unwrap();
    assert!((1..30_003).contains(&half.tasks()), "{}", half.tasks());
    let admitted = admit(&store, &spec, &tasks, Terms::default(), Some("k")).await.unwrap();
    assert_eq!((admitted.id.as_str(), admitted.is_new), (half.id.as_str(), false));
    let whole = store.sweep(&half.id).await.unwrap().unwrap();
    assert_eq!(whole.tasks(), 30_003);
    let last = store.tasks(&half.id, 30_002, 2).await.unwrap();
    assert_eq!(last.iter().map(|task| task.key.task.as_str()).collect::<Vec<_>>(), [tasks[30_002].id.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_said_and_comes_back() {
    let mut server = RedisServer::start(&[]);
    let mut short = settings(server.url());
    short.timeout = Duration::from_millis(500);
    let service = service(Redis::connect(&short).await.unwrap(), ApiSettings::default()).await;
    let id = service.submit().await;
    server.stop();
    let away = service.call("GET", &format!("/v1/sweeps/{id}"), None).await;
    assert_eq!((away.status, away.code().as_str(), away.header("retry-after")), (503, "store_unreachable", "2"));
    assert!(!String::from_utf8_lossy(&away.bytes).contains("127.0.0.1"), "the store's address is nobody's business");
    let body = json!({"spec": SPEC, "format": "toml"});
    assert_eq!(service.call("POST", "/v1/sweeps", Some(body)).await.status, 503);
    let ready = service.call("GET", "/readyz", None).await;
    assert_eq!((ready.status, &ready.json()["broker"]), (503, &json!("ok")));
    assert_ne!(ready.json()["store"], "ok");
    assert_eq!(service.call("GET", "/healthz", None).await.status, 200);
    let text = String::from_utf8(service.call("GET", "/metrics", None).await.bytes).unwrap();
    assert!(text.contains("mehl_soup_redis_connected 0"), "{text}");
    server.kill_and_restart();
    let began = Instant::now();
    while service.call("GET", "/readyz", None).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(service.get(&format!("/v1/sweeps/{id}")).await["tasks"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_is_said() {
    let server = RedisServer::start(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]);
    let service = service(Redis::connect(&settings(server.url())).await.unwrap(), ApiSettings::default()).await;
    let spec = format!("{SPEC}seed = {{ int = [1, 3000] }}\n");
    let body = json!({"spec": spec, "format": "toml", "key": "k"});
    let full = service.call("POST", "/v1/sweeps", Some(body)).await;
    assert_eq!((full.status, full.code().as_str(), full.header("retry-after")), (503, "store_full", "30"));
    assert_eq!(service.call("GET", "/v1/sweeps", None).await.status, 200, "reading goes on");
}

/// `cargo test --release --test servers api_redis::speed -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: it needs the machine for itself"]
async fn speed_of_creation() {
    let server = RedisServer::start(&["--appendfsync", "everysec"]);
    let store = Redis::connect(&settings(server.url())).await.unwrap();
    let spec = large(10_000);
    let tasks = new_tasks(&spec);
    let bytes: usize = tasks.iter().map(|task| task.id.len() + task.body.len()).sum();
    println!("{} tasks, {bytes} bytes", tasks.len());
    let client = redis::Client::open(server.url()).unwrap();
    let mut bare = client.get_multiplexed_async_connection().await.unwrap();
    for round in 0..5 {
        // The same bytes as plain writes: a hash for each task with what a task needs, pipelined in pieces of the same size, one answer a command.
        let id = format!("bare-{round}");
        let began = Instant::now();
        for batch in tasks.chunks(500) {
            let mut pipe = redis::pipe();
            for task in batch {
                pipe.cmd("SET").arg(format!("{id}/{}", task.id)).arg(&task.body).ignore();
            }
            pipe.query_async::<()>(&mut bare).await.unwrap();
        }
        let set = began.elapsed();
        let began = Instant::now();
        for (i, batch) in tasks.chunks(500).enumerate() {
            let mut pipe = redis::pipe();
            for (j, task) in batch.iter().enumerate() {
                let key = format!("{id}/h/{}", task.id);
                pipe.cmd("HSET").arg(&key).arg("body").arg(&task.body).arg("state").arg("pending").arg("generation");
                pipe.arg(0).arg("epoch").arg(0).arg("attempts").arg(0).arg("crashes").arg(0).arg("sequence").arg(0);
                pipe.arg("order")
                    .arg(i * 500 + j)
                    .arg("scores")
                    .arg(0)
                    .arg("updated")
                    .arg(1_790_000_000_000u64)
                    .ignore();
                pipe.cmd("ZADD").arg(format!("{id}/tasks")).arg(i * 500 + j).arg(&key).ignore();
                pipe.cmd("ZADD").arg(format!("{id}/pending")).arg(i * 500 + j).arg(&key).ignore();
            }
            pipe.query_async::<()>(&mut bare).await.unwrap();
        }
        let hashes = began.elapsed();
        let began = Instant::now();
        admit(&store, &spec, &tasks, Terms::default(), None).await.unwrap();
        let admitted = began.elapsed();
        println!("SET {set:?}; HSET and two ZADD {hashes:?}; admit {admitted:?}");
    }
    // `new_sweep` is what the store keeps of it: not a part of the measurement.
    assert!(new_sweep("s".into(), &spec, Terms::default()).spec.len() > 100);
}
