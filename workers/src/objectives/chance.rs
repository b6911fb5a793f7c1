//! Whether any ingredient is better than guessing. Where none is, the ingredients are not compared
//! but their noise: targets or inputs are then probably not what the models learned.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::objective::{CLASSIFICATION, Facts};
use mehl_soup::sweep::score::SplitScore;
use tch::{TchError, Tensor};

use crate::engine::errors::torch_error;

/// Standard errors by which an ingredient has to be better.
const ERRORS: f64 = 2.0;

/// A prediction that does not look at the inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess<'a> {
    /// What is predicted, in words.
    pub how: &'a str,
    /// Its loss, then the metrics by which a model may be better.
    pub values: &'a [(Metric, f64)],
}

impl Guess<'_> {
    /// Whether a score is better by the loss or one of the metrics, by more than chance explains.
    fn is_beaten_by(&self, score: &SplitScore) -> bool {
        self.values.iter().any(|&(metric, guessed)| {
            score
                .get(metric)
                .is_some_and(|found| metric.cost(found.value) + ERRORS * found.standard_error < metric.cost(guessed))
        })
    }
}

/// That one ingredient at least is better on select than a guess.
///
/// # Errors
/// With the best scores, those of the guess, and what was assumed of the inputs.
pub(super) fn check(manifest: &Manifest, guess: &Guess<'_>, facts: &Facts) -> Result<(), EngineError> {
    let scores: Vec<SplitScore> = manifest.ingredients.iter().filter_map(|entry| entry.select).collect();
    if scores.is_empty() || scores.iter().any(|score| guess.is_beaten_by(score)) {
        return Ok(());
    }
    let compared = guess.values.iter().enumerate().map(|(place, &(metric, guessed))| {
        let values = scores.iter().filter_map(|score| score.get(metric)).map(|found| metric.cost(found.value));
        // A cost is the value or its opposite.
        let best = metric.cost(values.fold(f64::INFINITY, f64::min));
        let which = if metric.facts().higher_is_better { "highest" } else { "lowest" };
        let unit = metric.facts().shown.unit;
        let how = if place == 0 { format!("{}: ", guess.how) } else { String::new() };
        let (best, guessed) = (metric.shown_value(best), metric.shown_value(guessed));
        format!("the {which} {metric} is {best}{unit} ({how}{guessed}{unit})")
    });
    let compared: Vec<String> = compared.collect();
    let targets = if facts.name == CLASSIFICATION.name { "classes" } else { "targets" };
    let mut told = format!(
        "no ingredient is better than guessing, so {targets} or preprocessing are probably wrong. On {} select {} {}; an \
         ingredient must be better in one of them by two standard errors",
        scores[0].samples,
        facts.unit.plural(),
        compared.join(" and "),
    );
    let assumed: Vec<&String> = manifest.notes.iter().filter(|note| note.starts_with("assumed: ")).collect();
    for note in assumed {
        told.push_str("\n  ");
        told.push_str(note);
    }
    told.push_str("\n  to continue anyway, set zoo.allow_chance = true");
    Err(EngineError::Input(told))
}

/// That one ingredient at least is better than the constant prediction of a split's class
/// frequencies.
///
/// # Errors
/// Those of [`check`].
pub(super) fn check_classes(manifest: &Manifest, labels: &Tensor) -> Result<(), EngineError> {
    let values = by_frequencies(class_counts(labels).map_err(torch_error)?.into_iter());
    check(manifest, &Guess { how: "guessing by class frequencies", values: &values }, &CLASSIFICATION)
}

/// Loss and accuracy of the frequencies of classes: their entropy in nats, and the largest of them.
fn by_frequencies(counts: impl Iterator<Item = f64>) -> [(Metric, f64); 2] {
    let counts: Vec<f64> = counts.filter(|&count| count > 0.0).collect();
    let total: f64 = counts.iter().sum();
    let entropy = -counts.iter().map(|count| count / total * (count / total).ln()).sum::<f64>();
    let accuracy = Metric::of(CLASSIFICATION.metrics[0]);
    [(Metric::LOSS, entropy), (accuracy, counts.iter().copied().fold(0.0, f64::max) / total)]
}

/// Binary cross-entropy, in nats, of predicting the share of ones itself.
pub(super) fn entropy(share: f64) -> f64 {
    let part = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    part(share) + part(1.0 - share)
}

/// Samples of each class.
fn class_counts(labels: &Tensor) -> Result<Vec<f64>, TchError> {
    let counts = labels.f_to_device(tch::Device::Cpu)?.f_bincount::<Tensor>(None, 0)?;
    Vec::<f64>::try_from(counts.f_to_kind(tch::Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use mehl_soup::sweep::metric::Estimate;

    use super::*;

    fn score(loss: f64, loss_error: f64, accuracy: f64, accuracy_error: f64) -> SplitScore {
        let estimate = |value, standard_error| Estimate { value, standard_error };
        let metric = Metric::of(CLASSIFICATION.metrics[0]);
        SplitScore::new(100, estimate(loss, loss_error), [(metric, estimate(accuracy, accuracy_error))])
    }

    #[test]
    fn guessing_knows_the_frequencies() {
        let half = by_frequencies([50.0, 50.0, 0.0].into_iter());
        assert!((half[0].1 - 2f64.ln()).abs() < 1e-12 && half[1].1 == 0.5, "{half:?}");
        let skewed = by_frequencies([90.0, 10.0].into_iter());
        assert!((skewed[0].1 - 0.325_083).abs() < 1e-6 && skewed[1].1 == 0.9, "{skewed:?}");
        assert!((entropy(0.9) - skewed[0].1).abs() < 1e-12);
        assert_eq!((entropy(0.0), entropy(1.0)), (0.0, 0.0));
    }

    #[test]
    fn loss_or_accuracy_must_be_better_by_two_standard_errors() {
        let values = [(Metric::LOSS, 1.0), (Metric::of(CLASSIFICATION.metrics[0]), 0.5)];
        let guessing = Guess { how: "guessing", values: &values };
        assert!(guessing.is_beaten_by(&score(0.79, 0.1, 0.4, 0.05)));
        assert!(!guessing.is_beaten_by(&score(0.81, 0.1, 0.4, 0.05)));
        assert!(guessing.is_beaten_by(&score(3.0, 0.1, 0.61, 0.05)));
        assert!(!guessing.is_beaten_by(&score(3.0, 0.1, 0.59, 0.05)));
    }

    #[test]
    fn labels_are_counted() {
        assert_eq!(class_counts(&Tensor::from_slice(&[0i64, 2, 2])).unwrap(), [1.0, 0.0, 2.0]);
    }
}
