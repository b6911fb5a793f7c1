//! The content of a checkpoint. It is complete: a task continues from it with nothing else but the zoo and the data.

use serde::{Deserialize, Serialize};

use crate::coefficients::Coefficients;
use crate::sweep::outcome::Effort;
use crate::sweep::score::SplitScore;
use crate::sweep::spec::{ComputeDtype, LinearLibrary};

/// Version of the checkpoint's format; a checkpoint of another is refused.
pub const SCHEMA: u32 = 1;

/// A task's state between two iterations.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Hash of the task's hyperparameters, the zoo's and the data's content.
    pub identity: String,
    /// What computed it.
    pub build: Build,
    /// `A` over all ingredients, after the last finished model batch.
    pub coefficients: Coefficients,
    /// Finished model batches, in order: the chain of folds that gives the canonical centre.
    pub finished: Vec<FinishedBatch>,
    /// The model batch in progress.
    pub current: Option<Current>,
    /// Progress of a greedy soup (the method, or `init = "greedy"`).
    pub greedy: Option<GreedyState>,
    /// Select score of the soup so far.
    pub select: Option<SplitScore>,
    /// Resolved ingredients a model batch.
    pub model_batch: usize,
    /// Where memory ran out: `(i, b)` says that from the model batch of index `i` on there are at most `b` ingredients in one. Ascending in `i`.
    pub cuts: Vec<(usize, usize)>,
    /// Resolved dtype of forward and backward passes: a task goes on in the one in which it began, wherever it is resumed.
    pub dtype: ComputeDtype,
    /// Time and iterations over all attempts.
    pub totals: Totals,
    /// What happened inner epoch by inner epoch.
    pub history: Vec<EpochRecord>,
    /// False once an attempt ran with another build than the one before.
    pub exact: bool,
}

/// What computed a checkpoint: bit-identity holds between equal builds only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BuildRecord", into = "BuildRecord")]
pub struct Build {
    /// Version of libtorch.
    pub libtorch: String,
    /// Instruction set that libtorch's kernels were chosen for.
    pub cpu_capability: String,
    /// Threads of the CPU computation.
    pub compute_threads: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// Library of linear layers in f32: a task goes on with the one with which it began.
    pub linear: LinearLibrary,
}

/// A [`Build`] as a checkpoint has it. Programs from before oneDNN could be chosen compare the four
/// fields, so the library is a second word of `cpu_capability`: they see another build.
#[derive(Clone, Serialize, Deserialize)]
struct BuildRecord {
    libtorch: String,
    cpu_capability: String,
    compute_threads: usize,
    device: String,
}

impl From<Build> for BuildRecord {
    fn from(build: Build) -> Self {
        let Build { libtorch, mut cpu_capability, compute_threads, device, linear } = build;
        if linear != LinearLibrary::default() {
            cpu_capability = format!("{cpu_capability} {linear}");
        }
        Self { libtorch, cpu_capability, compute_threads, device }
    }
}

impl From<BuildRecord> for Build {
    fn from(record: BuildRecord) -> Self {
        let BuildRecord { libtorch, cpu_capability, compute_threads, device } = record;
        let onednn =
            cpu_capability.strip_suffix(LinearLibrary::Onednn.as_str()).and_then(|rest| rest.strip_suffix(' '));
        let (cpu_capability, linear) = match onednn {
            Some(rest) => (rest.to_string(), LinearLibrary::Onednn),
            None => (cpu_capability, LinearLibrary::Libtorch),
        };
        Self { libtorch, cpu_capability, compute_threads, device, linear }
    }
}

/// A model batch that was folded.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedBatch {
    /// Indices of ingredients, ascending.
    pub members: Vec<usize>,
    /// Final coordinates x, row-major `[members, L]`.
    pub x: Vec<f64>,
}

/// The model batch in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Current {
    /// Indices of ingredients, ascending.
    pub members: Vec<usize>,
    /// Learned parameters: x, row-major `[members, L]`, for hyperplane methods; one for each member and then, unless there is one level, `[members, L]` for `steady`; logits `[K, L]` and then the inverse temperature for `learned`.
    pub parameters: Vec<f64>,
    /// First moments of AdamW, like `parameters`.
    pub first_moments: Vec<f64>,
    /// Second moments of AdamW, like `parameters`.
    pub second_moments: Vec<f64>,
    /// Exponential sum of the parameters after each step, like `parameters`; empty where nothing is averaged.
    pub average: Vec<f64>,
    /// Norms n of the directions, `[members, L]`; empty for `learned`. To notice a centre that is not the same.
    pub norms: Vec<f64>,
    /// Optimizer steps taken in this model batch.
    pub step: usize,
    /// Finished inner epochs.
    pub inner_epoch: usize,
    /// Iterations done in this inner epoch: the cursor into its data order.
    pub iteration: usize,
    /// Sum of (batch loss x samples) and samples of this inner epoch so far.
    pub epoch_loss: (f64, usize),
    /// Best coordinates by select so far.
    pub best: Option<BestSoFar>,
    /// Inner epochs since the best.
    pub since_best: usize,
}

impl Current {
    /// A model batch at its start.
    pub fn new(members: Vec<usize>, parameters: Vec<f64>, norms: Vec<f64>) -> Self {
        Self {
            members,
            first_moments: vec![0.0; parameters.len()],
            second_moments: vec![0.0; parameters.len()],
            parameters,
            average: Vec::new(),
            norms,
            step: 0,
            inner_epoch: 0,
            iteration: 0,
            epoch_loss: (0.0, 0),
            best: None,
            since_best: 0,
        }
    }
}

/// The best coordinates of a model batch by select.
#[derive(Debug, Clone, PartialEq)]
pub struct BestSoFar {
    /// Like [`Current::parameters`].
    pub parameters: Vec<f64>,
    /// Their score.
    pub select: SplitScore,
}

/// Progress of a greedy soup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GreedyState {
    /// Ingredients kept so far, in the order they were added.
    pub members: Vec<usize>,
    /// How many candidates of the ranking were tried.
    pub tried: usize,
    /// Score of the mean of `members`.
    pub select: Option<SplitScore>,
}

/// Time and iterations over all attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Effort so far.
    pub effort: Effort,
    /// Attempts begun.
    pub attempts: u32,
}

/// One finished inner epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Outer epoch, model batch and inner epoch, from 0.
    pub position: (usize, usize, usize),
    /// Mean loss on learn over the epoch's iterations.
    pub learn_loss: f64,
    /// Score of the working soup at the epoch's end.
    pub select: Option<SplitScore>,
}
