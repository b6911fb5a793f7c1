//! Scores of what a model now holds.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::metric::{Estimate, Metric};
use mehl_soup::sweep::score::SplitScore;
use tch::{Device, Kind, TchError, Tensor};

use super::errors::torch_error;
use crate::data::Split;
use crate::families::{Model, Pass, Precision};
use crate::objectives::{Measured, Objective};

/// Mean loss and metrics over a split, with standard errors over units; sums in f64.
///
/// # Errors
/// [`EngineError::Numerics`] if the loss is not finite.
pub fn score(
    objective: &dyn Objective,
    model: &dyn Model,
    split: &Split,
    batch: usize,
    device: Device,
    precision: Precision,
) -> Result<SplitScore, EngineError> {
    score_units(objective, model, split, batch, device, precision, &mut |_| Ok(()))
}

/// As [`score`]; `each` is given loss and metrics of the units of each batch, in order.
///
/// # Errors
/// [`EngineError::Numerics`] if the loss is not finite.
pub fn score_units(
    objective: &dyn Objective,
    model: &dyn Model,
    split: &Split,
    batch: usize,
    device: Device,
    precision: Precision,
    each: &mut dyn FnMut(&Measured) -> Result<(), TchError>,
) -> Result<SplitScore, EngineError> {
    let n = split.samples();
    let facts = objective.facts();
    let mut loss = Sums::default();
    let mut metrics = vec![Sums::default(); facts.metrics.len()];
    for start in (0..n).step_by(batch) {
        let samples = split.range(start, n.min(start + batch), device).map_err(torch_error)?;
        tch::no_grad(|| {
            let measured = objective.measure(model, &samples, Pass::Score.with(precision))?;
            loss.add(&measured.losses)?;
            for (sums, values) in metrics.iter_mut().zip(&measured.metrics) {
                sums.add(values)?;
            }
            each(&measured)
        })
        .map_err(torch_error)?;
    }
    let loss = loss.estimate();
    if !loss.value.is_finite() {
        return Err(EngineError::Numerics(format!("expected a finite loss, found {}", loss.value)));
    }
    let metrics = facts.metrics.iter().zip(&metrics).map(|(facts, sums)| {
        let estimate = if facts.is_share { sums.share() } else { sums.estimate() };
        (Metric::of(facts), estimate)
    });
    Ok(SplitScore::new(n, loss, metrics))
}

/// Sums over units: of a value and of its square.
#[derive(Debug, Clone, Default)]
struct Sums {
    units: usize,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, values: &Tensor) -> Result<(), TchError> {
        let sum = |values: &Tensor| values.f_sum(Kind::Double)?.f_double_value(&[]);
        self.units += values.numel();
        self.sum += sum(values)?;
        self.squares += sum(&values.f_square()?)?;
        Ok(())
    }

    /// The mean, and the standard error of a sample.
    fn estimate(&self) -> Estimate {
        let n = self.units as f64;
        let value = self.sum / n;
        let freedom = self.units.saturating_sub(1).max(1) as f64;
        let variance = ((self.squares - self.sum * value) / freedom).max(0.0);
        Estimate { value, standard_error: (variance / n).sqrt() }
    }

    /// The mean of values that are 0 or 1, and its binomial standard error.
    fn share(&self) -> Estimate {
        let n = self.units as f64;
        let value = self.sum / n;
        Estimate { value, standard_error: (value * (1.0 - value) / n).sqrt() }
    }
}
