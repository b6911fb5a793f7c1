//! A process of the pool dies before or after a call that changes something: each such call of workers and schedulers, with a real Redis and RabbitMQ. The sweep
//! ends as if nothing had happened.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use mehl_soup::queue::{RabbitMq, TicketQueue};
use mehl_soup::scheduler::{Terms, scores_task, searched_sweep, soup_task};
use mehl_soup::search::{Searches, first_tasks};
use mehl_soup::store::Redis;
use mehl_soup::store::traits::*;
use mehl_soup::task::TaskState;
use support::dying::Fuse;
use support::piecemeal::piecemeal;
use support::processes::Site;
use support::servers::{RedisServer, rabbit_settings, settings, shared_rabbit};
use support::stub_engine::{expected, spec};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);
const ITERATIONS: u64 = 20;
/// Iterations that may be computed again: checkpoints are written beside the computation, which is some ahead of them.
const AHEAD: usize = 10;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the other tests start"]
async fn worker_process() {
    let Some((site, point)) = Site::of_environment() else { return };
    let lets_go = ["release", "publish", "confirmed"].iter().any(|call| point.starts_with(call));
    let stop_after = if lets_go { 30 } else { u64::MAX };
    // ReleaseReason go happens once; the first claim is the scores task's.
    let times = match (lets_go, point.starts_with("save")) {
        (true, _) => 1,
        (false, true) => 7,
        (false, false) => 2,
    };
    let (_ask, stopped) = watch::channel(false);
    site.work("dying", Fuse::new(&point, times), stop_after, stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the other tests start"]
async fn scheduler_process() {
    let Some((site, point)) = Site::of_environment() else { return };
    let (_ask, stop) = watch::channel(false);
    site.schedule(Fuse::new(&point, 1), searches(&point), stop).await;
}

/// A search that adds tasks, where the process dies at one of the calls for it.
fn searches(point: &str) -> Searches {
    if ["extend", "close"].iter().any(|call| point.starts_with(call)) { piecemeal() } else { Searches::default() }
}

/// A process that does not outlive the test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits for the end of a process that has to die.
async fn death(mut child: Mortal, point: &str) {
    use std::os::unix::process::ExitStatusExt;
    let began = Instant::now();
    loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(6), "{point}: it ended otherwise: {status}");
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{point}: it did not die");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is to die, where, and how long an iteration takes there.
struct Death {
    process: &'static str,
    point: String,
    millis: u64,
}

async fn dies_and_nothing_is_lost(redis: &str, rabbit: &str, folder: &Path, death_of: &Death) {
    let Death { process, point, millis } = death_of;
    let site = Site {
        redis: settings(redis.to_string()),
        rabbit: rabbit_settings(rabbit.to_string()),
        log: folder.join(format!("{process}-{}-{millis}", point.replace(':', "-"))),
        iterations: ITERATIONS,
        millis: *millis,
    };
    let (spec, _) = spec();
    let store = Redis::connect(&site.redis).await.unwrap();
    let searches = searches(point);
    let search = searches.of(&spec);
    store.create_sweep(&searched_sweep("s".into(), &spec, &*search, Terms::default()), None).await.unwrap();
    let tasks: Vec<_> = std::iter::once(scores_task()).chain(first_tasks(&*search).iter().map(soup_task)).collect();
    store.add_tasks("s", 0, &tasks).await.unwrap();
    store.open_sweep("s").await.unwrap().unwrap();
    let (end, ended) = watch::channel(false);
    let healthy = || Fuse::new("never", 0);
    let is_worker = *process == "worker_process";
    let start_worker = || {
        let (site, ended) = (site.clone(), ended.clone());
        tokio::spawn(async move { site.work("healthy", healthy(), u64::MAX, ended).await })
    };
    let start_scheduler = || {
        let (site, searches, ended) = (site.clone(), searches.clone(), ended.clone());
        tokio::spawn(async move { site.schedule(healthy(), searches, ended).await })
    };
    // First the one that dies beside healthy ones of the other kind, then healthy ones of its own.
    let first = if is_worker { start_scheduler() } else { start_worker() };
    death(Mortal(site.spawn(process, point)), point).await;
    let second = if is_worker { start_worker() } else { start_scheduler() };

    let began = Instant::now();
    while !store.sweep("s").await.unwrap().unwrap().is_final() {
        assert!(began.elapsed() < PATIENCE, "{point}: {:?}", store.tasks("s", 0, 10).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for record in store.tasks("s", 0, 100).await.unwrap() {
        assert_eq!(record.state, TaskState::Succeeded, "{point}: {record:?}");
        let events = store.events(&record.key).await.unwrap();
        assert_eq!(events.iter().filter(|e| e.what == "succeeded").count(), 1, "{point}: {events:?}");
        if !record.key.is_scores() {
            let completed = store.result(&record.key).await.unwrap().unwrap();
            assert_eq!(completed.coefficients, expected(ITERATIONS), "{point}: {}", record.key);
        }
    }
    let counts = site.computed();
    assert_eq!(counts.len() as u64, 5 * ITERATIONS, "{point}: each iteration of each task");
    let again: usize = counts.values().map(|times| times - 1).sum();
    assert!(again <= AHEAD, "{point}: {again} iterations were computed again");
    let queue = RabbitMq::start(&site.rabbit).unwrap();
    let began = Instant::now();
    loop {
        let (tickets, depth) = (store.tickets().await.unwrap(), queue.depth(PATIENCE).await.unwrap());
        if tickets.outbox.is_empty() && tickets.outstanding.is_empty() && depth.ready == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{point}: {tickets:?} {depth:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end.send_replace(true);
    for task in [first, second] {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_point() {
    let redis = RedisServer::start(&[]);
    let rabbit = tokio::task::spawn_blocking(shared_rabbit).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Tasks of 60 ms, whose tickets are settled at their end; and of 800 ms, whose subscription is ended meanwhile.
    let (short, long) = (3, 40);
    let worker = ["claim", "ack", "save", "complete", "release", "publish", "confirmed"]
        .map(|call| ("worker_process", call, short));
    let scheduler = ["choose", "publish", "confirmed", "release_pending", "extend", "close"]
        .map(|call| ("scheduler_process", call, short));
    let at_work = ["cancel", "ack"].map(|call| ("worker_process", call, long));
    let mut deaths = Vec::new();
    for (process, call, millis) in worker.into_iter().chain(scheduler).chain(at_work) {
        deaths.extend(["before", "after"].map(|when| Death { process, point: format!("{call}:{when}"), millis }));
    }
    // A few at a time: each has processes of its own.
    use futures_util::StreamExt;
    let url = redis.url();
    let all =
        futures_util::stream::iter(&deaths).map(|death| dies_and_nothing_is_lost(&url, &rabbit, folder.path(), death));
    let count = all.buffer_unordered(4).count().await;
    assert_eq!(count, 30);
}
