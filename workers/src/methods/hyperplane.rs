//! `hl`, `hl+`, `mehl`, `mehl+`: coefficients on the hyperplane, by block coordinate gradient descent over model batches
//! (Li et al. 2024, arXiv 2407.03641, sections 3.2 and 3.3, algorithm 1). `hl` is the case of one model batch that holds all.

use mehl_soup::checkpoint::{Current, FinishedBatch};
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::{Init, SoupSpec};
use tch::{Kind, Tensor};

use super::{Method, greedy, mean_of};
use crate::engine::train::{self, Learned, Parametrization, Position};
use crate::engine::{TaskRun, span_error, torch_error};
use crate::hyperplane::schedule::cosine_with_warmup;
use crate::hyperplane::{Directions, Projection, Stored, write_soup};
use crate::rng::permutation;

/// The hyperplane methods.
pub struct Hyperplane {
    /// Whether all ingredients are in one model batch.
    pub all_in_one: bool,
}

/// Cuts the ingredients, shuffled anew for each outer epoch, in model batches of at most `b`; members ascend within each.
pub fn model_batches(seed: u64, outer: usize, members: &[usize], b: usize) -> Vec<Vec<usize>> {
    let order = permutation(seed, "model batches", &[outer], members.len());
    order
        .chunks(b.max(1))
        .map(|chunk| {
            let mut batch: Vec<usize> = chunk.iter().map(|&i| members[i]).collect();
            batch.sort_unstable();
            batch
        })
        .collect()
}

impl Method for Hyperplane {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let soup = run.task.soup.clone();
        let b = if self.all_in_one { run.members.len() } else { run.state.model_batch.min(run.members.len()) };
        run.state.model_batch = b;
        let per_outer = run.members.len().div_ceil(b);
        let total = per_outer * soup.outer_epochs;
        let members = run.members.clone();
        let batch_at = |index: usize| {
            let outer = index / per_outer;
            // Rungs count inner epochs where all ingredients are in one model batch, and outer ones elsewhere.
            let epochs_before = self.all_in_one.then_some((outer as u64).saturating_mul(soup.inner_epochs as u64));
            let position = Position { outer, batch: index % per_outer, epochs_before };
            (position, model_batches(soup.seed, position.outer, &members, b).swap_remove(position.batch))
        };
        let per_epoch = train::iterations_per_epoch(run);
        run.planned_iterations =
            (total as u64).saturating_mul(soup.inner_epochs as u64).saturating_mul(per_epoch as u64);

        let start = start(run, &batch_at(0).1, b)?;
        let stored = std::mem::replace(&mut run.state.coefficients, start);
        let finished = std::mem::take(&mut run.state.finished);
        let mut centre = Some(centre_of(run)?);
        // The canonical centre is the chain of folds: a resumed task replays it from the recorded coordinates.
        let resumed = !finished.is_empty();
        for (index, batch) in finished.into_iter().enumerate() {
            if index >= total || batch_at(index).1 != batch.members {
                return Err(EngineError::ForeignCheckpoint(format!(
                    "its model batch {index} has ingredients {:?}, which this task does not have",
                    batch.members
                )));
            }
            let directions = directions(run, &batch.members, &mut centre)?;
            fold(run, batch, directions, &mut centre)?;
        }
        if resumed && run.state.coefficients != stored {
            run.state.exact = false;
            run.host.note(&format!(
                "task {}: replaying its finished model batches gave other coefficients than its checkpoint holds; \
                 the result is within tolerance only",
                run.task.id
            ));
        }
        for index in run.state.finished.len()..total {
            let (position, members) = batch_at(index);
            if !self.all_in_one && position.batch == 0 && run.is_at_rung(position.outer as u64) {
                drop(centre.take());
                let so_far = run.state.coefficients.clone();
                return Err(run.stop_at_rung(&so_far));
            }
            let directions = directions(run, &members, &mut centre)?;
            begin(run, &members, &directions);
            let coordinates = Coordinates { soup: &soup, norms: &directions.norms, masked: run.mixed.masked.clone() };
            let learned = train::learn(run, &directions.span, &coordinates, position)?;
            // What is folded, recorded and replayed is x as the mix uses it.
            let kind = run.inputs.kind;
            let used = |x: Vec<f64>| match kind {
                Kind::Double => x,
                _ => x.iter().map(|&v| f64::from(v as f32)).collect(),
            };
            match learned {
                Learned::Ended(x) => {
                    run.state.current = None;
                    fold(run, FinishedBatch { members, x: used(x) }, directions, &mut centre)?;
                    run.save()?;
                }
                Learned::AtRung(x) => {
                    let mut so_far = run.state.coefficients.clone();
                    so_far.fold(&members, &beta(&used(x), &directions.norms));
                    drop(directions);
                    return Err(run.stop_at_rung(&so_far));
                }
            }
        }
        Ok(run.state.coefficients.clone())
    }
}

/// `A` before the first model batch.
fn start(run: &mut TaskRun<'_>, first: &[usize], b: usize) -> Result<Coefficients, EngineError> {
    let members = match run.task.soup.init {
        // The mean of a batch of one would make its own direction vanish.
        Init::BatchMean if b > 1 => first.to_vec(),
        Init::BatchMean | Init::Uniform => run.members.clone(),
        Init::Best => vec![run.best_member()?],
        Init::Greedy => greedy::members(run)?,
    };
    Ok(mean_of(run, &members))
}

/// The centre that `A` stands for, flat, one tensor a mixed tensor: the exact mix of the files.
fn centre_of(run: &TaskRun<'_>) -> Result<Vec<Tensor>, EngineError> {
    let coefficients = &run.state.coefficients;
    let mut centre = Vec::with_capacity(run.mixed.names.len());
    for ((name, &group), &n) in run.mixed.names.iter().zip(&run.mixed.groups).zip(&run.mixed.sizes) {
        let tensor = Tensor::f_zeros([n as i64], (run.inputs.kind, run.inputs.device)).map_err(torch_error)?;
        write_soup(&run.inputs.zoo, name, &coefficients.column(group), &tensor).map_err(span_error)?;
        centre.push(tensor);
    }
    Ok(centre)
}

fn directions(
    run: &mut TaskRun<'_>,
    members: &[usize],
    centre: &mut Option<Vec<Tensor>>,
) -> Result<Directions, EngineError> {
    let centre = centre.take().ok_or_else(|| EngineError::Internal("the centre is in use".to_string()))?;
    let dtype = run.task.soup.direction_dtype;
    let stored = Stored { device: run.inputs.device, kind: run.inputs.kind, dtype };
    run.load(|run| Directions::new(&run.inputs.zoo, members, &run.mixed, centre, stored).map_err(span_error))
}

/// Puts a model batch in the state, or checks that the one there goes on from the same directions.
fn begin(run: &mut TaskRun<'_>, members: &[usize], directions: &Directions) {
    if let Some(current) = &run.state.current
        && current.members == members
    {
        if current.norms != directions.norms {
            run.state.exact = false;
            run.host.note(&format!(
                "task {}: its directions have other lengths than its checkpoint holds; the result is within tolerance only",
                run.task.id
            ));
        }
        return;
    }
    let zeros = vec![0.0; directions.norms.len()];
    run.state.current = Some(Current::new(members.to_vec(), zeros, directions.norms.clone()));
}

/// Step 5 of a model batch: on the centre in its own dtype, on `A` in f64 with `beta = x / n`.
fn fold(
    run: &mut TaskRun<'_>,
    batch: FinishedBatch,
    directions: Directions,
    centre: &mut Option<Vec<Tensor>>,
) -> Result<(), EngineError> {
    run.state.coefficients.fold(&batch.members, &beta(&batch.x, &directions.norms));
    let folded = directions.fold(&run.inputs.zoo, &batch.members, &run.mixed, &batch.x).map_err(span_error)?;
    *centre = Some(folded);
    run.state.finished.push(batch);
    Ok(())
}

/// Coordinates along the directions before they were divided by their lengths, `x / n`.
fn beta(x: &[f64], norms: &[f64]) -> Vec<f64> {
    x.iter().zip(norms).map(|(&x, &n)| if n == 0.0 { 0.0 } else { x / n }).collect()
}

/// Learned parameters are the coordinates x themselves.
struct Coordinates<'a> {
    soup: &'a SoupSpec,
    norms: &'a [f64],
    masked: Vec<bool>,
}

impl Parametrization for Coordinates<'_> {
    fn coordinates(&self, parameters: &[f64]) -> Vec<f64> {
        parameters.to_vec()
    }

    fn inverse_temperature(&self, _: &[f64]) -> Option<f64> {
        None
    }

    /// `dL/dx[k,l] = <d[k,l], g[l]>` with g clipped to a global norm, as `torch.nn.utils.clip_grad_norm_` does.
    fn gradient(&self, _: &[f64], projection: &Projection, _: f64) -> Vec<f64> {
        let scale = (self.soup.gradient_clip / (projection.gradient_norm + 1e-6)).min(1.0);
        projection.dots.iter().map(|dot| dot * scale).collect()
    }

    fn is_masked(&self, index: usize) -> bool {
        self.norms[index] == 0.0 || self.masked[index % self.masked.len()]
    }

    fn learning_rate(&self, step: usize, total: usize) -> f64 {
        cosine_with_warmup(self.soup.learning_rate, self.soup.warmup, step, total)
    }
}

#[cfg(test)]
mod tests {
    use super::model_batches;

    #[test]
    fn every_ingredient_is_in_one_batch_of_each_outer_epoch() {
        let members = [1, 3, 4, 8, 9, 11, 12];
        for outer in 0..3 {
            let batches = model_batches(5, outer, &members, 3);
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
            let mut all = batches.concat();
            all.sort_unstable();
            assert_eq!(all, members);
        }
        assert_ne!(model_batches(5, 0, &members, 3), model_batches(5, 1, &members, 3));
        assert_eq!(model_batches(5, 0, &members, 100), [members.to_vec()]);
    }
}
