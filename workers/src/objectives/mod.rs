//! Objectives: what coefficients are learned for, and what a soup is scored by.
//!
//! An [`Objective`] drives the model for one batch: it calls the model's parts, computes the loss, and owns the backward
//! pass through what it puts behind the model. So plain cross-entropy, a loss that is computed in chunks of a language
//! model's tokens, and one over several encodings of a sample need the same of the engine. Nothing outside of this
//! module knows what outputs and targets are.
//!
//! `docs/add-an-objective.md` shows how to add one.

mod backward;
mod chance;
mod checks;
mod classification;
mod correlation;
mod fixed_batches;
mod multi_label;
mod pairs;
mod scalar;
mod step;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::Estimate;
use mehl_soup::sweep::objective::{self, Facts};
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, TchError, Tensor};

pub use backward::through_parts;
pub use classification::Classification;
pub use fixed_batches::FixedBatches;
pub use multi_label::MultiLabel;
pub use pairs::Pairs;
pub use scalar::Scalar;
pub use step::{Backward, Collected, Course, Discarded, GradientSink, Gradients, Leaves, Step, WholeGradient};

use crate::data::{Batch, Data, Split};
use crate::families::{Forward, Model};

/// What coefficients are learned for.
pub trait Objective {
    /// Its row in [`mehl_soup::sweep::objective`].
    fn facts(&self) -> &'static Facts;

    /// Mean loss over a batch. The gradients of the step's leaves go to its sink. With an inverse temperature, outputs are multiplied by it,
    /// and its gradient is given too; only where [`Facts::has_temperature`].
    ///
    /// # Errors
    /// What libtorch reports.
    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError>;

    /// Loss and metrics of a batch, for each [unit](Facts::unit), in the order of [`Facts::metrics`]: those that are means over units,
    /// before those that [`conclude`](Self::conclude) gives. Called without gradients.
    ///
    /// # Errors
    /// What libtorch reports.
    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError>;

    /// Metrics that are no means over units, such as correlations, from the [columns](Measured::columns) of a whole split, each with
    /// its standard error. In the order of [`Facts::metrics`], of which they are the last. Values are finite.
    fn conclude(&self, _columns: &[Vec<f64>]) -> Vec<Estimate> {
        vec![]
    }

    /// The batches that splits are scored in, where the loss of a sample depends on the others of its batch. `None`: any do.
    fn fixed_batches(&self) -> Option<FixedBatches> {
        None
    }

    /// Checks targets as a data file has them, `[N, ...]`, and turns them into [`Batch::targets`].
    ///
    /// # Errors
    /// What was expected and found.
    fn read_targets(&self, found: Tensor) -> Result<Tensor, String>;

    /// That the model takes the inputs, and that its outputs and all targets fit each other.
    ///
    /// # Errors
    /// [`EngineError::Input`] with file, tensor, expected and found.
    fn check(&self, model: &dyn Model, data: &Data, spec: &DataSpec, device: Device) -> Result<(), EngineError>;

    /// What a person should know of the data, once they were [checked](Self::check).
    ///
    /// # Errors
    /// What libtorch reports.
    fn notes(&self, _data: &Data) -> Result<Vec<String>, TchError> {
        Ok(vec![])
    }

    /// That at least one ingredient is better on select than a guess that does not look at the inputs.
    ///
    /// # Errors
    /// [`EngineError::Input`] with the best scores and those of guessing.
    fn check_chance(&self, manifest: &Manifest, select: &Split) -> Result<(), EngineError>;
}

/// Loss and metrics of a batch, `[units]` f64 each, on the device.
#[derive(Debug)]
pub struct Measured {
    /// Loss of each unit.
    pub losses: Tensor,
    /// Each metric of each unit, of those that are means over units.
    pub metrics: Vec<Tensor>,
    /// What [`Objective::conclude`] takes of these samples, `[n]` each.
    pub columns: Vec<Tensor>,
}

/// The objective of a sweep.
pub fn of(objective: objective::Objective) -> Box<dyn Objective> {
    use objective::Objective as Named;
    match objective {
        Named::Classification => Box::new(Classification),
        Named::MultiLabel => Box::new(MultiLabel),
        Named::Regression => Box::new(Scalar::SquaredError),
        Named::Score => Box::new(Scalar::BinaryCrossEntropy),
        Named::Pairs { scale, batch, seed } => Box::new(Pairs { scale, batches: FixedBatches { size: batch, seed } }),
    }
}
