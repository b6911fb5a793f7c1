//! What a report shows, whether it comes from a run folder or from a scheduler.

use crate::checkpoint::EpochRecord;
use crate::coefficients::CoefficientsFile;
use crate::runner::pool::HistoryPoint;
use crate::sweep::manifest::{DataEntry, Manifest};
use crate::sweep::results::{Row, SweepResults, winner};
use crate::sweep::spec::Spec;
use crate::task::TaskState;

/// Tasks whose iterations and coefficients are shown, and those among them that learn nothing.
const MOST_DETAILS: usize = 12;
const MOST_BASELINES: usize = 3;

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
    /// Of results and what is known about some of their tasks. Without a manifest, family and splits are those that `details` tell.
    pub fn new(
        mut results: SweepResults,
        spec: Option<Spec>,
        manifest: Option<Manifest>,
        details: Vec<Detail>,
    ) -> Self {
        // Results of earlier programs have scores, and no comparisons.
        if results.comparisons.is_empty() {
            results.compare(|_| None);
        }
        let about = details.iter().find_map(|detail| detail.soup.as_ref()).map(|soup| &soup.about);
        let (family, splits) = match (manifest, about) {
            (Some(manifest), _) => (Some(manifest.family.to_string()), manifest.data),
            (None, Some(about)) => (Some(about.family.clone()), about.data.clone()),
            (None, None) => (None, vec![]),
        };
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

/// The tasks that are worth a closer look: the winner, then those that learn, the best by select first and unfinished ones last, then soups to compare with.
pub fn chosen(results: &SweepResults) -> Vec<String> {
    let winner = winner(results);
    let is_other = |row: &&Row| winner.is_none_or(|winner| winner.task_id != row.task_id);
    let soups = results.tasks.iter().filter(|row| row.state != TaskState::Failed && row.method.learns());
    // The greedy soup and its kin have coefficients, but no iterations.
    let others = results.tasks.iter().filter(|row| row.state == TaskState::Succeeded && !row.method.learns());
    let rest = soups.filter(is_other).take(MOST_DETAILS - MOST_BASELINES - 1);
    let rest = rest.chain(others.filter(is_other).take(MOST_BASELINES));
    winner.into_iter().chain(rest).map(|row| row.task_id.clone()).collect()
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

/// A letter as it is written in pages and drawings: XML has no way to write control characters and these two, and no reader misses them.
pub fn written(letter: char) -> char {
    if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') { ' ' } else { letter }
}
