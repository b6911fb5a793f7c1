//! What objectives check of data and a model's outputs alike.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::objective::Facts;
use mehl_soup::sweep::spec::DataSpec;
use tch::Device;

use crate::data::Data;
use crate::engine::errors::torch_error;
use crate::families::{Model, Pass};

/// Samples that a model is tried with, and the shape of its outputs for them.
///
/// # Errors
/// If the model does not take them.
pub(super) fn outputs(
    model: &dyn Model,
    data: &Data,
    spec: &DataSpec,
    device: Device,
) -> Result<(i64, Vec<i64>), EngineError> {
    let samples = data.learn.samples().min(2);
    let batch = data.learn.range(0, samples, device).map_err(torch_error)?;
    let outputs = tch::no_grad(|| model.outputs(&batch.inputs, Pass::Learn.full())).map_err(|error| {
        let (file, error) = (spec.learn.display(), torch_error(error));
        EngineError::Input(format!("{file}: the model does not accept inputs {:?} of this file: {error}", spec.inputs))
    })?;
    Ok((samples as i64, outputs.size()))
}

/// That data are no images, which have a class each and no other targets.
///
/// # Errors
/// Naming the first split of images and the objective.
pub(super) fn no_images(data: &Data, objective: &Facts) -> Result<(), EngineError> {
    match data.each_split().find(|(split, _)| split.images().is_some()) {
        None => Ok(()),
        Some((_, path)) => Err(EngineError::Input(format!(
            "{}: expected targets for objective `{}`, found images, which have a class each (use tensor files, or \
             data.objective = \"classification\")",
            path.display(),
            objective.name
        ))),
    }
}
