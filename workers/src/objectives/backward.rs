//! The soup's loss and gradient on one batch, by one backward pass through one model: what objectives have in common.

use tch::{Kind, TchError, Tensor};

use super::step::{Course, GradientSink, Gradients, Leaves, Step};
use crate::engine::phases::{Begun, Clock, Phase};
use crate::families::{Forward, Model, ModelInputs, State};
use crate::torch;

/// Loss and gradients on a batch, for objectives whose loss is one function of the state after the last part:
/// `loss_of`, with `hidden` multiplied by the inverse temperature if there is one. Mask and positions travel with the state;
/// gradients go through `hidden` alone.
///
/// # Errors
/// What libtorch reports, and [`TchError::Torch`] if [`Model::first_part_of`] is wrong about a leaf.
pub fn through_parts(
    model: &dyn Model,
    inputs: &ModelInputs,
    step: &mut Step<'_>,
    loss_of: &dyn Fn(&State) -> Result<Tensor, TchError>,
) -> Result<Gradients, TchError> {
    let Step { leaves: Leaves { tensors: leaves, first_parts }, inverse_temperature, backward, clock, sink } = step;
    let how = backward.how;
    let begun = clock.begin(Phase::Forward);
    // Before anything is queued on the device: to copy a number to it waits for what is.
    let temperature = match (*inverse_temperature, leaves.first()) {
        (Some(value), Some(leaf)) => {
            let value = Tensor::f_from_slice(&[value])?.f_to_kind(leaf.kind())?;
            Some(value.f_to_device(leaf.device())?.f_set_requires_grad(true)?)
        }
        _ => None,
    };
    let mut kept = match backward.course {
        Course::Whole => Kept::nothing(model, inputs, how),
        Course::ByParts { recompute } => Kept::forward(model, inputs, how, recompute)?,
    };
    // The last part whose gradients are not computed yet.
    let mut part = kept.entries.len();
    let mut entry = kept.entry()?;
    let state = match &entry {
        Some(state) => model.part(part, state, how)?,
        None => model.forward(inputs, how)?,
    };
    let state = match &temperature {
        Some(temperature) => state.with_hidden(state.hidden.f_mul(temperature)?),
        None => state,
    };
    let loss = loss_of(&state)?;
    drop(state);
    clock.end(Phase::Forward, begun);

    let mut begun = clock.begin(Phase::Backward);
    let mut pending = Pending::new(first_parts);
    let others = [entry.as_ref().map(|state| &state.hidden), temperature.as_ref()].into_iter().flatten();
    let mut others = pending.add(&loss, &loss.f_ones_like()?, leaves, others)?;
    let temperature = temperature.and_then(|_| others.pop());
    let loss = loss.f_detach()?;
    while entry.is_some() {
        begun = give(clock, begun, *sink, pending.complete(part))?;
        let above = others.pop().ok_or_else(|| TchError::Torch("a part has no gradient".to_string()))?;
        part -= 1;
        entry = kept.entry()?;
        let output = kept.output(part, entry.as_ref())?;
        if !output.requires_grad() {
            break;
        }
        others = pending.add(&output, &above, leaves, entry.iter().map(|state| &state.hidden))?;
    }
    // All is queued; what is reported is waited for.
    let loss = loss.f_to_kind(Kind::Double)?.f_double_value(&[])?;
    let temperature = match temperature {
        Some(gradient) => gradient.f_to_kind(Kind::Double)?.f_double_value(&[0])?,
        None => 0.0,
    };
    let begun = give(clock, begun, *sink, pending.complete(0))?;
    clock.end(Phase::Backward, begun);
    Ok(Gradients { loss, temperature })
}

/// Hands gradients to the sink, whose work is a phase of its own.
fn give(
    clock: &mut Clock,
    begun: Begun,
    sink: &mut dyn GradientSink,
    gradients: Vec<(usize, Tensor)>,
) -> Result<Begun, TchError> {
    clock.end(Phase::Backward, begun);
    clock.timed(Phase::Project, || sink.take(gradients))?;
    Ok(clock.begin(Phase::Backward))
}

/// What a forward pass part by part keeps for the backward pass.
struct Kept<'a> {
    model: &'a dyn Model,
    inputs: &'a ModelInputs,
    how: Forward,
    /// The state that each part from the second on begins with.
    entries: Vec<State>,
    /// What each part but the last gave, with its graph; empty where parts are computed again.
    outputs: Vec<Tensor>,
}

impl<'a> Kept<'a> {
    /// Of a pass that is not cut.
    fn nothing(model: &'a dyn Model, inputs: &'a ModelInputs, how: Forward) -> Self {
        Self { model, inputs, how, entries: vec![], outputs: vec![] }
    }

    /// All parts but the last.
    fn forward(model: &'a dyn Model, inputs: &'a ModelInputs, how: Forward, recompute: bool) -> Result<Self, TchError> {
        let mut kept = Self::nothing(model, inputs, how);
        for part in 0..model.parts() - 1 {
            if recompute {
                let state = tch::no_grad(|| kept.run(part, kept.entries.last()))?;
                kept.entries.push(state);
            } else {
                let state = kept.run(part, kept.entries.last())?;
                kept.entries.push(state.with_hidden(state.hidden.f_detach()?).into_leaf()?);
                kept.outputs.push(state.hidden);
            }
        }
        Ok(kept)
    }

    fn run(&self, part: usize, entry: Option<&State>) -> Result<State, TchError> {
        match entry {
            Some(state) => self.model.part(part, state, self.how),
            None => self.model.first_part(self.inputs, self.how),
        }
    }

    /// The state that the last part that is left begins with; `None` for the first part. It gets a gradient.
    fn entry(&mut self) -> Result<Option<State>, TchError> {
        self.entries.pop().map(State::into_leaf).transpose()
    }

    /// What the last part that is left gave, with its graph.
    fn output(&mut self, part: usize, entry: Option<&State>) -> Result<Tensor, TchError> {
        match self.outputs.pop() {
            Some(output) => Ok(output),
            None => Ok(self.run(part, entry)?.hidden),
        }
    }
}

/// Gradients of leaves that earlier parts of the model may add to.
struct Pending<'a> {
    first_parts: &'a [usize],
    gradients: Vec<Option<Tensor>>,
    given: Vec<bool>,
}

impl<'a> Pending<'a> {
    fn new(first_parts: &'a [usize]) -> Self {
        let leaves = first_parts.len();
        Self { first_parts, gradients: (0..leaves).map(|_| None).collect(), given: vec![false; leaves] }
    }

    /// Goes back from an output whose gradient is `above`: adds the gradients of the leaves, and answers those of others.
    /// A parameter of several parts, such as a tied embedding, has the sum of what each of them gives.
    fn add<'b>(
        &mut self,
        output: &Tensor,
        above: &Tensor,
        leaves: &'b [Tensor],
        others: impl Iterator<Item = &'b Tensor>,
    ) -> Result<Vec<Tensor>, TchError> {
        let wanted: Vec<&Tensor> = leaves.iter().chain(others).collect();
        let mut found = torch::backward(output, above, &wanted)?;
        let others = found.split_off(leaves.len());
        for (leaf, own) in found.into_iter().enumerate().filter(|(_, own)| own.defined()) {
            if self.given[leaf] {
                let part = self.first_parts[leaf];
                let what = format!("parameter {leaf} is used before part {part}, the first one that the family names");
                return Err(TchError::Torch(what));
            }
            let sum = match self.gradients[leaf].take() {
                Some(sum) => sum.f_add(&own)?,
                None => own,
            };
            self.gradients[leaf] = Some(sum);
        }
        Ok(others)
    }

    /// Gradients that are complete once the pass has gone back through a part.
    fn complete(&mut self, part: usize) -> Vec<(usize, Tensor)> {
        let mut complete = vec![];
        for (leaf, gradient) in self.gradients.iter_mut().enumerate() {
            if self.first_parts[leaf] >= part
                && let Some(gradient) = gradient.take()
            {
                self.given[leaf] = true;
                complete.push((leaf, gradient));
            }
        }
        complete
    }
}
