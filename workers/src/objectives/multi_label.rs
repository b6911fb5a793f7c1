//! Any number of several labels: binary cross-entropy of logits `[N, labels]` against targets `[N,
//! labels]` of 0 and 1.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::objective::{Facts, MULTI_LABEL};
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::chance::{self, Guess, entropy};
use super::{Gradients, Measured, Objective, Step, checks, through_parts};
use crate::data::{Batch, Data, Split, dtype_name};
use crate::engine::errors::torch_error;
use crate::families::{Forward, Model, State};

/// Mean binary cross-entropy over samples and labels, as `torch.nn.BCEWithLogitsLoss`. A label is
/// said to be there where its probability is above 0.5. A sample's label accuracy is the share of
/// its labels that are right; it matches exactly if all are.
#[derive(Debug, Clone, Copy)]
pub struct MultiLabel;

impl MultiLabel {
    /// Loss of each label of each sample, `[N, labels]`.
    fn losses(logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        let targets = targets.f_to_kind(logits.kind())?;
        logits.f_binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::None)
    }
}

impl Objective for MultiLabel {
    fn facts(&self) -> &'static Facts {
        &MULTI_LABEL
    }

    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        let loss_of = |state: &State| {
            let losses = Self::losses(&state.hidden, &batch.targets)?;
            match &batch.weights {
                None => losses.f_mean(None),
                Some(_) => batch.mean(&of_samples(&losses, losses.kind())?),
            }
        };
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let logits = model.outputs(&batch.inputs, how)?;
        let losses = Self::losses(&logits, &batch.targets)?;
        let right = logits.f_gt(0.0)?.f_eq_tensor(&batch.targets.f_to_kind(Kind::Bool)?)?.f_to_kind(Kind::Double)?;
        let exact = right.f_amin(&[1i64][..], false)?;
        let metrics = vec![of_samples(&right, Kind::Double)?, exact];
        Ok(Measured { losses: of_samples(&losses, Kind::Double)?, metrics, columns: vec![] })
    }

    /// Labels `[N, labels]` of 0 and 1, in any dtype; u8 afterwards.
    fn read_targets(&self, found: Tensor) -> Result<Tensor, String> {
        let shape = found.size();
        if shape.len() != 2 || shape[1] == 0 {
            return Err(format!("expected shape [N, labels], found {shape:?}"));
        }
        let torch = |error: TchError| error.to_string();
        let labels = found.f_to_kind(Kind::Bool).map_err(torch)?;
        let others = found.f_ne_tensor(&labels.f_to_kind(found.kind()).map_err(torch)?).map_err(torch)?;
        if others.f_any().and_then(|any| any.f_int64_value(&[])).map_err(torch)? != 0 {
            let first = found.f_masked_select(&others).and_then(|values| values.f_double_value(&[0])).map_err(torch)?;
            return Err(format!("expected values 0 and 1, found {first} ({})", dtype_name(found.kind())));
        }
        labels.f_to_kind(Kind::Uint8).map_err(torch)
    }

    fn check(&self, model: &dyn Model, data: &Data, spec: &DataSpec, device: Device) -> Result<(), EngineError> {
        checks::no_images(data, self.facts())?;
        let (samples, shape) = checks::outputs(model, data, spec, device)?;
        let fault = |what: String| EngineError::Input(format!("{}: {what}", spec.learn.display()));
        let [n, labels] = shape[..] else {
            return Err(fault(format!("expected logits [N, labels] of the model, found {shape:?}")));
        };
        if n != samples {
            return Err(fault(format!("expected {samples} rows of logits, found {shape:?}")));
        }
        for (split, path) in data.each_split() {
            let found = split.targets.size();
            if found[1..] != [labels] {
                return Err(EngineError::Input(format!(
                    "{}: `{}`: expected {labels} labels for a sample, the number of the model's outputs, found shape \
                     {found:?}",
                    path.display(),
                    spec.labels
                )));
            }
        }
        Ok(())
    }

    /// Guesses each label by how often it is there.
    fn check_chance(&self, manifest: &Manifest, select: &Split) -> Result<(), EngineError> {
        let shares =
            select.targets.f_to_kind(Kind::Double).and_then(|t| t.f_mean_dim(&[0i64][..], false, Kind::Double));
        let shares = shares.and_then(|t| Vec::<f64>::try_from(t.f_to_device(Device::Cpu)?)).map_err(torch_error)?;
        let mean = |of: fn(f64) -> f64| shares.iter().map(|&share| of(share)).sum::<f64>() / shares.len() as f64;
        let accuracy = Metric::of(MULTI_LABEL.metrics[0]);
        let guesses = [(Metric::LOSS, mean(entropy)), (accuracy, mean(|share| share.max(1.0 - share)))];
        chance::check(manifest, &Guess { how: "guessing by label frequencies", values: &guesses }, self.facts())
    }
}

/// Mean over the labels of each sample, `[N]`.
fn of_samples(values: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    values.f_mean_dim(&[1i64][..], false, kind)
}
