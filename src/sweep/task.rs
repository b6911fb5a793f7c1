//! One soup task: what is to be computed.

use serde::{Deserialize, Serialize};

use super::spec::{Overrides, SoupSpec};

/// One soup: fully resolved hyperparameters on the sweep's zoo and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Unique in the sweep, usable as a folder name: `0007-mehl+`, or `best`, `uniform`, `greedy` for the baselines.
    pub id: String,
    /// Hyperparameters.
    pub soup: SoupSpec,
    /// Use only the best this many ingredients by select.
    pub top: Option<usize>,
    /// Where the task comes from.
    pub origin: Origin,
    /// The searched values, as they are shown.
    pub overrides: Overrides,
}

/// Where a task comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Computed with every sweep, to compare with.
    Baseline,
    /// Named in `search.points`.
    Point,
    /// Drawn by the search, or the one task of a sweep without search.
    Search,
}
