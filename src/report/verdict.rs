//! What came of a sweep, in one sentence.

use crate::sweep::paired::Verdict;
use crate::sweep::results::{SweepResults, winner};
use crate::sweep::spec::MethodName;
use crate::sweep::task::Origin;

/// One sentence that a hurried reader takes home. Plain text.
pub fn headline(results: &SweepResults) -> String {
    let Some(winner) = winner(results) else {
        return "No task has succeeded, so there is no winner.".to_string();
    };
    let best = results.best_ingredient().map_or("the best ingredient", |ingredient| ingredient.name.as_str());
    if winner.origin == Origin::Baseline && winner.method == MethodName::Best {
        return format!("No soup beats the best ingredient, {best}, on select.");
    }
    let is_best = |id: &str| {
        let row = results.tasks.iter().find(|row| row.task_id == id);
        row.is_some_and(|row| row.origin == Origin::Baseline && row.method == MethodName::Best)
    };
    let Some(gain) = results.shown_comparisons().into_iter().find(|one| is_best(&one.other)) else {
        return format!("{} is the best so far on select; the best ingredient is not scored yet.", winner.task_id);
    };
    let (task, split) = (&winner.task_id, gain.split.as_str());
    match gain.verdict {
        Verdict::Better if split == "test" => {
            format!("{task} beats the best ingredient on test, by more than two standard errors.")
        }
        Verdict::Better => format!(
            "{task} beats the best ingredient on select by more than two standard errors; there is no test split to \
             confirm it."
        ),
        Verdict::CannotBeTold => format!(
            "{task} wins on select, but on {split} its difference to the best ingredient is within two standard errors."
        ),
        Verdict::Worse => format!(
            "{task} wins on select, but on {split} it is worse than the best ingredient, by more than two standard \
             errors."
        ),
    }
}
