//! Tasks that go wrong, checkpoints and messages that are not ours, and owners who change their minds, in a pool of processes. Nobody else is held up.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::pool_processes::{LEASE, PATIENCE, Pool, TASK, TASKS};
use crate::support::servers::{RedisServer, shared_rabbit};
use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use mehl_soup::checkpoint::{Build, Checkpoint, Totals};
use mehl_soup::coefficients::Coefficients;
use mehl_soup::queue::{RabbitMq, TicketQueue};
use mehl_soup::runner::engine::Effort;
use mehl_soup::scheduler::{Scheduler, SchedulerSettings};
use mehl_soup::store::traits::*;
use mehl_soup::store::{Letter, Order};
use mehl_soup::sweep::spec::{ComputeDtype, LinearLibrary};
use mehl_soup::task::TaskState;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::Notify;

async fn broker() -> String {
    tokio::task::spawn_blocking(shared_rabbit).await.unwrap()
}

async fn sleep_millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A kind of fault of the engine in one iteration of one task; how often the task is tried, and what its cause says.
async fn poisoned(redis: &str, rabbit: &str, folder: &Path, fault: u32, attempts: u64, cause: &str) {
    let mut pool = Pool::new(redis, rabbit, folder, 30, 2).await;
    pool.submit("s").await;
    pool.scheduler();
    for name in ["a", "b"] {
        pool.worker(name, &format!("fault={fault} at=15"));
    }
    for record in pool.finish("s").await {
        if record.key.task == TASK {
            assert_eq!((record.state, record.attempts), (TaskState::Failed, attempts), "{record:?}");
            assert!(record.cause.as_ref().is_some_and(|found| found.contains(cause)), "{record:?}, expected {cause}");
        } else {
            assert_eq!((record.state, record.attempts), (TaskState::Succeeded, 1), "{record:?}");
        }
    }
    for (name, worker) in &mut pool.workers {
        assert!(!worker.has_ended(), "{name} ended: {}", worker.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_task_fails_with_its_cause_and_blocks_nobody() {
    let (redis, rabbit, folder) = (RedisServer::start(&[]), broker().await, tempfile::tempdir().unwrap());
    let kinds = [
        (1, 3, "panic: a stub's panic"),
        (2, 3, "out of memory"),
        (3, 1, "loss is NaN"),
        (6, 1, "zoo/a.safetensors: not found"),
    ];
    let url = redis.url();
    let all = futures_util::stream::iter(kinds)
        .map(|(fault, attempts, cause)| poisoned(&url, &rabbit, folder.path(), fault, attempts, cause));
    assert_eq!(all.buffer_unordered(2).count().await, kinds.len());
}

/// A checkpoint of so many iterations.
fn checkpoint(identity: &str, iterations: u64) -> Vec<u8> {
    let build = Build {
        libtorch: "none".into(),
        cpu_capability: "none".into(),
        compute_threads: 1,
        device: "cpu".into(),
        linear: LinearLibrary::default(),
    };
    let checkpoint = Checkpoint {
        identity: identity.into(),
        build,
        coefficients: Coefficients::mean_of(2, 1, &[0]),
        finished: vec![],
        current: None,
        greedy: None,
        select: None,
        model_batch: 1,
        cuts: vec![],
        dtype: ComputeDtype::F32,
        totals: Totals { attempts: 1, effort: Effort { iterations, ..Effort::default() } },
        history: vec![],
        exact: true,
    };
    checkpoint.to_bytes()
}

async fn refused(redis: &str, rabbit: &str, folder: &Path, checkpoint: &[u8], why: &str) {
    let mut pool = Pool::new(redis, rabbit, folder, 10, 2).await;
    pool.submit_one(Some(checkpoint)).await;
    pool.scheduler();
    pool.worker("a", "");
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.crashes), (TaskState::Succeeded, 0), "{record:?}");
    assert!(record.sequence > 7, "its checkpoints came after the one that was refused: {record:?}");
    assert_eq!((pool.site.steps().len(), pool.repeated(1)), (10, 0), "it began anew");
    let said = pool.workers["a"].said();
    assert!(said.contains("cannot use the checkpoint") && said.contains(why), "{said}, expected {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_not_the_tasks_is_refused_and_said_and_the_task_begins_anew() {
    let (redis, rabbit, folder) = (RedisServer::start(&[]), broker().await, tempfile::tempdir().unwrap());
    let foreign = checkpoint("another task", 5);
    let mut torn = checkpoint(TASK, 5);
    torn.truncate(torn.len() - 3);
    let mut altered = checkpoint(TASK, 5);
    *altered.last_mut().unwrap() ^= 1;
    let mut older = checkpoint(TASK, 5);
    let place = older.windows(10).position(|bytes| bytes == br#"schema\":1"#).unwrap();
    older[place + 9] = b'0';
    let (url, folder) = (redis.url(), folder.path());
    tokio::join!(
        refused(&url, &rabbit, folder, &foreign, "another task's"),
        refused(&url, &rabbit, folder, &torn, "damaged"),
        refused(&url, &rabbit, folder, &altered, "damaged"),
        refused(&url, &rabbit, folder, &older, "schema 0"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_tickets_are_dead_letters_and_kept() {
    let (redis, rabbit, folder) = (RedisServer::start(&[]), broker().await, tempfile::tempdir().unwrap());
    let mut pool = Pool::new(&redis.url(), &rabbit, folder.path(), 20, 2).await;
    let queue = RabbitMq::start(&pool.site.rabbit).unwrap();
    queue.ready(PATIENCE).await.unwrap();
    // Without its path: lapin reads `/` as a virtual host without a name.
    let url = rabbit.trim_end_matches('/');
    let stranger = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = stranger.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let of_another_version = format!(r#"{{"version":2,"task_id":"s/{TASK}","generation":1}}"#);
    let bodies: [&[u8]; 5] = [b"not a ticket", b"", of_another_version.as_bytes(), b"{}", &[0xff; 100_000]];
    let exchange = format!("{}.tickets", pool.site.rabbit.installation);
    for body in bodies {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let sent = channel.basic_publish(exchange.as_str().into(), "ticket".into(), options, body, properties);
        assert!(sent.await.unwrap().await.unwrap().is_ack());
    }
    // They are in front of every ticket.
    pool.submit("s").await;
    for name in ["a", "b"] {
        pool.worker(name, "");
    }
    let (settings, wake) = (SchedulerSettings::default(), Notify::new());
    let scheduler = Scheduler { store: &pool.store, queue: &queue, settings: &settings, wake: &wake };
    let (began, mut malformed) = (Instant::now(), 0);
    while malformed < bodies.len() || !pool.store.sweep("s").await.unwrap().unwrap().is_final() {
        let turn = scheduler.turn().await.unwrap();
        malformed += turn.malformed;
        assert_eq!((turn.fault, turn.dead.0), (None, 0), "none is of a task");
        assert!(began.elapsed() < PATIENCE, "{malformed} dead letters");
        sleep_millis(20).await;
    }
    assert_eq!(malformed, bodies.len());
    let letters = pool.store.letters(100).await.unwrap();
    assert_eq!((letters.total, queue.take_dead(PATIENCE).await.unwrap().is_some()), (bodies.len() as u64, false));
    let mut found: Vec<_> = letters.newest.iter().map(|kept| &kept.letter).collect();
    let mut sent: Vec<_> = bodies.map(|body| Letter::new(body, "rejected", "")).into_iter().collect();
    found.sort_by_key(|letter| letter.bytes);
    sent.sort_by_key(|letter| letter.bytes);
    for (found, sent) in found.into_iter().zip(sent) {
        assert!(!found.fault.is_empty());
        assert_eq!(*found, Letter { fault: found.fault.clone(), ..sent });
    }
    let records = pool.finish("s").await;
    assert!(records.iter().all(|record| record.state == TaskState::Succeeded && record.attempts == 1), "{records:?}");
    let said: usize = pool.workers.values().map(|worker| worker.said().matches("a message was rejected").count()).sum();
    assert_eq!(said, bodies.len());
    queue.close().await;
}

/// Pauses and resumes at times that the seed tells, while workers are asked to end too; then resumes, or cancels.
async fn steered(redis: &str, rabbit: &str, folder: &Path, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |n: u64| random.next_u64() % n;
    let mut pool = Pool::new(redis, rabbit, folder, 60, 5).await;
    pool.submit("s").await;
    // Two: what one has planned the other may undo.
    pool.scheduler();
    pool.scheduler();
    let names = ["a", "b", "c"];
    for name in names {
        pool.worker(name, "interval=60000");
    }
    for _ in 0..12 {
        match below(5) {
            0 | 1 => drop(pool.store.order("s", Order::Pause).await.unwrap()),
            2 | 3 => drop(pool.store.order("s", Order::Continue).await.unwrap()),
            _ => {
                let name = names[below(3) as usize];
                pool.workers[name].signal("-TERM");
                assert!(pool.workers.get_mut(name).unwrap().end().await.success());
                pool.worker(name, "interval=60000");
            }
        }
        sleep_millis(below(250)).await;
    }
    // Pausing is heard at the next renewal.
    pool.store.order("s", Order::Pause).await.unwrap();
    let running = async |pool: &Pool| pool.store.sweep("s").await.unwrap().unwrap().count(TaskState::Running) == 0;
    let took = pool.until("nothing runs", running).await;
    assert!(took < LEASE, "{took:?}");
    let steps = pool.site.steps().len();
    sleep_millis(300).await;
    assert_eq!(pool.site.steps().len(), steps, "a paused sweep is not computed");
    let cancels = seed % 2 == 1;
    pool.store.order("s", if cancels { Order::Cancel } else { Order::Continue }).await.unwrap();
    let records = pool.finish("s").await;
    // Whatever became of a task, none of its iterations was computed twice.
    assert_eq!(pool.repeated(1), 0, "seed {seed}");
    assert!(records.iter().all(|record| record.crashes == 0), "seed {seed}: {records:?}");
    let succeeded = records.iter().filter(|record| record.state == TaskState::Succeeded).count() as u64;
    if cancels {
        let cancelled = records.iter().filter(|record| record.state == TaskState::Cancelled).count() as u64;
        assert_eq!(succeeded + cancelled, TASKS, "seed {seed}: {records:?}");
    } else {
        assert_eq!((succeeded, pool.site.steps().len() as u64), (TASKS, TASKS * 60), "seed {seed}: {records:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_who_change_their_minds_lose_no_iteration() {
    let (redis, rabbit, folder) = (RedisServer::start(&[]), broker().await, tempfile::tempdir().unwrap());
    let url = redis.url();
    let all = futures_util::stream::iter(0..6).map(|seed| steered(&url, &rabbit, folder.path(), seed));
    assert_eq!(all.buffer_unordered(3).count().await, 6);
}
