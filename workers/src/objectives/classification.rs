//! One class of several: cross-entropy of logits `[N, classes]` against labels `[N]`, i64.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::objective::{CLASSIFICATION, Facts};
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::{Gradients, Measured, Objective, Step, chance, checks, through_parts};
use crate::data::{Batch, Data, DataError, Split, dtype_name};
use crate::engine::errors::data_error;
use crate::families::{Forward, Model, State};

/// Mean cross-entropy in nats; accuracy is the part of samples whose largest logit is that of their label.
#[derive(Debug, Clone, Copy)]
pub struct Classification;

impl Objective for Classification {
    fn facts(&self) -> &'static Facts {
        &CLASSIFICATION
    }

    /// The loss is computed in the dtype of the parameters; weights of samples count in their mean.
    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        let losses = |logits: &Tensor, reduction| {
            logits.f_cross_entropy_loss::<Tensor>(&batch.targets, None, reduction, -100, 0.0)
        };
        let loss_of = |state: &State| match &batch.weights {
            None => losses(&state.hidden, Reduction::Mean),
            Some(_) => batch.mean(&losses(&state.hidden, Reduction::None)?),
        };
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let logits = model.outputs(&batch.inputs, how)?;
        let losses = logits.f_cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::None, -100, 0.0)?;
        let right = logits.f_argmax(-1, false)?.f_eq_tensor(&batch.targets)?;
        Ok(Measured {
            losses: losses.f_to_kind(Kind::Double)?,
            metrics: vec![right.f_to_kind(Kind::Double)?],
            columns: vec![],
        })
    }

    /// Labels `[N]`, whole numbers from 0; i64 afterwards.
    fn read_targets(&self, found: Tensor) -> Result<Tensor, String> {
        let shape = found.size();
        if shape.len() != 1 {
            return Err(format!("expected shape [N], found {shape:?}"));
        }
        if !matches!(found.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Uint8 | Kind::Int8) {
            return Err(format!("expected whole numbers, found {}", dtype_name(found.kind())));
        }
        let torch = |error: TchError| error.to_string();
        let labels = found.f_to_kind(Kind::Int64).map_err(torch)?;
        let smallest = labels.f_min().and_then(|least| least.f_int64_value(&[])).map_err(torch)?;
        if smallest < 0 {
            return Err(format!("expected classes from 0, found {smallest}"));
        }
        Ok(labels)
    }

    fn check(&self, model: &dyn Model, data: &Data, spec: &DataSpec, device: Device) -> Result<(), EngineError> {
        let fault = |what: String| EngineError::Input(format!("{}: {what}", spec.learn.display()));
        if model.gives_embeddings() {
            return Err(EngineError::Input(
                "zoo.ingredients: expected classifiers, found models that give embeddings: give models with a \
                 head for sequence classification"
                    .to_string(),
            ));
        }
        let (samples, shape) = checks::outputs(model, data, spec, device)?;
        let [n, classes] = shape[..] else {
            return Err(fault(format!("expected logits [N, classes] of the model, found {shape:?}")));
        };
        if classes < 2 {
            return Err(fault(format!("expected a classifier with two or more outputs, found logits {shape:?}")));
        }
        if n != samples {
            return Err(fault(format!("expected {samples} rows of logits, found {shape:?}")));
        }
        Self::check_labels(data, &spec.labels, model.classes().unwrap_or(classes)).map_err(data_error)
    }

    fn check_chance(&self, manifest: &Manifest, select: &Split) -> Result<(), EngineError> {
        chance::check_classes(manifest, &select.targets)
    }
}

impl Classification {
    /// Checks all labels against the number of classes.
    ///
    /// # Errors
    /// Naming the split's file, the largest label and the number of classes.
    pub fn check_labels(data: &Data, name: &str, classes: i64) -> Result<(), DataError> {
        if let Some((count, source)) = data.named_classes()
            && count as i64 != classes
        {
            return Err(DataError::Content {
                file: source.to_string(),
                what: format!(
                    "expected {classes} classes, the number of the model's outputs, found {count} \
                     (list all classes in data.classes, in the model's order)"
                ),
            });
        }
        for (split, path) in data.each_split() {
            let largest = split.targets.f_max()?.f_int64_value(&[])?;
            if largest >= classes {
                return Err(DataError::Content {
                    file: path.display().to_string(),
                    what: format!("`{name}`: expected classes 0 to {}, found {largest}", classes - 1),
                });
            }
        }
        Ok(())
    }
}
