//! The dtype that soups are computed in.

use serde::{Deserialize, Serialize};

/// Dtype of forward and backward passes while learning. Scores of finished soups are in f32 (f64 with `f64`) whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeDtype {
    /// f32 throughout.
    #[default]
    F32,
    /// f64 throughout: to check with.
    F64,
    /// bf16 products of matrices and convolutions; parameters, their gradients, norms and losses in f32.
    Bf16,
}

impl ComputeDtype {
    /// The name used in specifications.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
