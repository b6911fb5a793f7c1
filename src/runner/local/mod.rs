//! A whole sweep on one machine: scheduler, store, queue and one worker for each device in one process, with the run folder as keeper.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the run from its beginning to its results |
//! | `keeper` | the run folder as what keeps tasks |
//! | `watch` | one device's worker, for people |
//!
//! Generic over the engine, so that everything that can go wrong around it is tested without libtorch.

mod keeper;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::keeper::FolderKeeper;
use self::watch::SlotWatch;
use super::engine::{EngineError, HostError, SoupEngine};
use super::pool::{AttemptSettings, Compute, Worker, WorkerError, WorkerSettings};
use super::reporter::Reporter;
use super::run_folder::{FolderError, RunFolder};
use crate::queue::InProcess;
use crate::scheduler::{PlanSettings, Scheduler, SchedulerSettings, Terms, scores_task, searched_sweep, soup_task};
use crate::search::{Reach, Search, Searches, first_tasks};
use crate::store::traits::{Admission, Reading};
use crate::store::{Kept, StoreError};
use crate::sweep::results::SweepResults;
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// Id of the one sweep.
const SWEEP: &str = "run";
/// In one process nobody can be lost without the others: longer than any run.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);
/// How long a worker tries again to keep what cannot be kept, before it ends.
const LOCAL_ORPHAN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time until an ending is noticed that nobody told.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How a run ended, if not with results.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The zoo, the data or the specification is at fault.
    #[error("{0}")]
    Input(String),
    /// The output folder is at fault.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Something could not be written; what was kept before is unharmed.
    #[error("{0}")]
    Host(#[from] HostError),
    /// Stopped by the user; run again to go on.
    #[error("stopped; run the same command again to continue")]
    Stopped,
    /// A fault of this program or of a library.
    #[error("{0}")]
    Internal(String),
}

/// A run's surroundings.
pub struct Surroundings {
    /// True to stop: every task keeps a checkpoint and ends.
    pub stop: Receiver<bool>,
    /// Told of everything.
    pub reporter: Arc<dyn Reporter>,
    /// Begin failed tasks anew.
    pub retry_failed: bool,
    /// What finds the tasks.
    pub searches: Searches,
}

/// A finished run.
pub struct Finished {
    /// What came of it.
    pub results: SweepResults,
    /// Whether `search.max_seconds` ended it before all tasks were done.
    pub out_of_time: bool,
}

/// What ends a run early: the first fault, and the wish to stop that follows from it.
#[derive(Debug)]
struct Ending {
    fault: Mutex<Option<RunError>>,
    stop: Sender<bool>,
}

impl Ending {
    fn new() -> Self {
        Self { fault: Mutex::new(None), stop: Sender::new(false) }
    }

    /// Ends the run; the first fault is the one that is told.
    fn end(&self, fault: RunError) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
        self.stop.send_replace(true);
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    fn take(&self) -> Option<RunError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs a sweep in a folder, from wherever it stands, with one engine for each of `slots` devices.
///
/// # Errors
/// As [`RunError`]; a task's own fault does not end the run.
pub fn run_sweep<E: SoupEngine + 'static>(
    spec: &Spec,
    folder: &Arc<RunFolder>,
    slots: usize,
    engine: &Arc<dyn Fn(usize) -> Result<E, EngineError> + Send + Sync>,
    surroundings: &Surroundings,
) -> Result<Finished, RunError> {
    let search = surroundings.searches.of(spec);
    let first = first_tasks(&*search);
    let known_tasks = || -> Result<Vec<Task>, FolderError> {
        Ok(first.iter().cloned().chain(folder.opened()?.into_values()).collect())
    };
    let tasks = known_tasks()?;
    let mut open = 0;
    for task in &tasks {
        match folder.outcome(&task.id)? {
            Some(outcome) if outcome.state == TaskState::Failed && surroundings.retry_failed => {
                folder.drop_outcome(&task.id)?;
                open += 1;
            }
            Some(_) => folder.drop_checkpoint(&task.id)?,
            None => open += 1,
        }
    }
    let known = folder.manifest()?;
    let complete = known.as_ref().is_some_and(|m| m.ingredients.iter().all(|entry| entry.select.is_some()));
    // If nothing is left to compute, results are written anew without opening the zoo. A search that
    // adds tasks has to say that first.
    let mut out_of_time = false;
    if !complete || open > 0 || search.reach() == Reach::Tasks {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| RunError::Internal(format!("cannot start threads: {e}")))?;
        out_of_time = runtime.block_on(compute(spec, folder, (&*search, &tasks, open), slots, engine, surroundings))?;
    }
    let manifest = folder.manifest()?.ok_or_else(|| RunError::Internal("no manifest was kept".to_string()))?;
    folder.write_spec(spec)?;
    let mut outcomes = BTreeMap::new();
    let tasks = known_tasks()?;
    for task in &tasks {
        let outcome = match folder.outcome(&task.id)? {
            Some(outcome) => Some(outcome),
            None => folder.standing(&task.id)?,
        };
        if let Some(outcome) = outcome {
            outcomes.insert(task.id.clone(), outcome);
        }
    }
    let mut results = SweepResults::build(spec, &manifest, &tasks, &outcomes);
    let mut units = BTreeMap::new();
    for task in results.compared() {
        if let Some(found) = folder.units(&task)? {
            units.insert(task, found);
        }
    }
    results.compare(|task| units.get(task));
    folder.write_results(&results)?;
    Ok(Finished { results, out_of_time })
}

/// Works on the tasks until none of them is open, as so many are now. Answers whether the time was over before.
async fn compute<E: SoupEngine + 'static>(
    spec: &Spec,
    folder: &Arc<RunFolder>,
    (search, tasks, open): (&dyn Search, &[Task], usize),
    slots: usize,
    engine: &Arc<dyn Fn(usize) -> Result<E, EngineError> + Send + Sync>,
    surroundings: &Surroundings,
) -> Result<bool, RunError> {
    let ending = Arc::new(Ending::new());
    let store = Arc::new(Kept::new(Arc::new(FolderKeeper::new(folder.clone(), spec.clone(), ending.clone()))));
    let queue = Arc::new(InProcess::default());
    let begun = Arc::new(AtomicUsize::new(0));
    admit(spec, search, tasks, &*store).await.map_err(broken)?;

    let mut workers = JoinSet::new();
    for slot in 0..slots {
        let watch = Arc::new(SlotWatch::new(
            slot,
            open,
            begun.clone(),
            folder.clone(),
            ending.clone(),
            surroundings.reporter.clone(),
        ));
        let (engine, fault) = (engine.clone(), ending.clone());
        let compute = Compute::start(move |_: &Spec| {
            engine(slot).map_err(|error| {
                // A device that cannot be used is no task's fault.
                fault.end(RunError::from(&error));
                EngineError::Stopped
            })
        })
        .map_err(|e| RunError::Internal(format!("cannot start a thread: {e}")))?;
        let settings = worker_settings(slot, spec);
        let (store, queue, stop) = (store.clone(), queue.clone(), ending.stop.subscribe());
        workers.spawn(async move {
            Worker { store: &*store, queue: &*queue, compute: &compute, settings: &settings, watch, stop }.serve().await
        });
    }
    let scheduler = {
        let (store, queue, stop) = (store.clone(), queue.clone(), ending.stop.subscribe());
        let settings = SchedulerSettings {
            plan: PlanSettings { window_per_worker: 0, window_extra: 2 * slots, ..PlanSettings::default() },
            searches: surroundings.searches.clone(),
            ..SchedulerSettings::default()
        };
        tokio::spawn(async move {
            Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &store.waits }.run(stop, &()).await
        })
    };

    let budget = spec.search.max_seconds.map_or(FOR_EVER, |seconds| Duration::from_secs_f64(seconds.min(1e9)));
    let mut asked = surroundings.stop.clone();
    let out_of_time = tokio::select! {
        done = finished(&store, &ending, &mut workers) => done.map(|()| false),
        () = sleep(budget) => Ok(true),
        () = wanted(&mut asked) => Err(RunError::Stopped),
    };
    ending.stop.send_replace(true);
    while let Some(joined) = workers.join_next().await {
        worker_ended(joined, &ending);
    }
    if let Err(error) = scheduler.await {
        ending.end(RunError::Internal(error.to_string()));
    }
    match ending.take() {
        Some(fault) => Err(fault),
        None if matches!(out_of_time, Ok(true)) && folder.manifest()?.is_none() => Err(RunError::Stopped),
        None => out_of_time,
    }
}

/// Until every task is in a final state, or the run is over for another reason.
async fn finished(
    store: &Kept<FolderKeeper>,
    ending: &Ending,
    workers: &mut JoinSet<Result<u64, WorkerError>>,
) -> Result<(), RunError> {
    loop {
        if ending.is_over() {
            return Ok(());
        }
        match store.sweep(SWEEP).await.map_err(broken)? {
            Some(sweep) if sweep.is_final() => return Ok(()),
            _ => {}
        }
        tokio::select! {
            () = store.changed.notified() => {}
            () = sleep(POLL_INTERVAL) => {}
            Some(joined) = workers.join_next() => worker_ended(joined, ending),
        }
    }
}

/// Tells the store of all tasks. Where each stands it knows from its keeper.
async fn admit(spec: &Spec, search: &dyn Search, tasks: &[Task], store: &impl Admission) -> Result<(), StoreError> {
    // Tasks that were interrupted keep their checkpoints, and tasks that crash here would crash again.
    let sweep = searched_sweep(SWEEP.to_string(), spec, search, Terms { attempts: 1, ..Terms::default() });
    store.create_sweep(&crate::store::NewSweep { max_seconds: 0, ..sweep }, None).await?;
    let tasks: Vec<_> = std::iter::once(scores_task()).chain(tasks.iter().map(soup_task)).collect();
    store.add_tasks(SWEEP, 0, &tasks).await?;
    store.open_sweep(SWEEP).await.map(drop)
}

fn worker_settings(slot: usize, spec: &Spec) -> WorkerSettings {
    let attempt = AttemptSettings {
        lease: FOR_EVER,
        checkpoint_interval: Duration::try_from_secs_f64(spec.compute.checkpoint_seconds).unwrap_or(FOR_EVER),
        stall: FOR_EVER,
        orphan: LOCAL_ORPHAN_TIMEOUT,
    };
    WorkerSettings { name: format!("device {slot}"), attempt, once: false, look: POLL_INTERVAL }
}

fn worker_ended(joined: Result<Result<u64, WorkerError>, tokio::task::JoinError>, ending: &Ending) {
    let fault = match joined {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    ending.end(RunError::Internal(fault));
}

/// The store of one process answers always, unless this program is wrong.
fn broken(error: StoreError) -> RunError {
    RunError::Internal(error.to_string())
}

impl From<&EngineError> for RunError {
    /// An engine's fault that ends the run.
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::Input(message) | EngineError::Numerics(message) => Self::Input(message.clone()),
            EngineError::Host(HostError(message)) => Self::Host(HostError(message.clone())),
            EngineError::Stopped => Self::Stopped,
            other => Self::Internal(other.to_string()),
        }
    }
}

/// Until the user wants to stop; for ever if nobody can want it any more.
async fn wanted(stop: &mut Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}
