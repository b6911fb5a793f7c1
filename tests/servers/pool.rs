//! Workers of a pool with an engine without tensors: in one process, and with a real Redis and RabbitMQ between them.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::stub_engine::{Knobs, expected, spec, stub};
use mehl_soup::queue::{InProcess, TicketQueue};
use mehl_soup::runner::pool::{
    AttemptSettings, Compute, Ended, PoolResult, Worker, WorkerError, WorkerObserver, WorkerSettings,
};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, new_sweep, new_tasks};
use mehl_soup::store::contract::saved;
use mehl_soup::store::{AfterRelease, ClaimAnswer, Claimant, Held, Memory, Order, ReleaseReason, Store, TaskRecord};
use mehl_soup::task::{TaskKey, TaskState};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);

/// A pool of one sweep, and what turns it.
struct Pool<S, Q> {
    store: Arc<S>,
    queue: Arc<Q>,
    knobs: Arc<Knobs>,
    ends: Arc<Ends>,
}

/// How attempts ended, of all workers.
#[derive(Default)]
struct Ends(Mutex<Vec<Ended>>);

impl WorkerObserver for Ends {
    fn say(&self, _: &str) {}
    fn ended(&self, _: &TaskKey, ended: &Ended) {
        self.0.lock().unwrap().push(ended.clone());
    }
}

/// A worker at work.
struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<Result<u64, WorkerError>>,
}

impl Running {
    async fn end(self) -> Result<u64, WorkerError> {
        self.stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, self.ended).await.expect("it ends in time").unwrap()
    }
}

fn settings(name: &str) -> WorkerSettings {
    let attempt = AttemptSettings {
        lease: Duration::from_secs(3),
        checkpoint_interval: Duration::ZERO,
        stall: Duration::from_secs(60),
        orphan: Duration::from_secs(30),
    };
    WorkerSettings { name: name.to_string(), attempt, once: false, look: Duration::from_millis(50) }
}

impl<S: Store + 'static, Q: TicketQueue + 'static> Pool<S, Q> {
    /// A sweep `s` whose scores are there; its tasks, of so many iterations, are runnable.
    async fn new(store: S, queue: Q, iterations: u64, millis: u64) -> Self {
        let pool = Self { store: Arc::new(store), queue: Arc::new(queue), knobs: Arc::default(), ends: Arc::default() };
        pool.knobs.iterations.store(iterations, SeqCst);
        pool.knobs.millis.store(millis, SeqCst);
        let (spec, _) = spec();
        let new = new_sweep("s".into(), &spec, Terms { attempts: 2, ..Terms::default() });
        pool.store.create_sweep(&new, None).await.unwrap();
        pool.store.add_tasks("s", 0, &new_tasks(&spec)).await.unwrap();
        pool.store.open_sweep("s").await.unwrap().unwrap();
        // A turn does not wait for a broker that is not there.
        pool.queue.ready(PATIENCE).await.unwrap();
        pool.turn().await;
        let once = WorkerSettings { once: true, ..settings("scorer") };
        assert_eq!(pool.worker(once).ended.await.unwrap().unwrap(), 1);
        pool.turn().await;
        pool
    }

    /// What a scheduler does, once.
    async fn turn(&self) {
        let settings = SchedulerSettings::default();
        let turn = Scheduler { store: &*self.store, queue: &*self.queue, settings: &settings, wake: &Notify::new() }
            .turn()
            .await
            .unwrap();
        assert_eq!(turn.fault, None);
    }

    fn worker(&self, settings: WorkerSettings) -> Running {
        let (stop, stopped) = watch::channel(false);
        let (store, queue) = (self.store.clone(), self.queue.clone());
        let compute = Compute::start(stub(&self.knobs)).unwrap();
        let watch = self.ends.clone();
        let ended = tokio::spawn(async move {
            let worker =
                Worker { store: &*store, queue: &*queue, compute: &compute, settings: &settings, watch, stop: stopped };
            worker.serve().await
        });
        Running { stop, ended }
    }

    async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !done().await {
            assert!(began.elapsed() < PATIENCE * 3, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn record(&self, task: &str) -> TaskRecord {
        self.store.task(&TaskKey::new("s", task).unwrap()).await.unwrap().unwrap()
    }

    async fn until_state(&self, task: &str, state: TaskState) {
        self.until(&format!("{task} is {state}"), async || self.record(task).await.state == state).await;
    }

    /// Turns until every task has ended; then all that succeeded must have the coefficients of a task that was never interrupted.
    async fn finish(&self) -> Vec<TaskRecord> {
        self.until("the sweep ends", async || {
            self.turn().await;
            self.store.sweep("s").await.unwrap().unwrap().is_final()
        })
        .await;
        let records = self.store.tasks("s", 0, 100).await.unwrap();
        for record in records.iter().skip(1).filter(|record| record.state == TaskState::Succeeded) {
            let completed = self.store.result(&record.key).await.unwrap().unwrap();
            assert_eq!(completed.coefficients, expected(self.knobs.iterations.load(SeqCst)), "{}", record.key);
            let result: PoolResult = serde_json::from_str(&completed.result).unwrap();
            assert_eq!(result.outcome.state, TaskState::Succeeded);
            assert!(!result.history.is_empty());
        }
        records
    }

    /// Cancels everything but one task, so that a test has that one for itself.
    async fn only(&self, task: &str) {
        for record in self.store.tasks("s", 0, 100).await.unwrap().into_iter().skip(1) {
            if record.key.task != task {
                let ticket = mehl_soup::task::Ticket::new(record.key.clone(), record.generation);
                let claimant = Claimant { worker: "nobody".into(), nonce: record.key.to_string() };
                let ClaimAnswer::Claimed(claimed) = self.store.claim(&ticket, &claimant, PATIENCE).await.unwrap()
                else {
                    panic!("{record:?}");
                };
                self.store.release(&claimed.hold, &ReleaseReason::Hopeless("not in this test".into())).await.unwrap();
            }
        }
    }
}

async fn two_workers_finish_a_sweep<S: Store + 'static, Q: TicketQueue + 'static>(store: S, queue: Q) {
    let pool = Pool::new(store, queue, 10, 1).await;
    let workers = [pool.worker(settings("a")), pool.worker(settings("b"))];
    let records = pool.finish().await;
    assert_eq!(records.len(), 6);
    assert!(records.iter().all(|record| record.state == TaskState::Succeeded && record.attempts == 1), "{records:?}");
    assert_eq!(pool.knobs.computed.load(SeqCst), 50, "nothing was computed twice");
    let mut tasks = 0;
    for worker in workers {
        tasks += worker.end().await.unwrap();
    }
    assert_eq!(tasks, 5);
}

async fn a_worker_that_is_asked_to_end_gives_its_task_back_whole<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let pool = Pool::new(store, queue, 40, 5).await;
    pool.only("0001-mehl+").await;
    let first = pool.worker(settings("first"));
    pool.until("some iterations", async || pool.knobs.computed.load(SeqCst) >= 7).await;
    assert_eq!(first.end().await.unwrap(), 1);
    let record = pool.record("0001-mehl+").await;
    assert_eq!((record.state, record.crashes), (TaskState::Queued, 0), "{record:?}");
    assert!(record.has_checkpoint);
    // Its ticket is published already: another worker needs no scheduler.
    let second = pool.worker(WorkerSettings { once: true, ..settings("second") });
    assert_eq!(tokio::time::timeout(PATIENCE, second.ended).await.unwrap().unwrap().unwrap(), 1);
    pool.finish().await;
    assert_eq!(pool.record("0001-mehl+").await.state, TaskState::Succeeded);
    assert_eq!(pool.knobs.computed.load(SeqCst), 40, "no finished iteration was lost");
}

async fn a_paused_sweep_goes_on_where_it_was<S: Store + 'static, Q: TicketQueue + 'static>(store: S, queue: Q) {
    let pool = Pool::new(store, queue, 60, 10).await;
    pool.only("0001-mehl+").await;
    let mut quick = settings("a");
    quick.attempt.lease = Duration::from_millis(600);
    let worker = pool.worker(quick);
    pool.until("some iterations", async || pool.knobs.computed.load(SeqCst) >= 3).await;
    assert!(pool.store.order("s", Order::Pause).await.unwrap());
    pool.until_state("0001-mehl+", TaskState::Paused).await;
    assert!(pool.knobs.computed.load(SeqCst) < 60);
    assert!(pool.store.order("s", Order::Continue).await.unwrap());
    pool.finish().await;
    assert_eq!(pool.record("0001-mehl+").await.state, TaskState::Succeeded);
    assert_eq!(pool.knobs.computed.load(SeqCst), 60);
    worker.end().await.unwrap();
}

async fn a_cancelled_sweep_stops_computing<S: Store + 'static, Q: TicketQueue + 'static>(store: S, queue: Q) {
    let pool = Pool::new(store, queue, 1_000_000, 1).await;
    let worker = pool.worker(settings("a"));
    pool.until("some iterations", async || pool.knobs.computed.load(SeqCst) >= 3).await;
    assert!(pool.store.order("s", Order::Cancel).await.unwrap());
    let records = pool.finish().await;
    assert!(records[1..].iter().all(|record| record.state == TaskState::Cancelled), "{records:?}");
    assert!(records[1..].iter().all(|record| !record.has_checkpoint));
    worker.end().await.unwrap();
}

async fn faults_end_a_task_or_its_attempt<S: Store + 'static, Q: TicketQueue + 'static>(store: S, queue: Q) {
    let pool = Pool::new(store, queue, 8, 1).await;
    pool.only("0001-mehl+").await;
    let once = || WorkerSettings { once: true, ..settings("a") };
    // Memory, then a panic in the next attempt: each has advanced the checkpoint before, so neither is held against the other.
    for fault in [2, 1] {
        pool.knobs.fault.store(fault, SeqCst);
        assert_eq!(pool.worker(once()).ended.await.unwrap().unwrap(), 1);
        let record = pool.record("0001-mehl+").await;
        assert_eq!((record.state, record.crashes), (TaskState::Queued, 1), "{record:?}");
        let ended = pool.ends.0.lock().unwrap().last().cloned();
        assert!(matches!(ended, Some(Ended::Crashed)), "{ended:?}");
        pool.until("its wait is over", async || {
            pool.turn().await;
            pool.store.tickets().await.unwrap().outstanding.len() == 1
        })
        .await;
    }
    pool.knobs.fault.store(3, SeqCst);
    assert_eq!(pool.worker(once()).ended.await.unwrap().unwrap(), 1);
    let record = pool.record("0001-mehl+").await;
    assert_eq!((record.state, record.cause.as_deref()), (TaskState::Failed, Some("loss is NaN")));
    pool.knobs.fault.store(0, SeqCst);
    assert_eq!(pool.worker(once()).ended.await.unwrap().unwrap(), 0, "it blocks nobody");
    // Retried, it begins from nothing.
    pool.knobs.computed.store(0, SeqCst);
    pool.store.retry("s", 0, 100).await.unwrap();
    let worker = pool.worker(settings("a"));
    let records = pool.finish().await;
    assert!(records.iter().all(|record| record.state == TaskState::Succeeded), "{records:?}");
    assert_eq!(pool.knobs.computed.load(SeqCst), 40);
    worker.end().await.unwrap();
}

async fn an_engine_that_stands_still_gives_its_task_up<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let pool = Pool::new(store, queue, 8, 1).await;
    pool.only("0001-mehl+").await;
    pool.knobs.fault.store(4, SeqCst);
    let mut short = settings("a");
    short.attempt.stall = Duration::from_millis(300);
    short.attempt.lease = Duration::from_millis(900);
    let ended = tokio::time::timeout(PATIENCE, pool.worker(short).ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(WorkerError::Stalled)), "{ended:?}");
    let record = pool.record("0001-mehl+").await;
    assert_eq!((record.state, record.crashes), (TaskState::Queued, 1), "{record:?}");
    pool.knobs.fault.store(0, SeqCst);
    let other = pool.worker(settings("b"));
    pool.finish().await;
    assert_eq!(pool.record("0001-mehl+").await.state, TaskState::Succeeded);
    other.end().await.unwrap();
}

async fn a_worker_that_lost_its_task_writes_nothing_more<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let pool = Pool::new(store, queue, 100, 10).await;
    pool.only("0001-mehl+").await;
    // It renews too seldom for its lease, as a process that was stopped for a while does: the lease is over before the first renewal.
    let mut late = WorkerSettings { once: true, ..settings("late") };
    late.attempt.lease = Duration::ZERO;
    late.attempt.checkpoint_interval = Duration::from_secs(100);
    let first = pool.worker(late);
    pool.until("the task is taken from it", async || {
        !pool.store.expire(10, PATIENCE).await.unwrap().expired.is_empty()
    })
    .await;
    let second = pool.worker(settings("second"));
    pool.finish().await;
    let record = pool.record("0001-mehl+").await;
    assert_eq!(record.state, TaskState::Succeeded, "{record:?}");
    let events = pool.store.events(&record.key).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.what == "succeeded").count(), 1);
    first.ended.await.unwrap().unwrap();
    second.end().await.unwrap();
}

async fn checkpoints_that_cannot_be_read_are_left_behind<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let pool = Pool::new(store, queue, 8, 1).await;
    pool.only("0001-mehl+").await;
    let record = pool.record("0001-mehl+").await;
    let ticket = mehl_soup::task::Ticket::new(record.key.clone(), record.generation);
    let claimant = Claimant { worker: "another version".into(), nonce: "n".into() };
    let ClaimAnswer::Claimed(claimed) = pool.store.claim(&ticket, &claimant, PATIENCE).await.unwrap() else { panic!() };
    pool.store.save(&claimed.hold, PATIENCE, saved(7, b"no checkpoint of ours", 7)).await.unwrap();
    let Held::Yes(AfterRelease::Queued(_)) =
        pool.store.release(&claimed.hold, &ReleaseReason::Preempted).await.unwrap()
    else {
        panic!()
    };
    let worker = pool.worker(settings("a"));
    pool.finish().await;
    assert_eq!(pool.record("0001-mehl+").await.state, TaskState::Succeeded);
    assert_eq!(pool.knobs.computed.load(SeqCst), 8, "it began anew");
    worker.end().await.unwrap();
}

async fn a_worker_for_one_task_ends_on_an_empty_queue<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let pool = Pool::new(store, queue, 2, 1).await;
    for _ in 0..5 {
        let worker = pool.worker(WorkerSettings { once: true, ..settings("a") });
        assert_eq!(worker.ended.await.unwrap().unwrap(), 1);
    }
    let worker = pool.worker(WorkerSettings { once: true, ..settings("a") });
    assert_eq!(tokio::time::timeout(PATIENCE, worker.ended).await.unwrap().unwrap().unwrap(), 0);
    pool.finish().await;
}

macro_rules! pools {
    ($($promise:ident),* $(,)?) => {
        mod in_one_process {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(Memory::default(), InProcess::default()).await;
            })*
        }

        mod with_redis_and_rabbitmq {
            use crate::support::servers::{new_queue, new_store};
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::$promise(new_store().await, new_queue().await).await;
            })*
        }
    };
}

pools!(
    two_workers_finish_a_sweep,
    a_worker_that_is_asked_to_end_gives_its_task_back_whole,
    a_paused_sweep_goes_on_where_it_was,
    a_cancelled_sweep_stops_computing,
    faults_end_a_task_or_its_attempt,
    an_engine_that_stands_still_gives_its_task_up,
    a_worker_that_lost_its_task_writes_nothing_more,
    checkpoints_that_cannot_be_read_are_left_behind,
    a_worker_for_one_task_ends_on_an_empty_queue,
);
