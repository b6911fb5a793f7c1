//! A projection of gradients that become complete one after the other.

use tch::{Device, TchError, Tensor};

use super::rows::TensorProjection;
use super::span::{Projection, Span};
use crate::objectives::GradientSink;

/// Projects gradients as they come, and frees them. The result is that of [`Span::project`] of all of
/// them, bit for bit: inner products and squares are summed tensor by tensor in their order,
/// whatever the order in which they come.
///
/// Gradients on a GPU are kept until the end: reading the products of each part would make the host
/// wait for the device.
pub struct Projector<'a> {
    span: &'a Span,
    gradients: Vec<Tensor>,
    found: Vec<Option<TensorProjection>>,
}

impl<'a> Projector<'a> {
    /// For the gradients of all mixed tensors of a span.
    pub fn new(span: &'a Span) -> Self {
        let tensors = span.tensors();
        Self {
            span,
            gradients: (0..tensors).map(|_| Tensor::new()).collect(),
            found: (0..tensors).map(|_| None).collect(),
        }
    }

    /// The projection of all gradients that came. Those that did not count as 0.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn end(self) -> Result<Projection, TchError> {
        if self.gradients.iter().any(Tensor::defined) {
            return self.span.project(&self.gradients);
        }
        let found = self.found.into_iter().enumerate();
        Ok(self.span.sum(found.filter_map(|(tensor, found)| Some((tensor, found?)))))
    }
}

impl GradientSink for Projector<'_> {
    fn take(&mut self, gradients: Vec<(usize, Tensor)>) -> Result<(), TchError> {
        let on_host = gradients.iter().all(|(_, gradient)| gradient.device() == Device::Cpu);
        let which: Vec<usize> = gradients.iter().map(|(tensor, _)| *tensor).collect();
        for (tensor, gradient) in gradients {
            self.gradients[tensor] = gradient;
        }
        if !on_host {
            return Ok(());
        }
        let projected = self.span.project_some(&self.gradients, &which)?;
        for (tensor, projection) in which.into_iter().zip(projected) {
            self.gradients[tensor] = Tensor::new();
            self.found[tensor] = Some(projection);
        }
        Ok(())
    }
}
