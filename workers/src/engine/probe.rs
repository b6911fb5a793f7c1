//! What one pass through the model takes, by doing it: memory as libtorch's allocators tell it, and seconds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::objective::Unit;
use tch::Device;

use super::allocations::{AllocationRecorder, largest};
use super::errors::torch_error;
use super::fit::{self, Size};
use super::phases::Clock;
use crate::data::{Batch, Split};
use crate::families::{Forward, Model, Pass, Precision};
use crate::objectives::{Backward, Collected, Course, Discarded, GradientSink, Leaves, Objective, Step};

/// What a pass took.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Bytes allocated on the device, below 0 where they were freed, in order.
    pub changes: Vec<i64>,
    /// Seconds.
    pub seconds: f64,
}

/// What passes are tried with.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The model, whose parameters are what they happen to be; nothing of it is changed.
    pub model: &'a dyn Model,
    /// What is learned for.
    pub objective: &'a dyn Objective,
    /// Where samples are from.
    pub learn: &'a Split,
    /// Length of the longest sample of any split; `None` where all have the same.
    pub longest: Option<usize>,
    /// Where it is computed.
    pub device: Device,
}

/// What passes take, as far as they were tried: each is tried once an engine.
#[derive(Default)]
pub struct Probed(RefCell<HashMap<(Tried, Size, Precision), u64>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Tried {
    Learning(Course),
    Scoring,
}

impl Probed {
    /// Bytes that a learning pass over `samples` samples takes at the largest: of any batch of so many, where samples have a length each.
    ///
    /// # Errors
    /// If what is tried does not fit the device, and what libtorch reports.
    pub fn learning(
        &self,
        subject: Subject<'_>,
        leaves: &Leaves,
        samples: usize,
        backward: Backward,
    ) -> Result<u64, EngineError> {
        let tried = Tried::Learning(backward.course);
        let pass = (tried, Size { samples, length: subject.learn.longest() }, backward.how.precision);
        self.known(subject, pass, |size| learn_once(subject, leaves, size, backward))
    }

    /// Bytes that a scoring pass over `samples` samples takes, as [`Probed::learning`].
    ///
    /// # Errors
    /// As [`Probed::learning`].
    pub fn scoring(&self, subject: Subject<'_>, samples: usize, how: Forward) -> Result<u64, EngineError> {
        let pass = (Tried::Scoring, Size { samples, length: subject.longest }, how.precision);
        self.known(subject, pass, |size| score_once(subject, size, how))
    }

    fn known(
        &self,
        subject: Subject<'_>,
        pass: (Tried, Size, Precision),
        once: impl Fn(Size) -> Result<Taken, EngineError>,
    ) -> Result<u64, EngineError> {
        if let Some(&bytes) = self.0.borrow().get(&pass) {
            return Ok(bytes);
        }
        let changes = |size| once(size).map(|taken| taken.changes);
        // Where samples are compared with each other memory is not linear in them: the pass itself is tried.
        let bytes = match subject.objective.facts().unit {
            Unit::Batch => largest(&changes(pass.1)?),
            _ => fit::predicted(pass.1, changes)?,
        };
        self.0.borrow_mut().insert(pass, bytes);
        Ok(bytes)
    }
}

/// One learning pass, as the learning loop does it.
///
/// # Errors
/// What libtorch reports.
pub fn learn_once(subject: Subject<'_>, leaves: &Leaves, size: Size, backward: Backward) -> Result<Taken, EngineError> {
    let Subject { model, objective, device, .. } = subject;
    watched(device, || {
        let batch = subject.batch(size)?;
        // As a projection keeps them.
        let (mut kept, mut none) = (Collected::new(leaves.tensors.len()), Discarded);
        let sink: &mut dyn GradientSink = if device == Device::Cpu { &mut none } else { &mut kept };
        let mut step = Step { leaves, inverse_temperature: None, backward, clock: &mut Clock::new(device), sink };
        objective.gradients(model, &batch, &mut step).map(drop).map_err(torch_error)
    })
}

/// One scoring pass.
///
/// # Errors
/// What libtorch reports.
pub fn score_once(subject: Subject<'_>, size: Size, how: Forward) -> Result<Taken, EngineError> {
    let how = Forward { pass: Pass::Score, ..how };
    watched(subject.device, || {
        let batch = subject.batch(size)?;
        let outputs = tch::no_grad(|| match subject.objective.facts().unit {
            // What compares samples with each other takes memory too.
            Unit::Batch => Ok(subject.objective.measure(subject.model, &batch, how)?.losses),
            _ => subject.model.outputs(&batch.inputs, how),
        });
        let outputs = outputs.map_err(torch_error)?;
        // The device has done it once its answer is here.
        outputs.f_sum(tch::Kind::Float).and_then(|sum| sum.f_double_value(&[])).map(drop).map_err(torch_error)
    })
}

impl Subject<'_> {
    /// The first samples, again and again if there are too few.
    fn batch(&self, size: Size) -> Result<Batch, EngineError> {
        let there = self.learn.samples().max(1);
        let indices: Vec<usize> = (0..size.samples).map(|i| i % there).collect();
        let batch = match size.length {
            Some(length) => self.learn.batch_of_length(&indices, length, self.device),
            None => self.learn.batch(&indices, self.device),
        };
        batch.map_err(torch_error)
    }
}

fn watched(device: Device, work: impl FnOnce() -> Result<(), EngineError>) -> Result<Taken, EngineError> {
    let (began, watch) = (Instant::now(), AllocationRecorder::new(device));
    work()?;
    Ok(Taken { changes: watch.end(), seconds: began.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests;
