//! Which tasks of a sweep are compared with the winner, and which comparisons people see.

use super::outcome::Scores;
use super::paired::{self, Comparison, Known, SPLITS, UnitScores};
use super::results::{Row, SweepResults, winner};
use super::spec::MethodName;
use crate::sweep::task::Origin;
use crate::task::TaskState;

impl SweepResults {
    /// Names of the tasks that [`compare`](Self::compare) compares: the winner first.
    pub fn compared(&self) -> Vec<String> {
        let Some(winner) = winner(self) else { return vec![] };
        std::iter::once(winner).chain(self.opponents(winner)).map(|row| row.task_id.clone()).collect()
    }

    /// Compares the winner with the others. `units` gives the values of a task's units, as far as they are kept.
    pub fn compare<'a>(&mut self, units: impl Fn(&str) -> Option<&'a UnitScores>) {
        let Some(winner) = winner(self) else { return };
        let scores_of = |row: &Row| {
            let (learn, select) = row.learn.zip(row.select)?;
            Some(Scores { learn, select, test: row.test })
        };
        let Some(scores) = scores_of(winner) else { return };
        let known = Known { task_id: &winner.task_id, scores: &scores, units: units(&winner.task_id) };
        let mut found = vec![];
        for other in self.opponents(winner) {
            let Some(scores) = scores_of(other) else { continue };
            let other = Known { task_id: &other.task_id, scores: &scores, units: units(&other.task_id) };
            found.extend(paired::compare(known, other));
        }
        self.comparisons = found;
    }

    /// Tasks that the winner is compared with: the baselines, then the runner-up, which is the best other task.
    fn opponents(&self, winner: &Row) -> Vec<&Row> {
        let others = || {
            let done = self.tasks.iter().filter(|row| row.state == TaskState::Succeeded);
            done.filter(|row| row.task_id != winner.task_id)
        };
        let is_baseline = |row: &&Row| row.origin == Origin::Baseline;
        let order = [MethodName::Best, MethodName::Uniform, MethodName::Greedy, MethodName::ModelStock];
        let baselines =
            order.iter().filter_map(|method| others().filter(is_baseline).find(|row| row.method == *method));
        baselines.chain(others().find(|row| !is_baseline(row))).collect()
    }

    /// The comparisons that people see: by the sweep's metric, on test where there is one, else on select.
    pub fn shown_comparisons(&self) -> Vec<&Comparison> {
        let by_metric = || self.comparisons.iter().filter(|one| one.metric == self.metric);
        let split = SPLITS.into_iter().find(|split| by_metric().any(|one| one.split == *split));
        by_metric().filter(|one| Some(one.split.as_str()) == split).collect()
    }
}
