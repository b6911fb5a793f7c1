//! Step 4 of a model batch: learning its coordinates by gradient descent.
//!
//! The loop is the same for every method that learns; a [`Parametrization`] says how learned parameters become coordinates of the
//! [`Span`], and how the coordinates' gradient becomes theirs.

use std::time::Instant;

use mehl_soup::checkpoint::{BestSoFar, Current, EpochRecord};
use mehl_soup::runner::engine::EngineError;
use tch::Tensor;

use super::data_order;
use super::errors::torch_error;
use super::phases::Phase;
use super::task_run::TaskRun;
use crate::families::Pass;
use crate::hyperplane::{Projection, Projector, Span, adamw};
use crate::objectives::{Backward, Gradients, Step};

/// How learned parameters become a soup.
pub trait Parametrization {
    /// Coordinates of the span, row-major `[b, L]`.
    fn coordinates(&self, parameters: &[f64]) -> Vec<f64>;
    /// Factor on the logits while learning, if it is learned.
    fn inverse_temperature(&self, parameters: &[f64]) -> Option<f64>;
    /// Gradient of the parameters; `temperature_gradient` is that of the factor on the logits.
    fn gradient(&self, parameters: &[f64], projection: &Projection, temperature_gradient: f64) -> Vec<f64>;
    /// Whether a parameter stays as it is.
    fn is_masked(&self, index: usize) -> bool;
    /// Whether weight decay applies to a parameter: it is meant for coefficients.
    fn decays(&self, _index: usize) -> bool {
        true
    }
    /// Learning rate at a step, from 0, of `total`.
    fn learning_rate(&self, step: usize, total: usize) -> f64;
    /// What follows a step of the optimizer that was taken with this learning rate.
    fn after_step(&self, _parameters: &mut [f64], _learning_rate: f64) {}
    /// Decay of the exponential mean of the parameters that is the result, in [0, 1); 0: the last parameters are.
    fn average(&self) -> f64 {
        0.0
    }
}

/// Where a model batch stands in its task; seeds the data order.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Outer epoch, from 0.
    pub outer: usize,
    /// Model batch within it, from 0.
    pub batch: usize,
    /// Inner epochs of the task before this model batch, where rungs count inner epochs.
    pub epochs_before: Option<u64>,
}

/// Where learning a model batch has led.
#[derive(Debug, Clone, PartialEq)]
pub enum Learned {
    /// To its end, with these parameters.
    Ended(Vec<f64>),
    /// To a rung at which the task stops, with these parameters, if it ended there.
    AtRung(Vec<f64>),
}

/// Iterations of one inner epoch of a task.
pub fn iterations_per_epoch(run: &TaskRun<'_>) -> usize {
    iterations(run.inputs.data.learn.samples(), run.task.soup.batch, run.inputs.needs_several())
}

/// Batches of `batch` samples, the last with what is left. Where one sample is left and a batch needs several, it goes with the batch before.
pub(super) fn iterations(samples: usize, batch: usize, needs_several: bool) -> usize {
    let joins = needs_several && batch > 1 && samples > batch && samples % batch == 1;
    samples.div_ceil(batch) - usize::from(joins)
}

/// Learns the current model batch of `run.state` to its end, or to a rung within it, from wherever it stands, and returns its parameters: the best by
/// select if `early_stopping`, else the last.
///
/// Between any two iterations the state is complete: `run.tick` may save it.
///
/// # Errors
/// [`EngineError::Numerics`] if a loss or gradient is not finite; otherwise what libtorch or the host says.
pub fn learn(
    run: &mut TaskRun<'_>,
    span: &Span,
    parametrization: &dyn Parametrization,
    position: Position,
) -> Result<Learned, EngineError> {
    let soup = run.task.soup.clone();
    let learn = &run.inputs.data.learn;
    let samples = learn.samples();
    let iterations = iterations_per_epoch(run);
    let total = soup.inner_epochs.saturating_mul(iterations);
    let leaves = run.inputs.leaves(&run.mixed.names, run.precision())?;
    // What the soup took more in f32, and what directions were read through.
    run.make_room();
    let backward = Backward { how: Pass::Learn.with(run.precision()), course: leaves.course(run.recompute) };
    if soup.early_stopping && current(run)?.best.is_none() {
        // Standing still is a candidate too: a model batch never ends worse, by select, than it began.
        let select = match run.state.select {
            Some(known) => known,
            None => {
                let start = current(run)?.parameters.clone();
                mix(run, span, &parametrization.coordinates(&start), &leaves.tensors)?;
                let select = run.score_select(run.precision())?;
                run.note_start(select)?;
                select
            }
        };
        run.state.select = Some(select);
        let current = current(run)?;
        current.best = Some(BestSoFar { parameters: current.parameters.clone(), select });
    }
    while current(run)?.inner_epoch < soup.inner_epochs {
        let inner = current(run)?.inner_epoch;
        if position.epochs_before.is_some_and(|before| run.is_at_rung(before + inner as u64)) {
            return Ok(Learned::AtRung(so_far(current(run)?, parametrization.average())));
        }
        let place = [position.outer, position.batch, inner];
        let order = data_order::of_epoch(&run.inputs.data.learn, soup.batch, soup.seed, &place);
        while current(run)?.iteration < iterations {
            let began = Instant::now();
            run.begin_iteration();
            let iteration = current(run)?.iteration;
            let end = if iteration + 1 == iterations { samples } else { (iteration + 1) * soup.batch };
            let indices = &order[iteration * soup.batch..end];
            if learn.is_by_length() {
                // Each batch has a length of its own, and does not fit where the last one was.
                run.make_room();
            }
            // Before anything is queued on a device: what is copied there waits for that.
            let taken = run.clock.timed(Phase::Data, || learn.batch(indices, run.inputs.device));
            let batch = taken.map_err(torch_error)?;
            let parameters = current(run)?.parameters.clone();
            mix(run, span, &parametrization.coordinates(&parameters), &leaves.tensors)?;
            let (model, objective) = (run.inputs.model.as_ref(), run.inputs.objective.as_ref());
            // Without a gradient it stays 1.
            let temperature =
                parametrization.inverse_temperature(&parameters).filter(|_| objective.facts().has_temperature);
            let mut projector = Projector::new(span);
            let mut step = Step {
                leaves: &leaves,
                inverse_temperature: temperature,
                backward,
                clock: &mut run.clock,
                sink: &mut projector,
            };
            let found = objective.gradients(model, &batch, &mut step);
            let Gradients { loss, temperature: temperature_gradient } = found.map_err(torch_error)?;
            let projection = run.clock.timed(Phase::Project, || projector.end()).map_err(torch_error)?;
            if !loss.is_finite() || !projection.gradient_norm.is_finite() {
                return Err(EngineError::Numerics(format!(
                    "the loss is {loss} and the gradient norm is {} at iteration {} (outer epoch \
                     {}, model batch {}, inner epoch {inner}); \
                     try a smaller learning_rate",
                    projection.gradient_norm, run.state.totals.effort.iterations, position.outer, position.batch
                )));
            }
            let update = run.clock.begin(Phase::Update);
            let gradient = parametrization.gradient(&parameters, &projection, temperature_gradient);
            let current = current(run)?;
            current.step += 1;
            let rate = parametrization.learning_rate(current.step - 1, total);
            adamw::step(
                &mut current.parameters,
                &gradient,
                (&mut current.first_moments, &mut current.second_moments),
                current.step,
                rate,
                |i| if parametrization.decays(i) { soup.weight_decay } else { 0.0 },
                |i| parametrization.is_masked(i),
            );
            parametrization.after_step(&mut current.parameters, rate);
            add_to_average(current, parametrization.average());
            current.iteration += 1;
            current.epoch_loss.0 += loss * indices.len() as f64;
            current.epoch_loss.1 += indices.len();
            run.clock.end(Phase::Update, update);
            run.clock.end_iteration();
            let seconds = began.elapsed().as_secs_f64();
            let effort = &mut run.state.totals.effort;
            effort.iterations += 1;
            effort.samples += indices.len() as u64;
            effort.iteration_seconds += seconds;
            run.tick("learning", loss, indices.len() as f64 / seconds)?;
        }
        let candidate = averaged(current(run)?, parametrization.average());
        let select = if soup.early_stopping {
            mix(run, span, &parametrization.coordinates(&candidate), &leaves.tensors)?;
            Some(run.score_select(run.precision())?)
        } else {
            None
        };
        let metric = run.metric;
        let current = current(run)?;
        let learn_loss = current.epoch_loss.0 / current.epoch_loss.1.max(1) as f64;
        current.inner_epoch += 1;
        current.iteration = 0;
        current.epoch_loss = (0.0, 0);
        if let (Some(score), Some(best)) = (select, &mut current.best) {
            if metric.compare(&score, &best.select).is_lt() {
                *best = BestSoFar { parameters: candidate, select: score };
                current.since_best = 0;
            } else {
                current.since_best += 1;
            }
        }
        let stale = soup.early_stopping && current.since_best >= soup.patience;
        run.state.history.push(EpochRecord { position: (position.outer, position.batch, inner), learn_loss, select });
        if stale {
            break;
        }
    }
    let current = current(run)?;
    let parameters = averaged(current, parametrization.average());
    match current.best.take() {
        Some(best) => {
            run.state.select = Some(best.select);
            Ok(Learned::Ended(best.parameters))
        }
        None => Ok(Learned::Ended(parameters)),
    }
}

fn current<'a>(run: &'a mut TaskRun<'_>) -> Result<&'a mut Current, EngineError> {
    run.state.current.as_mut().ok_or_else(|| EngineError::Internal("no model batch in progress".to_string()))
}

fn mix(run: &mut TaskRun<'_>, span: &Span, x: &[f64], leaves: &[Tensor]) -> Result<(), EngineError> {
    run.clock.timed(Phase::Mix, || span.mix_into(x, leaves)).map_err(torch_error)
}

/// What a model batch that ended now would end with: the best parameters by select, or their mean
/// over the steps so far where that is the result, or the last ones.
pub fn so_far(current: &Current, decay: f64) -> Vec<f64> {
    current.best.as_ref().map_or_else(|| averaged(current, decay), |best| best.parameters.clone())
}

/// The exponential mean of the parameters after each step so far, corrected for its start at 0; the
/// parameters themselves where nothing is averaged or no step was taken.
fn averaged(current: &Current, decay: f64) -> Vec<f64> {
    if decay == 0.0 || current.step == 0 {
        return current.parameters.clone();
    }
    let weights = 1.0 - decay.powi(i32::try_from(current.step).unwrap_or(i32::MAX));
    current.average.iter().map(|sum| sum / weights).collect()
}

/// `average <- decay average + (1 - decay) parameters`
fn add_to_average(current: &mut Current, decay: f64) {
    if decay == 0.0 {
        return;
    }
    current.average.resize(current.parameters.len(), 0.0);
    for (sum, parameter) in current.average.iter_mut().zip(&current.parameters) {
        *sum = decay * *sum + (1.0 - decay) * parameter;
    }
}

#[cfg(test)]
mod tests {
    use super::iterations;

    #[test]
    fn one_sample_alone_joins_the_batch_before_where_it_has_no_statistics() {
        assert_eq!((iterations(10, 5, true), iterations(11, 5, true), iterations(12, 5, true)), (2, 2, 3));
        assert_eq!(iterations(11, 5, false), 3);
        assert_eq!((iterations(1, 5, true), iterations(3, 1, true)), (1, 3));
    }
}
