//! `[data.text]`: what a specification says about how texts become what the model takes. What it
//! leaves open, the ingredients' own tokenizer tells.

use serde::{Deserialize, Serialize};

/// `[data.text]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextSpec {
    /// Columns of the texts of a sample, in their order; `None`: columns of usual names.
    pub columns: Option<Vec<String>>,
    /// Most tokens of a sample, special ones included; longer samples are truncated. `None`: what the
    /// ingredients say, and else longer samples than the model takes are a fault.
    pub max_length: Option<usize>,
    /// From which end tokens are removed; `None`: what the ingredients say, else the right.
    pub truncate: Option<Side>,
}

/// An end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The beginning.
    Left,
    /// The end.
    Right,
}

impl Side {
    /// Every side, by its name in specifications.
    pub const NAMED: [(&'static str, Self); 2] = [("left", Self::Left), ("right", Self::Right)];
}

impl TextSpec {
    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
