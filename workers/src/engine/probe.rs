//! What one pass through the model takes, by doing it: memory as libtorch's allocators tell it, and seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use mehl_soup::runner::engine::EngineError;
use tch::{Device, Tensor};

use super::allocations::{AllocationRecorder, largest};
use super::errors::torch_error;
use super::inputs::Inputs;
use super::phases::Clock;
use crate::families::{Forward, Pass, Precision};
use crate::objectives::Backward;

/// Samples of the smaller of the two passes that a larger one is predicted from; the other has twice as many.
const FEW: usize = 4;

/// What a pass took.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Bytes allocated on the device, below 0 where they were freed, in order.
    pub changes: Vec<i64>,
    /// Seconds.
    pub seconds: f64,
}

/// What passes take, as far as they were tried: each is tried once an engine.
#[derive(Default)]
pub struct Probed(RefCell<HashMap<(Tried, usize, Precision), u64>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tried {
    Learning { recompute: bool },
    Scoring,
}

impl Probed {
    /// Bytes that a learning pass over `samples` samples takes at the largest.
    ///
    /// The weights are what the model holds; nothing of it is changed.
    ///
    /// # Errors
    /// If what is tried does not fit the device, and what libtorch reports.
    pub fn learning(
        &self,
        inputs: &Inputs,
        leaves: &[Tensor],
        samples: usize,
        backward: Backward,
    ) -> Result<u64, EngineError> {
        let pass = (Tried::Learning { recompute: backward.recompute }, samples, backward.how.precision);
        self.known(pass, |samples| learn_once(inputs, leaves, samples, backward))
    }

    /// Bytes that a scoring pass over `samples` samples takes.
    ///
    /// # Errors
    /// As [`Probed::learning`].
    pub fn scoring(&self, inputs: &Inputs, samples: usize, how: Forward) -> Result<u64, EngineError> {
        self.known((Tried::Scoring, samples, how.precision), |samples| score_once(inputs, samples, how))
    }

    fn known(
        &self,
        pass: (Tried, usize, Precision),
        once: impl Fn(usize) -> Result<Taken, EngineError>,
    ) -> Result<u64, EngineError> {
        if let Some(&bytes) = self.0.borrow().get(&pass) {
            return Ok(bytes);
        }
        let bytes = predicted(pass.1, once)?;
        self.0.borrow_mut().insert(pass, bytes);
        Ok(bytes)
    }
}

/// The largest memory of a pass, from two small ones. A pass is the same allocations for any number of samples, each of a size that is linear in it, so each
/// is carried on from both, and then they are summed: where activations give way to gradients, the peak of many samples is elsewhere than that of few. Where libtorch
/// goes another way for other sizes, the pass itself is tried.
fn predicted(samples: usize, pass: impl Fn(usize) -> Result<Taken, EngineError>) -> Result<u64, EngineError> {
    if samples > 2 * FEW {
        let (few, more) = (pass(FEW)?.changes, pass(2 * FEW)?.changes);
        if let Some(changes) = carried_on(&few, &more, samples) {
            return Ok(largest(&changes));
        }
    }
    Ok(largest(&pass(samples)?.changes))
}

/// Changes of a pass over `samples` samples, from those over [`FEW`] and over twice as many; `None` if they are not the same ones.
fn carried_on(few: &[i64], more: &[i64], samples: usize) -> Option<Vec<i64>> {
    let times = (samples - FEW) as f64 / FEW as f64;
    let same = few.len() == more.len() && few.iter().zip(more).all(|(few, more)| few.signum() == more.signum());
    let change = |(few, more): (&i64, &i64)| few + ((more - few) as f64 * times).round() as i64;
    same.then(|| few.iter().zip(more).map(change).collect())
}

/// One learning pass, as the learning loop does it.
///
/// # Errors
/// What libtorch reports.
pub fn learn_once(
    inputs: &Inputs,
    leaves: &[Tensor],
    samples: usize,
    backward: Backward,
) -> Result<Taken, EngineError> {
    let indices = indices(inputs, samples);
    watched(inputs.device, || {
        let batch = inputs.data.learn.batch(&indices, inputs.device).map_err(torch_error)?;
        let mut clock = Clock::new(inputs.device);
        let found = inputs.objective.gradients(inputs.model.as_ref(), &batch, leaves, None, backward, &mut clock);
        found.map(drop).map_err(torch_error)
    })
}

/// One scoring pass.
///
/// # Errors
/// What libtorch reports.
pub fn score_once(inputs: &Inputs, samples: usize, how: Forward) -> Result<Taken, EngineError> {
    let indices = indices(inputs, samples);
    let how = Forward { pass: Pass::Score, ..how };
    watched(inputs.device, || {
        let batch = inputs.data.learn.batch(&indices, inputs.device).map_err(torch_error)?;
        let outputs = tch::no_grad(|| inputs.model.outputs(&batch.inputs, how)).map_err(torch_error)?;
        // The device has done it once its answer is here.
        outputs.f_sum(tch::Kind::Float).and_then(|sum| sum.f_double_value(&[])).map(drop).map_err(torch_error)
    })
}

/// The first samples, again and again if there are too few.
fn indices(inputs: &Inputs, samples: usize) -> Vec<usize> {
    let there = inputs.data.learn.samples().max(1);
    (0..samples).map(|i| i % there).collect()
}

fn watched(device: Device, work: impl FnOnce() -> Result<(), EngineError>) -> Result<Taken, EngineError> {
    let (began, watch) = (Instant::now(), AllocationRecorder::new(device));
    work()?;
    Ok(Taken { changes: watch.end(), seconds: began.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Activations of `a` bytes a sample in four layers, then each layer's gradient of `g` bytes while its activations go.
    fn pass(samples: usize, a: i64, g: i64) -> Vec<i64> {
        let forward = [a * samples as i64; 4];
        let backward = [[g, -a * samples as i64]; 4];
        forward.into_iter().chain(backward.into_iter().flatten()).collect()
    }

    #[test]
    fn many_samples_are_predicted_where_few_have_their_peak_elsewhere() {
        let (few, more) = (pass(FEW, 10, 1000), pass(2 * FEW, 10, 1000));
        // Few: gradients alone; as many bytes of samples as of gradients more than 25 times over.
        assert_eq!(largest(&few), 4 * 1000 + 10 * FEW as u64);
        for samples in [9, 64, 1000] {
            let changes = carried_on(&few, &more, samples).unwrap();
            assert_eq!(changes, pass(samples, 10, 1000));
        }
        assert_eq!(largest(&carried_on(&few, &more, 1000).unwrap()), 4 * 10_000 + 1000);
        let taken = |samples| Ok(Taken { changes: pass(samples, 10, 1000), seconds: 0.0 });
        assert_eq!(predicted(1000, taken).unwrap(), 41_000);
    }

    #[test]
    fn where_passes_differ_the_pass_itself_is_tried() {
        assert_eq!(carried_on(&[1, -1], &[1, -1, 2, -2], 16), None);
        assert_eq!(carried_on(&[1, -1], &[-1, 1], 16), None);
        let taken = |samples| Ok(Taken { changes: vec![7; samples], seconds: 0.0 });
        assert_eq!((predicted(3, taken).unwrap(), predicted(100, taken).unwrap()), (21, 700));
    }
}
