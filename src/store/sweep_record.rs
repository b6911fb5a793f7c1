//! A sweep as the store holds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Order;
use crate::task::TaskState;

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its tasks are still being added.
    Creating,
    /// Its scores task is not done.
    Scoring,
    /// Its tasks can be worked on, or are done.
    Ready,
}

/// A sweep as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepRecord {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// What its owner wants, its budget of time included.
    pub order: Order,
    /// Milliseconds since 1970 (in memory: since the store was made).
    pub created: u64,
    /// Sweeps of higher priority are worked on first.
    pub priority: i64,
    /// Tasks that may run at once; 0 for any number.
    pub cap: u32,
    /// Attempts that may end without progress before a task fails.
    pub attempts: u32,
    /// Whether its pending tasks are begun as a search wants them.
    pub search_controlled: bool,
    /// Number of tasks by state; states without tasks are left out.
    pub counts: BTreeMap<TaskState, usize>,
    /// Runnable tasks that wait to be chosen for a ticket.
    pub ready: usize,
    /// Runnable tasks that wait because their last attempt crashed.
    pub delayed: usize,
    /// Whether its search has not said that it opens no more tasks.
    pub may_grow: bool,
}

impl SweepRecord {
    /// Tasks in a state.
    pub fn count(&self, state: TaskState) -> usize {
        self.counts.get(&state).copied().unwrap_or(0)
    }

    /// Tasks in all.
    pub fn tasks(&self) -> usize {
        self.counts.values().sum()
    }

    /// Whether its search may open more tasks now, or once it is resumed.
    pub fn takes_tasks(&self) -> bool {
        self.may_grow && self.stage == Stage::Ready && self.order != Order::Cancel
    }

    /// Whether it has ended: every task is in a final state, and there will be no more of them.
    pub fn is_final(&self) -> bool {
        self.stage != Stage::Creating
            && !self.takes_tasks()
            && self.counts.iter().all(|(state, &count)| count == 0 || state.is_final())
    }
}
