//! An engine without tensors whose results look like those of a real one: histories, coefficients that sum to 1, scores that differ.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mehl_soup::checkpoint::{Build, Checkpoint, EpochRecord, Totals};
use mehl_soup::coefficients::{About, Coefficients, CoefficientsFile, IngredientRef, Statistics};
use mehl_soup::runner::engine::{
    Completion, Directive, Effort, EngineError, Progress, Scores, ScoresHost, SoupEngine, TaskHost,
};
use mehl_soup::runner::local::{RunError, Surroundings, run_sweep};
use mehl_soup::runner::reporter::Reporter;
use mehl_soup::runner::run_folder::RunFolder;
use mehl_soup::search::Searches;
use mehl_soup::sweep::manifest::{DataEntry, IngredientEntry, Manifest};
use mehl_soup::sweep::paired::UnitScores;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::results::{SweepResults, TaskOutcome};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::score::testing::with_errors;
use mehl_soup::sweep::spec::{ComputeDtype, Family, LinearLibrary, MethodName, Spec};
use mehl_soup::sweep::task::Task;
use tokio::sync::watch;

/// Iterations of a task.
const ITERATIONS: u64 = 40;
/// Iterations of an inner epoch.
const EPOCH: u64 = 5;

/// What a zoo is made of.
#[derive(Debug, Clone)]
pub struct Zoo {
    pub ingredients: Vec<String>,
    pub groups: Vec<String>,
    /// Every task fails because of this.
    pub fault: Option<String>,
}

impl Zoo {
    pub fn new(ingredients: usize, groups: usize) -> Self {
        Self {
            ingredients: (0..ingredients).map(|k| format!("run-{k:02}")).collect(),
            groups: (0..groups).map(|l| format!("vit.layer.{l}.weight")).collect(),
            fault: None,
        }
    }

    pub fn manifest(&self) -> Manifest {
        let ingredient = |(k, name): (usize, &String)| IngredientEntry {
            name: name.clone(),
            path: format!("/zoo/{k}").into(),
            hash: blake3::hash(name.as_bytes()).to_hex().to_string(),
            select: Some(score(0.3 + 0.01 * k as f64)),
        };
        let split = |split: &str, samples| DataEntry {
            split: split.into(),
            path: format!("/data/{split}.safetensors").into(),
            hash: blake3::hash(split.as_bytes()).to_hex().to_string(),
            samples,
        };
        Manifest {
            objective: Default::default(),
            version: Manifest::VERSION,
            family: Family::Vit,
            architecture: "sketch".into(),
            ingredients: self.ingredients.iter().enumerate().map(ingredient).collect(),
            base: None,
            data: vec![split("learn", 350), split("select", 250), split("test", 347)],
            notes: vec![],
        }
    }

    /// A soup of a task: half of the ingredients add, a few take away.
    pub fn soup(&self, task: &Task) -> CoefficientsFile {
        let (count, is_layerwise) = (self.ingredients.len(), task.soup.method.as_str().ends_with('+'));
        let groups = if is_layerwise { self.groups.clone() } else { vec!["model".to_string()] };
        let mut values = vec![0.0; count * groups.len()];
        for l in 0..groups.len() {
            let mut sum = 0.0;
            for k in 1..count {
                let value = match task.soup.method {
                    MethodName::Uniform => 1.0 / count as f64,
                    MethodName::Best => 0.0,
                    _ => ((k * 7 + l * 3 + task.id.len()) % 11) as f64 * 0.1 - 0.4,
                };
                values[k * groups.len() + l] = value;
                sum += value;
            }
            values[l] = 1.0 - sum;
        }
        let manifest = self.manifest();
        let ingredient = |entry: &IngredientEntry| IngredientRef {
            name: entry.name.clone(),
            path: entry.path.clone(),
            hash: entry.hash.clone(),
        };
        let about = About {
            objective: Default::default(),
            version: About::VERSION,
            program: "sketch".into(),
            sweep: "digits".into(),
            task_id: task.id.clone(),
            method: task.soup.method.to_string(),
            hyperparameters: serde_json::json!({}),
            seed: 0,
            family: manifest.family.to_string(),
            ingredients: manifest.ingredients.iter().map(ingredient).collect(),
            has_base: false,
            groups: groups.clone(),
            tensors: std::collections::BTreeMap::default(),
            scores: None,
            notes: vec![],
            data: manifest.data,
            better_than_best_ingredient: None,
        };
        let coefficients = Coefficients::from_values(count, groups.len(), values).unwrap();
        CoefficientsFile { coefficients, statistics: Statistics::new(), about }
    }
}

/// A score around a loss.
pub fn score(loss: f64) -> SplitScore {
    with_errors((loss, 0.02), (1.0 - loss / 4.0, 0.01), 250)
}

/// Scores of a task: the smaller its learning rate, the better, and always better than the baselines by more than two standard errors on test.
pub fn scores(task: &Task) -> Scores {
    let (select, test) = match task.soup.method {
        MethodName::Best => (0.3, 0.31),
        MethodName::Uniform => (0.4, 0.42),
        MethodName::Greedy => (0.35, 0.36),
        _ => (0.2 + task.soup.learning_rate, 0.21 + task.soup.learning_rate / 10.0),
    };
    Scores { learn: score(select - 0.01), select: score(select), test: Some(score(test)) }
}

/// What a finished task took.
pub fn effort(iterations: u64) -> Effort {
    Effort {
        iterations,
        samples: 32 * iterations,
        seconds: 0.05 * iterations as f64,
        iteration_seconds: 0.04 * iterations as f64,
        peak_device_bytes: None,
        peak_host_bytes: 240_000_000,
    }
}

/// The engine.
pub struct Sketch(pub Zoo);

impl SoupEngine for Sketch {
    fn scores(&mut self, known: Option<Manifest>, host: &mut dyn ScoresHost) -> Result<Manifest, EngineError> {
        let manifest = known.unwrap_or_else(|| self.0.manifest());
        match host.scored(&manifest, 1, 1)? {
            Directive::Stop => Err(EngineError::Stopped),
            _ => Ok(manifest),
        }
    }

    fn run(
        &mut self,
        task: &Task,
        _: &Manifest,
        resume: Option<Checkpoint>,
        host: &mut dyn TaskHost,
    ) -> Result<Completion, EngineError> {
        let mut state = resume.unwrap_or_else(|| beginning(task));
        state.totals.attempts += 1;
        let all = if task.soup.method.learns() { ITERATIONS } else { 0 };
        while state.totals.effort.iterations < all {
            if let Some(fault) = &self.0.fault {
                return Err(EngineError::Numerics(fault.clone()));
            }
            // As long as it takes a run to hear that it shall stop.
            std::thread::sleep(Duration::from_millis(2));
            let done = state.totals.effort.iterations + 1;
            state.totals.effort = effort(done);
            let learn_loss = 0.2 + 0.8 / done as f64;
            let select = score(0.25 + 0.5 / (1 + done / EPOCH) as f64);
            if done.is_multiple_of(EPOCH) {
                let position = (0, 0, (done / EPOCH) as usize);
                state.history.push(EpochRecord { position, learn_loss, select: Some(select) });
            }
            let directive = host.progress(&Progress {
                iterations: done,
                planned_iterations: all,
                learn_loss,
                select: Some(select),
                samples_per_second: 1500.0 + 100.0 * (done % 3) as f64,
                host_bytes: 240_000_000 + 1_000_000 * done,
                device: None,
                iteration: None,
                stage: "learning",
            });
            if directive != Directive::Continue {
                host.save(&state)?;
            }
            if directive == Directive::Stop {
                return Err(EngineError::Stopped);
            }
        }
        if let Some(fault) = &self.0.fault {
            return Err(EngineError::Numerics(fault.clone()));
        }
        Ok(Completion {
            units: UnitScores::default(),
            dtype: ComputeDtype::F32,
            coefficients: self.0.soup(task).to_bytes(),
            scores: scores(task),
            effort: state.totals.effort,
            exact: true,
            model_batch: 5,
            attempts: state.totals.attempts,
        })
    }
}

fn beginning(task: &Task) -> Checkpoint {
    let build = Build {
        libtorch: "none".into(),
        cpu_capability: "none".into(),
        compute_threads: 1,
        device: "cpu".into(),
        linear: LinearLibrary::default(),
    };
    Checkpoint {
        cuts: vec![],
        dtype: ComputeDtype::F32,
        identity: task.id.clone(),
        build,
        coefficients: Coefficients::mean_of(2, 1, &[0]),
        finished: vec![],
        current: None,
        greedy: None,
        select: None,
        model_batch: 5,
        totals: Totals { attempts: 0, effort: Effort::default() },
        history: vec![],
        exact: true,
    }
}

/// A search over two methods and the learning rate.
pub fn spec(name: &str, tasks: usize) -> Spec {
    let text = format!(
        "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\n[search]\nstrategy = 'random'\ntasks = {tasks}\n\
         greedy_baseline = true\n[search.space]\nmethod = ['mehl', 'mehl+']\nlearning_rate = {{ log_uniform = [1e-4, 1e-1] }}"
    );
    let mut spec = parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap();
    spec.name = name.to_string();
    spec
}

/// Asks a run to stop once it has seen so many iterations.
struct Stopping {
    after: u64,
    seen: std::sync::atomic::AtomicU64,
    stop: watch::Sender<bool>,
}

impl Reporter for Stopping {
    fn note(&self, message: &str) {
        eprintln!("{message}");
    }
    fn scored(&self, _: &str, _: &SplitScore, _: usize, _: usize) {}
    fn started(&self, _: usize, _: &Task, _: usize) {}
    fn progress(&self, _: usize, _: &Task, _: &Progress) {
        if self.seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == self.after {
            self.stop.send_replace(true);
        }
    }
    fn finished(&self, _: usize, _: &Task, _: &TaskOutcome) {}
}

/// Runs a sweep in a folder, as `mehl-soup run` would, and stops it after so many iterations. `None` if it was stopped.
pub fn run(root: &Path, spec: &Spec, zoo: &Zoo, after: u64) -> Option<SweepResults> {
    let folder = Arc::new(RunFolder::open(root, spec).unwrap());
    let zoo = zoo.clone();
    let engine: Arc<dyn Fn(usize) -> Result<Sketch, EngineError> + Send + Sync> =
        Arc::new(move |_| Ok(Sketch(zoo.clone())));
    let (stop, stopped) = watch::channel(false);
    let reporter = Arc::new(Stopping { after, seen: 0.into(), stop });
    let surroundings = Surroundings { stop: stopped, reporter, retry_failed: false, searches: Searches::default() };
    match run_sweep(spec, &folder, 1, &engine, &surroundings) {
        Ok(finished) => Some(finished.results),
        Err(RunError::Stopped) => None,
        Err(error) => panic!("{error}"),
    }
}
