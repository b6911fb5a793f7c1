//! A whole pool (scheduler, workers, a real Redis, a real RabbitMQ) while one of its parts fails. Whatever fails, every task ends once, with the
//! coefficients of one that nothing happened to. Each actor has connections of its own, as processes have; deaths of processes are in the tests of the
//! programs.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::support::proxy::Proxy;
use crate::support::servers::{RabbitServer, RedisServer, rabbit_settings, settings, shared_rabbit};
use crate::support::stub_engine::{Knobs, expected, spec, stub};
use mehl_soup::queue::{RabbitMq, RabbitMqSettings, TicketQueue};
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, Worker, WorkerError, WorkerSettings};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, new_sweep, new_tasks};
use mehl_soup::store::traits::*;
use mehl_soup::store::{Redis, RedisSettings, StoreError, TaskRecord};
use mehl_soup::task::{TaskKey, TaskState, Ticket};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Iterations of a task.
const ITERATIONS: u64 = 60;
/// Soup tasks of the sweep: three of the search, two baselines.
const TASKS: u64 = 5;

struct Pool {
    redis: RedisSettings,
    rabbit: RabbitMqSettings,
    knobs: Arc<Knobs>,
    stop: watch::Sender<bool>,
}

/// A worker at work.
struct Running {
    stop: watch::Sender<bool>,
    ended: JoinHandle<Result<u64, WorkerError>>,
}

impl Running {
    async fn end(self) -> u64 {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.ended).await.expect("it ends in time").unwrap().unwrap()
    }
}

fn scheduler_settings() -> SchedulerSettings {
    SchedulerSettings {
        interval: Duration::from_millis(100),
        republish_after: Duration::from_secs(1),
        ..SchedulerSettings::default()
    }
}

fn worker_settings(name: &str) -> WorkerSettings {
    let attempt = AttemptSettings {
        lease: Duration::from_secs(2),
        checkpoint_interval: Duration::ZERO,
        stall: PATIENCE,
        orphan: Duration::from_secs(4),
    };
    WorkerSettings { name: name.to_string(), attempt, once: false, look: Duration::from_millis(50) }
}

async fn connect(settings: &RedisSettings) -> Redis {
    let began = Instant::now();
    loop {
        match Redis::connect(settings).await {
            Ok(store) => return store,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Pool {
    /// A sweep `s` on these servers, of tasks of some hundred milliseconds.
    async fn new(redis: &RedisServer, rabbit_url: String) -> Self {
        let redis = RedisSettings { timeout: Duration::from_secs(1), ..settings(redis.url()) };
        let pool =
            Self { redis, rabbit: rabbit_settings(rabbit_url), knobs: Arc::default(), stop: watch::Sender::new(false) };
        pool.knobs.iterations.store(ITERATIONS, SeqCst);
        pool.knobs.millis.store(5, SeqCst);
        let (spec, _) = spec();
        let store = pool.store().await;
        store
            .create_sweep(&new_sweep("s".into(), &spec, Terms { attempts: 5, ..Terms::default() }), None)
            .await
            .unwrap();
        store.add_tasks("s", 0, &new_tasks(&spec)).await.unwrap();
        store.open_sweep("s").await.unwrap().unwrap();
        pool
    }

    async fn store(&self) -> Redis {
        connect(&self.redis).await
    }

    /// A scheduler with connections of its own, until the pool ends.
    fn schedule(&self) {
        let (redis, rabbit, stop) = (self.redis.clone(), self.rabbit.clone(), self.stop.subscribe());
        tokio::spawn(async move {
            let (store, queue) = (connect(&redis).await, RabbitMq::start(&rabbit).unwrap());
            let (settings, wake) = (scheduler_settings(), Notify::new());
            let scheduler = Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake };
            scheduler.run(stop, &()).await;
        });
    }

    fn worker(&self, name: &str) -> Running {
        self.worker_at(name, &self.redis.url.read().unwrap(), &self.rabbit.url.read().unwrap())
    }

    fn worker_at(&self, name: &str, redis: &str, rabbit: &str) -> Running {
        let (stop, stopped) = watch::channel(false);
        let redis = RedisSettings { url: redis.into(), ..self.redis.clone() };
        let rabbit = RabbitMqSettings { url: rabbit.into(), ..self.rabbit.clone() };
        let (settings, compute) = (worker_settings(name), Compute::start(stub(&self.knobs)).unwrap());
        let ended = tokio::spawn(async move {
            let (store, queue) = (connect(&redis).await, RabbitMq::start(&rabbit).unwrap());
            let watch = Arc::new(Lines);
            let worker =
                Worker { store: &store, queue: &queue, compute: &compute, settings: &settings, watch, stop: stopped };
            worker.serve().await
        });
        Running { stop, ended }
    }

    fn computed(&self) -> u64 {
        self.knobs.computed.load(SeqCst)
    }

    async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !done().await {
            assert!(began.elapsed() < PATIENCE, "{what}; {} iterations computed", self.computed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_computed(&self, iterations: u64) {
        self.until(&format!("{iterations} iterations"), async || self.computed() >= iterations).await;
    }

    /// Tasks that a worker has had claimed last, and that run.
    async fn running_at(&self, store: &Redis, worker: &str) -> Vec<TaskRecord> {
        let mut found = Vec::new();
        for record in store.tasks("s", 0, 100).await.unwrap_or_default() {
            let events = store.events(&record.key).await.unwrap_or_default();
            let claimed = events.iter().rev().find(|event| event.what == "claimed");
            if record.state == TaskState::Running
                && claimed.is_some_and(|event| event.detail.as_deref() == Some(worker))
            {
                found.push(record);
            }
        }
        found
    }

    /// Waits until every task has ended, and looks at what came of it.
    async fn finish(&self) -> Vec<TaskRecord> {
        let store = self.store().await;
        self.until("the sweep ends", async || matches!(store.sweep("s").await, Ok(Some(sweep)) if sweep.is_final()))
            .await;
        let records = store.tasks("s", 0, 100).await.unwrap();
        assert_eq!(records.len() as u64, TASKS + 1);
        for record in &records {
            assert_eq!(record.state, TaskState::Succeeded, "{record:?}");
            let events = store.events(&record.key).await.unwrap();
            let completions = events.iter().filter(|event| event.what == "succeeded").count();
            assert_eq!(completions, 1, "{}: {events:?}", record.key);
            if !record.key.is_scores() {
                let completed = store.result(&record.key).await.unwrap().unwrap();
                assert_eq!(completed.coefficients, expected(ITERATIONS), "{}", record.key);
            }
        }
        // Nothing is left on its way.
        self.until("no ticket is left", async || {
            let tickets = store.tickets().await.unwrap();
            tickets.outbox.is_empty() && tickets.outstanding.is_empty()
        })
        .await;
        self.stop.send_replace(true);
        records
    }
}

async fn broker() -> String {
    tokio::task::spawn_blocking(shared_rabbit).await.unwrap()
}

async fn own_broker() -> RabbitServer {
    tokio::task::spawn_blocking(|| RabbitServer::start("")).await.unwrap()
}

fn proxied(url: &str, proxy: &Proxy, port: u16) -> String {
    url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back_with_its_append_only_file() {
    let mut redis = RedisServer::start(&[]);
    let pool = Pool::new(&redis, broker().await).await;
    pool.schedule();
    let workers = [pool.worker("a"), pool.worker("b")];
    for iterations in [30, 150] {
        pool.until_computed(iterations).await;
        redis = tokio::task::spawn_blocking(move || {
            redis.kill_and_restart();
            redis
        })
        .await
        .unwrap();
    }
    pool.finish().await;
    // Workers went on meanwhile, and kept their newest checkpoints: nothing had to be computed twice.
    assert_eq!(pool.computed(), TASKS * ITERATIONS);
    for worker in workers {
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_with_an_older_copy_of_its_append_only_file() {
    let mut redis = RedisServer::start(&[]);
    let pool = Pool::new(&redis, broker().await).await;
    pool.schedule();
    let workers = [pool.worker("a"), pool.worker("b")];
    pool.until_computed(40).await;
    let copy = redis.copy_data();
    pool.until_computed(200).await;
    let lost = pool.computed() - 40;
    let redis = tokio::task::spawn_blocking(move || {
        redis.stop();
        redis.start_with(&copy);
        redis
    })
    .await
    .unwrap();
    pool.finish().await;
    // What the copy did not know of is computed again, and no more than what was on its way besides.
    let (all, slack) = (TASKS * ITERATIONS, 2 * ITERATIONS);
    assert!(pool.computed() <= all + lost + slack, "{} computed, {lost} lost", pool.computed());
    for worker in workers {
        worker.end().await;
    }
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_full_for_a_while() {
    let redis = RedisServer::start(&[]);
    let pool = Pool::new(&redis, broker().await).await;
    pool.schedule();
    let worker = pool.worker("a");
    pool.until_computed(30).await;
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut limit = async |bytes: &str| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async::<()>(&mut connection).await.unwrap();
    };
    limit("1").await;
    let store = pool.store().await;
    let full = store.beat("w", PATIENCE, "{}").await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    // Longer than a lease: nobody could renew one, and nobody could take a task either.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    limit("0").await;
    pool.finish().await;
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_stopped_wiped_and_started_again() {
    let redis = RedisServer::start(&[]);
    let mut rabbit = own_broker().await;
    let pool = Pool::new(&redis, rabbit.url()).await;
    pool.schedule();
    let workers = [pool.worker("a"), pool.worker("b")];
    pool.until_computed(30).await;
    let rabbit = tokio::task::spawn_blocking(move || {
        rabbit.stop();
        rabbit.wipe();
        rabbit.start_again();
        rabbit
    })
    .await
    .unwrap();
    pool.finish().await;
    assert_eq!(pool.computed(), TASKS * ITERATIONS, "tasks that ran went on");
    for worker in workers {
        worker.end().await;
    }
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_takes_no_messages_for_a_while() {
    let redis = RedisServer::start(&[]);
    let rabbit = own_broker().await;
    let alarm = async |rabbit: RabbitServer, watermark: &'static str| {
        tokio::task::spawn_blocking(move || {
            rabbit.rabbitmqctl(&["set_vm_memory_high_watermark", watermark]);
            rabbit
        })
        .await
        .unwrap()
    };
    let rabbit = alarm(rabbit, "0.000001").await;
    let pool = Pool::new(&redis, rabbit.url()).await;
    let (store, queue) = (pool.store().await, RabbitMq::start(&pool.rabbit).unwrap());
    let (settings, wake) = (scheduler_settings(), Notify::new());
    let scheduler = Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake };
    queue.ready(PATIENCE).await.unwrap();
    let turn = scheduler.turn().await.unwrap();
    assert!(turn.fault.is_some() && turn.published == 0, "{turn:?}");
    assert!(queue.state().is_blocked, "{:?}", queue.state());
    assert_eq!(store.tickets().await.unwrap().outbox.len(), 1, "its ticket waits in the store");
    let rabbit = alarm(rabbit, "0.6").await;
    pool.schedule();
    let worker = pool.worker("a");
    pool.finish().await;
    assert_eq!(pool.computed(), TASKS * ITERATIONS);
    worker.end().await;
    drop(rabbit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_the_broker_finishes_its_task() {
    let redis = RedisServer::start(&[]);
    let url = broker().await;
    let port: u16 = url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let pool = Pool::new(&redis, url.clone()).await;
    let proxy = Proxy::start(&format!("127.0.0.1:{port}"));
    pool.schedule();
    let cut_off = pool.worker_at("cut off", &pool.redis.url.read().unwrap(), &proxied(&url, &proxy, port));
    let store = pool.store().await;
    pool.until_computed(5).await;
    let running = pool.running_at(&store, "cut off").await;
    proxy.refuse(true);
    proxy.cut();
    let [task] = &running[..] else { panic!("{running:?}") };
    pool.until("its task ends", async || store.task(&task.key).await.unwrap().unwrap().state == TaskState::Succeeded)
        .await;
    assert_eq!(store.task(&task.key).await.unwrap().unwrap().attempts, 1);
    // Without the broker it gets no other; with it, it goes on.
    proxy.refuse(false);
    pool.finish().await;
    assert_eq!(pool.computed(), TASKS * ITERATIONS);
    cut_off.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_redis_gives_its_task_up_and_another_goes_on_with_it() {
    let redis = RedisServer::start(&[]);
    let port: u16 = redis.url().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let pool = Pool::new(&redis, broker().await).await;
    pool.knobs.millis.store(100, SeqCst);
    let proxy = Proxy::start(&format!("127.0.0.1:{port}"));
    pool.schedule();
    let lost = pool.worker_at("lost", &proxied(&redis.url(), &proxy, port), &pool.rabbit.url.read().unwrap());
    pool.until_computed(5).await;
    let store = pool.store().await;
    let running = pool.running_at(&store, "lost").await;
    let [task] = &running[..] else { panic!("{running:?}") };
    proxy.refuse(true);
    proxy.cut();
    pool.knobs.millis.store(20, SeqCst);
    let other = pool.worker("other");
    pool.until("another has its task", async || store.task(&task.key).await.unwrap().unwrap().attempts == 2).await;
    pool.finish().await;
    // Its compute is bounded by the time that it goes on without the store, and none of it was written.
    assert!(pool.computed() <= (TASKS + 1) * ITERATIONS, "{}", pool.computed());
    proxy.refuse(false);
    lost.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_schedulers_at_once_do_each_thing_once() {
    let redis = RedisServer::start(&[]);
    let pool = Pool::new(&redis, broker().await).await;
    (0..3).for_each(|_| pool.schedule());
    let workers = [pool.worker("a"), pool.worker("b"), pool.worker("c")];
    let records = pool.finish().await;
    assert!(records.iter().all(|record| record.attempts == 1 && record.generation == 1), "{records:?}");
    assert_eq!(pool.computed(), TASKS * ITERATIONS);
    for worker in workers {
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_come_many_times_late_and_for_tasks_that_are_not_there() {
    let redis = RedisServer::start(&[]);
    let pool = Pool::new(&redis, broker().await).await;
    pool.schedule();
    let queue = RabbitMq::start(&pool.rabbit).unwrap();
    queue.ready(PATIENCE).await.unwrap();
    let workers = [pool.worker("a"), pool.worker("b")];
    let key = |task: &str| TaskKey::new("s", task).unwrap();
    let mut tickets: Vec<Ticket> = (0..30).map(|i| Ticket::new(key("0001-mehl+"), i % 4)).collect();
    tickets.extend((0..10).map(|_| Ticket::new(key("uniform"), 1)));
    tickets.extend((0..10).map(|i| Ticket::new(TaskKey::new("none", "t").unwrap(), i)));
    let published = queue.publish(&tickets, PATIENCE).await;
    assert_eq!(published.confirmed.len(), tickets.len());
    pool.finish().await;
    assert_eq!(pool.computed(), TASKS * ITERATIONS);
    pool.until("the queue is empty", async || queue.depth(PATIENCE).await.unwrap().ready == 0).await;
    for worker in workers {
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_without_a_broker_does_what_needs_none_at_once() {
    let store = crate::support::servers::new_store().await;
    let (spec, _) = spec();
    store.create_sweep(&new_sweep("s".into(), &spec, Terms::default()), None).await.unwrap();
    store.add_tasks("s", 0, &new_tasks(&spec)).await.unwrap();
    store.open_sweep("s").await.unwrap();
    store.order("s", mehl_soup::store::Order::Cancel).await.unwrap();
    // Nobody listens there.
    let port = crate::support::servers::free_port();
    let queue = RabbitMq::start(&rabbit_settings(format!("amqp://guest:guest@127.0.0.1:{port}/"))).unwrap();
    let (settings, wake) = (scheduler_settings(), Notify::new());
    let scheduler = Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake };
    let began = Instant::now();
    let turn = scheduler.turn().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "the turn took {:?}", began.elapsed());
    assert!(turn.fault.is_some() && turn.settled == TASKS as usize + 1, "{turn:?}");
    assert!(store.sweep("s").await.unwrap().unwrap().is_final());
    queue.close().await;
}
