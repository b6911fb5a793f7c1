//! States of a task, and which event leads from which to which.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Its sweep's scores task is not done yet.
    Pending,
    /// Can be worked on: not begun, or begun and interrupted.
    Queued,
    /// Being computed under a lease.
    Running,
    /// At a rung of a successive halving: goes on if it is promoted.
    Waiting,
    /// Set aside by a user.
    Paused,
    /// Done.
    Succeeded,
    /// Given up, with a cause.
    Failed,
    /// Given up by a user.
    Cancelled,
    /// Given up at a rung: others were better.
    Pruned,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The scores task is done, or a rung promotes it, or a user resumes or retries it.
    Enqueue,
    /// A user retries a sweep in which it was given up unbegun: it waits for the scores task again.
    Restore,
    /// A worker takes it.
    Claim,
    /// Its worker has its result.
    Complete,
    /// Its worker gives it up for good, or its attempts are used up.
    Fail,
    /// Its worker lets go of it, or is lost, and it can go on elsewhere.
    Requeue,
    /// Its worker lets go of it at a rung.
    Wait,
    /// Others were better at its rung.
    Prune,
    /// A user sets it aside; a running one once its worker lets go.
    Pause,
    /// A user gives it up; a running one once its worker lets go.
    Cancel,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 10] = [
        Self::Enqueue,
        Self::Restore,
        Self::Claim,
        Self::Complete,
        Self::Fail,
        Self::Requeue,
        Self::Wait,
        Self::Prune,
        Self::Pause,
        Self::Cancel,
    ];

    /// As in the scripts of the store in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Restore => "restore",
            Self::Claim => "claim",
            Self::Complete => "complete",
            Self::Fail => "fail",
            Self::Requeue => "requeue",
            Self::Wait => "wait",
            Self::Prune => "prune",
            Self::Pause => "pause",
            Self::Cancel => "cancel",
        }
    }
}

impl TaskState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Pruned,
    ];

    /// As in answers and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Pruned => "pruned",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing is computed for it any more, unless a user asks.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Pruned)
    }

    /// The state that an event leads to, `None` if it cannot happen in this one. Both stores go by
    /// this table: the scripts in Redis are given it.
    pub fn after(self, event: Event) -> Option<Self> {
        use TaskState as S;
        Some(match (self, event) {
            (S::Pending | S::Waiting | S::Paused | S::Failed | S::Cancelled, Event::Enqueue) => S::Queued,
            (S::Cancelled, Event::Restore) => S::Pending,
            (S::Queued, Event::Claim) => S::Running,
            (S::Running, Event::Complete) => S::Succeeded,
            (S::Running | S::Queued, Event::Fail) => S::Failed,
            (S::Running, Event::Requeue) => S::Queued,
            (S::Running, Event::Wait) => S::Waiting,
            (S::Waiting, Event::Prune) => S::Pruned,
            (S::Queued | S::Running, Event::Pause) => S::Paused,
            (S::Pending | S::Queued | S::Running | S::Waiting | S::Paused, Event::Cancel) => S::Cancelled,
            _ => return None,
        })
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(TaskState::parse("done"), None);
    }

    #[test]
    fn what_succeeded_or_was_pruned_stays_so() {
        for event in Event::ALL {
            assert_eq!(TaskState::Succeeded.after(event), None);
            assert_eq!(TaskState::Pruned.after(event), None);
        }
        // A user may retry what failed or was cancelled, and nothing else leads out of there.
        let from = |state: TaskState| Event::ALL.into_iter().filter_map(|e| state.after(e)).collect::<Vec<_>>();
        assert_eq!(from(TaskState::Failed), [TaskState::Queued]);
        assert_eq!(from(TaskState::Cancelled), [TaskState::Queued, TaskState::Pending]);
    }
}
