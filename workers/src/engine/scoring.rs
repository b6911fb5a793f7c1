//! Scores of what a model now holds.

use std::ops::Range;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::SplitScore;
use tch::{Device, Kind, TchError};

use super::errors::torch_error;
use crate::data::Split;
use crate::families::{Model, Pass, Precision};
use crate::objectives::Objective;

/// Mean loss and first metric over a split, with standard errors over units; sums in f64.
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
    let n = split.samples();
    let mut all = Sums::default();
    for start in (0..n).step_by(batch) {
        let samples = start..n.min(start + batch);
        let more = tch::no_grad(|| sums(objective, model, split, samples, device, precision)).map_err(torch_error)?;
        all.loss += more.loss;
        all.squares += more.squares;
        all.metric += more.metric;
    }
    let mean = all.loss / n as f64;
    if !mean.is_finite() {
        return Err(EngineError::Numerics(format!("expected a finite loss, found {mean}")));
    }
    let freedom = n.saturating_sub(1).max(1) as f64;
    let variance = ((all.squares - all.loss * mean) / freedom).max(0.0);
    let accuracy = all.metric / n as f64;
    Ok(SplitScore {
        loss: mean,
        loss_standard_error: (variance / n as f64).sqrt(),
        accuracy,
        accuracy_standard_error: (accuracy * (1.0 - accuracy) / n as f64).sqrt(),
        samples: n,
    })
}

/// Sums over units: of the loss, of its square, and of the first metric.
#[derive(Default)]
struct Sums {
    loss: f64,
    squares: f64,
    metric: f64,
}

fn sums(
    objective: &dyn Objective,
    model: &dyn Model,
    split: &Split,
    samples: Range<usize>,
    device: Device,
    precision: Precision,
) -> Result<Sums, TchError> {
    let batch = split.range(samples.start, samples.end, device)?;
    let measured = objective.measure(model, &batch, Pass::Score.with(precision))?;
    let sum = |values: &tch::Tensor| values.f_sum(Kind::Double)?.f_double_value(&[]);
    Ok(Sums {
        loss: sum(&measured.losses)?,
        squares: sum(&measured.losses.f_square()?)?,
        metric: measured.metrics.first().map(sum).transpose()?.unwrap_or(0.0),
    })
}
