//! An engine without tensors: its coefficients are a sum over iterations, so that a repeated or lost iteration shows.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use mehl_soup::checkpoint::{Build, Checkpoint, Totals};
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::{
    Completion, Directive, Effort, EngineError, Progress, RungReached, Scores, ScoresHost, SoupEngine, TaskHost,
};
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::paired::UnitScores;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::score::testing::with_errors;
use mehl_soup::sweep::spec::{ComputeDtype, Family, LinearLibrary, Spec};
use mehl_soup::sweep::task::Task;

/// What a test can turn while tasks run.
#[derive(Debug, Default)]
pub struct Knobs {
    /// Iterations of a task.
    pub iterations: AtomicU64,
    /// Milliseconds of an iteration.
    pub millis: AtomicU64,
    /// Iterations computed, over all tasks and attempts.
    pub computed: AtomicU64,
    /// What goes wrong: 0 nothing, 1 a panic, 2 memory, 3 a NaN, 4 it stands still, 5 the process dies, 6 an input.
    pub fault: AtomicU64,
    /// In which iteration of the task; 0 for the third of each attempt.
    pub fault_at: AtomicU64,
    /// In which task; unset for all.
    pub fault_in: OnceLock<String>,
    /// Where each computed iteration is noted, for tests with several processes: a line of task, number and process.
    pub log: OnceLock<PathBuf>,
    /// Ingredients and layer groups of the coefficients in each checkpoint; unset for few.
    pub shape: OnceLock<(usize, usize)>,
    /// What telling the host took in each iteration, its checkpoint included.
    pub told: Mutex<Vec<Duration>>,
}

impl Knobs {
    fn is_faulty(&self, task: &str, own: u64, of_task: u64) -> bool {
        let at = self.fault_at.load(Ordering::SeqCst);
        let is_now = if at == 0 { own == 3 } else { of_task == at };
        is_now && self.fault_in.get().is_none_or(|only| only == task)
    }

    fn note(&self, task: &str, iteration: u64) {
        let Some(path) = self.log.get() else { return };
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        // One write: lines of several processes do not mix.
        file.write_all(format!("{task} {iteration} {}\n", std::process::id()).as_bytes()).unwrap();
    }
}

/// The engine.
pub struct Stub {
    knobs: Arc<Knobs>,
}

pub fn stub(knobs: &Arc<Knobs>) -> impl Fn(&Spec) -> Result<Stub, EngineError> + Send + 'static {
    let knobs = knobs.clone();
    move |_| Ok(Stub { knobs: knobs.clone() })
}

/// A specification, and its tasks.
pub fn spec() -> (Spec, Vec<Task>) {
    let text = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\nsoup.method = 'mehl+'\n[search.space]\nbatch = [1, 2, 3]";
    let spec = parse_spec_text(text, Format::Toml, std::path::Path::new("/base")).unwrap();
    let tasks = expand(&spec);
    (spec, tasks)
}

fn score() -> SplitScore {
    with_errors((1.0, 0.1), (0.5, 0.1), 4)
}

/// Where an attempt without a checkpoint begins.
fn beginning(task: &Task) -> Checkpoint {
    let build = Build {
        libtorch: "none".into(),
        cpu_capability: "none".into(),
        compute_threads: 1,
        device: "cpu".into(),
        linear: LinearLibrary::default(),
    };
    Checkpoint {
        identity: task.id.clone(),
        build,
        coefficients: Coefficients::mean_of(2, 1, &[0]),
        finished: vec![],
        current: None,
        greedy: None,
        select: None,
        model_batch: 1,
        cuts: vec![],
        dtype: ComputeDtype::F32,
        totals: Totals { attempts: 0, effort: Effort::default() },
        history: vec![],
        exact: true,
    }
}

/// What a task's coefficients are after so many iterations: neither order nor number can change without being seen.
pub fn expected(iterations: u64) -> Vec<u8> {
    let mut sum = 0u64;
    (1..=iterations).for_each(|i| sum = sum.wrapping_mul(31).wrapping_add(i));
    sum.to_le_bytes().to_vec()
}

impl SoupEngine for Stub {
    fn scores(&mut self, known: Option<Manifest>, host: &mut dyn ScoresHost) -> Result<Manifest, EngineError> {
        let manifest = known.unwrap_or(Manifest {
            objective: Default::default(),
            version: Manifest::VERSION,
            family: Family::Vit,
            architecture: "stub".into(),
            ingredients: vec![],
            base: None,
            data: vec![],
            notes: vec![],
        });
        match host.scored(&manifest, 0, 1)? {
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
        if let Some(&(ingredients, groups)) = self.knobs.shape.get() {
            state.coefficients = Coefficients::mean_of(ingredients, groups, &[0]);
        }
        if state.identity != task.id {
            return Err(EngineError::ForeignCheckpoint("it is another task's".into()));
        }
        state.totals.attempts += 1;
        let mut own = 0;
        let all = self.knobs.iterations.load(Ordering::SeqCst);
        // Epochs are of equal length.
        let rung = host.rung().map(|epochs| all * epochs / task.soup.outer_epochs as u64);
        while state.totals.effort.iterations < all {
            if rung.is_some_and(|rung| state.totals.effort.iterations >= rung) {
                host.save(&state)?;
                return Err(EngineError::AtRung(Box::new(RungReached {
                    select: with_errors((task.soup.learning_rate, 0.1), (0.5, 0.1), 4),
                    effort: state.totals.effort,
                    model_batch: 1,
                    attempts: state.totals.attempts,
                })));
            }
            own += 1;
            if self.knobs.is_faulty(&task.id, own, state.totals.effort.iterations + 1) {
                match self.knobs.fault.load(Ordering::SeqCst) {
                    1 => panic!("a stub's panic"),
                    2 => return Err(EngineError::OutOfMemory("a stub's memory".into())),
                    3 => return Err(EngineError::Numerics("loss is NaN".into())),
                    4 => loop {
                        std::thread::sleep(Duration::from_millis(50));
                    },
                    5 => std::process::abort(),
                    6 => return Err(EngineError::Input("zoo/a.safetensors: not found".into())),
                    _ => {}
                }
            }
            std::thread::sleep(Duration::from_millis(self.knobs.millis.load(Ordering::SeqCst)));
            state.totals.effort.iterations += 1;
            self.knobs.computed.fetch_add(1, Ordering::SeqCst);
            self.knobs.note(&task.id, state.totals.effort.iterations);
            // The sum lives where a checkpoint has room for it.
            let sum = state.totals.effort.samples;
            state.totals.effort.samples = sum.wrapping_mul(31).wrapping_add(state.totals.effort.iterations);
            let progress = Progress {
                iterations: state.totals.effort.iterations,
                planned_iterations: 0,
                learn_loss: 1.0,
                select: None,
                samples_per_second: 1.0,
                host_bytes: 1,
                device: None,
                iteration: None,
                stage: "learning",
            };
            let began = Instant::now();
            let directive = host.progress(&progress);
            if directive != Directive::Continue {
                host.save(&state)?;
            }
            self.knobs.told.lock().unwrap().push(began.elapsed());
            if directive == Directive::Stop {
                return Err(EngineError::Stopped);
            }
        }
        Ok(Completion {
            coefficients: state.totals.effort.samples.to_le_bytes().to_vec(),
            scores: Scores { learn: score(), select: score(), test: None },
            effort: state.totals.effort,
            exact: true,
            model_batch: 1,
            dtype: ComputeDtype::F32,
            units: UnitScores::default(),
            attempts: state.totals.attempts,
        })
    }
}
