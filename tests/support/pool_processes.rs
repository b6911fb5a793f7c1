//! A pool whose workers and schedulers are processes of their own, and what a test does to them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mehl_soup::queue::TicketQueue;
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, WorkerSettings, serve};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, new_sweep, new_tasks};
use mehl_soup::store::contract::saved;
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Claimant, Completed, Redis, RedisSettings, ReleaseReason, TaskRecord};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::spec::Family;
use mehl_soup::task::{TaskKey, TaskState, Ticket};
use tokio::sync::{Notify, watch};

use super::dying::Fuse;
use super::processes::Site;
use super::servers::{rabbit_settings, settings};
use super::stub_engine::{Knobs, expected, spec, stub};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Of workers.
pub const LEASE: Duration = Duration::from_secs(2);
/// A task that tests have for themselves.
pub const TASK: &str = "0001-mehl+";
/// Soup tasks of a sweep.
pub const TASKS: u64 = 5;

/// What a process is told, as `name=value` words.
struct Role(BTreeMap<String, String>);

impl Role {
    fn of(words: &str) -> Self {
        let parts = words.split_whitespace().filter_map(|word| word.split_once('='));
        Self(parts.map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.0.get(name).map_or(otherwise, |value| value.parse().unwrap())
    }

    fn millis(&self, name: &str, otherwise: u64) -> Duration {
        Duration::from_millis(self.number(name, otherwise))
    }
}

/// True once this process gets SIGTERM.
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

/// What a process is that [`Pool`] started. Worker: `interval` between checkpoints, `orphan` and `timeout` in milliseconds; `fault` in iteration `at` of
/// [`TASK`].
pub async fn work_as_told() {
    let Some((mut site, words)) = Site::of_environment() else { return };
    mehl_soup::logging::start(mehl_soup::logging::LogFormat::Text).unwrap();
    let role = Role::of(&words);
    eprintln!("clock {}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    site.redis.timeout = role.millis("timeout", 2000);
    let stop = asked_to_end().await;
    let (store, queue) = site.connect(&Fuse::new("never", 0)).await;
    if role.0["kind"] == "scheduler" {
        let interval = Duration::from_millis(100);
        let settings = SchedulerSettings { interval, republish_after: LEASE / 2, ..SchedulerSettings::default() };
        let wake = Notify::new();
        Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake }.run(stop, &()).await;
    } else {
        let knobs: Arc<Knobs> = Arc::default();
        knobs.iterations.store(site.iterations, SeqCst);
        knobs.millis.store(site.millis, SeqCst);
        knobs.log.set(site.log.clone()).unwrap();
        knobs.fault.store(role.number("fault", 0), SeqCst);
        knobs.fault_at.store(role.number("at", 0), SeqCst);
        knobs.fault_in.set(TASK.to_string()).unwrap();
        let attempt = AttemptSettings {
            lease: LEASE,
            checkpoint_interval: role.millis("interval", 0),
            stall: PATIENCE,
            orphan: role.millis("orphan", 10_000),
        };
        let compute = Compute::start(stub(&knobs)).unwrap();
        let (name, look) = (role.0["name"].clone(), Duration::from_millis(50));
        let settings = WorkerSettings { name, attempt, once: false, look };
        serve(&store, &queue, &compute, &settings, "{}", Arc::new(Lines), stop).await.unwrap();
    }
    queue.close().await;
}

/// A process of a pool.
pub struct Process {
    child: Child,
    said: PathBuf,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {signal} {}", self.id());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it wrote to stderr.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Waits until it ends by itself.
    pub async fn end(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "process {} does not end", self.id());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Sweeps on two servers, and the processes that work on them.
pub struct Pool {
    pub site: Site,
    pub store: Redis,
    pub workers: BTreeMap<String, Process>,
    pub schedulers: Vec<Process>,
    started: usize,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for process in self.workers.values_mut().chain(&mut self.schedulers) {
            drop(process.child.kill());
            drop(process.child.wait());
            if std::thread::panicking() {
                eprintln!("{} said:\n{}", process.said.display(), process.said());
            }
        }
    }
}

impl Pool {
    /// An empty installation; its tasks will have so many iterations of so many milliseconds.
    pub async fn new(redis: &str, rabbit: &str, folder: &Path, iterations: u64, millis: u64) -> Self {
        let redis = RedisSettings { timeout: LEASE, ..settings(redis.to_string()) };
        let log = folder.join(&redis.installation);
        let site = Site { redis, rabbit: rabbit_settings(rabbit.to_string()), log, iterations, millis };
        let store = Redis::connect(&site.redis).await.unwrap();
        Self { site, store, workers: BTreeMap::new(), schedulers: vec![], started: 0 }
    }

    async fn claim(&self, ticket: &Ticket) -> mehl_soup::store::Claimed {
        let claimant = Claimant { worker: "the test".into(), nonce: ticket.task_id.to_string() };
        match self.store.claim(ticket, &claimant, PATIENCE).await.unwrap() {
            ClaimAnswer::Claimed(claimed) => *claimed,
            refused => panic!("{ticket:?}: {refused:?}"),
        }
    }

    /// A sweep whose scores are there already.
    pub async fn submit(&self, sweep: &str) {
        let (spec, _) = spec();
        let new = new_sweep(sweep.into(), &spec, Terms { attempts: 3, ..Terms::default() });
        self.store.create_sweep(&new, None).await.unwrap();
        self.store.add_tasks(sweep, 0, &new_tasks(&spec)).await.unwrap();
        let scores = self.claim(&self.store.open_sweep(sweep).await.unwrap().unwrap()).await;
        let manifest = Manifest {
            objective: Default::default(),
            version: Manifest::VERSION,
            family: Family::Vit,
            architecture: "stub".into(),
            ingredients: vec![],
            base: None,
            data: vec![],
            notes: vec![],
        };
        let result = serde_json::to_string(&manifest).unwrap();
        self.store.complete(&scores.hold, &Completed { result, coefficients: vec![], units: None }).await.unwrap();
    }

    /// A sweep `s` in which nothing but [`TASK`] is left to do. No scheduler runs yet. Its checkpoint is `checkpoint`, if there is one.
    pub async fn submit_one(&self, checkpoint: Option<&[u8]>) {
        self.submit("s").await;
        assert_eq!(self.store.release_pending("s", 100).await.unwrap() as u64, TASKS);
        for record in self.store.tasks("s", 1, 100).await.unwrap() {
            let ticket = Ticket::new(record.key.clone(), record.generation);
            if record.key.task != TASK {
                let why = ReleaseReason::Hopeless("not in this test".into());
                self.store.release(&self.claim(&ticket).await.hold, &why).await.unwrap();
            } else if let Some(checkpoint) = checkpoint {
                let hold = self.claim(&ticket).await.hold;
                self.store.save(&hold, PATIENCE, saved(7, checkpoint, 7)).await.unwrap();
                self.store.release(&hold, &ReleaseReason::Preempted).await.unwrap();
            }
        }
    }

    fn start(&mut self, site: &Site, role: &str, variables: &[(&str, &str)]) -> Process {
        self.started += 1;
        let said = self.site.log.with_extension(format!("said-{}", self.started));
        let mut command = site.command("process_of_a_pool", role);
        command.envs(variables.iter().copied()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&said).unwrap());
        Process { child: command.spawn().unwrap(), said }
    }

    /// Starts a worker, in place of one of the same name.
    pub fn worker(&mut self, name: &str, role: &str) {
        self.worker_at(&self.site.clone(), name, role, &[]);
    }

    pub fn worker_at(&mut self, site: &Site, name: &str, role: &str, variables: &[(&str, &str)]) {
        let process = self.start(site, &format!("kind=worker name={name} {role}"), variables);
        if let Some(mut last) = self.workers.insert(name.to_string(), process) {
            drop(last.child.kill());
            last.child.wait().unwrap();
        }
    }

    pub fn scheduler(&mut self) {
        self.scheduler_at(&self.site.clone(), "", &[]);
    }

    pub fn scheduler_at(&mut self, site: &Site, role: &str, variables: &[(&str, &str)]) {
        let process = self.start(site, &format!("kind=scheduler {role}"), variables);
        self.schedulers.push(process);
    }

    pub fn key(&self) -> TaskKey {
        TaskKey::new("s", TASK).unwrap()
    }

    /// [`TASK`] as it is now.
    pub async fn record(&self) -> TaskRecord {
        self.store.task(&self.key()).await.unwrap().unwrap()
    }

    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !done(self).await {
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.store.tasks("s", 0, 100).await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }

    /// Waits until [`TASK`] has been claimed so often and runs. Answers the worker that has it, and how long that took. The store may be away meanwhile.
    pub async fn until_claimed(&self, times: u64) -> (String, Duration) {
        let is_there = async |pool: &Self| match pool.store.task(&pool.key()).await {
            Ok(Some(record)) => record.attempts >= times && record.state == TaskState::Running,
            _ => false,
        };
        let took = self.until(&format!("claim {times}"), is_there).await;
        let events = self.store.events(&self.key()).await.unwrap();
        let last = events.iter().rev().find(|event| event.what == "claimed").unwrap();
        (last.detail.clone().unwrap(), took)
    }

    /// Waits until so many iterations are in the log.
    pub async fn until_steps(&self, count: usize) {
        self.until(&format!("{count} iterations"), async |pool| pool.site.steps().len() >= count).await;
    }

    /// Iterations that a process has computed.
    pub fn steps_of(&self, process: u32) -> usize {
        self.site.steps().iter().filter(|(_, by)| *by == process).count()
    }

    /// Iterations of so many sweeps that were computed again.
    pub fn repeated(&self, sweeps: usize) -> usize {
        self.site.computed().values().map(|times| times.saturating_sub(sweeps)).sum()
    }

    /// Waits until every task of a sweep has ended, and no ticket of it is left. Those that succeeded have done so once, with the coefficients of a task that
    /// nothing happened to. Answers all but the scores task.
    pub async fn finish(&self, sweep: &str) -> Vec<TaskRecord> {
        let is_final = async |pool: &Self| matches!(pool.store.sweep(sweep).await, Ok(Some(sweep)) if sweep.is_final());
        self.until(&format!("sweep {sweep} ends"), is_final).await;
        let records = self.store.tasks(sweep, 1, 100).await.unwrap();
        for record in records.iter().filter(|record| record.state == TaskState::Succeeded) {
            let events = self.store.events(&record.key).await.unwrap();
            assert_eq!(events.iter().filter(|event| event.what == "succeeded").count(), 1, "{events:?}");
            let completed = self.store.result(&record.key).await.unwrap().unwrap();
            assert_eq!(completed.coefficients, expected(self.site.iterations), "{}", record.key);
        }
        assert!(records.iter().all(|record| !record.has_checkpoint), "{records:?}");
        let tickets = self.store.tickets().await.unwrap();
        let mut left = tickets.outbox.iter().chain(&tickets.outstanding);
        assert!(left.all(|ticket| ticket.task_id.sweep != sweep), "{tickets:?}");
        records
    }
}
