//! What the winner gains, and whether the gain is real.
//!
//! Scores come with standard errors over samples, but without the samples themselves. The error of a difference is therefore taken as if both scores
//! came from samples of their own, `sqrt(a^2 + b^2)`. Two models that score the same samples err together more often than not, so the true one is
//! smaller as a rule: a gain that is called real is, one that is called too small may be real all the same.

use crate::sweep::manifest::SplitScore;
use crate::sweep::results::{SweepResults, winner};
use crate::sweep::spec::{MethodName, Metric};
use crate::sweep::task::Origin;

/// Standard errors that a difference must exceed to be called real.
const ERRORS: f64 = 2.0;

/// What the winner gains over one baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gain {
    /// The baseline.
    pub over: MethodName,
    /// Whether it is measured on test, which chose nothing; otherwise on select, which chose the winner.
    pub on_test: bool,
    /// Loss of the baseline less that of the winner, in nats: more is better.
    pub loss: Difference,
    /// Accuracy of the winner less that of the baseline, in [-1, 1].
    pub accuracy: Difference,
    /// Judged by the sweep's metric.
    pub verdict: Verdict,
}

/// A difference and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Positive: the winner is better.
    pub by: f64,
    /// At most this, see the module.
    pub standard_error: f64,
}

/// What to make of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Better by more than two standard errors.
    Real,
    /// Within two standard errors: samples of another draw could turn it round.
    Unclear,
    /// Worse by more than two standard errors.
    Worse,
}

impl Difference {
    fn verdict(self) -> Verdict {
        let bound = ERRORS * self.standard_error;
        // A difference that is no number is no gain.
        if self.by > bound {
            Verdict::Real
        } else if self.by < -bound {
            Verdict::Worse
        } else {
            Verdict::Unclear
        }
    }
}

/// What the winner gains over each baseline that is done, itself left out: on test where both have it, else on select. Empty without a winner.
pub fn gains(results: &SweepResults) -> Vec<Gain> {
    let Some(winner) = winner(results) else { return vec![] };
    let baselines = &results.baselines;
    let all = [
        (MethodName::Best, &baselines.best),
        (MethodName::Uniform, &baselines.uniform),
        (MethodName::Greedy, &baselines.greedy),
        (MethodName::ModelStock, &baselines.model_stock),
    ];
    let others = all.into_iter().filter_map(|(over, baseline)| {
        let baseline = baseline.as_ref().filter(|baseline| baseline.task_id != winner.task_id)?;
        let (is, was, on_test) = match (winner.test, baseline.scores.test) {
            (Some(is), Some(was)) => (is, was, true),
            _ => (winner.select?, baseline.scores.select, false),
        };
        Some(gain(results.metric, over, on_test, &is, &was))
    });
    others.collect()
}

fn gain(metric: Metric, over: MethodName, on_test: bool, is: &SplitScore, was: &SplitScore) -> Gain {
    let loss =
        Difference { by: was.loss - is.loss, standard_error: was.loss_standard_error.hypot(is.loss_standard_error) };
    let accuracy = Difference {
        by: is.accuracy - was.accuracy,
        standard_error: was.accuracy_standard_error.hypot(is.accuracy_standard_error),
    };
    let verdict = match metric {
        Metric::Loss => loss.verdict(),
        Metric::Accuracy => accuracy.verdict(),
    };
    Gain { over, on_test, loss, accuracy, verdict }
}

/// One sentence that a hurried reader takes home. Plain text.
pub fn headline(results: &SweepResults) -> String {
    let Some(winner) = winner(results) else {
        return "No task has succeeded, so there is no winner.".to_string();
    };
    let best = results.best_ingredient().map_or("the best ingredient", |ingredient| ingredient.name.as_str());
    if winner.origin == Origin::Baseline && winner.method == MethodName::Best {
        return format!("No soup is better than the best ingredient, {best}, on select.");
    }
    let gain = gains(results).into_iter().find(|gain| gain.over == MethodName::Best);
    let Some(gain) = gain else {
        return format!("{} is the best so far on select; the best ingredient is not scored yet.", winner.task_id);
    };
    let split = if gain.on_test { "test" } else { "select" };
    let task = &winner.task_id;
    match gain.verdict {
        Verdict::Real if gain.on_test => {
            format!("{task} beats the best ingredient on test, by more than two standard errors.")
        }
        Verdict::Real => format!(
            "{task} beats the best ingredient on select by more than two standard errors; there is no test split to confirm it."
        ),
        Verdict::Unclear => format!(
            "{task} wins on select, but on {split} its difference to the best ingredient is within two standard errors."
        ),
        Verdict::Worse => format!(
            "{task} wins on select, but on {split} it is worse than the best ingredient, by more than two standard errors."
        ),
    }
}
