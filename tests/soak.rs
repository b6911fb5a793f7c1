//! A pool for a while, with a fault every few seconds: workers killed with -9, asked to end, stopped and let go on; the scheduler killed; Redis killed; the broker
//! stopped, or wiped; the way to either cut, slow, deaf or forgotten. At the end every task has ended once with the right coefficients, and no connection is left over.
//!
//! In `make soak`, programs with the real engine have a part of the pool (`soak/real.rs`), and more can fail: Redis's disk is full, everything in it is
//! deleted, passwords are rotated, permissions are revoked, clients go away within a request.
//!
//! `make soak` runs it for `SOAK_SECONDS` (600) and prints its report; an ordinary test runs it for some seconds.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "soak/real.rs"]
mod real;
mod support;

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use mehl_soup::scheduler::{Terms, new_sweep, new_tasks};
use mehl_soup::search::Searches;
use mehl_soup::store::traits::*;
use mehl_soup::store::{Redis, RedisSettings, StoreError};
use mehl_soup::task::TaskState;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use real::Real;
use serde_json::json;
use support::dying::Fuse;
use support::processes::Site;
use support::proxy::{Fate, Proxy, Way};
use support::servers::{RabbitServer, RedisServer, rabbit_settings, settings};
use support::stub_engine::{expected, spec};
use tokio::sync::watch;

const WORKERS: usize = 4;
/// Iterations of a task, of 5 ms each.
const ITERATIONS: u64 = 60;
/// Soup tasks that are to be unfinished at any time, as long as there is time.
const BUSY: usize = 40;
/// How long the network is bad.
const BAD: Duration = Duration::from_secs(3);
/// How long Redis's disk is full: longer than a lease.
const FULL: Duration = Duration::from_secs(5);
/// Sweeps of the real programs that are to be unfinished at any time.
const REAL_BUSY: usize = 2;
/// Parts of the time for each of which the largest process is told.
const PARTS: usize = 10;
/// Longest wait for the end once nothing fails any more.
const PATIENCE: Duration = Duration::from_secs(120);

async fn asked_to_end() -> watch::Receiver<bool> {
    let (ask, asked) = watch::channel(false);
    let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::spawn(async move {
        signal.recv().await;
        ask.send_replace(true);
        std::future::pending::<()>().await;
    });
    asked
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the other tests start"]
async fn worker_process() {
    let Some((site, name)) = Site::of_environment() else { return };
    site.work(&name, Fuse::new("never", 0), u64::MAX, asked_to_end().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the other tests start"]
async fn scheduler_process() {
    let Some((site, _)) = Site::of_environment() else { return };
    site.schedule(Fuse::new("never", 0), Searches::default(), asked_to_end().await).await;
}

fn signal(child: &Child, signal: &str) {
    drop(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status());
}

/// Resident memory in bytes.
fn resident(child: &Child) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

struct Soak {
    site: Site,
    redis: RedisServer,
    rabbit: RabbitServer,
    /// From the processes to Redis, and to the broker.
    ways: [Proxy; 2],
    workers: Vec<Child>,
    scheduler: Child,
    random: ChaCha8Rng,
    faults: BTreeMap<&'static str, u32>,
    sweeps: Vec<String>,
    /// Sweeps so far, those too that are not there any more.
    submitted: usize,
    real: Option<Real>,
    /// Bytes of the largest process, in each part of the time.
    largest: Vec<u64>,
}

impl Drop for Soak {
    fn drop(&mut self) {
        for child in self.workers.iter_mut().chain([&mut self.scheduler]) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Soak {
    fn start(seed: u64, folder: &std::path::Path) -> Self {
        let (redis, rabbit) = (RedisServer::start_on_small_disk(), RabbitServer::start(""));
        let ways = [redis.port(), rabbit.port()].map(|port| Proxy::start(&format!("127.0.0.1:{port}")));
        let [to_redis, to_rabbit] = [ways[0].port(), ways[1].port()];
        let site = Site {
            redis: settings(format!("redis://127.0.0.1:{to_redis}/")),
            rabbit: rabbit_settings(format!("amqp://guest:guest@127.0.0.1:{to_rabbit}/")),
            log: folder.join("log"),
            iterations: ITERATIONS,
            millis: 5,
        };
        let workers = (0..WORKERS).map(|i| site.spawn("worker_process", &format!("w{i}"))).collect();
        let scheduler = site.spawn("scheduler_process", "scheduler");
        let random = ChaCha8Rng::seed_from_u64(seed);
        let real = Real::start(folder, [to_redis, to_rabbit], &redis, &rabbit);
        let (faults, sweeps, largest, submitted) = (BTreeMap::new(), vec![], vec![], 0);
        Self { site, redis, rabbit, ways, workers, scheduler, random, faults, sweeps, submitted, real, largest }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    /// Something fails. Blocking: not on the runtime's threads that others need.
    fn fault(&mut self) {
        let i = self.below(WORKERS as u64) as usize;
        let kinds = if self.real.is_some() { 34 } else { 24 };
        let name = match self.below(kinds) {
            0..5 => {
                signal(&self.workers[i], "-KILL");
                "a worker killed"
            }
            5..8 => {
                signal(&self.workers[i], "-TERM");
                "a worker asked to end"
            }
            8..11 => {
                signal(&self.workers[i], "-STOP");
                std::thread::sleep(Duration::from_millis(3000));
                signal(&self.workers[i], "-CONT");
                "a worker stopped for 3 s"
            }
            11..13 => {
                signal(&self.scheduler, "-KILL");
                "the scheduler killed"
            }
            13..15 => {
                self.redis.kill_and_restart();
                if let Some(real) = &self.real {
                    real.after_restart(&self.redis);
                }
                "Redis killed"
            }
            15 => {
                self.rabbit.stop();
                let is_wiped = self.below(2) == 0;
                if is_wiped {
                    self.rabbit.wipe();
                }
                self.rabbit.start_again();
                if let (true, Some(real)) = (is_wiped, &self.real) {
                    real.after_wipe(&self.rabbit);
                }
                "the broker stopped, every second time wiped"
            }
            16..22 => self.bad_network(),
            22 => {
                if !self.redis.fill_disk() {
                    return;
                }
                std::thread::sleep(FULL);
                self.redis.free_disk();
                "Redis's disk full for 5 s"
            }
            23 => {
                self.redis.command(&["FLUSHALL"]);
                // What was there is nobody's to finish.
                self.sweeps.clear();
                if let Some(real) = &mut self.real {
                    real.sweeps.clear();
                }
                "everything in Redis deleted"
            }
            kind => self.real_fault(kind),
        };
        *self.faults.entry(name).or_default() += 1;
        self.mend();
    }

    /// Something fails that only real programs meet.
    fn real_fault(&mut self, kind: u64) -> &'static str {
        let (which, coin) = (self.below(2) as usize, self.below(2) == 0);
        let Some(real) = &mut self.real else { return "nothing" };
        match kind {
            24..26 => {
                real.signal(which, "-KILL");
                "a worker with the real engine killed"
            }
            26 => {
                real.signal(which, "-TERM");
                "a worker with the real engine asked to end"
            }
            27 => {
                real.signal(which, "-STOP");
                std::thread::sleep(BAD);
                real.signal(which, "-CONT");
                "a worker with the real engine stopped for 3 s"
            }
            28 => {
                real.signal(usize::MAX, "-KILL");
                "a scheduler with the HTTP API killed"
            }
            29..31 => {
                real.rotate(which, &self.redis, &self.rabbit);
                ["password of Redis rotated", "password of the broker rotated"][which]
            }
            31 => {
                real.revoke(&self.rabbit);
                "permissions on the broker revoked for 2 s"
            }
            _ => {
                real.lose_client(coin);
                "a client that goes away within its request"
            }
        }
    }

    /// Something is wrong with the way of all processes to one of the servers.
    fn bad_network(&mut self) -> &'static str {
        let (which, kind, direction) = (self.below(2) as usize, self.below(4), self.below(2) as usize);
        let way = &self.ways[which];
        let [to_redis, to_rabbit] = match kind {
            0 => {
                way.cut();
                ["connections to Redis cut", "connections to the broker cut"]
            }
            1 => {
                way.strand();
                ["connections to Redis forgotten by the network", "connections to the broker forgotten by the network"]
            }
            2 => {
                for direction in [Way::ToServer, Way::ToClient] {
                    way.set(direction, Fate::Delay(Duration::from_millis(100)));
                }
                std::thread::sleep(BAD);
                ["Redis slow for 3 s", "the broker slow for 3 s"]
            }
            _ => {
                way.set([Way::ToServer, Way::ToClient][direction], Fate::Swallow);
                std::thread::sleep(BAD);
                // What was swallowed is missing from the middle of what follows.
                way.cut();
                ["bytes to or from Redis swallowed for 3 s", "bytes to or from the broker swallowed for 3 s"]
            }
        };
        for direction in [Way::ToServer, Way::ToClient] {
            way.set(direction, Fate::Pass);
        }
        [to_redis, to_rabbit][which]
    }

    /// Starts anew what has ended.
    fn mend(&mut self) {
        for (i, worker) in self.workers.iter_mut().enumerate() {
            if worker.try_wait().unwrap().is_some() {
                *worker = self.site.spawn("worker_process", &format!("w{i}"));
            }
        }
        if self.scheduler.try_wait().unwrap().is_some() {
            self.scheduler = self.site.spawn("scheduler_process", "scheduler");
        }
        if let Some(real) = &mut self.real {
            real.mend();
        }
    }

    /// Notes how large the processes are in this part of the time.
    fn weigh(&mut self, part: usize) {
        let sizes = self.workers.iter().chain([&self.scheduler]).filter_map(resident);
        let largest = sizes.max().unwrap_or(0);
        self.largest.resize(part.min(PARTS - 1) + 1, 0);
        if let Some(last) = self.largest.last_mut() {
            *last = largest.max(*last);
        }
    }

    async fn submit(&mut self, store: &Redis) -> Result<(), StoreError> {
        let id = format!("s{}", self.submitted);
        self.submitted += 1;
        let (spec, _) = spec();
        // Attempts that advance count anew; so many in a row without any are more than the faults here can make.
        store.create_sweep(&new_sweep(id.clone(), &spec, Terms { attempts: 50, ..Terms::default() }), None).await?;
        store.add_tasks(&id, 0, &new_tasks(&spec)).await?;
        store.open_sweep(&id).await?;
        self.sweeps.push(id);
        Ok(())
    }

    /// Tasks that have not succeeded.
    async fn open(&self, store: &Redis) -> Result<usize, StoreError> {
        let sweeps = store.sweeps().await?;
        assert_eq!(sweeps.unreadable, []);
        Ok(sweeps.records.iter().map(|sweep| sweep.tasks() - sweep.count(TaskState::Succeeded)).sum())
    }

    /// Sweeps of the real programs that have not ended. One whose creation was cut off ends once its client has come again.
    async fn open_real(&self, store: &Redis) -> Result<usize, StoreError> {
        let sweeps = store.sweeps().await?;
        assert_eq!(sweeps.unreadable, []);
        Ok(sweeps.records.iter().filter(|sweep| !sweep.is_final()).count())
    }

    /// To Redis, by the processes.
    async fn connections_to_redis(&self) -> usize {
        let client = redis::Client::open(self.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
        // The test's own three.
        clients.lines().count() - 3
    }

    fn connections(&self) -> usize {
        let output = self.rabbit.rabbitmqctl_output(&["list_connections", "--quiet", "name"]);
        output.lines().filter(|line| line.contains("->")).count()
    }
}

async fn soak(seconds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let mut soak = tokio::task::spawn_blocking(move || Soak::start(7, &path)).await.unwrap();
    // By a way of its own.
    let direct = RedisSettings { url: soak.redis.url().into(), ..soak.site.redis.clone() };
    let store = Redis::connect(&direct).await.unwrap();
    let real_store = Redis::connect(&RedisSettings { installation: real::NAME.to_string(), ..direct }).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        // Redis may be away: then at the next turn.
        while matches!(soak.open(&store).await, Ok(open) if open < BUSY) {
            if soak.submit(&store).await.is_err() {
                break;
            }
        }
        if soak.real.is_some() && matches!(soak.open_real(&real_store).await, Ok(open) if open < REAL_BUSY) {
            soak = tokio::task::spawn_blocking(move || {
                // The server may be away: then at the next turn.
                if let Some(real) = &mut soak.real {
                    drop(real.submit());
                }
                soak
            })
            .await
            .unwrap();
        }
        tokio::time::sleep(Duration::from_millis(500 + soak.below(2000))).await;
        let part = (PARTS as f64 * began.elapsed().as_secs_f64() / seconds.max(1) as f64) as usize;
        soak = tokio::task::spawn_blocking(move || {
            soak.weigh(part);
            soak.fault();
            soak
        })
        .await
        .unwrap();
    }
    let calm = Instant::now();
    // A client that went away comes again with its key.
    soak = tokio::task::spawn_blocking(move || {
        if let Some(real) = &mut soak.real {
            let began = Instant::now();
            // The last fault may have ended the scheduler.
            while let Err(why) = real.submit() {
                real.mend();
                assert!(began.elapsed() < PATIENCE, "a last sweep is not taken: {why}; {}", real.said_last());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        soak
    })
    .await
    .unwrap();
    loop {
        soak.mend();
        match (soak.open(&store).await, soak.open_real(&real_store).await) {
            (Ok(0), Ok(0)) => break,
            open => assert!(calm.elapsed() < PATIENCE, "{open:?} have not ended; faults: {:?}", soak.faults),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut tasks = 0;
    let (mut claims, mut crashes) = (0, 0);
    for sweep in &soak.sweeps {
        for record in store.tasks(sweep, 0, 100).await.unwrap() {
            assert_eq!(record.state, TaskState::Succeeded, "{record:?}");
            claims += record.attempts;
            let events = store.events(&record.key).await.unwrap();
            crashes += events.iter().filter(|event| event.what == "crashed").count();
            assert_eq!(events.iter().filter(|event| event.what == "succeeded").count(), 1, "{events:?}");
            if !record.key.is_scores() {
                let completed = store.result(&record.key).await.unwrap().unwrap();
                assert_eq!(completed.coefficients, expected(ITERATIONS), "{}", record.key);
                tasks += 1;
            }
        }
    }
    let real = check_real(&soak, &real_store).await;
    for store in [&store, &real_store] {
        assert_eq!(store.examine_pool(false).await.unwrap(), Vec::<String>::new());
        for sweep in store.sweeps().await.unwrap().records {
            assert_eq!(store.examine(&sweep.id, false).await.unwrap(), Vec::<String>::new());
        }
    }
    let tickets = store.tickets().await.unwrap();
    assert!(tickets.outbox.is_empty() && tickets.outstanding.is_empty(), "{tickets:?}");
    // One connection a process to Redis, and two to the broker. Those of processes that were killed go when the servers notice.
    // The real programs have ended by then.
    soak.real = None;
    let wanted = 2 * (WORKERS + 1);
    let waiting = Instant::now();
    let connections = loop {
        let (now, back) = tokio::task::spawn_blocking(move || (soak.connections(), soak)).await.unwrap();
        soak = back;
        let to_redis = soak.connections_to_redis().await;
        if (now, to_redis) == (wanted, WORKERS + 1) {
            break (to_redis, now);
        }
        let found = format!("{to_redis} connections to Redis, {now} to the broker");
        assert!(waiting.elapsed() < PATIENCE, "expected {} and {wanted}, found {found}", WORKERS + 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(soak.largest.iter().all(|&bytes| bytes < 150 << 20), "processes have grown to {:?} bytes", soak.largest);
    let report = json!({
        "seconds": seconds,
        "seconds_until_the_last_task_once_calm": calm.elapsed().as_secs(),
        "sweeps": soak.sweeps.len(),
        "soup_tasks": tasks,
        "soup_tasks_of_the_real_engine_with_right_coefficients_and_cancelled": real,
        "claims": claims,
        "leases_lost_and_other_crashes": crashes,
        "faults": soak.faults,
        "connections_to_redis_and_to_the_broker_at_the_end": connections,
        "largest_resident_bytes_of_a_process_in_each_part_of_the_time": soak.largest,
    });
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
}

/// That every task of the real programs has ended once, with the coefficients of an undisturbed run. Only a sweep whose time was over has tasks that
/// were cancelled. Answers how many succeeded, and how many were cancelled.
async fn check_real(soak: &Soak, store: &Redis) -> (usize, usize) {
    let Some(real) = &soak.real else { return (0, 0) };
    let (mut succeeded, mut cancelled) = (0, 0);
    for (sweep, is_limited) in &real.sweeps {
        for record in store.tasks(sweep, 0, 100).await.unwrap() {
            let events = store.events(&record.key).await.unwrap();
            let completions = events.iter().filter(|event| event.what == "succeeded").count();
            if record.state == TaskState::Cancelled && *is_limited {
                assert_eq!(completions, 0, "{events:?}");
                cancelled += 1;
                continue;
            }
            assert_eq!((record.state, completions), (TaskState::Succeeded, 1), "{record:?} {events:?}");
            if !record.key.is_scores() {
                let completed = store.result(&record.key).await.unwrap().unwrap();
                assert!(
                    completed.coefficients == real.reference[&record.key.task],
                    "{}: other coefficients",
                    record.key
                );
                succeeded += 1;
            }
        }
    }
    (succeeded, cancelled)
}

#[tokio::test(flavor = "multi_thread")]
async fn for_some_seconds() {
    soak(20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make soak"]
async fn for_long() {
    soak(std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600)).await;
}
