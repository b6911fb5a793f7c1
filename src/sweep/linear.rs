//! The library that computes linear layers.

use serde::{Deserialize, Serialize};

/// What computes the products of linear layers in f32 on a CPU. The two differ in rounding and in speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinearLibrary {
    /// What libtorch chooses: MKL on x86.
    #[default]
    Libtorch,
    /// oneDNN.
    Onednn,
}

impl LinearLibrary {
    /// The name used in specifications.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Libtorch => "libtorch",
            Self::Onednn => "onednn",
        }
    }
}

impl std::fmt::Display for LinearLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
