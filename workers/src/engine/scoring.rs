//! Scores of what a model now holds.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::metric::{Estimate, Metric};
use mehl_soup::sweep::score::SplitScore;
use tch::{Device, Kind, TchError, Tensor};

use super::errors::torch_error;
use crate::data::{Batch, Split};
use crate::families::{Model, Pass, Precision};
use crate::objectives::{Measured, Objective};

/// Mean loss and metrics over a split, with standard errors over units; sums in f64. In batches of `batch` samples, unless the
/// objective has [batches of its own](Objective::fixed_batches).
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
    let mut gathered = Gathered::default();
    let mut measure = |samples: Batch| {
        tch::no_grad(|| {
            let measured = objective.measure(model, &samples, Pass::Score.with(precision))?;
            gathered.add(&measured)?;
            each(&measured)
        })
    };
    match objective.fixed_batches() {
        Some(fixed) => {
            for indices in fixed.of(n) {
                split.batch(&indices, device).and_then(&mut measure).map_err(torch_error)?;
            }
        }
        None => {
            for start in (0..n).step_by(batch) {
                split.range(start, n.min(start + batch), device).and_then(&mut measure).map_err(torch_error)?;
            }
        }
    }
    let Gathered { loss, metrics, columns } = gathered;
    let (units, loss) = (loss.units, loss.estimate());
    if !loss.value.is_finite() {
        return Err(EngineError::Numerics(format!("expected a finite loss, found {}", loss.value)));
    }
    let means = facts.metrics.iter().zip(&metrics);
    let means = means.map(|(facts, sums)| if facts.is_share { sums.share() } else { sums.estimate() });
    let found: Vec<Estimate> = means.chain(objective.conclude(&columns)).collect();
    if found.len() != facts.metrics.len() {
        let (name, expected) = (facts.name, facts.metrics.len());
        return Err(EngineError::Internal(format!("{name}: expected {expected} metrics, found {}", found.len())));
    }
    let metrics = facts.metrics.iter().map(|facts| Metric::of(facts)).zip(found);
    Ok(SplitScore::new(units, loss, metrics))
}

/// What the batches of a split gave.
#[derive(Debug, Default)]
struct Gathered {
    loss: Sums,
    metrics: Vec<Sums>,
    columns: Vec<Vec<f64>>,
}

impl Gathered {
    fn add(&mut self, measured: &Measured) -> Result<(), TchError> {
        self.loss.add(&measured.losses)?;
        self.metrics.resize_with(measured.metrics.len(), Sums::default);
        for (sums, values) in self.metrics.iter_mut().zip(&measured.metrics) {
            sums.add(values)?;
        }
        self.columns.resize_with(measured.columns.len(), Vec::new);
        for (column, values) in self.columns.iter_mut().zip(&measured.columns) {
            column.extend(Vec::<f64>::try_from(values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?);
        }
        Ok(())
    }
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

    /// The mean, and the standard error of a sample. One unit says nothing of its spread: the error is as large as the value then,
    /// so that nothing is told apart by it.
    fn estimate(&self) -> Estimate {
        let n = self.units as f64;
        let value = self.sum / n;
        if self.units == 1 {
            return Estimate { value, standard_error: value.abs() };
        }
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
