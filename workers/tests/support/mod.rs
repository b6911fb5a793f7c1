//! What the tests of the engine share.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod changed;
pub mod golden;
pub mod images;
pub mod programs;
pub mod random_zoo;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::{
    Completion, Directive, EngineError, HostError, Progress, ScoresHost, SoupEngine, TaskHost,
};
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::task::Task;
use mehl_soup_worker::engine::{Settings, TorchEngine};
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind};

/// A file or folder of the fixtures.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// Float tensors of a safetensors file, as f64.
pub fn read_floats(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F64 => view.data().chunks(8).map(|c| f64::from_le_bytes(c.try_into().unwrap())).collect(),
                Dtype::F32 => {
                    view.data().chunks(4).map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap()))).collect()
                }
                _ => return None,
            };
            Some((name, values))
        })
        .collect()
}

/// The one task of a specification that learns, or is not a baseline.
pub fn only_task(spec: &mehl_soup::sweep::spec::Spec) -> Task {
    expand(spec).into_iter().rfind(|task| task.soup.method == spec.soup.method).unwrap()
}

/// An engine for a specification text; relative paths are seen from `folder`.
pub fn engine(folder: &Path, text: &str, kind: Kind) -> (TorchEngine, Task) {
    let path = folder.join("sweep.toml");
    std::fs::write(&path, text).unwrap();
    let spec = parse_spec(&path).unwrap_or_else(|e| panic!("{e}"));
    let task = only_task(&spec);
    let settings = Settings { device: Device::Cpu, kind, threads: 2, cache: None, manifest_version: Manifest::VERSION };
    (TorchEngine::new(spec, settings), task)
}

/// Records everything, and stops after some iterations if told so.
#[derive(Default)]
pub struct Recorder {
    pub losses: Vec<f64>,
    pub checkpoints: Vec<Checkpoint>,
    pub every_iteration: bool,
    pub stop_after: Option<u64>,
    /// Epochs after which the task is to stop at a rung.
    pub rung: Option<u64>,
    pub notes: Vec<String>,
}

impl TaskHost for Recorder {
    fn progress(&mut self, progress: &Progress) -> Directive {
        self.losses.push(progress.learn_loss);
        if self.stop_after.is_some_and(|n| progress.iterations >= n) {
            Directive::Stop
        } else if self.every_iteration {
            Directive::Checkpoint
        } else {
            Directive::Continue
        }
    }
    fn rung(&self) -> Option<u64> {
        self.rung
    }
    fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), HostError> {
        // Through the bytes, as a real host would.
        self.checkpoints.push(Checkpoint::from_bytes(&checkpoint.to_bytes()).unwrap());
        Ok(())
    }
    fn note(&mut self, message: &str) {
        self.notes.push(message.to_string());
    }
}

impl ScoresHost for Recorder {
    fn scored(&mut self, _: &Manifest, _: usize, _: usize) -> Result<Directive, HostError> {
        Ok(Directive::Continue)
    }
    fn note(&mut self, message: &str) {
        self.notes.push(message.to_string());
    }
}

/// Scores the zoo and runs the task without interruption.
pub fn run(folder: &Path, text: &str, kind: Kind) -> Result<(Completion, Recorder), EngineError> {
    let (mut engine, task) = engine(folder, text, kind);
    let mut recorder = Recorder::default();
    let manifest = engine.scores(None, &mut recorder)?;
    let completion = engine.run(&task, &manifest, None, &mut recorder)?;
    Ok((completion, recorder))
}

/// The coefficients of a finished task, row-major.
pub fn coefficients(completion: &Completion) -> mehl_soup::coefficients::Coefficients {
    mehl_soup::coefficients::CoefficientsFile::from_bytes(&completion.coefficients).unwrap().coefficients
}
