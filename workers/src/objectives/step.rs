//! What an objective is given to compute a gradient, and where the gradient goes.

use tch::{Device, TchError, Tensor};

use super::Objective;
use crate::data::Batch;
use crate::engine::phases::Clock;
use crate::families::{Forward, Model};

/// Bytes of a gradient from which on a pass goes part by part: to free a smaller one early is not worth the calls.
const LARGE_GRADIENT: usize = 8 << 20;

/// The parameters of a model whose gradients are wanted.
#[derive(Debug)]
pub struct Leaves {
    /// The parameters.
    pub tensors: Vec<Tensor>,
    /// The [first part](Model::first_part_of) that uses each.
    pub first_parts: Vec<usize>,
}

impl Leaves {
    /// Of parameters of a model, with their names.
    pub fn new<'a>(model: &dyn Model, parameters: impl Iterator<Item = (&'a str, Tensor)>) -> Self {
        let (first_parts, tensors) = parameters.map(|(name, tensor)| (model.first_part_of(name), tensor)).unzip();
        Self { tensors, first_parts }
    }

    /// All parameters of a model, by name.
    pub fn all(model: &dyn Model) -> Self {
        Self::new(model, model.parameters().iter().map(|(name, tensor)| (name.as_str(), tensor.shallow_clone())))
    }

    /// The way of the backward pass. On a GPU a pass that keeps its activations is not cut: that has not been measured.
    pub fn course(&self, recompute: bool) -> Course {
        let bytes: usize = self.tensors.iter().map(|leaf| leaf.numel() * leaf.kind().elt_size_in_bytes()).sum();
        let on_host = self.tensors.iter().all(|leaf| leaf.device() == Device::Cpu);
        match recompute || on_host && bytes >= LARGE_GRADIENT {
            true => Course::ByParts { recompute },
            false => Course::Whole,
        }
    }
}

/// One backward pass: of what, how, and where gradients go.
pub struct Step<'a> {
    /// The parameters whose gradients are wanted.
    pub leaves: &'a Leaves,
    /// A factor on the outputs, where it is learned.
    pub inverse_temperature: Option<f64>,
    /// How the pass is computed.
    pub backward: Backward,
    /// Times phases.
    pub clock: &'a mut Clock,
    /// Takes the gradients.
    pub sink: &'a mut dyn GradientSink,
}

/// How a gradient is computed.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    /// Statistics and dtype.
    pub how: Forward,
    /// The way through the model.
    pub course: Course,
}

/// The way of a backward pass through the parts of a model. The bits of the gradients do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Course {
    /// All parts at once. The sink takes all gradients at the end.
    Whole,
    /// Part by part, from the last to the first. The sink takes the gradients of a part before those of the next part exist, so the whole gradient is never
    /// in memory.
    ByParts {
        /// Whether the forward pass keeps only what goes from part to part. The backward pass computes the activations of a part again when it gets there, so
        /// those of one part exist at a time. This costs a second forward pass.
        recompute: bool,
    },
}

/// Takes gradients as they become complete.
pub trait GradientSink {
    /// Takes the gradients of some leaves, with the place of each among the leaves, ascending. Each is in the dtype and shape of its leaf. Each leaf comes at most
    /// once in a pass. A leaf that the loss does not depend on does not come.
    ///
    /// # Errors
    /// What libtorch reports.
    fn take(&mut self, gradients: Vec<(usize, Tensor)>) -> Result<(), TchError>;
}

/// Mean loss over a batch, and what is left of a gradient beside that of the leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradients {
    /// Mean loss over the batch.
    pub loss: f64,
    /// Gradient of the inverse temperature; 0 without one.
    pub temperature: f64,
}

/// Keeps all gradients: one for each leaf, undefined where the loss does not depend on it.
#[derive(Debug)]
pub struct Collected(pub Vec<Tensor>);

impl Collected {
    /// Of so many leaves.
    pub fn new(leaves: usize) -> Self {
        Self((0..leaves).map(|_| Tensor::new()).collect())
    }
}

impl GradientSink for Collected {
    fn take(&mut self, gradients: Vec<(usize, Tensor)>) -> Result<(), TchError> {
        for (leaf, gradient) in gradients {
            self.0[leaf] = gradient;
        }
        Ok(())
    }
}

/// A gradient all of which is kept.
#[derive(Debug)]
pub struct WholeGradient {
    /// Mean loss over the batch.
    pub loss: f64,
    /// Gradient of the inverse temperature; 0 without one.
    pub temperature: f64,
    /// Gradient of each leaf, in its dtype and shape; undefined where the loss does not depend on it.
    pub leaves: Vec<Tensor>,
}

impl WholeGradient {
    /// Of an objective on a batch.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn compute(
        objective: &dyn Objective,
        model: &dyn Model,
        batch: &Batch,
        leaves: &Leaves,
        inverse_temperature: Option<f64>,
        backward: Backward,
        clock: &mut Clock,
    ) -> Result<Self, TchError> {
        let mut kept = Collected::new(leaves.tensors.len());
        let mut step = Step { leaves, inverse_temperature, backward, clock, sink: &mut kept };
        let Gradients { loss, temperature } = objective.gradients(model, batch, &mut step)?;
        Ok(Self { loss, temperature, leaves: kept.0 })
    }
}

/// Keeps nothing.
#[derive(Debug)]
pub struct Discarded;

impl GradientSink for Discarded {
    fn take(&mut self, _: Vec<(usize, Tensor)>) -> Result<(), TchError> {
        Ok(())
    }
}
