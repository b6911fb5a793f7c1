//! Processes of a pool while a server, or the way to it, fails: what they do meanwhile, and how soon they are back.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::pool_processes::{LEASE, Pool, TASKS};
use crate::support::processes::Site;
use crate::support::proxy::{Fate, Proxy, Way};
use crate::support::servers::{RabbitServer, RedisServer, shared_rabbit};
use mehl_soup::queue::{RabbitMq, TicketQueue};
use mehl_soup::store::traits::*;
use mehl_soup::task::{TaskKey, TaskState, Ticket};

/// Longest time from a broker's return until tickets are taken from it again.
const CONSUMING: Duration = Duration::from_secs(30);

async fn broker() -> String {
    tokio::task::spawn_blocking(shared_rabbit).await.unwrap()
}

/// Does something that takes its time to a broker.
async fn blocking(mut rabbit: RabbitServer, what: impl FnOnce(&mut RabbitServer) + Send + 'static) -> RabbitServer {
    tokio::task::spawn_blocking(move || {
        what(&mut rabbit);
        rabbit
    })
    .await
    .unwrap()
}

async fn pool(redis: &RedisServer, rabbit: &str, folder: &Path, iterations: u64, millis: u64) -> Pool {
    Pool::new(&redis.url(), rabbit, folder, iterations, millis).await
}

/// A bad network before a server, and its address there.
fn proxied(url: &str) -> (Proxy, String) {
    let port = url.rsplit(':').next().unwrap().trim_end_matches('/');
    let proxy = Proxy::start(&format!("127.0.0.1:{port}"));
    let there = url.replace(&format!(":{port}"), &format!(":{}", proxy.port()));
    (proxy, there)
}

fn with_redis_at(site: &Site, url: String) -> Site {
    let mut site = site.clone();
    site.redis.url = url.into();
    site
}

fn with_rabbit_at(site: &Site, url: String) -> Site {
    let mut site = site.clone();
    site.rabbit.url = url.into();
    site
}

async fn sleep_millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_words_to_redis_vanish_computes_for_a_while_and_publishes_nothing() {
    let (redis, folder) = (RedisServer::start(&[]), tempfile::tempdir().unwrap());
    let mut pool = pool(&redis, &broker().await, folder.path(), 150, 50).await;
    pool.submit_one(None).await;
    pool.scheduler();
    let (proxy, there) = proxied(&redis.url());
    pool.worker_at(&with_redis_at(&pool.site, there), "lost", "timeout=500 orphan=3000", &[]);
    pool.until_claimed(1).await;
    pool.worker("other", "");
    pool.until_steps(5).await;
    proxy.set(Way::ToServer, Fate::Swallow);
    proxy.set(Way::ToClient, Fate::Swallow);
    let lost = pool.workers["lost"].id();
    let before = pool.steps_of(lost);
    let (worker, took) = pool.until_claimed(2).await;
    assert!(worker == "other" && took < LEASE + Duration::from_secs(5), "{worker} after {took:?}");
    pool.until("it gives up", async |pool| pool.workers["lost"].said().contains("unreachable for too long")).await;
    // It ends within three seconds without the store, and what it last asked takes half a one, twice.
    let went_on = pool.steps_of(lost) - before;
    assert!(went_on <= (3000 + 1500) / 50, "it computed {went_on} iterations");
    pool.finish("s").await;
    let record = pool.record().await;
    let is_once = (record.state, record.attempts, record.generation) == (TaskState::Succeeded, 2, 2);
    assert!(is_once, "it became runnable again once, and was claimed once more: {record:?}");
    // With the way there again it takes what comes next, alone.
    proxy.set(Way::ToServer, Fate::Pass);
    proxy.set(Way::ToClient, Fate::Pass);
    proxy.cut();
    pool.workers["other"].signal("-TERM");
    pool.submit("next").await;
    assert!(pool.finish("next").await.iter().all(|record| record.state == TaskState::Succeeded));
}

/// As when the server's machine is gone and another one has its address, or when a firewall has lost its state: no end is told to anybody.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_redis_that_the_network_has_forgotten_are_made_anew_within_a_lease() {
    let (redis, folder) = (RedisServer::start(&[]), tempfile::tempdir().unwrap());
    let mut pool = pool(&redis, &broker().await, folder.path(), 200, 20).await;
    pool.submit_one(None).await;
    let (proxy, there) = proxied(&redis.url());
    let site = with_redis_at(&pool.site, there);
    pool.scheduler_at(&site, "timeout=500", &[]);
    pool.worker_at(&site, "a", "timeout=500 orphan=20000", &[]);
    pool.until_claimed(1).await;
    for round in 1..=2 {
        pool.until_steps(round * 40).await;
        proxy.strand();
    }
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.attempts), (TaskState::Succeeded, 1), "{record:?}");
    assert_eq!(pool.site.steps().len(), 200, "it kept its task");
    pool.submit("next").await;
    assert!(pool.finish("next").await.iter().all(|record| record.state == TaskState::Succeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_redis_did_not_take_is_written_as_soon_as_it_can_be() {
    let (redis, folder) = (RedisServer::start(&[]), tempfile::tempdir().unwrap());
    let mut pool = pool(&redis, &broker().await, folder.path(), 1500, 10).await;
    pool.submit_one(None).await;
    pool.scheduler();
    let (proxy, there) = proxied(&redis.url());
    // The one after the first would come so long after it.
    let interval = Duration::from_secs(6);
    let role = format!("timeout=500 interval={}", interval.as_millis());
    pool.worker_at(&with_redis_at(&pool.site, there), "a", &role, &[]);
    pool.until_claimed(1).await;
    // Without a scheduler nobody takes the task from it meanwhile.
    pool.schedulers[0].kill();
    tokio::time::sleep(interval - Duration::from_millis(500)).await;
    proxy.refuse(true);
    proxy.cut();
    sleep_millis(2500).await;
    assert_eq!(pool.record().await.sequence, 0, "its first came when nothing could be written");
    proxy.refuse(false);
    let took = pool.until("it is written", async |pool| pool.record().await.sequence > 0).await;
    eprintln!("the checkpoint was written {took:?} after Redis was there again");
    assert!(took < LEASE, "{took:?}");
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.attempts), (TaskState::Succeeded, 1), "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_cut_off_before_its_confirms_publishes_again_and_nothing_is_done_twice() {
    let (redis, folder, url) = (RedisServer::start(&[]), tempfile::tempdir().unwrap(), broker().await);
    let mut pool = pool(&redis, &url, folder.path(), 20, 2).await;
    let (proxy, there) = proxied(&url);
    pool.scheduler_at(&with_rabbit_at(&pool.site, there), "", &[]);
    for name in ["a", "b"] {
        pool.worker(name, "");
    }
    pool.submit("first").await;
    pool.finish("first").await;
    let sweeps = ["s0", "s1", "s2"];
    for sweep in sweeps {
        proxy.set(Way::ToClient, Fate::Delay(Duration::from_secs(1)));
        pool.submit(sweep).await;
        let key = TaskKey::new(sweep, "0001-mehl+").unwrap();
        // The broker has the ticket, and its confirm is on the way.
        pool.until("it is published", async |pool| {
            pool.store.task(&key).await.unwrap().is_some_and(|record| record.attempts > 0)
        })
        .await;
        proxy.set(Way::ToClient, Fate::Pass);
        proxy.cut();
        // It has connected anew once it has published another one.
        let next = format!("after-{sweep}");
        pool.submit(&next).await;
        pool.finish(&next).await;
    }
    for sweep in sweeps {
        let records = pool.finish(sweep).await;
        assert!(
            records.iter().all(|record| record.state == TaskState::Succeeded && record.attempts == 1),
            "{records:?}"
        );
    }
    assert_eq!(
        pool.site.steps().len() as u64,
        (2 * sweeps.len() as u64 + 1) * TASKS * 20,
        "nothing was computed twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_for_a_while_loses_no_ticket_and_is_consumed_from_again_soon() {
    let (redis, folder) = (RedisServer::start(&[]), tempfile::tempdir().unwrap());
    let rabbit = tokio::task::spawn_blocking(|| RabbitServer::start("")).await.unwrap();
    let mut pool = pool(&redis, &rabbit.url(), folder.path(), 100, 5).await;
    pool.submit("s").await;
    pool.scheduler();
    pool.worker("a", "");
    pool.until_steps(20).await;
    let rabbit = blocking(rabbit, RabbitServer::stop).await;
    // What runs goes on to its end; nothing else can begin.
    sleep_millis(1000).await;
    assert_eq!(pool.site.steps().len() % 100, 0);
    let before = pool.site.steps().len();
    let rabbit = blocking(rabbit, RabbitServer::start_again).await;
    let back = Instant::now();
    pool.until_steps(before + 1).await;
    eprintln!("the next task began {:?} after the broker was back", back.elapsed());
    assert!(back.elapsed() < CONSUMING, "{:?}", back.elapsed());
    let records = pool.finish("s").await;
    assert!(records.iter().all(|record| record.state == TaskState::Succeeded && record.attempts == 1), "{records:?}");
    assert_eq!(pool.site.steps().len() as u64, TASKS * 100);
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_in_need_is_waited_for_in_bounded_memory() {
    let (redis, folder) = (RedisServer::start(&[]), tempfile::tempdir().unwrap());
    let rabbit = tokio::task::spawn_blocking(|| RabbitServer::start("")).await.unwrap();
    let mut pool = pool(&redis, &rabbit.url(), folder.path(), 100, 5).await;
    pool.submit("s").await;
    pool.scheduler();
    pool.worker("a", "");
    pool.until_steps(120).await;
    let rabbit = blocking(rabbit, |rabbit| rabbit.rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"])).await;
    let queue = RabbitMq::start(&pool.site.rabbit).unwrap();
    // Only those who publish are told of it; this ticket is of no task.
    let stray = Ticket::new(TaskKey::new("none", "t").unwrap(), 1);
    pool.until("the broker says so", async |_| {
        drop(queue.publish(std::slice::from_ref(&stray), Duration::from_millis(500)).await);
        queue.state().is_blocked
    })
    .await;
    let names = ["s0", "s1", "s2", "s3"];
    for sweep in names {
        pool.submit(sweep).await;
    }
    sleep_millis(1000).await;
    let resident = |pool: &Pool| pool.schedulers[0].resident() + pool.workers["a"].resident();
    let before = resident(&pool);
    sleep_millis(5000).await;
    let after = resident(&pool);
    eprintln!("{before} bytes resident in scheduler and worker, {after} after five seconds of alarm");
    assert!(after < before + (8 << 20), "{before} bytes, then {after}");
    let waiting = pool.store.tickets().await.unwrap();
    assert!(!waiting.outbox.is_empty(), "tickets wait in the store: {waiting:?}");
    let rabbit = blocking(rabbit, |rabbit| rabbit.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"])).await;
    let back = Instant::now();
    for sweep in ["s"].iter().chain(&names) {
        let records = pool.finish(sweep).await;
        assert!(
            records.iter().all(|record| record.state == TaskState::Succeeded && record.attempts == 1),
            "{records:?}"
        );
    }
    eprintln!("all was done {:?} after the alarm", back.elapsed());
    assert_eq!(pool.site.steps().len() as u64, 5 * TASKS * 100, "nothing was computed twice");
    queue.close().await;
    drop(rabbit);
}
