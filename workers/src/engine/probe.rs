//! What one pass through the model takes, by doing it: memory as libtorch's allocators tell it, and seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use mehl_soup::runner::engine::EngineError;
use tch::{Device, Tensor};

use super::allocations::{self, HostWatch};
use super::errors::torch_error;
use super::gradient::{Backward, gradients};
use super::inputs::Inputs;
use super::phases::Clock;
use crate::families::{Forward, Pass, Precision};

/// Samples of the smaller of the two passes that a larger one is predicted from; the other has twice as many.
const FEW: usize = 4;

/// What a pass took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Bytes on the device at the largest, beyond what was there before.
    pub bytes: u64,
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
    /// Bytes that a learning pass over `samples` samples takes: linear in the samples, beyond what does not depend on them.
    ///
    /// The weights are what the model holds; nothing of it is changed.
    ///
    /// # Errors
    /// If even the few samples that are tried do not fit the device, and what libtorch reports.
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

fn predicted(samples: usize, pass: impl Fn(usize) -> Result<Taken, EngineError>) -> Result<u64, EngineError> {
    if samples <= 2 * FEW {
        return Ok(pass(samples)?.bytes);
    }
    let (few, more) = (pass(FEW)?.bytes, pass(2 * FEW)?.bytes);
    let each = more.saturating_sub(few) as f64 / FEW as f64;
    Ok(more + (each * (samples - 2 * FEW) as f64) as u64)
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
        let (batch, labels) = inputs.data.learn.batch(&indices, inputs.device).map_err(torch_error)?;
        let mut clock = Clock::new(inputs.device);
        let found = gradients(inputs.model.as_ref(), (&batch, &labels), leaves, None, backward, &mut clock);
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
        let (batch, _) = inputs.data.learn.batch(&indices, inputs.device).map_err(torch_error)?;
        let logits = tch::no_grad(|| inputs.model.logits(&batch, how)).map_err(torch_error)?;
        // The device has done it once its answer is here.
        logits.f_sum(tch::Kind::Float).and_then(|sum| sum.f_double_value(&[])).map(drop).map_err(torch_error)
    })
}

/// The first samples, again and again if there are too few.
fn indices(inputs: &Inputs, samples: usize) -> Vec<usize> {
    let there = inputs.data.learn.samples().max(1);
    (0..samples).map(|i| i % there).collect()
}

fn watched(device: Device, work: impl FnOnce() -> Result<(), EngineError>) -> Result<Taken, EngineError> {
    let began = Instant::now();
    if device == Device::Cpu {
        let watch = HostWatch::new();
        work()?;
        return Ok(Taken { bytes: watch.end(), seconds: began.elapsed().as_secs_f64() });
    }
    allocations::reset_peak(device);
    let before = allocations::device_memory(device).map_or(0, |memory| memory.allocated);
    work()?;
    let peak = allocations::device_memory(device).map_or(0, |memory| memory.peak);
    Ok(Taken { bytes: peak.saturating_sub(before), seconds: began.elapsed().as_secs_f64() })
}
