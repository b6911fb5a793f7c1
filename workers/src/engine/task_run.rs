//! One task being computed: its state, its clock, and its talk with the host.

use std::time::Instant;

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::host;
use mehl_soup::runner::engine::{Directive, Effort, EngineError, Iteration, Progress, RungReached, Scores, TaskHost};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::paired::{MOST_UNITS, UnitScores};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::Init;
use mehl_soup::sweep::task::Task;

use super::errors::{span_error, zoo_error};
use super::inputs::Inputs;
use super::phases::{Clock, Phase, Phases};
use super::{allocations, dtype, memory};
use crate::data::Split;
use crate::families::Precision;
use crate::hyperplane::{MixedTensors, write_soup};
use crate::rng;

/// See [`TaskRun::is_far`].
const FAR_LOSS: f64 = 2.0;
/// In nats: a tenth less of the probability of the right class, by the geometric mean.
const FAR_NATS: f64 = 0.1;

/// A task in progress. Methods change [`TaskRun::state`] and call [`TaskRun::tick`] whenever it is consistent.
pub struct TaskRun<'a> {
    /// Zoo, data, model.
    pub inputs: &'a Inputs,
    /// The task.
    pub task: &'a Task,
    /// Scores of the ingredients.
    pub manifest: &'a Manifest,
    /// Tensors that the soup moves, in the task's layer groups.
    pub mixed: MixedTensors,
    /// Ingredients of this task, ascending: all, or the best `zoo.top`.
    pub members: Vec<usize>,
    /// Rows that model batches are cut from: `members`, and the base where there is one and the method is on the hyperplane.
    pub rows: Vec<usize>,
    /// What "better" means.
    pub metric: Metric,
    /// Samples a batch when scoring.
    pub score_batch: usize,
    /// Whether activations are computed anew for the backward pass.
    pub recompute: bool,
    /// Whether the next model batch is read into memory on the CPU as well.
    pub ahead_on_cpu: bool,
    /// All that must survive.
    pub state: Checkpoint,
    /// Ingredients at once that fit here, if it is known that not as many do as the state asks for.
    pub limit: Option<usize>,
    /// Iterations of the whole task if nothing stops early.
    pub planned_iterations: u64,
    /// Seconds by phase, of this attempt.
    pub clock: Clock,
    last_select: Option<SplitScore>,
    /// Phases and samples of all iterations that the host was told of.
    told: (Phases, u64),
    /// The host.
    pub host: &'a mut dyn TaskHost,
    began: Instant,
    seconds_before: f64,
}

/// A task with everything that it is computed from.
pub struct Claim<'a> {
    /// Zoo, data, model.
    pub inputs: &'a Inputs,
    /// The task.
    pub task: &'a Task,
    /// Scores of the ingredients.
    pub manifest: &'a Manifest,
    /// Tensors that the soup moves, in the task's layer groups.
    pub mixed: MixedTensors,
    /// Ingredients of this task, ascending.
    pub members: Vec<usize>,
    /// See [`TaskRun::rows`].
    pub rows: Vec<usize>,
    /// What "better" means.
    pub metric: Metric,
    /// Samples a batch when scoring.
    pub score_batch: usize,
    /// Whether activations are computed anew for the backward pass.
    pub recompute: bool,
    /// Whether the next model batch is read into memory on the CPU as well.
    pub ahead_on_cpu: bool,
}

impl<'a> TaskRun<'a> {
    /// Begins an attempt.
    pub fn new(claim: Claim<'a>, state: Checkpoint, host: &'a mut dyn TaskHost) -> Self {
        host::reset_peak();
        allocations::reset_peak(claim.inputs.device);
        let Effort { seconds: seconds_before, samples: samples_before, .. } = state.totals.effort;
        let Claim { inputs, task, manifest, mixed, members, rows, metric, score_batch, recompute, ahead_on_cpu } =
            claim;
        Self {
            inputs,
            task,
            manifest,
            mixed,
            members,
            rows,
            metric,
            score_batch,
            recompute,
            ahead_on_cpu,
            state,
            limit: None,
            planned_iterations: 0,
            clock: Clock::new(inputs.device),
            last_select: None,
            told: (Phases::default(), samples_before),
            host,
            began: Instant::now(),
            seconds_before,
        }
    }

    /// What is measured from here on is the next iteration's: not the mix that was scored before it.
    pub fn begin_iteration(&mut self) {
        // Keeping the state is part of it all the same, and comes after the iteration was told of.
        self.clock.begin_iteration();
        self.told.0 = self.clock.phases().with(Phase::Snapshot, &self.told.0);
    }

    /// Reads a model batch, and tells the host how long that took.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn load<R>(&mut self, read: impl FnOnce(&Self) -> Result<R, EngineError>) -> Result<R, EngineError> {
        let began = Instant::now();
        let batch = read(self)?;
        self.host.loaded(began.elapsed());
        Ok(batch)
    }

    /// Tells the host of an iteration and does what it says.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] once a checkpoint was kept on the host's wish.
    pub fn tick(&mut self, stage: &'static str, learn_loss: f64, samples_per_second: f64) -> Result<(), EngineError> {
        let select = self.last_select.or(self.state.select);
        let (samples, phases) = (self.state.totals.effort.samples, self.clock.phases());
        let progress = Progress {
            iterations: self.state.totals.effort.iterations,
            planned_iterations: self.planned_iterations,
            learn_loss,
            select,
            samples_per_second,
            host_bytes: host::memory().resident,
            device: allocations::in_use(self.inputs.device).map(Into::into),
            iteration: (phases.iterations > self.told.0.iterations)
                .then(|| Iteration { samples: samples - self.told.1, phases: phases.since(&self.told.0) }),
            stage,
        };
        self.told = (phases, samples);
        match self.host.progress(&progress) {
            Directive::Continue => Ok(()),
            Directive::Checkpoint => self.save(),
            Directive::Stop => {
                self.save()?;
                Err(EngineError::Stopped)
            }
        }
    }

    /// Whether the task stops at a rung after so many whole epochs, as [`mehl_soup::sweep::asha::epochs`] counts them.
    pub fn is_at_rung(&self, epochs: u64) -> bool {
        self.host.rung().is_some_and(|rung| epochs >= rung)
    }

    /// Scores the soup that a task would be if it ended at this rung, keeps a checkpoint, and says that it stops here. Nothing of the score goes into the state:
    /// a task that goes on does so as if it had not stopped.
    pub fn stop_at_rung(&mut self, coefficients: &Coefficients) -> EngineError {
        let mut stop = || {
            self.write_exact(coefficients)?;
            self.own_statistics(coefficients)?;
            let select = self.inputs.score(&self.inputs.data.select, self.score_batch, Precision::Full)?;
            self.inputs.zoo.check_unchanged().map_err(zoo_error)?;
            self.save()?;
            let (totals, model_batch) = (self.state.totals, self.state.model_batch);
            Ok(RungReached { select, effort: totals.effort, model_batch, attempts: totals.attempts })
        };
        match stop() {
            Ok(reached) => EngineError::AtRung(Box::new(reached)),
            Err(error) => error,
        }
    }

    /// How passes are computed while learning. Whatever is reported, and the greedy soup's choices, are in [`Precision::Full`].
    pub fn precision(&self) -> Precision {
        dtype::precision(self.state.dtype)
    }

    /// Hands the state to the host.
    pub fn save(&mut self) -> Result<(), EngineError> {
        self.update_effort();
        let Self { clock, host, state, .. } = self;
        clock.timed(Phase::Snapshot, || host.save(state))?;
        Ok(())
    }

    /// Brings time and memory of the state up to date.
    pub fn update_effort(&mut self) {
        let effort = &mut self.state.totals.effort;
        effort.seconds = self.seconds_before + self.began.elapsed().as_secs_f64();
        effort.peak_host_bytes = effort.peak_host_bytes.max(host::memory().peak);
        let device = allocations::in_use(self.inputs.device).map(|memory| memory.peak);
        effort.peak_device_bytes = effort.peak_device_bytes.max(device);
    }

    /// Score on select of the soup that the model now holds, with running statistics of its own.
    pub fn score_select(&mut self, precision: Precision) -> Result<SplitScore, EngineError> {
        self.make_room();
        self.inputs.collect_statistics(precision)?;
        let score = self.inputs.score(&self.inputs.data.select, self.score_batch, precision)?;
        self.make_room();
        self.last_select = Some(score);
        Ok(score)
    }

    /// Whether a soup with this select score is far worse than the best ingredient: gradient descent seldom comes back from a mean of models that do not fit together.
    /// A multiple of its loss alone would not tell: where that is almost nothing, the loss of a good mean is a multiple of it too. Where a loss is not in nats,
    /// nobody knows what is almost nothing, and the multiple decides.
    pub fn is_far(&self, select: SplitScore) -> Result<bool, EngineError> {
        let margin = if self.inputs.objective.facts().is_in_nats { FAR_NATS } else { 0.0 };
        Ok(is_far(select.loss, self.ingredient_score(self.best_member()?)?.loss, margin))
    }

    /// Says so where a task begins far from its best ingredient because its specification wants it so.
    pub fn note_start(&mut self, select: SplitScore) -> Result<(), EngineError> {
        let is_mean =
            matches!(self.task.soup.init, Init::BatchMean | Init::Uniform) && self.task.soup.method.is_on_hyperplane();
        if is_mean && self.is_far(select)? {
            let best = self.ingredient_score(self.best_member()?)?;
            self.host.note(&format!(
                "task {}: starts at a select loss of {:.4}; the best ingredient has {:.4}. Some \
                 ingredients may be bad. \
                 soup.init = \"auto\", \"greedy\" or \"best\" starts without them",
                self.task.id, select.loss, best.loss
            ));
        }
        Ok(())
    }

    /// Between passes of different shapes: the next would find the last one's place in pieces, and take new memory for what does not fit them. With small models
    /// that is little, and not worth the page faults.
    pub fn make_room(&self) {
        if self.mixed.elements() >= dtype::LARGE {
            memory::give_back_freed_pages();
        }
    }

    /// Writes the exact soup, the f32 mix of the original files, to the model.
    pub fn write_exact(&self, coefficients: &Coefficients) -> Result<(), EngineError> {
        let columns: Vec<Vec<f64>> = (0..coefficients.groups()).map(|l| coefficients.column(l)).collect();
        let leaves = self.inputs.leaves(&self.mixed.names, Precision::Full)?;
        for ((name, &group), leaf) in self.mixed.names.iter().zip(&self.mixed.groups).zip(&leaves.tensors) {
            write_soup(&self.inputs.zoo, name, &columns[group], leaf).map_err(span_error)?;
        }
        Ok(())
    }

    /// Scores of the exact soup on all splits. Leaves the soup in the model, running statistics included: those of the ingredient
    /// where the soup is one ingredient, so that it is that model and no other; else computed anew.
    ///
    /// Also answers the values of single units on select and test, of what is a mean over units.
    pub fn score_exact(&self, coefficients: &Coefficients) -> Result<(Scores, UnitScores), EngineError> {
        self.write_exact(coefficients)?;
        self.own_statistics(coefficients)?;
        let data = &self.inputs.data;
        let mut units = UnitScores::default();
        let mut score = |name: &str, split: &Split| {
            let (score, values) = self.inputs.score_units(split, self.score_batch, Precision::Full)?;
            let metrics: Vec<Metric> = score.all().map(|(metric, _)| metric).collect();
            let subset = subset(self.inputs.seed, score.samples);
            let kept = values.into_iter().map(|all| match &subset {
                Some(places) => places.iter().map(|&place| all[place]).collect(),
                None => all,
            });
            units.add(name, metrics.into_iter().zip(kept));
            Ok::<_, EngineError>(score)
        };
        let select = score("select", &data.select)?;
        let test = data.test.as_ref().map(|split| score("test", split)).transpose()?;
        let learn = self.inputs.score(&data.learn, self.score_batch, Precision::Full)?;
        Ok((Scores { learn, select, test }, units))
    }

    fn own_statistics(&self, coefficients: &Coefficients) -> Result<(), EngineError> {
        match coefficients.single_ingredient() {
            Some(k) if k < self.inputs.zoo.len() => self.inputs.restore_statistics(k),
            _ => self.inputs.collect_statistics(Precision::Full),
        }
    }

    /// Select score of an ingredient, from the manifest.
    pub fn ingredient_score(&self, k: usize) -> Result<SplitScore, EngineError> {
        self.manifest.ingredients[k].select.ok_or_else(|| {
            EngineError::Internal(format!("ingredient {} has no select score", self.manifest.ingredients[k].name))
        })
    }

    /// The best member by select; ties go to the first.
    pub fn best_member(&self) -> Result<usize, EngineError> {
        let mut best = self.members[0];
        for &k in &self.members[1..] {
            if self.metric.compare(&self.ingredient_score(k)?, &self.ingredient_score(best)?).is_lt() {
                best = k;
            }
        }
        Ok(best)
    }
}

/// Which units of a large split are kept, ascending: the same for every task of a sweep. `None`: all of them.
fn subset(seed: u64, units: usize) -> Option<Vec<usize>> {
    (units > MOST_UNITS).then(|| {
        let mut places = rng::permutation(seed, "units", &[units], units);
        places.truncate(MOST_UNITS);
        places.sort_unstable();
        places
    })
}

fn is_far(loss: f64, best: f64, margin: f64) -> bool {
    loss > FAR_LOSS * best && loss > best + margin
}

#[cfg(test)]
mod tests {
    use mehl_soup::sweep::paired::MOST_UNITS;

    use super::{FAR_NATS, is_far, subset};

    #[test]
    fn a_large_split_keeps_the_same_units_every_time() {
        assert_eq!(subset(7, MOST_UNITS), None);
        let places = subset(7, MOST_UNITS + 10).unwrap();
        assert!(places.len() == MOST_UNITS && places.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(subset(7, MOST_UNITS + 10).unwrap(), places);
        assert_ne!(subset(8, MOST_UNITS + 10).unwrap(), places);
    }

    #[test]
    fn far_is_both_a_multiple_and_a_distance() {
        // As of bad ingredients among digits, of good ResNets whose loss is almost nothing, and of good ingredients of a harder task.
        assert!(is_far(2.6, 0.1, FAR_NATS));
        assert!(!is_far(0.06, 0.02, FAR_NATS));
        assert!(!is_far(1.3, 1.0, FAR_NATS));
        // Of targets in another unit.
        assert!(is_far(0.06, 0.02, 0.0) && !is_far(1.3, 1.0, 0.0));
    }
}
