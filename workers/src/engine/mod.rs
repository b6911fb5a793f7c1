//! The engine: one device, one task at a time.

pub mod allocations;
mod budget;
mod build_info;
pub mod data_order;
pub mod device;
pub mod dtype;
pub(crate) mod errors;
mod fit;
mod inputs;
pub mod linear;
pub mod memory;
mod module_check;
pub mod needs;
mod objective;
pub(crate) mod phases;
pub mod plan;
mod probe;
pub mod read_ahead;
mod scoring;
pub mod statistics;
mod task_run;
pub mod train;

use mehl_soup::checkpoint::{Checkpoint, Totals};
use mehl_soup::coefficients::{About, Coefficients, CoefficientsFile, IngredientRef};
use mehl_soup::runner::engine::{Completion, Directive, EngineError, Scores, ScoresHost, SoupEngine, TaskHost};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::results::Hyperparameters;
use mehl_soup::sweep::spec::{ComputeDtype, LinearLibrary, Spec};
use mehl_soup::sweep::task::Task;
use mehl_soup::zoo::{HashCache, LayerGroups};
use tch::{Device, Kind};

pub use build_info::build;
pub(crate) use errors::zoo_error;
pub use errors::{span_error, torch_error};
pub use inputs::Inputs;
pub(crate) use inputs::text_facts;
pub use phases::{Clock, Phases};
pub use scoring::score;
use task_run::Claim;
pub use task_run::TaskRun;

use crate::families::Precision;
use crate::hyperplane::MixedTensors;
use crate::methods;
use needs::Needs;
use probe::Probed;

/// How an engine computes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Device.
    pub device: Device,
    /// Dtype of parameters and scores: f32; f64 for checks against references.
    pub kind: Kind,
    /// Threads of the CPU computation.
    pub threads: usize,
    /// Where content hashes are kept.
    pub cache: Option<HashCache>,
    /// Version of the manifests that it makes, where the family has it. In a pool that of the last release, whose
    /// workers may be at work too.
    pub manifest_version: u32,
}

/// Runs soup tasks of one sweep on one device. Lives on one thread.
pub struct TorchEngine {
    spec: Spec,
    settings: Settings,
    inputs: Option<Inputs>,
    /// Seconds by phase of the last task.
    pub phases: Phases,
    /// What passes take: the same for all tasks with the same batch and dtype.
    probed: Probed,
    ahead_on_cpu: bool,
}

impl TorchEngine {
    /// An engine that opens its inputs when it first needs them.
    pub fn new(spec: Spec, settings: Settings) -> Self {
        tch::set_num_threads(settings.threads as i32);
        Self { spec, settings, inputs: None, phases: Phases::default(), probed: Probed::default(), ahead_on_cpu: false }
    }

    /// From now on the next model batch is read into memory on the CPU as well ([`read_ahead`]), where it gains nothing: for tests.
    pub fn read_ahead_on_cpu(&mut self) {
        self.ahead_on_cpu = true;
    }

    fn open(&mut self, note: &mut dyn FnMut(&str)) -> Result<&Inputs, EngineError> {
        if self.inputs.is_none() {
            let Settings { device, kind, cache, .. } = &self.settings;
            self.inputs = Some(Inputs::open(&self.spec, *device, *kind, cache.as_ref(), note)?);
        }
        let inputs = self.inputs.as_ref().ok_or_else(|| EngineError::Internal("inputs are not open".to_string()))?;
        inputs.model.use_linear_library(self.linear_library().0);
        Ok(inputs)
    }

    /// Where nothing else is recorded.
    fn linear_library(&self) -> (LinearLibrary, Option<&'static str>) {
        linear::resolve(self.spec.compute.linear, self.settings.kind, self.settings.device)
    }

    /// The best `top` ingredients by select, ascending by index; all without `top`.
    fn members(&self, task: &Task, manifest: &Manifest) -> Result<Vec<usize>, EngineError> {
        let mut ranked: Vec<usize> = (0..manifest.ingredients.len()).collect();
        if let Some(top) = task.top {
            let mut scores = Vec::new();
            for entry in &manifest.ingredients {
                scores.push(
                    entry.select.ok_or_else(|| {
                        EngineError::Internal(format!("ingredient {} has no select score", entry.name))
                    })?,
                );
            }
            let metric = self.spec.data.metric;
            ranked.sort_by(|&a, &b| metric.compare(&scores[a], &scores[b]).then(a.cmp(&b)));
            ranked.truncate(top.max(1));
            ranked.sort_unstable();
        }
        Ok(ranked)
    }

    /// How many ingredients at once fit here, where a task goes on that has begun elsewhere; `None` if that is no less than it asks for, or nobody can tell.
    fn fits(&self, claim: &Claim<'_>, state: &Checkpoint) -> Result<Option<usize>, EngineError> {
        let Claim { inputs, task, mixed, rows, .. } = claim;
        if !task.soup.method.learns() || mixed.names.is_empty() {
            return Ok(None);
        }
        let needs = Needs::of_task(inputs, &task.soup, mixed, state.dtype, &self.spec.compute, &self.probed)?;
        let ceiling = budget::budget(&self.spec.compute, inputs.device).ceiling;
        if needs.peak(state.model_batch.min(rows.len())) <= ceiling {
            return Ok(None);
        }
        Ok(Some(needs.largest(ceiling, rows.len()).unwrap_or(1)))
    }

    /// The state that an attempt begins from: a checkpoint's, or a new one.
    fn begin(
        &self,
        claim: &Claim<'_>,
        resume: Option<Checkpoint>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Checkpoint, EngineError> {
        let Claim { inputs, task, mixed, members, rows, .. } = claim;
        let identity = identity(task, claim.manifest, self.settings.kind);
        let Settings { device, kind, threads, .. } = self.settings;
        if let Some(mut state) = resume {
            let build = build(device, threads, linear::resume(state.build.linear, kind, device));
            if state.identity != identity {
                return Err(EngineError::ForeignCheckpoint(
                    "it was made with other hyperparameters, another zoo or other data".to_string(),
                ));
            }
            let shape = (state.coefficients.ingredients(), state.coefficients.groups());
            if shape != (inputs.zoo.rows(), mixed.group_count) {
                return Err(EngineError::ForeignCheckpoint(format!(
                    "expected coefficients of shape {:?}, found {shape:?}",
                    (inputs.zoo.rows(), mixed.group_count)
                )));
            }
            if state.build != build || build.device != "cpu" {
                state.exact = false;
                note(&format!(
                    "task {}: continues with {build:?}, started with {:?}; the result is within \
                     tolerance, not bit-exact",
                    task.id, state.build
                ));
                state.build = build;
            }
            if self.spec.compute.dtype.is_some_and(|stated| stated != state.dtype) {
                note(&format!("task {}: continues in {}, the dtype it was started with", task.id, state.dtype));
            }
            if self.spec.compute.linear.is_some_and(|stated| stated != state.build.linear) {
                let (id, library) = (&task.id, state.build.linear);
                note(&format!("task {id}: continues with linear layers by {library}, with which it was started"));
            }
            state.totals.attempts += 1;
            return Ok(state);
        }
        let (linear, why) = self.linear_library();
        if let Some(why) = why {
            note(&format!("task {}: {why}", task.id));
        }
        let used = inputs.model.use_linear_library(linear);
        if used != linear && self.spec.compute.linear.is_some() {
            note(&format!("task {}: the family does not know compute.linear = \"{linear}\"; {used} is used", task.id));
        }
        let linear = used;
        let build = build(device, threads, linear);
        // Where nothing is learned there is nothing but scores.
        let stated = if task.soup.method.learns() { self.spec.compute.dtype } else { Some(ComputeDtype::F32) };
        let (dtype, why) = dtype::resolve(stated, inputs.kind, inputs.device, inputs.model.as_ref(), mixed.elements());
        if let Some(why) = why {
            note(&format!("task {}: {why}", task.id));
        }
        let model_batch = if task.soup.method.learns() && !mixed.names.is_empty() {
            let needs = Needs::of_task(inputs, &task.soup, mixed, dtype, &self.spec.compute, &self.probed)?;
            let budget = budget::budget(&self.spec.compute, inputs.device);
            budget::model_batch(task.soup.model_batch, task.soup.method, &needs, &budget, rows.len())?
        } else {
            1
        };
        Ok(Checkpoint {
            identity,
            build,
            coefficients: Coefficients::mean_of(inputs.zoo.rows(), mixed.group_count, members),
            finished: vec![],
            current: None,
            greedy: None,
            select: None,
            model_batch,
            cuts: vec![],
            dtype,
            totals: Totals { attempts: 1, ..Totals::default() },
            history: vec![],
            exact: true,
        })
    }
}

/// Everything a task's result depends on.
fn identity(task: &Task, manifest: &Manifest, kind: Kind) -> String {
    task.identity(manifest, if kind == Kind::Double { ComputeDtype::F64 } else { ComputeDtype::F32 })
}

impl SoupEngine for TorchEngine {
    fn suits(&self, manifest: &Manifest) -> bool {
        self.inputs.as_ref().is_none_or(|inputs| {
            inputs.manifest(manifest.version).inputs_hash() == manifest.inputs_hash()
                && inputs.zoo.check_unchanged().is_ok()
        })
    }

    fn scores(&mut self, known: Option<Manifest>, host: &mut dyn ScoresHost) -> Result<Manifest, EngineError> {
        let score_batch = self.spec.compute.score_batch;
        let version = self.settings.manifest_version;
        let inputs = self.open(&mut |message| host.note(message))?;
        let mut manifest = inputs.manifest(version);
        for note in &manifest.notes {
            host.note(note);
        }
        if let Some(known) = known {
            if known.inputs_hash() == inputs.manifest(known.version).inputs_hash() {
                // Scores of the same contents on the same data still hold.
                manifest = known;
            } else if known.ingredients.iter().all(|entry| entry.select.is_some()) {
                // Tasks may have been computed on what it says: their results and new ones would not be comparable.
                inputs.check(&known)?;
            }
        }
        let total = manifest.ingredients.len();
        for k in 0..total {
            if manifest.ingredients[k].select.is_none() {
                inputs.write_ingredient(k)?;
                let score =
                    inputs.score(&inputs.data.select, score_batch, Precision::Full).map_err(|error| match error {
                        EngineError::Numerics(what) => {
                            EngineError::Input(format!("{}: {what} on select", manifest.ingredients[k].path.display()))
                        }
                        other => other,
                    })?;
                inputs.zoo.ingredients()[k].check_unchanged().map_err(zoo_error)?;
                manifest.ingredients[k].select = Some(score);
            }
            if host.scored(&manifest, k + 1, total)? == Directive::Stop {
                return Err(EngineError::Stopped);
            }
        }
        if !self.spec.zoo.allow_chance {
            let inputs =
                self.inputs.as_ref().ok_or_else(|| EngineError::Internal("inputs are not open".to_string()))?;
            inputs.objective.check_chance(&manifest, &inputs.data.select)?;
        }
        Ok(manifest)
    }

    fn run(
        &mut self,
        task: &Task,
        manifest: &Manifest,
        resume: Option<Checkpoint>,
        host: &mut dyn TaskHost,
    ) -> Result<Completion, EngineError> {
        self.open(&mut |message| host.note(message))?;
        let inputs = self.inputs.as_ref().ok_or_else(|| EngineError::Internal("inputs are not open".to_string()))?;
        inputs.check(manifest)?;
        if task.soup.method.learns() {
            objective::check_batch(inputs.named_objective.name(), task.soup.batch)?;
        }
        let groups = LayerGroups::new(task.soup.layer_groups, &inputs.layout);
        let mixed = MixedTensors::new(&inputs.layout, &groups, inputs.model.as_ref());
        let members = self.members(task, manifest)?;
        let base = inputs.zoo.base().filter(|_| task.soup.method.is_on_hyperplane()).map(|_| inputs.zoo.len());
        let rows = members.iter().copied().chain(base).collect();
        let claim = Claim {
            inputs,
            task,
            manifest,
            mixed,
            members,
            rows,
            metric: self.spec.data.metric,
            score_batch: self.spec.compute.score_batch,
            recompute: self.spec.compute.recompute,
            ahead_on_cpu: self.ahead_on_cpu,
        };
        let limit = resume.as_ref().map(|state| self.fits(&claim, state)).transpose()?.flatten();
        let state = self.begin(&claim, resume, &mut |message| host.note(message))?;
        inputs.model.use_linear_library(state.build.linear);
        // What scoring and the task before have left is in the way of this one's model batches.
        memory::give_back_freed_pages();
        // Tensors that no soup moves are written once.
        inputs.write_ingredient(0)?;
        let mut run = TaskRun::new(claim, state, host);
        run.limit = limit;
        // What was resolved at the first claim is kept before anything is computed with it.
        run.save()?;
        let found = if run.mixed.names.is_empty() {
            run.host.note(&format!("task {}: all ingredients are equal, so every mix is the same model", task.id));
            Ok(Coefficients::mean_of(inputs.zoo.rows(), groups.len(), &run.members))
        } else {
            methods::by_name(task.soup.method).run(&mut run)
        };
        self.phases = run.clock.phases();
        let coefficients = found?;
        let (scores, units) = run.score_exact(&coefficients)?;
        // Every weight of this attempt has been read: a result of changed files would be nobody's.
        inputs.zoo.check_unchanged().map_err(zoo_error)?;
        run.update_effort();

        let (totals, exact, model_batch, dtype) =
            (run.state.totals, run.state.exact, run.state.model_batch, run.state.dtype);
        let (effort, attempts) = (totals.effort, totals.attempts);
        let about = about(&self.spec, task, manifest, &groups, &scores, &run.state);
        let statistics = statistics::read(inputs.model.as_ref())?;
        let file = CoefficientsFile { coefficients, statistics, about };
        Ok(Completion { coefficients: file.to_bytes(), scores, effort, exact, model_batch, dtype, attempts, units })
    }
}

fn about(
    spec: &Spec,
    task: &Task,
    manifest: &Manifest,
    groups: &LayerGroups,
    scores: &Scores,
    state: &Checkpoint,
) -> About {
    let best = manifest
        .ingredients
        .iter()
        .filter_map(|entry| entry.select)
        .reduce(|a, b| if spec.data.metric.compare(&b, &a).is_lt() { b } else { a });
    let mut notes = manifest.notes.clone();
    if state.dtype == ComputeDtype::Bf16 {
        notes.push("learned in bf16; scores are computed in f32".to_string());
    }
    if state.build.linear == LinearLibrary::Onednn {
        notes.push("large linear layers in f32 are computed by oneDNN".to_string());
    }
    if !state.exact {
        notes.push("resumed with another build or on a GPU: within tolerance, not bit-exact".to_string());
    }
    About {
        version: About::VERSION,
        program: format!("mehl-soup {}", env!("CARGO_PKG_VERSION")),
        sweep: spec.name.clone(),
        task_id: task.id.clone(),
        method: task.soup.method.to_string(),
        hyperparameters: serde_json::to_value(Hyperparameters { soup: task.soup.clone(), top: task.top })
            .unwrap_or_default(),
        seed: task.soup.seed,
        family: serde_json::to_value(manifest.family)
            .ok()
            .and_then(|value| value.as_str().map(str::to_string))
            .unwrap_or_default(),
        ingredients: manifest
            .ingredients
            .iter()
            .chain(&manifest.base)
            .map(|entry| IngredientRef { name: entry.name.clone(), path: entry.path.clone(), hash: entry.hash.clone() })
            .collect(),
        has_base: manifest.base.is_some(),
        groups: groups.names.clone(),
        tensors: groups.tensors().clone(),
        objective: manifest.objective.name(),
        scores: Some(scores.clone()),
        notes,
        data: manifest.data.clone(),
        better_than_best_ingredient: best.map(|best| spec.data.metric.compare(&scores.select, &best).is_lt()),
    }
}
