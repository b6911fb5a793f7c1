//! `hl`, `hl+`, `mehl`, `mehl+`: coefficients on the hyperplane, by block coordinate gradient descent over model batches
//! (Li et al. 2024, arXiv 2407.03641, sections 3.2 and 3.3, algorithm 1). `hl` is the case of one model batch that holds all.
//!
//! `steady` shares the model batches and differs in what is learned in one ([`Steady`]).

use mehl_soup::checkpoint::{Current, FinishedBatch};
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::{ComputeDtype, SoupSpec};
use tch::{Kind, Tensor};

use super::blocks::Blocks;
use super::steady::{Steady, units};
use super::{Method, start};
use crate::engine::read_ahead::ReadAhead;
use crate::engine::train::{self, Learned, Parametrization};
use crate::engine::{TaskRun, allocations, memory, span_error, torch_error};
use crate::hyperplane::schedule::cosine_with_warmup;
use crate::hyperplane::{Directions, Projection, Stored, replay, write_soup};

/// The hyperplane methods.
pub struct Hyperplane {
    /// Whether all ingredients are in one model batch.
    pub all_in_one: bool,
}

/// The model batches of one outer epoch.
pub fn model_batches(seed: u64, outer: usize, members: &[usize], b: usize) -> Vec<Vec<usize>> {
    let blocks = Blocks { seed, members, outer_epochs: outer + 1, b, cuts: &[] }.all();
    blocks.into_iter().filter(|block| block.at.0 == outer).map(|block| block.members).collect()
}

impl Method for Hyperplane {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let size = self.size(run);
        if let Some(limit) = run.limit.filter(|&limit| limit < size) {
            self.cut_to(run, limit, &format!("{size} ingredients at once do not fit into the memory of this machine"))?;
        }
        loop {
            match self.attempt(run) {
                Err(EngineError::OutOfMemory(what)) => self.cut(run, &what)?,
                other => return other,
            }
        }
    }
}

impl Hyperplane {
    fn blocks<'a>(&self, run: &'a TaskRun<'_>) -> Blocks<'a> {
        let soup = &run.task.soup;
        Blocks {
            seed: soup.seed,
            members: &run.rows,
            outer_epochs: soup.outer_epochs,
            b: run.state.model_batch,
            cuts: &run.state.cuts,
        }
    }

    /// From the state to the end, or to where memory runs out.
    fn attempt(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let soup = run.task.soup.clone();
        let blocks = self.blocks(run).all();
        let per_epoch = train::iterations_per_epoch(run);
        run.planned_iterations =
            (blocks.len() as u64).saturating_mul(soup.inner_epochs as u64).saturating_mul(per_epoch as u64);

        let start = start::coefficients(run, &blocks[0].members)?;
        let stored = std::mem::replace(&mut run.state.coefficients, start);
        let finished = std::mem::take(&mut run.state.finished);
        let mut centre = Some(centre_of(run)?);
        // The canonical centre is the chain of folds: a resumed task replays it from the recorded coordinates.
        let resumed = !finished.is_empty();
        for (index, batch) in finished.into_iter().enumerate() {
            if blocks.get(index).is_none_or(|block| block.members != batch.members) {
                return Err(EngineError::ForeignCheckpoint(format!(
                    "its model batch {index} has ingredients {:?}, which are not in this task",
                    batch.members
                )));
            }
            replay_fold(run, batch, &mut centre)?;
        }
        if resumed && run.state.coefficients != stored {
            run.state.exact = false;
            run.host.note(&format!(
                "task {}: replaying the finished model batches gave coefficients that differ from \
                 the checkpoint; \
                 the result is only within tolerance",
                run.task.id
            ));
        }
        let mut ahead = ReadAhead::new(run);
        for (index, block) in blocks.iter().enumerate().skip(run.state.finished.len()) {
            let mut position = block.position();
            if self.all_in_one {
                // Rungs count inner epochs where all ingredients are in one model batch, and outer ones elsewhere.
                position.epochs_before = Some((index as u64).saturating_mul(soup.inner_epochs as u64));
            } else if position.batch == 0 && run.is_at_rung(position.outer as u64) {
                drop(centre.take());
                let so_far = run.state.coefficients.clone();
                return Err(run.stop_at_rung(&so_far));
            }
            let members = block.members.clone();
            let directions = directions(run, &members, &mut centre, &mut ahead)?;
            let masked = run.mixed.masked.clone();
            let published = Coordinates { soup: &soup, norms: &directions.norms, masked: &masked };
            let steady = Steady::new(&soup, members.len(), &directions.norms, &masked);
            let (learned, parameters): (&dyn Parametrization, usize) = match soup.method.is_relative() {
                true => (&steady, steady.parameters()),
                false => (&published, directions.norms.len()),
            };
            begin(run, &members, &directions, parameters)?;
            let next = blocks.get(index + 1).map(|block| block.members.as_slice());
            match ahead.during(run, next, |run| train::learn(run, &directions.span, learned, position))? {
                Learned::Ended(parameters) => {
                    run.state.current = None;
                    let x = used(run.inputs.kind, learned.coordinates(&parameters));
                    fold(run, FinishedBatch { members, x }, directions, &mut centre)?;
                    run.save()?;
                }
                Learned::AtRung(parameters) => {
                    let mut so_far = run.state.coefficients.clone();
                    let x = used(run.inputs.kind, learned.coordinates(&parameters));
                    so_far.fold(&members, &beta(&soup, &x, &directions.norms));
                    drop(directions);
                    return Err(run.stop_at_rung(&so_far));
                }
            }
        }
        Ok(run.state.coefficients.clone())
    }

    /// After memory ran out: what the model batch in progress has learned so far counts as its end, and what is left is cut in pieces half as large. One that has learned
    /// nothing is cut itself. The task goes on from a checkpoint of that, with all memory given back.
    ///
    /// # Errors
    /// [`EngineError::OutOfMemory`] if the pieces are of one ingredient already.
    fn cut(&self, run: &mut TaskRun<'_>, what: &str) -> Result<(), EngineError> {
        let size = self.size(run);
        if size <= 1 {
            return Err(EngineError::OutOfMemory(format!("{what}; the model batch already has only one ingredient")));
        }
        self.cut_to(run, size.div_ceil(2), &format!("out of memory with {size} ingredients at once ({what})"))
    }

    /// Ingredients at once in the model batch in progress or, between two, in the next, at most.
    fn size(&self, run: &TaskRun<'_>) -> usize {
        self.blocks(run).size(run.state.finished.len()).min(run.rows.len())
    }

    /// Goes on with at most `b` ingredients at once, and says why.
    fn cut_to(&self, run: &mut TaskRun<'_>, b: usize, why: &str) -> Result<(), EngineError> {
        if let Some(current) = run.state.current.take().filter(|current| current.step > 0) {
            let soup = &run.task.soup;
            let parameters = train::so_far(&current, soup.average.unwrap_or(0.0));
            let x = match soup.method.is_relative() {
                true => {
                    Steady::new(soup, current.members.len(), &current.norms, &run.mixed.masked).coordinates(&parameters)
                }
                false => parameters,
            };
            let x = used(run.inputs.kind, x);
            run.state.coefficients.fold(&current.members, &beta(soup, &x, &current.norms));
            run.state.finished.push(FinishedBatch { members: current.members, x });
        }
        run.state.cuts.push((run.state.finished.len(), b));
        // Where memory runs out is not the same everywhere.
        run.state.exact = false;
        run.state.select = None;
        allocations::give_back(run.inputs.device);
        let id = &run.task.id;
        run.host.note(&format!("task {id}: {why}; continuing with at most {b}; the result is not bit-exact"));
        run.save()
    }
}

/// Coordinates as the mix uses them: what is folded, recorded and replayed.
fn used(kind: Kind, x: Vec<f64>) -> Vec<f64> {
    match kind {
        Kind::Double => x,
        _ => x.iter().map(|&v| f64::from(v as f32)).collect(),
    }
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
    ahead: &mut ReadAhead,
) -> Result<Directions, EngineError> {
    let centre = centre.take().ok_or_else(|| EngineError::Internal("the centre is in use".to_string()))?;
    let dtype = run.task.soup.direction_dtype.resolve(run.state.dtype == ComputeDtype::Bf16);
    let stored = Stored { device: run.inputs.device, kind: run.inputs.kind, dtype };
    run.load(|run| {
        let (zoo, mixed) = (&run.inputs.zoo, &run.mixed);
        let directions = match ahead.rows_of(members) {
            Some(rows) => Directions::of_ahead(zoo, rows, mixed, centre, stored),
            None => Directions::new(zoo, members, mixed, centre, stored),
        };
        directions.map_err(span_error)
    })
}

/// Puts a model batch in the state, or checks that the one there goes on from the same directions.
fn begin(
    run: &mut TaskRun<'_>,
    members: &[usize],
    directions: &Directions,
    parameters: usize,
) -> Result<(), EngineError> {
    if let Some(current) = &run.state.current
        && current.members == members
    {
        if current.parameters.len() != parameters {
            let found = current.parameters.len();
            let what = format!("its current model batch has {found} parameters, expected {parameters}");
            return Err(EngineError::ForeignCheckpoint(what));
        }
        if current.norms != directions.norms {
            run.state.exact = false;
            run.host.note(&format!(
                "task {}: the lengths of the directions differ from the checkpoint; the result is \
                 only within tolerance",
                run.task.id
            ));
        }
        return Ok(());
    }
    let zeros = vec![0.0; parameters];
    run.state.current = Some(Current::new(members.to_vec(), zeros, directions.norms.clone()));
    Ok(())
}

/// Step 5 of a model batch: on the centre in its own dtype, on `A` in f64 with `beta = x / n`.
fn fold(
    run: &mut TaskRun<'_>,
    batch: FinishedBatch,
    directions: Directions,
    centre: &mut Option<Vec<Tensor>>,
) -> Result<(), EngineError> {
    let beta = beta(&run.task.soup, &batch.x, &directions.norms);
    run.state.coefficients.fold(&batch.members, &beta);
    let folded = directions.fold(&run.inputs.zoo, &batch.members, &run.mixed, &batch.x).map_err(span_error)?;
    *centre = Some(folded);
    run.state.finished.push(batch);
    // The next model batch would find this one's place in pieces, and take new memory for what does not fit them.
    memory::give_back_freed_pages();
    Ok(())
}

/// [`fold`] of a model batch that ended in an attempt before.
fn replay_fold(
    run: &mut TaskRun<'_>,
    batch: FinishedBatch,
    centre: &mut Option<Vec<Tensor>>,
) -> Result<(), EngineError> {
    let begun = centre.take().ok_or_else(|| EngineError::Internal("the centre is in use".to_string()))?;
    let (norms, folded) = run.load(|run| {
        let begun = (begun, run.inputs.kind);
        replay(&run.inputs.zoo, &batch.members, &run.mixed, begun, &batch.x).map_err(span_error)
    })?;
    let beta = beta(&run.task.soup, &batch.x, &norms);
    run.state.coefficients.fold(&batch.members, &beta);
    *centre = Some(folded);
    run.state.finished.push(batch);
    Ok(())
}

/// Coordinates along the directions before they were divided by their lengths, `x / n`. Where a direction vanishes, those
/// of `steady` are what its other groups move by, and those of the published methods are 0.
fn beta(soup: &SoupSpec, x: &[f64], norms: &[f64]) -> Vec<f64> {
    match soup.method.is_relative() {
        true => x.iter().zip(units(norms)).map(|(x, n)| x / n).collect(),
        false => x.iter().zip(norms).map(|(&x, &n)| if n == 0.0 { 0.0 } else { x / n }).collect(),
    }
}

/// Learned parameters are the coordinates x themselves.
struct Coordinates<'a> {
    soup: &'a SoupSpec,
    norms: &'a [f64],
    masked: &'a [bool],
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
