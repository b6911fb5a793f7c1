//! The boundary between the control plane and the engine that computes: plain types, no tensor library.
//!
//! An engine lives on one device. It computes; the host decides what is saved, when to stop and what happens next.
//! Everything that must survive a crash passes through [`TaskHost::save`], so any host (files in a run folder, a
//! remote store) gets the same resumable task.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::checkpoint::Checkpoint;
use crate::sweep::manifest::Manifest;
pub use crate::sweep::outcome::{Completion, Effort, RungReached, Scores};
use crate::sweep::score::SplitScore;
use crate::sweep::task::Task;

/// Computes soup tasks on one device.
pub trait SoupEngine {
    /// The scores task: reads, hashes and checks the zoo and the data, and scores every ingredient on select.
    ///
    /// `known` holds what an earlier, interrupted attempt had already found out; entries whose hashes still agree are not scored again.
    fn scores(&mut self, known: Option<Manifest>, host: &mut dyn ScoresHost) -> Result<Manifest, EngineError>;

    /// Whether what this engine has open is still what a task of this manifest computes with: the same contents, in files that did not change since.
    /// One that does not suit is dropped, and another is made.
    fn suits(&self, _manifest: &Manifest) -> bool {
        true
    }

    /// Runs one task to its end, or until the host says stop.
    ///
    /// `resume` continues from a checkpoint; one of another task, zoo or schema is [`EngineError::ForeignCheckpoint`].
    fn run(
        &mut self,
        task: &Task,
        manifest: &Manifest,
        resume: Option<Checkpoint>,
        host: &mut dyn TaskHost,
    ) -> Result<Completion, EngineError>;
}

/// What the engine reports to while it runs the scores task.
pub trait ScoresHost {
    /// Called after every scored ingredient with all that is known so far; the host may keep it for a later attempt.
    fn scored(&mut self, so_far: &Manifest, done: usize, total: usize) -> Result<Directive, HostError>;
    /// Something a person should read.
    fn note(&mut self, message: &str);
}

/// What the engine reports to while it runs a task.
pub trait TaskHost {
    /// Called after every iteration, before the next begins.
    fn progress(&mut self, progress: &Progress) -> Directive;
    /// Whole epochs, as [`epochs`](crate::sweep::asha::epochs) counts them, after which the task is to stop at a rung; `None` if it runs to its end.
    fn rung(&self) -> Option<u64> {
        None
    }
    /// A model batch was read; how long that took.
    fn loaded(&mut self, _took: Duration) {}
    /// Keeps a checkpoint. When this returns `Ok`, a later attempt can begin from it.
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError>;
    /// Something a person should read.
    fn note(&mut self, message: &str);
}

/// What the engine shall do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Go on.
    Continue,
    /// Hand out a checkpoint, then go on.
    Checkpoint,
    /// Hand out a checkpoint, then return [`EngineError::Stopped`].
    Stop,
}

/// One iteration, as reported.
///
/// In JSON the score on select is a field for each value: `select_loss`, `select_accuracy`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// Iterations of this task so far, over all attempts.
    pub iterations: u64,
    /// Iterations that the task has in all if nothing stops early.
    pub planned_iterations: u64,
    /// Loss on this iteration's batch; for methods without gradients the last select loss.
    pub learn_loss: f64,
    /// Score on select when it was last scored, if it was.
    #[serde(flatten, serialize_with = "select_fields")]
    pub select: Option<SplitScore>,
    /// Samples of this iteration over its seconds.
    pub samples_per_second: f64,
    /// Bytes of memory now resident in this process.
    pub host_bytes: u64,
    /// Memory of the device, where it is not the host and can tell.
    pub device: Option<DeviceMemory>,
    /// What the iteration took; `None` for a step that is no iteration, such as a candidate of a greedy soup. For metrics: nobody keeps it.
    #[serde(skip)]
    pub iteration: Option<Iteration>,
    /// What is being done, in a word or two.
    pub stage: &'static str,
}

/// `select_NAME` of each value; without a score `select_loss` alone, null.
fn select_fields<S: Serializer>(select: &Option<SplitScore>, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    match select {
        None => map.serialize_entry("select_loss", &None::<f64>)?,
        Some(score) => {
            for (metric, estimate) in score.all() {
                map.serialize_entry(&format!("select_{metric}"), &estimate.value)?;
            }
        }
    }
    map.end()
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// In use by tensors.
    pub allocated: u64,
    /// Held by the allocator.
    pub reserved: u64,
    /// The most that was allocated at a time.
    pub peak: u64,
}

/// Phases of an iteration.
pub const PHASES: usize = 7;

/// What one iteration took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Iteration {
    /// Learn samples that went through a backward pass.
    pub samples: u64,
    /// Seconds by phase, in order: data, mix, forward, backward, project, update, and snapshot, which is the checkpoint that was made before it.
    /// By the clock of the host: on CUDA, what was queued in one phase may be waited for in another.
    pub phases: [(&'static str, f64); PHASES],
}

/// Why an engine gave up, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The input is at fault: the task fails, another attempt would end the same way.
    #[error("{0}")]
    Input(String),
    /// The computation went wrong in a way that another attempt would repeat: NaN loss, for example.
    #[error("{0}")]
    Numerics(String),
    /// The device or the host ran out of memory.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The checkpoint belongs to something else or is damaged: start the task anew.
    #[error("cannot use the checkpoint: {0}")]
    ForeignCheckpoint(String),
    /// The host could not keep a checkpoint: end the run.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Stopped as the host asked, after its checkpoint was kept.
    #[error("stopped")]
    Stopped,
    /// Stopped at the rung that the host named, after its checkpoint was kept.
    #[error("stopped at a rung")]
    AtRung(Box<RungReached>),
    /// A fault of the tensor library or of this program.
    #[error("{0}")]
    Internal(String),
}

/// The host could not keep something; holds the message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);
