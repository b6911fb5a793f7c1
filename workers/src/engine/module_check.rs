//! Whether a module of `torch.jit` gives a sample the same logits each time, and whatever stands beside it.
//!
//! The code of a module cannot be read here, only run. Dropout that is left on, statistics of the batch and a batch size that a
//! trace has fixed would go unnoticed, and make every score wrong.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::ZooSpec;
use tch::{Device, Kind, TchError, Tensor};

use super::errors::torch_error;
use crate::data::Split;
use crate::families::{Model, Pass};

/// Samples that are tried together, and one by one.
const SAMPLES: usize = 3;
/// Largest difference of two passes, relative to the largest logit: libtorch may sum in another order for another batch.
const TOLERANCE: f64 = 1e-3;

/// Checks a model with the values that it now holds.
///
/// # Errors
/// [`EngineError::Input`] with what is wrong and how to make a module without it.
pub fn check(model: &dyn Model, learn: &Split, zoo: &ZooSpec, device: Device) -> Result<(), EngineError> {
    let file = zoo.architecture.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let fault = |what: &str| {
        EngineError::Input(format!(
            "{file}: {what}. Call model.eval() before torch.jit.trace, or make it with `python -m mehl_soup export`"
        ))
    };
    let samples = SAMPLES.min(learn.samples());
    let texts = learn.texts();
    let logits = |first: usize, last: usize| -> Result<Tensor, TchError> {
        let batch = learn.range(first, last, device)?;
        tch::no_grad(|| model.outputs(&batch.inputs, Pass::Score.full()))
    };
    let together = logits(0, samples).map_err(torch_error)?;
    let again = logits(0, samples).map_err(torch_error)?;
    if differ(&together, &again).map_err(torch_error)? {
        return Err(fault("the module gives other logits each time for the same samples: dropout is on"));
    }
    for sample in 0..samples {
        let alone = logits(sample, sample + 1).map_err(|error| {
            fault(&format!("the module takes {samples} samples at once, but not one: {}", torch_error(error)))
        })?;
        // Text t of sample i of n is row t * n + i.
        let rows: Vec<i64> = (0..texts).map(|text| (text * samples + sample) as i64).collect();
        let rows = Tensor::f_from_slice(&rows).and_then(|rows| rows.f_to_device(device));
        let row = rows.and_then(|rows| together.f_index_select(0, &rows)).map_err(torch_error)?;
        if alone.size() != row.size() || differ(&alone, &row).map_err(torch_error)? {
            return Err(fault(
                "the module gives a sample other logits alone than beside others: it normalises with statistics of \
                 the batch, or its trace has a fixed batch size",
            ));
        }
    }
    Ok(())
}

/// Whether two tensors of one shape differ by more than rounding. Values that are not finite do not differ: a score tells of them.
fn differ(a: &Tensor, b: &Tensor) -> Result<bool, TchError> {
    let largest = |t: &Tensor| t.f_abs()?.f_max()?.f_to_kind(Kind::Double)?.f_double_value(&[]);
    let difference = largest(&a.f_sub(b)?)?;
    Ok(difference > TOLERANCE * largest(a)?.max(1.0))
}
