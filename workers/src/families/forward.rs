//! How a forward pass is computed: which statistics it normalises with, and in which dtype.

use tch::{Kind, TchError, Tensor};

/// How a forward pass is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// How layers with running statistics normalise.
    pub pass: Pass,
    /// In which dtype.
    pub precision: Precision,
}

/// How layers with running statistics normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// With the statistics of the batch; running ones are neither read nor written. While learning.
    Learn,
    /// With the running statistics.
    Score,
    /// With the statistics of the batch, and the running ones become the mean over this and the `seen` batches before it.
    Collect {
        /// Batches before this one.
        seen: usize,
    },
}

/// Dtype of a forward pass and of the backward pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// That of the parameters, everywhere.
    Full,
    /// bf16 for products of matrices, convolutions, attention and what is between them; that of the parameters for norms and their statistics, for
    /// the sums of a transformer's residual stream, and from the last block on: pooling, head, logits. Parameters stay as they are: each is
    /// rounded where it is used, and its gradient comes back in its own dtype, tensor by tensor.
    Bf16,
}

impl Pass {
    /// This pass, all of it in the dtype of the parameters.
    pub fn full(self) -> Forward {
        Forward { pass: self, precision: Precision::Full }
    }

    /// This pass in some precision.
    pub fn with(self, precision: Precision) -> Forward {
        Forward { pass: self, precision }
    }
}

impl Precision {
    /// `x` as the next product takes it.
    pub(super) fn narrow(self, x: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Full => Ok(x.shallow_clone()),
            Self::Bf16 => x.f_to_kind(Kind::BFloat16),
        }
    }
}
