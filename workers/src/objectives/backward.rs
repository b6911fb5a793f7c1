//! The soup's loss and gradient on one batch, by one backward pass through one model: what objectives have in common.

use tch::{Kind, TchError, Tensor};

use crate::engine::phases::{Clock, Phase};
use crate::families::{Forward, Model, ModelInputs, State};

/// What a backward pass gives.
pub struct Gradients {
    /// Mean loss over the batch.
    pub loss: f64,
    /// Gradient of the inverse temperature; 0 without one.
    pub temperature: f64,
    /// Gradient of each leaf, in its dtype and shape; undefined where the loss does not depend on it.
    pub leaves: Vec<Tensor>,
}

/// How a gradient is computed.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    /// Statistics and dtype.
    pub how: Forward,
    /// Whether activations within a part of the model are thrown away after the forward pass and computed anew for the backward pass, so that only those of
    /// one part are there at a time; only what goes from part to part is kept. The gradients are the same; a second forward pass is paid.
    pub recompute: bool,
}

/// Loss and gradients of `leaves` on a batch, for objectives whose loss is one function of the state after the last part:
/// `loss_of`, with `hidden` multiplied by the inverse temperature if there is one. Mask and positions travel with the state;
/// gradients go through `hidden` alone.
///
/// # Errors
/// What libtorch reports.
pub fn through_parts(
    model: &dyn Model,
    inputs: &ModelInputs,
    leaves: &[Tensor],
    inverse_temperature: Option<f64>,
    backward: Backward,
    clock: &mut Clock,
    loss_of: &dyn Fn(&State) -> Result<Tensor, TchError>,
) -> Result<Gradients, TchError> {
    let begun = clock.begin(Phase::Forward);
    let Backward { how, recompute } = backward;
    // Before anything is queued on the device: to copy a number to it waits for what is.
    let temperature = match (inverse_temperature, leaves.first()) {
        (Some(value), Some(leaf)) => {
            let value = Tensor::f_from_slice(&[value])?.f_to_kind(leaf.kind())?;
            Some(value.f_to_device(leaf.device())?.f_set_requires_grad(true)?)
        }
        _ => None,
    };
    let run = |part: usize, before: Option<&State>| match before {
        Some(state) => model.part(part, state, how),
        None => model.first_part(inputs, how),
    };
    // What goes from part to part, without the state after the last.
    let mut between: Vec<State> = vec![];
    if recompute {
        tch::no_grad(|| -> Result<(), TchError> {
            for part in 0..model.parts() - 1 {
                let state = run(part, between.last())?;
                between.push(state);
            }
            Ok(())
        })?;
    }
    let mut entry = between.pop().map(State::into_leaf).transpose()?;
    let state = match &entry {
        Some(state) => model.part(model.parts() - 1, state, how)?,
        None => model.forward(inputs, how)?,
    };
    let state = match &temperature {
        Some(temperature) => state.with_hidden(state.hidden.f_mul(temperature)?),
        None => state,
    };
    let loss = loss_of(&state)?;
    drop(state);
    clock.end(Phase::Forward, begun);

    let begun = clock.begin(Phase::Backward);
    let wanted = [entry.as_ref().map(|state| &state.hidden), temperature.as_ref()].into_iter().flatten();
    let mut found = Backpropagated::through(&loss, leaves, wanted)?;
    let temperature = temperature.and_then(|_| found.others.pop());
    let loss = loss.f_detach()?;
    let mut gradients = found.leaves;
    for part in (0..between.len() + usize::from(entry.is_some())).rev() {
        let above = found.others.pop().ok_or_else(|| TchError::Torch("a part has no gradient".to_string()))?;
        entry = between.pop().map(State::into_leaf).transpose()?;
        let output = run(part, entry.as_ref())?.hidden;
        if !output.requires_grad() {
            break;
        }
        // Of this sum, the gradient of the output is `above`, and that is all that libtorch can be given through tch.
        found = {
            let scalar = output.f_mul(&above)?.f_sum(None::<Kind>)?;
            Backpropagated::through(&scalar, leaves, entry.iter().map(|state| &state.hidden))?
        };
        // A parameter of several parts, such as a tied embedding, has the sum of what each of them gives.
        for (gradient, own) in gradients.iter_mut().zip(found.leaves) {
            if own.defined() {
                *gradient = if gradient.defined() { gradient.f_add(&own)? } else { own };
            }
        }
        found.leaves = vec![];
    }
    // All is queued; what is reported is waited for.
    let loss = loss.f_to_kind(Kind::Double)?.f_double_value(&[])?;
    let temperature = match temperature {
        Some(gradient) => gradient.f_to_kind(Kind::Double)?.f_double_value(&[0])?,
        None => 0.0,
    };
    clock.end(Phase::Backward, begun);
    Ok(Gradients { loss, temperature, leaves: gradients })
}

/// Gradients of one scalar.
struct Backpropagated {
    leaves: Vec<Tensor>,
    others: Vec<Tensor>,
}

impl Backpropagated {
    fn through<'a>(
        scalar: &Tensor,
        leaves: &'a [Tensor],
        others: impl Iterator<Item = &'a Tensor>,
    ) -> Result<Self, TchError> {
        let mut wanted: Vec<&Tensor> = leaves.iter().collect();
        wanted.extend(others);
        let mut leaves_found = Tensor::f_run_backward(&[scalar], &wanted, false, false)?;
        let others = leaves_found.split_off(leaves.len());
        Ok(Self { leaves: leaves_found, others })
    }
}
