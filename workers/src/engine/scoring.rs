//! Loss and accuracy of what a model now holds.

use std::ops::Range;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::SplitScore;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::errors::torch_error;
use crate::data::Split;
use crate::families::{Model, Pass, Precision};

/// Mean cross-entropy and accuracy over a split, with standard errors; sums in f64.
///
/// # Errors
/// [`EngineError::Numerics`] if the loss is not finite.
pub fn score(
    model: &dyn Model,
    split: &Split,
    batch: usize,
    device: Device,
    precision: Precision,
) -> Result<SplitScore, EngineError> {
    let n = split.samples();
    let (mut loss, mut squares, mut right) = (0.0, 0.0, 0usize);
    for start in (0..n).step_by(batch) {
        let (l, s, r) =
            tch::no_grad(|| sums(model, split, start..n.min(start + batch), device, precision)).map_err(torch_error)?;
        loss += l;
        squares += s;
        right += r as usize;
    }
    let mean = loss / n as f64;
    if !mean.is_finite() {
        return Err(EngineError::Numerics(format!("loss is {mean}, expected a finite value")));
    }
    let freedom = n.saturating_sub(1).max(1) as f64;
    let variance = ((squares - loss * mean) / freedom).max(0.0);
    let accuracy = right as f64 / n as f64;
    Ok(SplitScore {
        loss: mean,
        loss_standard_error: (variance / n as f64).sqrt(),
        accuracy,
        accuracy_standard_error: (accuracy * (1.0 - accuracy) / n as f64).sqrt(),
        samples: n,
    })
}

/// Sums of the loss, of its square, and of right answers.
fn sums(
    model: &dyn Model,
    split: &Split,
    samples: Range<usize>,
    device: Device,
    precision: Precision,
) -> Result<(f64, f64, i64), TchError> {
    let (inputs, labels) = split.range(samples.start, samples.end, device)?;
    let logits = model.logits(&inputs, Pass::Score.with(precision))?;
    let losses =
        logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::None, -100, 0.0)?.f_to_kind(Kind::Double)?;
    let right = logits.f_argmax(-1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
    Ok((
        losses.f_sum(Kind::Double)?.f_double_value(&[])?,
        losses.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?,
        right.f_int64_value(&[])?,
    ))
}
