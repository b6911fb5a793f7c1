//! Processes of a pool that die, are asked to end, or stand still, with a real Redis and a real RabbitMQ. What they computed is counted over all of them.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::pool_processes::{LEASE, Pool, TASK, TASKS};
use crate::support::servers::{RedisServer, shared_rabbit};
use mehl_soup::store::traits::*;
use mehl_soup::task::TaskState;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tempfile::TempDir;

/// Longest time beyond its lease until a dead worker's task goes on.
const BACK: Duration = Duration::from_secs(5);

struct Servers {
    redis: RedisServer,
    rabbit: String,
    folder: TempDir,
}

impl Servers {
    async fn start() -> Self {
        let rabbit = tokio::task::spawn_blocking(shared_rabbit).await.unwrap();
        Self { redis: RedisServer::start(&[]), rabbit, folder: tempfile::tempdir().unwrap() }
    }

    async fn pool(&self, iterations: u64, millis: u64) -> Pool {
        Pool::new(&self.redis.url(), &self.rabbit, self.folder.path(), iterations, millis).await
    }

    /// A scheduler, and one task of so many iterations of so many milliseconds.
    async fn pool_of_one(&self, iterations: u64, millis: u64) -> Pool {
        let mut pool = self.pool(iterations, millis).await;
        pool.submit_one(None).await;
        pool.scheduler();
        pool
    }
}

async fn sleep_millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Kills whoever has the task, again and again, after times that the seed tells.
async fn killed(servers: &Servers, seed: u64) {
    // A checkpoint every 20 iterations.
    const INTERVAL: usize = 20;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut pool = servers.pool_of_one(600, 5).await;
    for name in ["a", "b"] {
        pool.worker(name, "interval=100");
    }
    let kills = 3;
    for kill in 1..=kills {
        let (worker, _) = pool.until_claimed(kill).await;
        sleep_millis(130 + random.next_u64() % 700).await;
        let at = Instant::now();
        pool.workers.get_mut(&worker).unwrap().kill();
        pool.worker(&worker, "interval=100");
        pool.until_claimed(kill + 1).await;
        let took = at.elapsed();
        eprintln!("seed {seed}: the task went on {took:?} after its worker was killed");
        assert!(took < LEASE + BACK, "{took:?}");
    }
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.attempts), (TaskState::Succeeded, kills + 1), "{record:?}");
    let repeated = pool.repeated(1);
    eprintln!("seed {seed}: {repeated} of 600 iterations were computed again after {kills} kills");
    // An interval, and what is computed while the checkpoint travels.
    assert!(repeated <= kills as usize * (INTERVAL + INTERVAL / 2), "{repeated} iterations were computed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_points() {
    let servers = Servers::start().await;
    tokio::join!(killed(&servers, 1), killed(&servers, 2), killed(&servers, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_gives_its_task_back_at_once() {
    let servers = Servers::start().await;
    let mut pool = servers.pool_of_one(300, 5).await;
    // Checkpoints only when they are asked for.
    for name in ["a", "b"] {
        pool.worker(name, "interval=60000");
    }
    let mut steps = 0;
    for round in 1..=4 {
        let (worker, _) = pool.until_claimed(round).await;
        pool.until_steps(steps + 10).await;
        let at = Instant::now();
        pool.workers[&worker].signal("-TERM");
        let (next, _) = pool.until_claimed(round + 1).await;
        let took = at.elapsed();
        eprintln!("{worker} was asked to end, {next} had its task {took:?} later");
        assert!(next != worker && took < Duration::from_secs(1), "{next} had it after {took:?}");
        let status = pool.workers.get_mut(&worker).unwrap().end().await;
        assert!(status.success() && at.elapsed() < BACK, "{status} after {:?}", at.elapsed());
        pool.worker(&worker, "interval=60000");
        steps = pool.site.steps().len();
    }
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.attempts, record.crashes), (TaskState::Succeeded, 5, 0), "{record:?}");
    assert_eq!((pool.site.steps().len(), pool.repeated(1)), (300, 0), "no finished iteration was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_past_its_lease_it_writes_nothing_more() {
    let servers = Servers::start().await;
    let mut pool = servers.pool_of_one(150, 20).await;
    pool.worker("a", "");
    pool.until_claimed(1).await;
    pool.worker("b", "");
    pool.until_steps(10).await;
    pool.workers["a"].signal("-STOP");
    let (worker, took) = pool.until_claimed(2).await;
    assert!(worker == "b" && took < LEASE + BACK, "{worker} after {took:?}");
    sleep_millis(200).await;
    let before = pool.steps_of(pool.workers["a"].id());
    pool.workers["a"].signal("-CONT");
    pool.until("it notices", async |pool| pool.workers["a"].said().contains("nothing was written")).await;
    sleep_millis(200).await;
    let after = pool.steps_of(pool.workers["a"].id());
    // The one that it was in, and those until the store has answered, on a machine that other work
    // may keep busy: a tenth of those that are left.
    assert!(after <= before + 13, "it computed {} iterations more", after - before);
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.epoch), (TaskState::Succeeded, 2), "{record:?}");
    // It is as good as before: it alone does what comes next.
    pool.workers["b"].signal("-TERM");
    pool.submit("next").await;
    let records = pool.finish("next").await;
    assert!(records.iter().all(|record| record.state == TaskState::Succeeded), "{records:?}");
}

/// A task that ends the process of any worker in a certain iteration: as a fault of a driver does, or the kernel when memory is short.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_workers_fails_and_the_others_succeed() {
    let servers = Servers::start().await;
    let mut pool = servers.pool(40, 5).await;
    pool.submit("s").await;
    pool.scheduler();
    let names = ["a", "b"];
    for name in names {
        pool.worker(name, "fault=5 at=20");
    }
    let (began, mut deaths) = (Instant::now(), 0);
    while !pool.store.sweep("s").await.unwrap().unwrap().is_final() {
        for name in names {
            if pool.workers.get_mut(name).unwrap().has_ended() {
                deaths += 1;
                pool.worker(name, "fault=5 at=20");
            }
        }
        assert!(began.elapsed() < 8 * (LEASE + BACK), "{:?}", pool.store.tasks("s", 0, 10).await);
        sleep_millis(10).await;
    }
    // Its checkpoint may advance between two of its deaths, which begins the count anew, but not beyond the iteration before.
    assert!((3..=6).contains(&deaths), "{deaths} processes died");
    for record in pool.finish("s").await {
        if record.key.task == TASK {
            assert_eq!((record.state, record.crashes), (TaskState::Failed, 3), "{record:?}");
            assert!(record.cause.as_ref().is_some_and(|cause| cause.contains("lost its worker")), "{record:?}");
        } else {
            assert_eq!((record.state, record.attempts), (TaskState::Succeeded, 1), "{record:?}");
        }
    }
}

/// The library that gives a process another time of day; `make setup-servers` installs it.
fn false_clock() -> String {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    assert!(Path::new(&path).exists(), "{path}: Debian has it as libfaketime; `make setup-servers` installs it");
    path
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_off_by_an_hour_change_nothing() {
    let library = false_clock();
    let clock = |off| [("LD_PRELOAD", library.as_str()), ("FAKETIME", off), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let servers = Servers::start().await;
    let began = now();
    let mut pool = servers.pool(100, 5).await;
    let site = pool.site.clone();
    pool.submit("s").await;
    pool.scheduler_at(&site, "", &clock("-3600s"));
    let offs = [("a", "+3600s"), ("b", "-3600s"), ("c", "+3600s")];
    for (name, off) in offs {
        pool.worker_at(&site, name, "", &clock(off));
    }
    let (worker, _) = pool.until_claimed(1).await;
    sleep_millis(100).await;
    let at = Instant::now();
    pool.workers.get_mut(&worker).unwrap().kill();
    pool.until_claimed(2).await;
    assert!((LEASE / 2..LEASE + BACK).contains(&at.elapsed()), "{:?}", at.elapsed());
    for record in pool.finish("s").await {
        let attempts = if record.key.task == TASK { 2 } else { 1 };
        assert_eq!((record.state, record.attempts), (TaskState::Succeeded, attempts), "{record:?}");
        for event in pool.store.events(&record.key).await.unwrap() {
            // Told in whole milliseconds.
            let at = Duration::from_millis(event.at + 1);
            assert!((began..=now()).contains(&at), "{event:?}");
        }
    }
    // The clocks were off.
    for (name, off) in offs.into_iter().filter(|(name, _)| *name != worker) {
        let said = pool.workers[name].said();
        let told: f64 = said.lines().find_map(|line| line.strip_prefix("clock ")).unwrap().parse().unwrap();
        let (difference, wanted) = (told - now().as_secs_f64(), off.trim_end_matches('s').parse::<f64>().unwrap());
        assert!((difference - wanted).abs() < 120.0, "{name}: {difference} s, expected {wanted}");
    }
    assert_eq!(pool.site.computed().len() as u64, TASKS * 100);
}

/// Redis comes back without knowing of a claim, and gives its number to another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_redis_has_forgotten_is_fenced_though_its_number_is_given_again() {
    let mut servers = Servers::start().await;
    let mut pool = servers.pool_of_one(100, 10).await;
    let copy = servers.redis.copy_data();
    pool.worker("a", "");
    pool.until_claimed(1).await;
    pool.until_steps(20).await;
    pool.workers["a"].signal("-STOP");
    let servers = tokio::task::spawn_blocking(move || {
        servers.redis.stop();
        servers.redis.start_with(&copy);
        servers
    })
    .await
    .unwrap();
    pool.worker("b", "");
    let (worker, _) = pool.until_claimed(1).await;
    assert_eq!((worker.as_str(), pool.record().await.epoch), ("b", 1), "the number that a holds too");
    sleep_millis(100).await;
    pool.workers["a"].signal("-CONT");
    pool.until("a notices", async |pool| pool.workers["a"].said().contains("nothing was written")).await;
    pool.finish("s").await;
    let record = pool.record().await;
    assert_eq!((record.state, record.epoch, record.attempts), (TaskState::Succeeded, 1, 1), "{record:?}");
    assert_eq!(pool.steps_of(pool.workers["b"].id()), 100, "what the copy did not know of is computed again");
    drop(servers);
}
