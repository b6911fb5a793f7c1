//! The rows of a sweep's results, and their order. A row is made from its task and what came of it,
//! so a reader of a large sweep need not hold all of them at once.

use std::cmp::Ordering;

use super::metric::Metric;
use super::results::{Baselines, Hyperparameters, Row, SweepResults, TaskOutcome, best_of};
use super::score::SplitScore;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// What the rows of one sweep have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rows {
    metric: Metric,
    baselines: Baselines<SplitScore>,
    to_beat: Option<SplitScore>,
}

impl Rows {
    /// Of the sweep with this head; its own rows are not looked at.
    pub fn new(head: &SweepResults) -> Self {
        // The baseline's own score if there is one: it went the same way as the other soups' scores.
        let to_beat = head.baselines.best.as_ref().map(|best| best.scores.select);
        let ingredient = || best_of(&head.ingredients, head.metric).and_then(|ingredient| ingredient.select);
        Self {
            metric: head.metric,
            baselines: head.baselines.map(|baseline| baseline.scores.select),
            to_beat: to_beat.or_else(ingredient),
        }
    }

    /// The row of a task.
    pub fn row(&self, task: Task, outcome: &TaskOutcome) -> Row {
        let select = outcome.scores.as_ref().map(|scores| scores.select);
        let effort = outcome.effort;
        Row {
            task_id: task.id,
            method: task.soup.method,
            origin: task.origin,
            hyperparameters: Hyperparameters { soup: task.soup, top: task.top },
            searched: task.overrides,
            learn: outcome.scores.as_ref().map(|scores| scores.learn),
            // A task that was stopped at a rung shows its score there; it is no finished soup, so it is compared with nothing.
            select: select.or(outcome.at_rung),
            test: outcome.scores.as_ref().and_then(|scores| scores.test),
            baselines: self.baselines,
            iterations: effort.iterations,
            seconds: effort.seconds,
            samples_per_second: (effort.iteration_seconds > 0.0)
                .then(|| effort.samples as f64 / effort.iteration_seconds),
            peak_device_bytes: effort.peak_device_bytes,
            peak_host_bytes: effort.peak_host_bytes,
            model_batch: outcome.model_batch,
            dtype: outcome.dtype,
            state: outcome.state,
            cause: outcome.cause.clone(),
            exact: outcome.exact,
            better_than_best_ingredient: select
                .zip(self.to_beat)
                .map(|(select, to_beat)| self.metric.compare(&select, &to_beat) == Ordering::Less),
            attempts: outcome.attempts,
        }
    }

    /// Orders rows by their tasks' states and scores on select: the best first, then the
    /// unfinished, then the failed. Sort with it in a stable way: equal rows stay in the order of
    /// the tasks, so the best ingredient comes before a soup that only equals it.
    pub fn compare(&self, a: (TaskState, Option<&SplitScore>), b: (TaskState, Option<&SplitScore>)) -> Ordering {
        rank(a.0).cmp(&rank(b.0)).then_with(|| by_select(self.metric, a.1, b.1))
    }
}

/// Orders scores on select, the better one first, and those that are missing last.
pub(super) fn by_select(metric: Metric, a: Option<&SplitScore>, b: Option<&SplitScore>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => metric.compare(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// Succeeded rows before unfinished ones, failed ones last.
fn rank(state: TaskState) -> u8 {
    match state {
        TaskState::Succeeded => 0,
        TaskState::Running | TaskState::Queued | TaskState::Pending | TaskState::Waiting | TaskState::Paused => 1,
        TaskState::Pruned | TaskState::Cancelled => 2,
        TaskState::Failed => 3,
    }
}
