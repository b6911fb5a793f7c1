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
mod classification;
mod step;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::objective::Facts;
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, TchError, Tensor};

pub use backward::through_parts;
pub use classification::Classification;
pub use step::{Backward, Collected, Course, Discarded, GradientSink, Gradients, Leaves, Step, WholeGradient};

use crate::data::{Batch, Data};
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

    /// Loss and metrics of a batch, for each [unit](Facts::unit), in the order of [`Facts::metrics`]. Called without gradients.
    ///
    /// # Errors
    /// What libtorch reports.
    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError>;

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

    /// That at least one ingredient is better on select than a guess that does not look at the inputs.
    ///
    /// # Errors
    /// [`EngineError::Input`] with the best scores and those of guessing.
    fn check_chance(&self, manifest: &Manifest, targets: &Tensor) -> Result<(), EngineError>;
}

/// Loss and metrics of a batch, `[units]` f64 each, on the device.
#[derive(Debug)]
pub struct Measured {
    /// Loss of each unit.
    pub losses: Tensor,
    /// Each metric of each unit.
    pub metrics: Vec<Tensor>,
}
