//! What a report shows, whether it comes from a run folder or from a scheduler.

use crate::checkpoint::EpochRecord;
use crate::coefficients::CoefficientsFile;
use crate::runner::pool::HistoryPoint;
use crate::sweep::manifest::DataEntry;
use crate::sweep::results::{Row, SweepResults, winner};
use crate::sweep::spec::Spec;
use crate::task::TaskState;

/// Tasks whose iterations and coefficients are shown.
pub const MOST_DETAILS: usize = 12;

/// A sweep, as far as it is.
#[derive(Debug, Clone)]
pub struct Report {
    /// Every task.
    pub results: SweepResults,
    /// What was asked for; `None` if nobody can tell any more.
    pub spec: Option<Spec>,
    /// Family of the model, as in specifications.
    pub family: Option<String>,
    /// The data splits.
    pub splits: Vec<DataEntry>,
    /// More about [`chosen`] tasks, in the same order.
    pub details: Vec<Detail>,
}

/// More about one task, as far as it is kept.
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// The task.
    pub task_id: String,
    /// Iterations of its last attempt, once it has ended.
    pub history: Vec<HistoryPoint>,
    /// Inner epochs of its last checkpoint, before it has ended.
    pub epochs: Vec<EpochRecord>,
    /// Its coefficients, once it has succeeded.
    pub soup: Option<CoefficientsFile>,
    /// What is there and cannot be read.
    pub faults: Vec<String>,
}

impl Detail {
    /// Of a task of which nothing more is known.
    pub fn new(task_id: &str) -> Self {
        Self { task_id: task_id.to_string(), ..Self::default() }
    }

    /// Takes a coefficients file's bytes in, or notes why they are none.
    pub fn read_soup(&mut self, bytes: &[u8]) {
        match CoefficientsFile::from_bytes(bytes) {
            Ok(file) => self.soup = Some(file),
            Err(error) => self.faults.push(format!("coefficients of {}: {error}", self.task_id)),
        }
    }
}

impl Report {
    /// Of results and what is known about some of their tasks. Family and splits are those that `details` tell, until somebody knows better.
    pub fn new(results: SweepResults, spec: Option<Spec>, details: Vec<Detail>) -> Self {
        let about = details.iter().find_map(|detail| detail.soup.as_ref()).map(|soup| &soup.about);
        let family = about.map(|about| about.family.clone());
        let splits = about.map(|about| about.data.clone()).unwrap_or_default();
        Self { results, spec, family, splits, details }
    }

    /// The winner, if there is one.
    pub fn winner(&self) -> Option<&Row> {
        winner(&self.results)
    }

    /// A task's row.
    pub fn row(&self, task: &str) -> Option<&Row> {
        self.results.tasks.iter().find(|row| row.task_id == task)
    }

    /// More about a task.
    pub fn detail(&self, task: &str) -> Option<&Detail> {
        self.details.iter().find(|detail| detail.task_id == task)
    }
}

/// The tasks that are worth a closer look: the winner, then the best by select that are more than one ingredient or the plain mean, then unfinished ones.
pub fn chosen(results: &SweepResults) -> Vec<String> {
    let winner = winner(results);
    let is_winner = |row: &Row| winner.is_some_and(|winner| winner.task_id == row.task_id);
    let soups = results.tasks.iter().filter(|row| row.state != TaskState::Failed && row.method.learns());
    // The greedy soup comes after those that learn: it has coefficients, but no iterations.
    let others = results.tasks.iter().filter(|row| row.state == TaskState::Succeeded && !row.method.learns());
    let rest = soups.chain(others).filter(|row| !is_winner(row));
    winner.into_iter().chain(rest).take(MOST_DETAILS).map(|row| row.task_id.clone()).collect()
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is no task (yet).
    Empty,
    /// Some tasks have not ended.
    Unfinished {
        /// Tasks that have ended, however they ended.
        ended: usize,
        /// All tasks.
        all: usize,
    },
    /// Every task has ended, and none succeeded.
    Fruitless,
    /// Every task has ended, some succeeded.
    Finished,
}

/// How far these results are.
pub fn standing(results: &SweepResults) -> Standing {
    let all = results.tasks.len();
    let ended = results.tasks.iter().filter(|row| row.state.is_final()).count();
    match (all, results.tasks.iter().any(|row| row.state == TaskState::Succeeded)) {
        (0, _) => Standing::Empty,
        _ if ended < all => Standing::Unfinished { ended, all },
        (_, false) => Standing::Fruitless,
        (_, true) => Standing::Finished,
    }
}
