//! A search that is none of this program's: it adds a task whose hyperparameters depend on results. It
//! is driven by the real scheduler, with workers and a store in memory, and by the real local run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::dying::{Dying, Fuse};
use crate::support::piecemeal::piecemeal;
use crate::support::stub_engine::{Knobs, Stub, stub};
use mehl_soup::queue::InProcess;
use mehl_soup::runner::engine::{EngineError, Progress};
use mehl_soup::runner::local::{RunError, Surroundings, run_sweep};
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, Worker, WorkerSettings};
use mehl_soup::runner::reporter::Reporter;
use mehl_soup::runner::run_folder::RunFolder;
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, scores_task, searched_sweep, soup_task};
use mehl_soup::search::{AtRung, Decision, History, Reach, Search, Searches, SeenTask, first_tasks};
use mehl_soup::store::Memory;
use mehl_soup::store::traits::*;
use mehl_soup::sweep::expand::{chosen_task, expand};
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::results::{SweepResults, TaskOutcome};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::{Overrides, Spec};
use mehl_soup::sweep::task::{Origin, Task};
use mehl_soup::task::TaskState;
use tokio::sync::{Notify, watch};

const PATIENCE: Duration = Duration::from_secs(60);
/// Baselines of the specification below.
const BASELINES: usize = 2;
/// Epochs of a whole task, so that the rungs are after 1 and 3.
const EPOCHS: u64 = 9;
/// Iterations of an epoch.
const LENGTH: u64 = 2;

/// The stub's engine scores a task at a rung by its learning rate, and a finished one with 1.
fn spec() -> Spec {
    let text = format!(
        "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\nsoup.method = 'mehl+'\nsoup.outer_epochs = {EPOCHS}\n\
         search = {{ strategy = 'asha', tasks = 1, eta = 3 }}"
    );
    parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap()
}

/// Opens two tasks. At the first rung the worse one ends. Once the better one has succeeded, a third
/// is opened, with half of its learning rate and its loss as weight decay.
struct Scripted {
    spec: Spec,
}

impl Scripted {
    fn chosen(&self, number: usize, rate: f64, decay: f64) -> Decision {
        let values = [("learning_rate", rate.into()), ("weight_decay", decay.into())];
        let overrides: Overrides = values.map(|(key, value)| (key.to_string(), value)).into();
        Decision::Open(Box::new(chosen_task(&self.spec, number, overrides).unwrap()))
    }

    fn at_rungs(&self, searched: &[SeenTask]) -> Vec<Decision> {
        let [Some(first), Some(second)] = [0, 1].map(|place| searched[place].rungs.first()) else { return vec![] };
        let worse = usize::from(first.loss < second.loss);
        let waiting = searched.iter().enumerate().filter(|(_, task)| task.state == TaskState::Waiting);
        let decided = waiting.map(|(place, task)| {
            let at = AtRung { place: BASELINES + place, rung: task.rungs.len() as u32 - 1 };
            if place == worse { Decision::Prune(at) } else { Decision::Promote(at) }
        });
        decided.collect()
    }
}

impl Search for Scripted {
    fn reach(&self) -> Reach {
        Reach::Tasks
    }

    fn reads_results(&self) -> bool {
        true
    }

    fn decide(&self, history: &History) -> Vec<Decision> {
        if history.tasks.is_empty() {
            let baselines = expand(&self.spec).into_iter().filter(|task| task.origin == Origin::Baseline);
            let mut first: Vec<_> = baselines.map(|task| Decision::Open(Box::new(task))).collect();
            first.extend([self.chosen(1, 0.02, 0.0), self.chosen(2, 0.01, 0.0)]);
            return first;
        }
        let searched = &history.tasks[BASELINES..];
        let mut decisions = self.at_rungs(searched);
        let finished = searched.iter().find_map(|seen| Some((seen.task.as_ref()?, seen.select.as_ref()?)));
        match (searched.len(), finished) {
            (2, Some((task, select))) => {
                decisions.push(self.chosen(3, task.soup.learning_rate / 2.0, select.loss));
                // Opened with the last task, or after a crash between the two.
                decisions.push(Decision::Close);
            }
            (3, _) => decisions.push(Decision::Close),
            _ => {}
        }
        decisions
    }
}

fn scripted() -> Searches {
    Searches::new(|spec| Arc::new(Scripted { spec: spec.clone() }))
}

fn knobs() -> Arc<Knobs> {
    let knobs = Arc::new(Knobs::default());
    knobs.iterations.store(EPOCHS * LENGTH, SeqCst);
    knobs.millis.store(1, SeqCst);
    knobs
}

type SharedStore = Dying<Memory>;

/// A sweep `s` of this search in a new store that burns at a point, with two workers.
struct Pool {
    store: Arc<SharedStore>,
    queue: Arc<InProcess>,
    fuse: Arc<Fuse>,
    searches: Searches,
    stop: watch::Sender<bool>,
    parts: Vec<tokio::task::JoinHandle<()>>,
}

impl Pool {
    async fn new(searches: Searches, spec: &Spec, knobs: &Arc<Knobs>, point: &str) -> Self {
        let fuse = Fuse::holding(point);
        let store = Arc::new(Dying { inner: Memory::default(), fuse: fuse.clone() });
        let search = searches.of(spec);
        let new = searched_sweep("s".into(), spec, &*search, Terms::default());
        store.create_sweep(&new, None).await.unwrap();
        let first = first_tasks(&*search);
        let tasks: Vec<_> = std::iter::once(scores_task()).chain(first.iter().map(soup_task)).collect();
        store.add_tasks("s", 0, &tasks).await.unwrap();
        store.open_sweep("s").await.unwrap().unwrap();
        let (queue, stop) = (Arc::new(InProcess::default()), watch::Sender::new(false));
        let mut pool = Self { store, queue, fuse, searches, stop, parts: vec![] };
        for name in ["a", "b"] {
            pool.work(name, knobs).await;
        }
        pool
    }

    async fn work(&mut self, name: &'static str, knobs: &Arc<Knobs>) {
        self.store.beat(name, PATIENCE, "{}").await.unwrap();
        let (store, queue, stop) = (self.store.clone(), self.queue.clone(), self.stop.subscribe());
        let compute = Compute::start(stub(knobs)).unwrap();
        self.parts.push(tokio::spawn(async move {
            let attempt = AttemptSettings {
                lease: Duration::from_secs(30),
                checkpoint_interval: Duration::ZERO,
                stall: PATIENCE,
                orphan: PATIENCE,
            };
            let settings = WorkerSettings { name: name.into(), attempt, once: false, look: Duration::from_millis(20) };
            let watch = Arc::new(Lines);
            let worker = Worker { store: &*store, queue: &*queue, compute: &compute, settings: &settings, watch, stop };
            worker.serve().await.unwrap();
        }));
    }

    fn schedule(&self) -> tokio::task::JoinHandle<()> {
        let (store, queue, stop) = (self.store.clone(), self.queue.clone(), self.stop.subscribe());
        let searches = self.searches.clone();
        tokio::spawn(async move {
            let interval = Duration::from_millis(10);
            let settings = SchedulerSettings { interval, searches, ..SchedulerSettings::default() };
            let wake = Notify::new();
            Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &wake }.run(stop, &()).await;
        })
    }

    /// Until the sweep has ended; then its tasks, as they were added, and their states.
    async fn ended(self) -> Vec<(Task, TaskState)> {
        let is_final = async || self.store.sweep("s").await.unwrap().unwrap().is_final();
        let ended = async {
            while !is_final().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the sweep ends");
        self.stop.send_replace(true);
        for part in self.parts {
            part.await.unwrap();
        }
        let records = self.store.tasks("s", 1, 100).await.unwrap();
        let keys: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
        let bodies = self.store.bodies(&keys).await.unwrap();
        let tasks = bodies.iter().map(|body| serde_json::from_str(body.as_ref().unwrap()).unwrap());
        tasks.zip(records.iter().map(|record| record.state)).collect()
    }
}

/// What the script makes of the stub's scores, whatever happens on the way.
fn as_scripted(ended: &[(Task, TaskState)]) {
    let ids: Vec<_> = ended.iter().map(|(task, state)| (task.id.as_str(), *state)).collect();
    use TaskState::{Pruned, Succeeded};
    let expected = [
        ("best", Succeeded),
        ("uniform", Succeeded),
        ("0001-mehl+", Pruned),
        ("0002-mehl+", Succeeded),
        ("0003-mehl+", Succeeded),
    ];
    assert_eq!(ids, expected);
    let soup = &ended[4].0.soup;
    assert_eq!((soup.learning_rate, soup.weight_decay), (0.005, 1.0), "half the better rate, and its loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_carry_out_the_script() {
    let mut pool = Pool::new(scripted(), &spec(), &knobs(), "never").await;
    pool.parts.extend([pool.schedule(), pool.schedule()]);
    as_scripted(&pool.ended().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_may_end_before_or_after_any_call_for_a_search() {
    for call in ["extend", "close", "release_pending", "promote", "prune"] {
        for when in ["before", "after"] {
            let pool = Pool::new(scripted(), &spec(), &knobs(), &format!("{call}:{when}")).await;
            let first = pool.schedule();
            tokio::time::timeout(PATIENCE, pool.fuse.held()).await.expect("the call is made");
            first.abort();
            assert!(first.await.unwrap_err().is_cancelled());
            let second = pool.schedule();
            as_scripted(&pool.ended().await);
            second.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_whose_tasks_come_one_after_another_has_those_of_the_whole_grid() {
    let text = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\nsearch.space.batch = [1, 2, 3]";
    let spec = parse_spec_text(text, Format::Toml, Path::new("/base")).unwrap();
    let mut pool = Pool::new(piecemeal(), &spec, &knobs(), "never").await;
    pool.parts.push(pool.schedule());
    let ended = pool.ended().await;
    assert!(ended.iter().all(|(_, state)| *state == TaskState::Succeeded));
    assert_eq!(ended.into_iter().map(|(task, _)| task).collect::<Vec<_>>(), expand(&spec));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_gets_no_more_tasks_than_the_sweep_may_have() {
    struct Endless(Spec);
    impl Search for Endless {
        fn reach(&self) -> Reach {
            Reach::Tasks
        }
        fn decide(&self, history: &History) -> Vec<Decision> {
            let place = history.tasks.len() + 1;
            let values = Overrides::from([("seed".to_string(), place.into())]);
            vec![Decision::Open(Box::new(chosen_task(&self.0, place, values).unwrap()))]
        }
    }
    let searches = Searches::new(|spec| Arc::new(Endless(spec.clone())));
    let text = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'";
    let spec = parse_spec_text(text, Format::Toml, Path::new("/base")).unwrap();
    let search = searches.of(&spec);
    let terms = Terms { task_limit: 4, ..Terms::default() };
    assert_eq!(searched_sweep("s".into(), &spec, &*search, terms).task_limit, 4);
    let mut pool = Pool::new(searches, &spec, &knobs(), "never").await;
    // As many as it has by default would take long.
    pool.store.discard("s", 100).await.unwrap();
    pool.store.create_sweep(&searched_sweep("s".into(), &spec, &*search, terms), None).await.unwrap();
    pool.store.add_tasks("s", 0, &[scores_task(), soup_task(&first_tasks(&*search)[0])]).await.unwrap();
    pool.store.open_sweep("s").await.unwrap();
    pool.parts.push(pool.schedule());
    let ended = pool.ended().await;
    assert_eq!(ended.len(), 3, "its scores task is counted");
    assert!(ended.iter().all(|(_, state)| *state == TaskState::Succeeded));
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

/// Runs the script on one machine with two devices until it is done, stopped after so many iterations
/// each time. Answers what came of it and how many runs it took.
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
        let surroundings = Surroundings { stop: stopped, reporter, retry_failed: false, searches: scripted() };
        match run_sweep(&spec, &folder, 2, &engine, &surroundings) {
            Ok(finished) => return (finished.results, runs),
            Err(RunError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not end");
}

#[test]
fn on_one_machine_the_script_goes_on_where_it_was_stopped() {
    let mut whole: Option<Vec<(String, TaskState)>> = None;
    for after in [u64::MAX, 5] {
        let folder = tempfile::tempdir().unwrap();
        let (root, knobs) = (folder.path().join("run"), knobs());
        let (results, runs) = run(&root, &knobs, after);
        assert_eq!(runs == 1, after == u64::MAX, "{runs}");
        let computed: u64 = results.tasks.iter().map(|row| row.iterations).sum();
        assert_eq!(knobs.computed.load(SeqCst), computed, "nothing is computed twice");
        assert_eq!(computed, (4 * EPOCHS + 1) * LENGTH, "one of five was stopped after an epoch");
        let third = results.tasks.iter().find(|row| row.task_id == "0003-mehl+").unwrap();
        let soup = &third.hyperparameters.soup;
        assert_eq!((soup.learning_rate, soup.weight_decay), (0.005, 1.0));
        let mut rows: Vec<_> = results.tasks.iter().map(|row| (row.task_id.clone(), row.state)).collect();
        rows.sort();
        assert_eq!(whole.get_or_insert_with(|| rows.clone()), &rows);
        // Once more: the search is asked, and opens nothing.
        let (again, _) = run(&root, &knobs, u64::MAX);
        assert_eq!(again, results);
        assert_eq!(knobs.computed.load(SeqCst), computed);
    }
}
