//! Searches by successive halving, with an engine without tensors: over a pool in one process, with a real Redis and RabbitMQ between its parts, and on one
//! machine, stopped again and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::stub_engine::{Knobs, Stub, expected, stub};
use mehl_soup::queue::{InProcess, TicketQueue};
use mehl_soup::runner::engine::{EngineError, Progress};
use mehl_soup::runner::local::{RunError, Surroundings, run_sweep};
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, Worker, WorkerSettings};
use mehl_soup::runner::reporter::Reporter;
use mehl_soup::runner::run_folder::RunFolder;
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, admit, new_tasks};
use mehl_soup::search::Searches;
use mehl_soup::store::{Memory, Store, TaskRecord};
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::results::{SweepResults, TaskOutcome, winner};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::{MethodName, Spec};
use mehl_soup::sweep::task::Task;
use mehl_soup::task::TaskState;
use tokio::sync::{Notify, watch};

const PATIENCE: Duration = Duration::from_secs(60);
/// Epochs of a whole task, so that the rungs are after 1 and 3.
const EPOCHS: u64 = 9;
/// Iterations of an epoch.
const LENGTH: u64 = 2;
/// Samples of the search.
const SAMPLES: usize = 10;

/// A search whose tasks score the better, the smaller their learning rate is.
fn spec() -> Spec {
    let text = format!(
        "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\nsoup.method = 'mehl+'\nsoup.outer_epochs = {EPOCHS}\n\
         [search]\nstrategy = 'asha'\ntasks = {SAMPLES}\neta = 3\n\
         [search.space]\nlearning_rate = {{ log_uniform = [1e-4, 1e-1] }}"
    );
    parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap()
}

fn knobs(millis: u64) -> Arc<Knobs> {
    let knobs = Arc::new(Knobs::default());
    knobs.iterations.store(EPOCHS * LENGTH, SeqCst);
    knobs.millis.store(millis, SeqCst);
    knobs
}

fn is_searched(task: &Task) -> bool {
    matches!(task.soup.method, MethodName::Mehl | MethodName::MehlPlus)
}

/// Of the samples, the one with the best score.
fn best_sample(tasks: &[Task]) -> &Task {
    let rate = |task: &&Task| task.soup.learning_rate;
    tasks.iter().filter(|task| is_searched(task)).min_by(|a, b| rate(a).total_cmp(&rate(b))).unwrap()
}

/// Iterations that a task has computed when it ends in this state at this rung.
fn iterations(state: TaskState, rungs: usize) -> u64 {
    match state {
        TaskState::Succeeded => EPOCHS * LENGTH,
        TaskState::Pruned => LENGTH * 3u64.pow(rungs as u32 - 1),
        other => panic!("{other}"),
    }
}

async fn a_search_promotes_the_best_and_computes_nothing_twice<S: Store + 'static, Q: TicketQueue + 'static>(
    store: S,
    queue: Q,
) {
    let (store, queue, knobs, spec) = (Arc::new(store), Arc::new(queue), knobs(3), spec());
    let tasks = expand(&spec);
    let id = admit(&*store, &spec, &new_tasks(&spec), Terms::default(), None).await.unwrap().id;
    let (stop, _) = watch::channel(false);
    let mut running = Vec::new();
    for name in ["a", "b", "c"] {
        let (store, queue, stop) = (store.clone(), queue.clone(), stop.subscribe());
        let compute = Compute::start(stub(&knobs)).unwrap();
        running.push(tokio::spawn(async move {
            let attempt = AttemptSettings {
                lease: Duration::from_secs(30),
                checkpoint_interval: Duration::ZERO,
                stall: PATIENCE,
                orphan: PATIENCE,
            };
            let settings =
                WorkerSettings { name: name.to_string(), attempt, once: false, look: Duration::from_millis(50) };
            store.beat(name, PATIENCE, "{}").await.unwrap();
            let watch = Arc::new(Lines);
            Worker { store: &*store, queue: &*queue, compute: &compute, settings: &settings, watch, stop }
                .serve()
                .await
                .unwrap();
        }));
    }
    {
        let (store, queue, stop) = (store.clone(), queue.clone(), stop.subscribe());
        running.push(tokio::spawn(async move {
            let settings = SchedulerSettings { interval: Duration::from_millis(20), ..SchedulerSettings::default() };
            let wake = Notify::new();
            Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &wake }.run(stop, &()).await;
        }));
    }
    let ended = async {
        while !store.sweep(&id).await.unwrap().unwrap().is_final() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the search ends");
    stop.send(true).unwrap();
    for part in running {
        part.await.unwrap();
    }

    let records: Vec<TaskRecord> = store.tasks(&id, 0, 100).await.unwrap().into_iter().skip(1).collect();
    let mut computed = 0;
    for (record, task) in records.iter().zip(&tasks) {
        assert_eq!(record.key.task, task.id);
        computed += iterations(record.state, record.rungs.len());
        assert!(!record.has_checkpoint, "{record:?}");
        assert!(record.rungs.iter().all(|score| score.loss == task.soup.learning_rate), "{record:?}");
        match record.state {
            TaskState::Succeeded => {
                let result = store.result(&record.key).await.unwrap().unwrap();
                assert_eq!(result.coefficients, expected(EPOCHS * LENGTH));
            }
            _ => {
                let standing = store.standing(&record.key).await.unwrap().unwrap();
                let outcome: TaskOutcome = serde_json::from_str(&standing).unwrap();
                assert_eq!(outcome.at_rung, record.rungs.last().copied());
                assert_eq!(outcome.effort.iterations, iterations(record.state, record.rungs.len()));
            }
        }
    }
    assert_eq!(knobs.computed.load(SeqCst), computed, "what a task had computed at a rung is not computed again");
    let searched = || records.iter().zip(&tasks).filter(|(_, task)| is_searched(task)).map(|(record, _)| record);
    assert_eq!(searched().count(), SAMPLES);
    let beyond = |rung: usize| searched().filter(|r| r.rungs.len() > rung || r.state == TaskState::Succeeded).count();
    assert_eq!(beyond(0), SAMPLES, "each reaches the first rung");
    let [second, all] = [beyond(1), searched().filter(|record| record.state == TaskState::Succeeded).count()];
    assert!((3..=SAMPLES / 3).contains(&second) && (1..=second / 3).contains(&all), "{second}, {all}");
    let best = best_sample(&tasks);
    assert_eq!(searched().find(|record| record.key.task == best.id).unwrap().state, TaskState::Succeeded);
    let events: Vec<String> = {
        let key = &searched().find(|record| record.key.task == best.id).unwrap().key;
        store.events(key).await.unwrap().into_iter().map(|event| event.what).collect()
    };
    let parts = |what: &str| events.iter().filter(|event| *event == what).count();
    assert_eq!((parts("claimed"), parts("waiting"), parts("promoted"), parts("succeeded")), (3, 2, 2, 1), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_process() {
    a_search_promotes_the_best_and_computes_nothing_twice(Memory::default(), InProcess::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_and_rabbitmq() {
    use crate::support::servers::{new_queue, new_store};
    a_search_promotes_the_best_and_computes_nothing_twice(new_store().await, new_queue().await).await;
}

/// Asks a run to stop once it has seen so many iterations.
struct Stopping {
    after: u64,
    seen: std::sync::atomic::AtomicU64,
    stop: watch::Sender<bool>,
}

impl Reporter for Stopping {
    fn note(&self, message: &str) {
        eprintln!("{message}");
    }
    fn scored(&self, _: &str, _: &SplitScore, _: usize, _: usize) {}
    fn started(&self, _: usize, _: &Task, _: usize) {}
    fn progress(&self, _: usize, _: &Task, _: &Progress) {
        if self.seen.fetch_add(1, SeqCst) + 1 == self.after {
            self.stop.send_replace(true);
        }
    }
    fn finished(&self, _: usize, task: &Task, outcome: &TaskOutcome) {
        eprintln!("{}: {}", task.id, outcome.state);
    }
}

/// Runs the search on one machine with two devices until it is done, stopped after so many iterations each time. Answers what came of it and how many
/// runs it took.
fn run(folder: &Path, knobs: &Arc<Knobs>, after: u64) -> (SweepResults, usize) {
    let spec = spec();
    let folder = Arc::new(RunFolder::open(folder, &spec).unwrap());
    let knobs = knobs.clone();
    let engine: Arc<dyn Fn(usize) -> Result<Stub, EngineError> + Send + Sync> = {
        let spec = spec.clone();
        Arc::new(move |_| stub(&knobs)(&spec))
    };
    for runs in 1..100 {
        let (stop, stopped) = watch::channel(false);
        let reporter = Arc::new(Stopping { after, seen: 0.into(), stop });
        let surroundings = Surroundings { stop: stopped, reporter, retry_failed: false, searches: Searches::default() };
        match run_sweep(&spec, &folder, 2, &engine, &surroundings) {
            Ok(finished) => return (finished.results, runs),
            Err(RunError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not end");
}

#[test]
fn on_one_machine_it_goes_on_where_it_was_stopped() {
    let tasks = expand(&spec());
    for after in [u64::MAX, 5] {
        let folder = tempfile::tempdir().unwrap();
        let knobs = knobs(1);
        let (results, runs) = run(&folder.path().join("run"), &knobs, after);
        assert_eq!(runs == 1, after == u64::MAX, "{runs}");
        let mut computed = 0;
        for row in &results.tasks {
            computed += row.iterations;
            match row.state {
                TaskState::Succeeded => assert_eq!(row.iterations, EPOCHS * LENGTH),
                TaskState::Pruned => assert!([LENGTH, 3 * LENGTH].contains(&row.iterations), "{row:?}"),
                other => panic!("{other}"),
            }
            assert!(row.select.is_some(), "{row:?}");
        }
        assert_eq!(knobs.computed.load(SeqCst), computed, "nothing is computed twice");
        let succeeded = |row: &&mehl_soup::sweep::results::Row| row.state == TaskState::Succeeded;
        let soups = results.tasks.iter().filter(succeeded).filter(|row| row.method == MethodName::MehlPlus);
        let soups: Vec<&str> = soups.map(|row| row.task_id.as_str()).collect();
        assert_eq!(soups, [best_sample(&tasks).id.as_str()]);
        assert_eq!(winner(&results).unwrap().state, TaskState::Succeeded);
        // Once more: there is nothing left to do.
        let (again, _) = run(&folder.path().join("run"), &knobs, u64::MAX);
        assert_eq!(again, results);
        assert_eq!(knobs.computed.load(SeqCst), computed);
    }
}
