//! One number for a sample: outputs `[N, 1]` or `[N]` against targets `[N]`, by squared error or by
//! binary cross-entropy.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::{Estimate, Metric};
use mehl_soup::sweep::objective::{Facts, REGRESSION, SCORE};
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::chance::{self, Guess, entropy};
use super::correlation::{pearson, spearman};
use super::{Gradients, Measured, Objective, Step, checks, through_parts};
use crate::data::{Batch, Data, Split};
use crate::engine::errors::torch_error;
use crate::families::{Forward, Model, State};

/// One number for a sample; its metrics are correlations of outputs and targets over the whole
/// split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Mean squared error, as `torch.nn.MSELoss`: `regression`.
    SquaredError,
    /// Binary cross-entropy of one logit, as `torch.nn.BCEWithLogitsLoss`, with targets in [0, 1]:
    /// `score`. So are cross-encoders of sentence-transformers trained (`BinaryCrossEntropyLoss`).
    BinaryCrossEntropy,
}

impl Scalar {
    /// Loss of each sample, `[N]`.
    fn losses(self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        let outputs = outputs.f_view(-1)?;
        let targets = targets.f_to_kind(outputs.kind())?;
        match self {
            Self::SquaredError => outputs.f_mse_loss(&targets, Reduction::None),
            Self::BinaryCrossEntropy => {
                outputs.f_binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::None)
            }
        }
    }
}

impl Objective for Scalar {
    fn facts(&self) -> &'static Facts {
        match self {
            Self::SquaredError => &REGRESSION,
            Self::BinaryCrossEntropy => &SCORE,
        }
    }

    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        let loss_of = |state: &State| batch.mean(&self.losses(&state.hidden, &batch.targets)?);
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    /// Columns: outputs and targets. A logit is as good as its sigmoid for ranks; for Pearson's
    /// correlation it is not, so it becomes a probability first.
    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let outputs = model.outputs(&batch.inputs, how)?;
        let losses = self.losses(&outputs, &batch.targets)?.f_to_kind(Kind::Double)?;
        let outputs = outputs.f_view(-1)?.f_to_kind(Kind::Double)?;
        let predictions = match self {
            Self::SquaredError => outputs,
            Self::BinaryCrossEntropy => outputs.f_sigmoid()?,
        };
        Ok(Measured { losses, metrics: vec![], columns: vec![predictions, batch.targets.shallow_clone()] })
    }

    fn conclude(&self, columns: &[Vec<f64>]) -> Vec<Estimate> {
        match columns {
            [predictions, targets] => vec![pearson(predictions, targets), spearman(predictions, targets)],
            _ => vec![],
        }
    }

    /// Finite numbers `[N]` or `[N, 1]` in any dtype, within [0, 1] for `score`; f64 `[N]`
    /// afterwards.
    fn read_targets(&self, found: Tensor) -> Result<Tensor, String> {
        let shape = found.size();
        if !matches!(shape[..], [_] | [_, 1]) {
            return Err(format!("expected shape [N] or [N, 1], found {shape:?}"));
        }
        let torch = |error: TchError| error.to_string();
        let targets = found.f_to_kind(Kind::Double).and_then(|targets| targets.f_view(-1)).map_err(torch)?;
        let value = |tensor: Result<Tensor, TchError>| tensor.and_then(|t| t.f_double_value(&[])).map_err(torch);
        let (least, most) = (value(targets.f_min())?, value(targets.f_max())?);
        if !least.is_finite() || !most.is_finite() {
            return Err("expected finite values, found NaN or infinity".to_string());
        }
        if *self == Self::BinaryCrossEntropy && (least < 0.0 || most > 1.0) {
            let outside = if least < 0.0 { least } else { most };
            return Err(format!("expected values from 0 to 1 for objective `score`, found {outside}"));
        }
        Ok(targets)
    }

    fn check(&self, model: &dyn Model, data: &Data, spec: &DataSpec, device: Device) -> Result<(), EngineError> {
        checks::no_images(data, self.facts())?;
        let (samples, shape) = checks::outputs(model, data, spec, device)?;
        if shape != [samples, 1] && shape != [samples] {
            return Err(EngineError::Input(format!(
                "{}: expected one output of the model for a sample, [{samples}, 1], for objective `{}`, found {shape:?}",
                spec.learn.display(),
                self.facts().name
            )));
        }
        Ok(())
    }

    /// Guesses the mean target.
    fn check_chance(&self, manifest: &Manifest, select: &Split) -> Result<(), EngineError> {
        let targets = select.targets.f_to_device(Device::Cpu).and_then(Vec::<f64>::try_from);
        let targets = targets.map_err(torch_error)?;
        let mean = targets.iter().sum::<f64>() / targets.len() as f64;
        let loss = match self {
            Self::SquaredError => {
                targets.iter().map(|target| (target - mean).powi(2)).sum::<f64>() / targets.len() as f64
            }
            Self::BinaryCrossEntropy => entropy(mean),
        };
        let guesses = [(Metric::LOSS, loss), (Metric::of(self.facts().metrics[0]), 0.0)];
        chance::check(manifest, &Guess { how: "guessing the mean target", values: &guesses }, self.facts())
    }
}
