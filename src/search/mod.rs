//! What a sweep computes: which tasks are opened, and which of them go on past a rung or end there.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the trait, what it is told, and what it decides |
//! | `by_strategy` | the search that a specification asks for, and how others take its place |
//! | `listed` | grid and random samples: every task is opened at once and runs to its end |
//! | `halving` | successive halving: tasks wait at rungs, and the better ones go on |
//!
//! Scheduler and local runner know the trait only. `docs/add-a-search.md` says how to add one.

mod by_strategy;
mod halving;
mod listed;

pub use by_strategy::Searches;
pub use halving::Halving;
pub use listed::Listed;

use crate::sweep::score::SplitScore;
use crate::sweep::spec::SoupSpec;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// How the tasks of a sweep are found.
///
/// A search has no state. [`decide`](Self::decide) sees the whole history and is asked again
/// whenever tasks may begin, by any process. It must be pure: equal histories give equal decisions.
/// A decision may be carried out twice, late, or not at all; a process may end between two of them.
/// So a decision that still holds must follow from the later history too.
pub trait Search: Send + Sync {
    /// What there is to decide after the first decision.
    fn reach(&self) -> Reach;

    /// What to do. On an empty history: the tasks that the sweep begins with, each as
    /// [`Decision::Open`], the baselines first. Their order is the order of the sweep.
    ///
    /// Promotions are in order of preference: as many as have room are carried out.
    fn decide(&self, history: &History) -> Vec<Decision>;

    /// Whole epochs, as [`epochs`](crate::sweep::asha::epochs) counts them, after which a task stops
    /// at this rung (from 0) and waits. `None` if it runs to its end from there.
    fn stop(&self, rung: u32, soup: &SoupSpec) -> Option<u64> {
        let _ = (rung, soup);
        None
    }

    /// Whether it looks at [`SeenTask::task`] and [`SeenTask::select`]. They cost a call of the
    /// store for each task that has ended.
    fn reads_results(&self) -> bool {
        false
    }
}

/// What a search decides after its first decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: all tasks are open, and begin as there is room.
    Nothing,
    /// Who goes on at a rung. All tasks are open.
    Rungs,
    /// The same, and further tasks, until it says [`Decision::Close`].
    Tasks,
}

/// What is known of a sweep's tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// In the order of the sweep, without the scores task.
    pub tasks: Vec<SeenTask>,
}

impl History {
    /// Tasks in any of these states.
    pub fn count(&self, states: &[TaskState]) -> usize {
        self.tasks.iter().filter(|task| states.contains(&task.state)).count()
    }
}

/// A task, as a search sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenTask {
    /// State.
    pub state: TaskState,
    /// Scores on select at the rungs that it has reached, the first one first.
    pub rungs: Vec<SplitScore>,
    /// The task, if the search reads results.
    pub task: Option<Task>,
    /// Score on select of the exact soup, if the search reads results and the task has succeeded.
    pub select: Option<SplitScore>,
}

/// What a search wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// A further task with these hyperparameters. It takes the next place in the order.
    Open(Box<Task>),
    /// A waiting task goes on.
    Promote(AtRung),
    /// A waiting task ends.
    Prune(AtRung),
    /// No further task is opened, whatever the tasks show. The sweep ends when its tasks have.
    Close,
}

/// A waiting task of a history, and its rung. What is decided holds only while it waits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRung {
    /// Place in [`History::tasks`].
    pub place: usize,
    /// The rung, from 0.
    pub rung: u32,
}

/// The tasks that a sweep begins with, in order.
pub fn first_tasks(search: &dyn Search) -> Vec<Task> {
    let first = search.decide(&History::default()).into_iter();
    first.filter_map(|decision| if let Decision::Open(task) = decision { Some(*task) } else { None }).collect()
}
