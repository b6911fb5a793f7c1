//! What a sweep will take, before anything of it is computed: memory, bytes read, iterations, time.
//!
//! Inputs are opened as for the sweep itself (files hashed once, data loaded), one ingredient is read, and a few passes are done, timed and watched; no model batch
//! is loaded. Memory and bytes follow from shapes; time from what those passes took.

use std::collections::HashMap;
use std::time::Instant;

use mehl_soup::host;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::spec::{ComputeDtype, DirectionDtype, Init, LinearLibrary, MethodName, Spec};
use mehl_soup::sweep::task::Task;
use mehl_soup::zoo::{LayerGroups, bytes_read};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::budget::{self, Budget};
use super::fit::Size;
use super::inputs::Inputs;
use super::memory::peak_while;
use super::needs::Needs;
use super::probe::{self, Probed};
use super::{TorchEngine, dtype, linear, read_ahead, torch_error};
use crate::data::Split;
use crate::families::{Pass, Precision};
use crate::hyperplane::MixedTensors;
use crate::methods::Blocks;
use crate::objectives::Backward;

/// Passes that a pass's time is the least of, after one that does not count.
const TIMED: usize = 2;

/// What a sweep will take on one device.
#[derive(Debug, Clone, Serialize)]
pub struct SweepPlan {
    /// Version of this format.
    pub version: u32,
    /// The device.
    pub device: String,
    /// What `soup.model_batch = "auto"` fills, in bytes.
    pub budget_bytes: u64,
    /// What is more is refused, in bytes.
    pub ceiling_bytes: u64,
    /// K.
    pub ingredients: usize,
    /// D: values of all mixed tensors.
    pub mixed_values: usize,
    /// Bytes of all ingredients' files: read once for hashes that are not known yet.
    pub zoo_bytes: u64,
    /// Bytes read and seconds of scoring every ingredient.
    pub scores: Share,
    /// Each task.
    pub tasks: Vec<TaskPlan>,
    /// Sums over scores and tasks that fit; seconds as if one came after the other.
    pub total: Share,
    /// What is assumed of zoo and data, and what else a person should know.
    pub notes: Vec<String>,
}

/// Bytes of ingredients read, and seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Share {
    /// Bytes of ingredients read, hashing apart.
    pub bytes_read: u64,
    /// Seconds, as far as a few passes tell.
    pub seconds: f64,
}

/// What a task will take if nothing stops it early.
#[derive(Debug, Clone, Serialize)]
pub struct TaskPlan {
    /// The task.
    pub task: String,
    /// Its method.
    pub method: MethodName,
    /// Ingredients at once; 0 where nothing is learned.
    pub model_batch: usize,
    /// Dtype of forward and backward passes.
    pub dtype: ComputeDtype,
    /// How directions are stored.
    pub direction_dtype: DirectionDtype,
    /// Largest device memory in bytes; `None` on the CPU.
    pub device_peak_bytes: Option<u64>,
    /// Largest anonymous memory of the process on its host, in bytes.
    pub host_peak_bytes: u64,
    /// Optimizer steps.
    pub iterations: u64,
    /// Bytes read and seconds.
    #[serde(flatten)]
    pub share: Share,
    /// Why it is refused, if it is.
    pub refused: Option<String>,
}

/// Seconds of one pass each, by what they depend on.
#[derive(Default)]
struct Timings {
    learn: HashMap<(usize, Precision), f64>,
    score: HashMap<Precision, f64>,
}

/// The parts that all tasks' plans are made of.
struct Planner<'a> {
    spec: &'a Spec,
    inputs: &'a Inputs,
    budget: Budget,
    timings: Timings,
    probed: Probed,
    /// Bytes a second of reading ingredients, as one was read.
    read_rate: f64,
    /// Bytes a second of copying in the device's memory.
    copy_rate: f64,
    /// Bytes of the parameters of one ingredient.
    parameters: u64,
    /// Anonymous memory of the process on its host while the model scored, at the largest.
    scoring_on_host: u64,
}

impl TorchEngine {
    /// The plan of the engine's sweep.
    ///
    /// # Errors
    /// As for running it; that a task does not fit is in its plan.
    pub fn plan(&mut self, note: &mut dyn FnMut(&str)) -> Result<SweepPlan, EngineError> {
        self.open(note)?;
        let spec = self.spec.clone();
        let inputs = self.open(note)?;
        let mut notes = inputs.notes();
        let library = linear::resolve(spec.compute.linear, inputs.kind, inputs.device).0;
        if inputs.model.use_linear_library(library) == LinearLibrary::Onednn {
            notes.push("large linear layers in f32 are computed by oneDNN (compute.linear)".to_string());
        }
        notes.iter().for_each(|line| note(line));
        let (before, began) = (bytes_read(), Instant::now());
        inputs.write_ingredient(0)?;
        let parameters = bytes_read() - before;
        let mut planner = Planner {
            spec: &spec,
            inputs,
            budget: budget::budget(&spec.compute, inputs.device),
            timings: Timings::default(),
            probed: Probed::default(),
            read_rate: parameters as f64 / began.elapsed().as_secs_f64().max(1e-9),
            copy_rate: copy_rate(inputs.device)?,
            parameters,
            scoring_on_host: 0,
        };
        let (scores, peak) = peak_while(|| planner.scores());
        let scores = scores?;
        planner.scoring_on_host = peak;
        let tasks = expand(&spec).iter().map(|task| planner.task(task)).collect::<Result<Vec<_>, _>>()?;
        let mut total = scores;
        for task in tasks.iter().filter(|task| task.refused.is_none()) {
            total.bytes_read += task.share.bytes_read;
            total.seconds += task.share.seconds;
        }
        let groups = LayerGroups::new(spec.soup.layer_groups, &inputs.layout);
        Ok(SweepPlan {
            version: 1,
            device: match inputs.device {
                Device::Cpu => "cpu".to_string(),
                Device::Cuda(index) => format!("cuda:{index}"),
                other => format!("{other:?}"),
            },
            budget_bytes: planner.budget.bytes,
            ceiling_bytes: planner.budget.ceiling,
            ingredients: inputs.zoo.len(),
            mixed_values: MixedTensors::new(&inputs.layout, &groups, inputs.model.as_ref()).elements(),
            zoo_bytes: inputs.zoo.ingredients().iter().map(mehl_soup::zoo::Ingredient::total_bytes).sum(),
            scores,
            tasks,
            total,
            notes,
        })
    }
}

impl Planner<'_> {
    fn scores(&mut self) -> Result<Share, EngineError> {
        let k = self.inputs.zoo.len();
        let seconds = self.seconds_of_scores(&self.inputs.data.select, Precision::Full)?;
        let bytes_read = self.parameters * k as u64;
        Ok(Share { bytes_read, seconds: k as f64 * seconds + bytes_read as f64 / self.read_rate })
    }

    fn task(&mut self, task: &Task) -> Result<TaskPlan, EngineError> {
        let (inputs, soup) = (self.inputs, &task.soup);
        let groups = LayerGroups::new(soup.layer_groups, &inputs.layout);
        let mixed = MixedTensors::new(&inputs.layout, &groups, inputs.model.as_ref());
        let members = task.top.map_or(inputs.zoo.len(), |top| top.max(1).min(inputs.zoo.len()));
        // One ingredient's mixed tensors, as they lie in its file.
        let first = &inputs.zoo.ingredients()[0];
        let model: u64 = mixed.names.iter().filter_map(|name| first.info(name)).map(|info| info.bytes() as u64).sum();
        let data = &inputs.data;
        let full = self.seconds_of_scores(&data.select, Precision::Full)?;
        let mut last = full + self.seconds_of_scores(&data.learn, Precision::Full)?;
        if let Some(test) = &data.test {
            last += self.seconds_of_scores(test, Precision::Full)?;
        }
        let all = members as u64 * model;
        let learns = soup.method.learns();
        let stated = if learns { self.spec.compute.dtype } else { Some(ComputeDtype::F32) };
        let (dtype, _) = dtype::resolve(stated, inputs.kind, inputs.device, inputs.model.as_ref(), mixed.elements());
        let stored = soup.direction_dtype.resolve(dtype == ComputeDtype::Bf16);
        // Where nothing is learned, scoring passes need the most. On the host, what the allocator
        // keeps for the next pass counts too, so the process was measured.
        let on_device = match inputs.device {
            Device::Cpu => None,
            _ => {
                let stated = self.spec.compute.score_batch;
                let score_batch = inputs.score_batch(stated).min(data.select.samples().max(data.learn.samples()));
                Some(inputs.base_bytes() + self.probed.scoring(inputs.subject(), score_batch, Pass::Score.full())?)
            }
        };
        let mut plan = TaskPlan {
            task: task.id.clone(),
            method: soup.method,
            model_batch: 0,
            dtype,
            direction_dtype: stored,
            device_peak_bytes: on_device,
            host_peak_bytes: self.scoring_on_host,
            iterations: 0,
            share: Share { bytes_read: self.parameters + all, seconds: last },
            refused: None,
        };
        match soup.method {
            MethodName::Best => plan.share.bytes_read -= all - model,
            MethodName::Greedy => {
                plan.share.bytes_read += all;
                plan.share.seconds += members.saturating_sub(1) as f64 * full;
                // The running mean.
                let mean = (mixed.elements() * inputs.kind.elt_size_in_bytes()) as u64;
                match &mut plan.device_peak_bytes {
                    Some(peak) => *peak += mean,
                    None => plan.host_peak_bytes += mean,
                }
            }
            _ => {}
        }
        if learns && !mixed.names.is_empty() {
            self.learning(task, &mixed, (members, model), &mut plan)?;
        }
        plan.share.seconds += plan.share.bytes_read as f64 / self.read_rate;
        Ok(plan)
    }

    fn learning(
        &mut self,
        task: &Task,
        mixed: &MixedTensors,
        (members, model): (usize, u64),
        plan: &mut TaskPlan,
    ) -> Result<(), EngineError> {
        let (inputs, soup, compute) = (self.inputs, &task.soup, &self.spec.compute);
        let needs = Needs::of_task(inputs, soup, mixed, plan.dtype, compute, &self.probed)?;
        match budget::model_batch(soup.model_batch, soup.method, &needs, &self.budget, members) {
            Ok(b) => plan.model_batch = b,
            Err(EngineError::Input(why)) => {
                plan.refused = Some(why);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut peak = needs.peak(plan.model_batch);
        if soup.init == Init::Greedy && soup.method.is_on_hyperplane() {
            // The running mean is as large as a centre, and there is no model batch beside it.
            peak = peak.max(needs.base + needs.centre + needs.scoring);
        }
        if inputs.device == Device::Cpu {
            plan.host_peak_bytes = peak;
        } else {
            let longest =
                mixed.sizes.iter().max().copied().unwrap_or(0) * plan.model_batch * inputs.kind.elt_size_in_bytes();
            plan.device_peak_bytes = Some(peak);
            plan.host_peak_bytes = host::memory().anonymous + longest as u64;
        }
        let learned = !soup.method.is_on_hyperplane();
        let base = inputs.zoo.base().filter(|_| soup.method.is_on_hyperplane());
        let everyone: Vec<usize> = (0..members + base.iter().len()).collect();
        let outer_epochs = if learned { 1 } else { soup.outer_epochs };
        let blocks = Blocks { seed: soup.seed, members: &everyone, outer_epochs, b: plan.model_batch, cuts: &[] }.all();
        let next = (mixed.elements() * plan.model_batch * inputs.kind.elt_size_in_bytes()) as u64;
        if blocks.len() > 1 && read_ahead::is_kept(inputs.device, next, false) {
            plan.host_peak_bytes += next;
        }
        let samples = inputs.data.learn.samples();
        let per_epoch = super::train::iterations(samples, soup.batch, inputs.needs_several()) as u64;
        plan.iterations = (blocks.len() as u64).saturating_mul(soup.inner_epochs as u64).saturating_mul(per_epoch);

        let compact = plan.direction_dtype != DirectionDtype::F32 && !learned;
        plan.share.bytes_read +=
            blocks.iter().map(|block| block.members.len() as u64 * model).sum::<u64>() * if compact { 2 } else { 1 };
        if !learned {
            let scored = match soup.init {
                Init::Auto => 1,
                Init::Greedy => members.saturating_sub(1),
                Init::BatchMean | Init::Uniform | Init::Best => 0,
            };
            if scored > 0 {
                plan.share.seconds += scored as f64 * self.seconds_of_scores(&inputs.data.select, Precision::Full)?;
            }
            let mean = if blocks[0].members.len() > 1 { blocks[0].members.len() } else { members };
            let begun_from = match soup.init {
                Init::Best => 1,
                // Scored before it is begun from. That it is left for the greedy soup is not known before.
                Init::Auto => 2 * mean,
                Init::BatchMean => mean,
                Init::Uniform => members,
                // Each is tried, and the mean of those that are kept is begun from: of all at most.
                Init::Greedy => 2 * members,
            };
            plan.share.bytes_read += begun_from as u64 * model;
        }
        let precision = dtype::precision(plan.dtype);
        let pass = self.seconds_of_learning(mixed, soup.batch.min(samples), precision)?;
        // A mix reads directions and centre and writes the soup; a projection reads directions and gradient.
        let rows = needs.row * plan.model_batch as u64;
        let traffic = (2 * rows + 3 * (mixed.elements() * 4) as u64) as f64 / self.copy_rate;
        plan.share.seconds += plan.iterations as f64 * (pass + traffic);
        if soup.early_stopping {
            let scored = blocks.len() * soup.inner_epochs + 1;
            inputs.leaves(&mixed.names, precision)?;
            plan.share.seconds += scored as f64 * self.seconds_of_scores(&inputs.data.select, precision)?;
            inputs.leaves(&mixed.names, Precision::Full)?;
        }
        Ok(())
    }

    fn seconds_of_learning(
        &mut self,
        mixed: &MixedTensors,
        samples: usize,
        precision: Precision,
    ) -> Result<f64, EngineError> {
        if let Some(&known) = self.timings.learn.get(&(samples, precision)) {
            return Ok(known);
        }
        let leaves = self.inputs.leaves(&mixed.names, precision)?;
        let backward =
            Backward { how: Pass::Learn.with(precision), course: leaves.course(self.spec.compute.recompute) };
        let seconds =
            least(|| Ok(probe::learn_once(self.inputs.subject(), &leaves, Size::of(samples), backward)?.seconds))?;
        self.inputs.leaves(&mixed.names, Precision::Full)?;
        self.timings.learn.insert((samples, precision), seconds);
        Ok(seconds)
    }

    fn seconds_of_scores(&mut self, split: &Split, precision: Precision) -> Result<f64, EngineError> {
        let batch = self.inputs.score_batch(self.spec.compute.score_batch).min(split.samples()).max(1);
        let seconds = match self.timings.score.get(&precision) {
            Some(&each) => each,
            None => {
                let how = Pass::Score.with(precision);
                let each = least(|| Ok(probe::score_once(self.inputs.subject(), Size::of(batch), how)?.seconds))?
                    / batch as f64;
                self.timings.score.insert(precision, each);
                each
            }
        };
        Ok(seconds * split.samples() as f64)
    }
}

fn least(mut pass: impl FnMut() -> Result<f64, EngineError>) -> Result<f64, EngineError> {
    pass()?;
    let mut least = f64::INFINITY;
    for _ in 0..TIMED {
        least = least.min(pass()?);
    }
    Ok(least)
}

/// Bytes a second that a copy in the device's memory reads and writes together.
fn copy_rate(device: Device) -> Result<f64, EngineError> {
    const BYTES: i64 = 64 << 20;
    let from = Tensor::f_zeros([BYTES], (Kind::Uint8, device)).map_err(torch_error)?;
    let to = from.f_empty_like().map_err(torch_error)?;
    let copy = || -> Result<f64, EngineError> {
        let began = Instant::now();
        to.shallow_clone().f_copy_(&from).map_err(torch_error)?;
        // The device has done it once its answer is here.
        to.f_get(0).and_then(|byte| byte.f_int64_value(&[])).map_err(torch_error)?;
        Ok(began.elapsed().as_secs_f64())
    };
    Ok(2.0 * BYTES as f64 / least(copy)?.max(1e-9))
}
