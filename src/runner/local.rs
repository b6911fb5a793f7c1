//! A whole sweep on one machine: the scores task, then every task on the devices at hand, then results and the winner's model.
//!
//! Generic over the engine, so that everything that can go wrong around it is tested without libtorch.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::engine::{
    Completion, Directive, Effort, EngineError, HostError, Progress, ScoresHost, SoupEngine, TaskHost,
};
use super::reporter::Reporter;
use super::run_folder::{FolderError, RunFolder};
use crate::checkpoint::Checkpoint;
use crate::sweep::expand::expand;
use crate::sweep::manifest::Manifest;
use crate::sweep::results::{SweepResults, TaskOutcome};
use crate::sweep::spec::Spec;
use crate::task::{Task, TaskState};

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
    #[error("stopped; run the same command again to go on")]
    Stopped,
    /// A fault of this program or of a library.
    #[error("{0}")]
    Internal(String),
}

/// A run's surroundings.
pub struct Surroundings<'a> {
    /// Set to stop: every task keeps a checkpoint and ends.
    pub stop: &'a AtomicBool,
    /// Told of everything.
    pub reporter: &'a dyn Reporter,
    /// Begin failed tasks anew.
    pub retry_failed: bool,
}

/// A finished run.
pub struct Finished {
    /// What came of it.
    pub results: SweepResults,
    /// Whether `search.max_seconds` ended it before all tasks were done.
    pub out_of_time: bool,
}

/// Runs a sweep in a folder, from wherever it stands, with one engine for each of `slots` devices.
///
/// # Errors
/// As [`RunError`]; a task's own fault does not end the run.
pub fn run_sweep<E: SoupEngine>(
    spec: &Spec,
    folder: &RunFolder,
    slots: usize,
    engine: &(dyn Fn(usize) -> Result<E, EngineError> + Sync),
    surroundings: &Surroundings<'_>,
) -> Result<Finished, RunError> {
    let began = Instant::now();
    let deadline = spec.search.max_seconds.map(|seconds| began + Duration::from_secs_f64(seconds.min(1e9)));
    let tasks = expand(spec);
    let mut waiting = VecDeque::new();
    for task in &tasks {
        match folder.outcome(&task.id)? {
            Some(outcome) if outcome.state == TaskState::Failed && surroundings.retry_failed => {
                folder.drop_outcome(&task.id)?;
                waiting.push_back(task);
            }
            Some(_) => folder.drop_checkpoint(&task.id)?,
            None => waiting.push_back(task),
        }
    }
    let known = folder.manifest()?;
    let complete = known.as_ref().is_some_and(|m| m.ingredients.iter().all(|entry| entry.select.is_some()));
    let mut first_engine = None;
    let manifest = match known {
        // Nothing is left to compute: results are written anew without opening the zoo.
        Some(manifest) if complete && waiting.is_empty() => manifest,
        known => {
            let mut host = FolderScoresHost { folder, surroundings, deadline };
            let scores = AssertUnwindSafe(|| {
                let mut engine = engine(0)?;
                let manifest = engine.scores(known, &mut host)?;
                Ok((engine, manifest))
            });
            let (engine, manifest) = catch_unwind(scores)
                .unwrap_or_else(|panic| Err(EngineError::Internal(panic_message(panic.as_ref()))))
                .map_err(fatal)?;
            folder.write_manifest(&manifest)?;
            first_engine = Some(engine);
            manifest
        }
    };

    let queue = Queue { waiting: Mutex::new(waiting), failure: Mutex::new(None), failed: AtomicBool::new(false) };
    let context = Context { spec, folder, manifest: &manifest, surroundings, deadline, queue: &queue };
    std::thread::scope(|scope| {
        // The first engine has its inputs open already; it stays on this thread, as an engine never changes its thread.
        for slot in 1..slots {
            let context = &context;
            scope.spawn(move || context.work(slot, None, engine));
        }
        context.work(0, first_engine, engine);
    });
    if let Some(error) = queue.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        return Err(error);
    }
    if surroundings.stop.load(Ordering::Relaxed) {
        return Err(RunError::Stopped);
    }
    let mut outcomes = BTreeMap::new();
    for task in &tasks {
        if let Some(outcome) = folder.outcome(&task.id)? {
            outcomes.insert(task.id.clone(), outcome);
        }
    }
    let out_of_time = outcomes.len() < tasks.len();
    let results = SweepResults::build(spec, &manifest, &tasks, &outcomes);
    folder.write_results(&results)?;
    Ok(Finished { results, out_of_time })
}

/// An engine's fault in the scores task ends the run.
fn fatal(error: EngineError) -> RunError {
    match error {
        EngineError::Input(message) | EngineError::Numerics(message) => RunError::Input(message),
        EngineError::Host(error) => RunError::Host(error),
        EngineError::Stopped => RunError::Stopped,
        other => RunError::Internal(other.to_string()),
    }
}

/// What a panic said, as far as it can be known.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", message.unwrap_or("no message"))
}

struct Queue<'a> {
    waiting: Mutex<VecDeque<&'a Task>>,
    failure: Mutex<Option<RunError>>,
    failed: AtomicBool,
}

struct Context<'a> {
    spec: &'a Spec,
    folder: &'a RunFolder,
    manifest: &'a Manifest,
    surroundings: &'a Surroundings<'a>,
    deadline: Option<Instant>,
    queue: &'a Queue<'a>,
}

impl Context<'_> {
    /// Works on tasks until there are none, or something ends the run.
    fn work<E: SoupEngine>(
        &self,
        slot: usize,
        mut engine: Option<E>,
        make: &(dyn Fn(usize) -> Result<E, EngineError> + Sync),
    ) {
        while !self.is_over() {
            let next =
                self.queue.waiting.lock().ok().and_then(|mut waiting| Some((waiting.pop_front()?, waiting.len())));
            let Some((task, left)) = next else { return };
            self.surroundings.reporter.started(slot, task, left);
            let ready = match engine.take() {
                Some(engine) => Ok(engine),
                None => catch_unwind(AssertUnwindSafe(|| make(slot)))
                    .unwrap_or_else(|panic| Err(EngineError::Internal(panic_message(panic.as_ref())))),
            };
            let ended = ready.map_err(fatal).and_then(|ready| {
                let (ended, kept) = self.attempt(slot, task, ready)?;
                engine = kept;
                Ok(ended)
            });
            match ended {
                Ok(Some(outcome)) => self.surroundings.reporter.finished(slot, task, &outcome),
                Ok(None) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Runs one task and keeps its outcome. `None`: it was stopped. Gives the engine back unless it panicked.
    fn attempt<E: SoupEngine>(
        &self,
        slot: usize,
        task: &Task,
        mut engine: E,
    ) -> Result<(Option<TaskOutcome>, Option<E>), RunError> {
        let mut resume = match self.folder.checkpoint(&task.id)?.map(|bytes| Checkpoint::from_bytes(&bytes)) {
            None => None,
            Some(Ok(checkpoint)) => Some(checkpoint),
            Some(Err(error)) => {
                self.refuse_checkpoint(task, &error.to_string())?;
                None
            }
        };
        let attempts = resume.as_ref().map_or(0, |checkpoint| checkpoint.totals.attempts) + 1;
        let mut effort = resume.as_ref().map_or_else(Effort::default, |checkpoint| checkpoint.totals.effort);
        let began = Instant::now();
        loop {
            let mut host = FolderTaskHost { context: self, slot, task, last_save: Instant::now() };
            let run = AssertUnwindSafe(|| engine.run(task, self.manifest, resume.take(), &mut host));
            let result = match catch_unwind(run) {
                Ok(result) => result,
                Err(panic) => {
                    let outcome = TaskOutcome::failed(panic_message(panic.as_ref()), effort, attempts);
                    self.folder.complete(&task.id, &outcome, None)?;
                    // What it left behind is not to be trusted; the next task gets a new one.
                    return Ok((Some(outcome), None));
                }
            };
            let outcome = match result {
                Ok(completion) => self.succeed(task, completion)?,
                Err(EngineError::ForeignCheckpoint(why)) => {
                    self.refuse_checkpoint(task, &why)?;
                    continue;
                }
                Err(EngineError::Stopped) => return Ok((None, Some(engine))),
                Err(EngineError::Host(error)) => return Err(RunError::Host(error)),
                Err(error) => {
                    effort.seconds += began.elapsed().as_secs_f64();
                    let outcome = TaskOutcome::failed(error.to_string(), effort, attempts);
                    self.folder.complete(&task.id, &outcome, None)?;
                    outcome
                }
            };
            return Ok((Some(outcome), Some(engine)));
        }
    }

    fn succeed(&self, task: &Task, completion: Completion) -> Result<TaskOutcome, RunError> {
        let outcome = TaskOutcome::succeeded(&completion, completion.attempts);
        self.folder.complete(&task.id, &outcome, Some(&completion.coefficients))?;
        Ok(outcome)
    }

    fn refuse_checkpoint(&self, task: &Task, why: &str) -> Result<(), RunError> {
        self.surroundings.reporter.note(&format!("task {}: checkpoint refused ({why}); the task begins anew", task.id));
        Ok(self.folder.drop_checkpoint(&task.id)?)
    }

    fn is_over(&self) -> bool {
        self.surroundings.stop.load(Ordering::Relaxed)
            || self.queue.failed.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn fail(&self, error: RunError) {
        self.queue.failed.store(true, Ordering::Relaxed);
        let mut failure = self.queue.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.get_or_insert(error);
    }
}

/// Keeps a task's checkpoints in the run folder.
struct FolderTaskHost<'a, 'b> {
    context: &'a Context<'b>,
    slot: usize,
    task: &'a Task,
    last_save: Instant,
}

impl TaskHost for FolderTaskHost<'_, '_> {
    fn progress(&mut self, progress: &Progress) -> Directive {
        self.context.surroundings.reporter.progress(self.slot, self.task, progress);
        if self.context.is_over() {
            Directive::Stop
        } else if self.last_save.elapsed().as_secs_f64() >= self.context.spec.compute.checkpoint_seconds {
            Directive::Checkpoint
        } else {
            Directive::Continue
        }
    }

    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        self.context
            .folder
            .write_checkpoint(&self.task.id, &checkpoint.to_bytes())
            .map_err(|error| HostError(format!("cannot keep the checkpoint of task {}: {error}", self.task.id)))?;
        self.last_save = Instant::now();
        Ok(())
    }

    fn note(&mut self, message: &str) {
        self.context.surroundings.reporter.note(message);
    }
}

/// Keeps the scores of ingredients in the run folder.
struct FolderScoresHost<'a> {
    folder: &'a RunFolder,
    surroundings: &'a Surroundings<'a>,
    deadline: Option<Instant>,
}

impl ScoresHost for FolderScoresHost<'_> {
    fn scored(&mut self, so_far: &Manifest, done: usize, total: usize) -> Result<Directive, HostError> {
        self.folder
            .write_manifest(so_far)
            .map_err(|error| HostError(format!("cannot keep the ingredients' scores: {error}")))?;
        if let Some((entry, score)) =
            so_far.ingredients.get(done - 1).and_then(|entry| Some((entry, entry.select.as_ref()?)))
        {
            self.surroundings.reporter.scored(&entry.name, score.loss, score.accuracy, done, total);
        }
        let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let stop = over || self.surroundings.stop.load(Ordering::Relaxed);
        Ok(if stop { Directive::Stop } else { Directive::Continue })
    }

    fn note(&mut self, message: &str) {
        self.surroundings.reporter.note(message);
    }
}
