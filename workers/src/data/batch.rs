//! Some samples, as objectives take them.

use tch::{TchError, Tensor};

use crate::families::ModelInputs;

/// Some samples, on one device.
#[derive(Debug)]
pub struct Batch {
    /// What the model takes; first dimension N, or `texts * N`: row `t * N + i` is text t of sample i.
    pub inputs: ModelInputs,
    /// Texts of a sample, such as an anchor and its positive; 1 where samples are no tuples.
    pub texts: usize,
    /// What the objective compares outputs with; first dimension N.
    pub targets: Tensor,
    /// Weight of each sample in the mean loss, `[N]`, above 0, in the dtype of float inputs. All
    /// samples count the same without. A loss over an epoch is the mean over its batches, by
    /// samples.
    pub weights: Option<Tensor>,
}

impl Batch {
    /// Of samples that all count the same.
    pub fn new(inputs: ModelInputs, targets: Tensor) -> Self {
        Self { inputs, texts: 1, targets, weights: None }
    }

    /// Mean of a loss of each sample, `[N]`, by their weights.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn mean(&self, losses: &Tensor) -> Result<Tensor, TchError> {
        match &self.weights {
            None => losses.f_mean(None),
            Some(weights) => losses.f_mul(weights)?.f_sum(None)?.f_div(&weights.f_sum(None)?),
        }
    }
}
