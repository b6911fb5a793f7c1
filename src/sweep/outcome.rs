//! What computing a task gives: scores, effort, and a finished soup.

use serde::{Deserialize, Serialize};

use super::paired::UnitScores;
use super::score::SplitScore;
use super::spec::ComputeDtype;

/// A finished task.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The coefficients file's content.
    pub coefficients: Vec<u8>,
    /// Scores of the exact soup.
    pub scores: Scores,
    /// What it took.
    pub effort: Effort,
    /// Whether the result is bit-exact after resumption, or only within tolerance (another build, thread count or a GPU).
    pub exact: bool,
    /// Resolved number of ingredients a model batch.
    pub model_batch: usize,
    /// Resolved dtype that it was learned in.
    pub dtype: ComputeDtype,
    /// Attempts begun.
    pub attempts: u32,
    /// Values of the exact soup's units on select and test, where they can be compared with another soup's.
    pub units: UnitScores,
}

/// A task at a rung.
#[derive(Debug, Clone, PartialEq)]
pub struct RungReached {
    /// Score on select of the exact soup so far.
    pub select: SplitScore,
    /// What it took so far.
    pub effort: Effort,
    /// Resolved number of ingredients a model batch.
    pub model_batch: usize,
    /// Attempts begun.
    pub attempts: u32,
}

/// Scores on the three splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// On the data that coefficients were learned on.
    pub learn: SplitScore,
    /// On the data that chooses.
    pub select: SplitScore,
    /// On the data that is only reported.
    pub test: Option<SplitScore>,
}

/// Time, iterations and memory of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Effort {
    /// Optimizer steps, over all attempts.
    pub iterations: u64,
    /// Learn samples that went through a backward pass, over all attempts.
    pub samples: u64,
    /// Seconds of computation, over all attempts.
    pub seconds: f64,
    /// Seconds within iterations, over all attempts.
    pub iteration_seconds: f64,
    /// Largest use of device memory seen, where the device is not the host and can tell.
    pub peak_device_bytes: Option<u64>,
    /// Largest resident memory of the process during the task.
    pub peak_host_bytes: u64,
}
