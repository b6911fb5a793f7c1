//! The thread that computes. It owns the engine, and with it every tensor; network and clocks live elsewhere, so that heartbeats never starve.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::link::{Link, Snapshot};
use super::watch::WorkerObserver;
use crate::checkpoint::Checkpoint;
use crate::runner::engine::{
    Completion, Directive, EngineError, HostError, Progress, ScoresHost, SoupEngine, TaskHost,
};
use crate::sweep::manifest::Manifest;
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;
use crate::task::TaskKey;

/// What is to be computed.
#[derive(Debug, Clone)]
pub enum Work {
    /// The scores task, from what an earlier attempt had found out.
    Scores(Option<Manifest>),
    /// A soup task.
    Task {
        /// The task.
        task: Box<Task>,
        /// The sweep's manifest.
        manifest: Manifest,
        /// Where to go on.
        resume: Option<Box<Checkpoint>>,
        /// Whole epochs after which it is to stop at its next rung, if it has one.
        rung: Option<u64>,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Output {
    /// The manifest.
    Scores(Manifest),
    /// The soup.
    Task(Completion),
}

/// A job for the compute thread.
pub struct Job {
    /// The sweep's specification.
    pub spec: Spec,
    /// What to compute.
    pub work: Work,
    /// Number of the last checkpoint that the store has.
    pub sequence: u64,
    /// Shortest time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// Shared with the asynchronous side.
    pub link: Arc<Link>,
    /// The task.
    pub key: TaskKey,
    /// Told of what happens.
    pub watch: Arc<dyn WorkerObserver>,
    /// What is said while it is computed is said within this.
    pub span: tracing::Span,
    /// Told the end.
    pub done: oneshot::Sender<Result<Output, EngineError>>,
}

/// A handle on the compute thread. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub struct Compute {
    jobs: mpsc::Sender<Job>,
    busy: Arc<Busy>,
}

/// What the thread is at.
#[derive(Debug, Default)]
struct Busy {
    /// Jobs that were handed over and have not ended, oldest first.
    links: Mutex<Vec<Arc<Link>>>,
    /// Told when one has ended.
    ended: Condvar,
}

impl Busy {
    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        // What is behind the lock is whole at any moment.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self, link: &Arc<Link>) {
        self.links().retain(|other| !Arc::ptr_eq(other, link));
        self.ended.notify_all();
    }
}

impl Compute {
    /// Starts the thread; `make` gives an engine for a specification, and is called on the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<E: SoupEngine + 'static>(
        make: impl Fn(&Spec) -> Result<E, EngineError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let busy = Arc::new(Busy::default());
        let at = busy.clone();
        std::thread::Builder::new().name("compute".to_string()).spawn(move || {
            // An engine has its sweep's inputs open: the next task of the same sweep finds them so.
            let mut kept: Option<(String, E)> = None;
            while let Ok(job) = queue.recv() {
                let _within = job.span.clone().entered();
                let identity = job.spec.identity();
                let suits = |engine: &E| match &job.work {
                    // Its whole point is to look at the inputs as they are now.
                    Work::Scores(_) => false,
                    Work::Task { manifest, .. } => engine.suits(manifest),
                };
                let engine =
                    kept.take().filter(|(of, engine)| *of == identity && suits(engine)).map(|(_, engine)| engine);
                let ran = catch_unwind(AssertUnwindSafe(|| {
                    let mut engine = match engine {
                        Some(engine) => engine,
                        None => make(&job.spec)?,
                    };
                    let output = compute(&mut engine, &job);
                    Ok::<_, EngineError>((engine, output))
                }));
                let output = match ran {
                    Ok(Ok((engine, output))) => {
                        // After an error, what it has open may be what is at fault.
                        if output.as_ref().err().is_none_or(leaves_engine_whole) {
                            kept = Some((identity, engine));
                        }
                        output
                    }
                    Ok(Err(error)) => Err(error),
                    // What it left behind is not to be trusted; the next task gets a new engine.
                    Err(panic) => Err(EngineError::Internal(panic_message(panic.as_ref()))),
                };
                // Nobody listens any more if the attempt was given up: then nobody wants the result either.
                drop(job.done.send(output));
                at.has_ended(&job.link);
            }
        })?;
        Ok(Self { jobs, busy })
    }

    /// Hands over a job. If the thread is gone, `done` is dropped, which its receiver notices.
    pub fn submit(&self, job: Job) {
        self.busy.links().push(job.link.clone());
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            self.busy.has_ended(&job.link);
        }
    }

    /// Asks the thread to end what it is at, and waits for that. Answers whether it did within
    /// `patience`. A process must not run its exit handlers while the thread computes: libtorch's
    /// own would take away what it computes with.
    pub fn finish(&self, patience: Duration) -> bool {
        let links = self.busy.links();
        links.iter().for_each(|link| link.stop());
        let waited = self.busy.ended.wait_timeout_while(links, patience, |links| !links.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }
}

/// Whether an engine that ended so can be used again as it is.
fn leaves_engine_whole(error: &EngineError) -> bool {
    matches!(error, EngineError::Stopped | EngineError::AtRung(_) | EngineError::ForeignCheckpoint(_))
}

/// What a panic said, as far as it can be known.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", message.unwrap_or("no message"))
}

fn compute<E: SoupEngine>(engine: &mut E, job: &Job) -> Result<Output, EngineError> {
    let mut host = Host { job, sequence: job.sequence, last_save: Instant::now() };
    match &job.work {
        Work::Scores(known) => engine.scores(known.clone(), &mut host).map(Output::Scores),
        Work::Task { task, manifest, resume, .. } => {
            engine.run(task, manifest, resume.as_deref().cloned(), &mut host).map(Output::Task)
        }
    }
}

/// The engine's host: it only leaves things where the other side finds them.
struct Host<'a> {
    job: &'a Job,
    sequence: u64,
    last_save: Instant,
}

impl Host<'_> {
    fn keep(&mut self, bytes: Vec<u8>, reached: u64) {
        self.sequence += 1;
        self.last_save = Instant::now();
        self.job.link.offer(Snapshot { sequence: self.sequence, bytes, reached });
    }
}

impl TaskHost for Host<'_> {
    fn progress(&mut self, progress: &Progress) -> Directive {
        self.job.link.advance(Some(progress));
        self.job.watch.iteration(&self.job.key, progress);
        if self.job.link.is_stopped() {
            Directive::Stop
        } else if self.last_save.elapsed() >= self.job.checkpoint_interval {
            Directive::Checkpoint
        } else {
            Directive::Continue
        }
    }

    fn rung(&self) -> Option<u64> {
        match self.job.work {
            Work::Scores(_) => None,
            Work::Task { rung, .. } => rung,
        }
    }

    fn loaded(&mut self, took: Duration) {
        self.job.watch.loaded(took);
    }

    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        self.keep(checkpoint.to_bytes(), checkpoint.totals.effort.iterations);
        Ok(())
    }

    fn note(&mut self, message: &str) {
        self.job.link.advance(None);
        self.job.watch.say(message);
    }
}

impl ScoresHost for Host<'_> {
    fn scored(&mut self, so_far: &Manifest, done: usize, total: usize) -> Result<Directive, HostError> {
        self.job.link.advance(None);
        self.job.watch.scored(so_far, done, total);
        let bytes = serde_json::to_vec(so_far).map_err(|e| HostError(format!("cannot store the manifest: {e}")))?;
        let scored = so_far.ingredients.iter().filter(|entry| entry.select.is_some()).count();
        self.keep(bytes, scored as u64);
        Ok(if self.job.link.is_stopped() { Directive::Stop } else { Directive::Continue })
    }

    fn note(&mut self, message: &str) {
        self.job.link.advance(None);
        self.job.watch.say(message);
    }
}
