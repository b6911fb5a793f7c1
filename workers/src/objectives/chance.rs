//! Whether any ingredient is better than guessing. Where none is, the ingredients are not compared but their noise: classes or images
//! are then probably not what the models learned.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::{Estimate, Metric};
use mehl_soup::sweep::objective::CLASSIFICATION;
use mehl_soup::sweep::score::SplitScore;
use tch::{TchError, Tensor};

use crate::engine::errors::torch_error;

/// Standard errors by which an ingredient has to be better.
const ERRORS: f64 = 2.0;

/// Scores of the constant predictor with a split's class frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Guessing {
    /// Entropy of the frequencies, in nats.
    loss: f64,
    /// The largest frequency.
    accuracy: f64,
}

impl Guessing {
    fn on(counts: impl Iterator<Item = f64>) -> Self {
        let counts: Vec<f64> = counts.filter(|&count| count > 0.0).collect();
        let total: f64 = counts.iter().sum();
        let entropy = -counts.iter().map(|count| count / total * (count / total).ln()).sum::<f64>();
        Self { loss: entropy, accuracy: counts.iter().copied().fold(0.0, f64::max) / total }
    }

    /// Whether a score is better in loss or in accuracy, by more than chance explains.
    fn is_beaten_by(&self, score: &SplitScore) -> bool {
        let accuracy = accuracy(score);
        score.loss + ERRORS * score.loss_standard_error < self.loss
            || accuracy.value - ERRORS * accuracy.standard_error > self.accuracy
    }
}

fn accuracy(score: &SplitScore) -> Estimate {
    let lost = Estimate { value: f64::NAN, standard_error: f64::NAN };
    score.get(Metric::of(CLASSIFICATION.metrics[0])).unwrap_or(lost)
}

/// That one ingredient at least is better on select than guessing.
///
/// # Errors
/// With the best scores, those of guessing, and what was assumed of the inputs.
pub(super) fn check(manifest: &Manifest, labels: &Tensor) -> Result<(), EngineError> {
    let guessing = Guessing::on(class_counts(labels).map_err(torch_error)?.into_iter());
    let scores: Vec<SplitScore> = manifest.ingredients.iter().filter_map(|entry| entry.select).collect();
    if scores.is_empty() || scores.iter().any(|score| guessing.is_beaten_by(score)) {
        return Ok(());
    }
    let loss = scores.iter().map(|score| score.loss).fold(f64::INFINITY, f64::min);
    let accuracy = scores.iter().map(|score| accuracy(score).value).fold(0.0, f64::max);
    let mut told = format!(
        "no ingredient is better than guessing, so classes or preprocessing are probably wrong. On \
         {} select samples the lowest loss is {loss:.4} (guessing by class frequencies: {:.4}) and \
         the highest accuracy {:.2} % ({:.2} %); an ingredient must be better in one of them by \
         two standard errors",
        scores[0].samples,
        guessing.loss,
        100.0 * accuracy,
        100.0 * guessing.accuracy,
    );
    let assumed: Vec<&String> = manifest.notes.iter().filter(|note| note.starts_with("assumed: ")).collect();
    for note in assumed {
        told.push_str("\n  ");
        told.push_str(note);
    }
    told.push_str("\n  to continue anyway, set zoo.allow_chance = true");
    Err(EngineError::Input(told))
}

/// Samples of each class.
fn class_counts(labels: &Tensor) -> Result<Vec<f64>, TchError> {
    let counts = labels.f_to_device(tch::Device::Cpu)?.f_bincount::<Tensor>(None, 0)?;
    Vec::<f64>::try_from(counts.f_to_kind(tch::Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(loss: f64, loss_error: f64, accuracy: f64, accuracy_error: f64) -> SplitScore {
        let estimate = |value, standard_error| Estimate { value, standard_error };
        let metric = Metric::of(CLASSIFICATION.metrics[0]);
        SplitScore::new(100, estimate(loss, loss_error), [(metric, estimate(accuracy, accuracy_error))])
    }

    #[test]
    fn guessing_knows_the_frequencies() {
        let half = Guessing::on([50.0, 50.0, 0.0].into_iter());
        assert!((half.loss - 2f64.ln()).abs() < 1e-12 && half.accuracy == 0.5, "{half:?}");
        let skewed = Guessing::on([90.0, 10.0].into_iter());
        assert!((skewed.loss - 0.325_083).abs() < 1e-6 && skewed.accuracy == 0.9, "{skewed:?}");
    }

    #[test]
    fn loss_or_accuracy_must_be_better_by_two_standard_errors() {
        let guessing = Guessing { loss: 1.0, accuracy: 0.5 };
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
