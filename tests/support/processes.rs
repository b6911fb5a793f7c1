//! Workers and schedulers as processes: the test program itself, started again, with an engine without tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use mehl_soup::queue::{RabbitMq, RabbitMqSettings, TicketQueue};
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, Worker, WorkerSettings};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings};
use mehl_soup::search::Searches;
use mehl_soup::store::{Redis, RedisSettings, StoreError};
use tokio::sync::{Notify, watch};

use super::dying::{Dying, Fuse};
use super::servers::{rabbit_settings, settings};
use super::stub_engine::{Knobs, stub};

const PATIENCE: Duration = Duration::from_secs(60);

/// Where the servers are, and what is noted where: what a process of this test needs to know.
#[derive(Clone)]
pub struct Site {
    pub redis: RedisSettings,
    pub rabbit: RabbitMqSettings,
    pub log: PathBuf,
    /// Iterations of a task.
    pub iterations: u64,
    /// Milliseconds of an iteration.
    pub millis: u64,
}

const VARIABLES: [&str; 8] = [
    "TEST_REDIS",
    "TEST_REDIS_NAME",
    "TEST_AMQP",
    "TEST_AMQP_NAME",
    "TEST_LOG",
    "TEST_ITERATIONS",
    "TEST_MILLIS",
    "TEST_POINT",
];

impl Site {
    /// What the process that started this one has told it, and where to die.
    pub fn of_environment() -> Option<(Self, String)> {
        let values: Option<Vec<String>> = VARIABLES.iter().map(|name| std::env::var(name).ok()).collect();
        let [redis, redis_name, amqp, amqp_name, log, iterations, millis, point]: [String; 8] =
            values?.try_into().ok()?;
        let redis = RedisSettings { installation: redis_name, ..settings(redis) };
        let rabbit = RabbitMqSettings { installation: amqp_name, ..rabbit_settings(amqp) };
        let (iterations, millis) = (iterations.parse().ok()?, millis.parse().ok()?);
        Some((Self { redis, rabbit, log: log.into(), iterations, millis }, point))
    }

    /// This program again, as another process: a worker or a scheduler that dies at `point`.
    pub fn spawn(&self, process: &str, point: &str) -> Child {
        self.command(process, point).spawn().unwrap()
    }

    /// The same, not started yet.
    pub fn command(&self, process: &str, point: &str) -> Command {
        let (redis, rabbit) = (&self.redis, &self.rabbit);
        let log = self.log.to_str().unwrap();
        let (iterations, millis) = (self.iterations.to_string(), self.millis.to_string());
        let (redis_url, rabbit_url) = (redis.url.read().unwrap(), rabbit.url.read().unwrap());
        let values =
            [&redis_url, &redis.installation, &rabbit_url, &rabbit.installation, log, &iterations, &millis, point];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", process, "--ignored", "--nocapture", "--test-threads", "1"]);
        command.envs(VARIABLES.iter().zip(values)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub async fn connect(&self, fuse: &Arc<Fuse>) -> (Dying<Redis>, Dying<RabbitMq>) {
        let queue = RabbitMq::start(&self.rabbit).unwrap();
        let store = loop {
            match Redis::connect(&self.redis).await {
                Ok(store) => break store,
                Err(StoreError::Setup(error)) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        (Dying { inner: store, fuse: fuse.clone() }, Dying { inner: queue, fuse: fuse.clone() })
    }

    pub async fn work(&self, name: &str, fuse: Arc<Fuse>, stop_after: u64, stopped: watch::Receiver<bool>) {
        let (store, queue) = self.connect(&fuse).await;
        let knobs: Arc<Knobs> = Arc::default();
        knobs.iterations.store(self.iterations, SeqCst);
        knobs.millis.store(self.millis, SeqCst);
        knobs.log.set(self.log.clone()).unwrap();
        let compute = Compute::start(stub(&knobs)).unwrap();
        let attempt = AttemptSettings {
            lease: Duration::from_secs(2),
            checkpoint_interval: Duration::ZERO,
            stall: PATIENCE,
            orphan: Duration::from_secs(10),
        };
        let settings = WorkerSettings { name: name.into(), attempt, once: false, look: Duration::from_millis(50) };
        let (ask, stop) = watch::channel(false);
        let mut stopped = stopped;
        tokio::spawn(async move {
            // As SIGTERM would, in the middle of a task or when the test ends.
            while knobs.computed.load(SeqCst) < stop_after && !*stopped.borrow_and_update() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ask.send_replace(true);
        });
        let watch = Arc::new(Lines);
        let worker = Worker { store: &store, queue: &queue, compute: &compute, settings: &settings, watch, stop };
        drop(worker.serve().await);
        queue.close().await;
    }

    pub async fn schedule(&self, fuse: Arc<Fuse>, searches: Searches, stop: watch::Receiver<bool>) {
        let (store, queue) = self.connect(&fuse).await;
        let settings = SchedulerSettings {
            interval: Duration::from_millis(100),
            republish_after: Duration::from_secs(1),
            searches,
            ..SchedulerSettings::default()
        };
        let wake = Notify::new();
        Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake }.run(stop, &()).await;
        queue.close().await;
    }

    /// How often each iteration of each task was computed, over all processes.
    pub fn computed(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (step, _) in self.steps() {
            *counts.entry(step).or_default() += 1;
        }
        counts
    }

    /// Iterations in the order in which they were computed: task and number, and the process.
    pub fn steps(&self) -> Vec<(String, u32)> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let parts = text.lines().filter_map(|line| line.rsplit_once(' '));
        parts.map(|(step, process)| (step.to_string(), process.parse().unwrap())).collect()
    }
}
