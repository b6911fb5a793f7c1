//! `make bench`: what is fast, measured beside what it is compared with, in turns in one run.

mod batches;
mod cold;
mod directions;
mod images;
mod iteration;
mod kernels;
mod lines;
mod mean;
mod scoring;
mod text;
mod zoo;

use std::path::Path;

use anyhow::{Context, bail};
use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::{Directive, EngineError, HostError, Progress, ScoresHost, SoupEngine, TaskHost};
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{ComputeDtype, Spec};
use mehl_soup::sweep::task::Task;
use mehl_soup::zoo::HashCache;
use mehl_soup_worker::engine::{Settings, TorchEngine};
use tch::{Device, Kind};

use super::BenchArgs;

/// Turns that each side of a comparison has.
const ROUNDS: usize = 3;

/// Runs the parts that are asked for.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if args.part.is_none_or(|part| part == Part::Images) {
        images::run(args)?;
    }
    if args.part.is_none_or(|part| part == Part::Iteration) {
        iteration::run(args)?;
    }
    if args.part == Some(Part::Batches) {
        batches::run(args)?;
    }
    if args.part == Some(Part::Cold) {
        cold::run(args)?;
    }
    if args.part == Some(Part::Kernels) {
        kernels::run(args)?;
    }
    if args.part == Some(Part::Small) {
        iteration::small(args)?;
    }
    if args.part == Some(Part::Score) {
        scoring::score(args)?;
    }
    if args.part == Some(Part::Greedy) {
        scoring::greedy(args)?;
    }
    if args.part == Some(Part::Text) {
        text::run(args)?;
    }
    if args.part == Some(Part::Mean) {
        mean::run(args)?;
    }
    if let (None | Some(Part::Directions), Some(spec)) = (args.part, &args.spec) {
        directions::run(args, spec)?;
    }
    Ok(())
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// An iteration of `mehl+` against a plain pass
    Iteration,
    /// Errors of compact directions on the ingredients of a sweep (--spec)
    Directions,
    /// Model batches of four, with 8 to 64 ingredients. Needs 6 GB on disk. Only on request
    Batches,
    /// Start with a cold page cache, up to the first model batch. Needs 10 GB on disk. Only on request
    Cold,
    /// Mixing and projecting on a GPU against the host. Only on request
    Kernels,
    /// Decoding and resizing against torchvision, and the cache against a plain read
    Images,
    /// An iteration of `mehl+` against a plain pass, of the demo's model of 136 thousand values. Only on
    /// request
    Small,
    /// Samples per second of a score. Only on request
    Score,
    /// A greedy soup against the scores that it consists of. Only on request
    Greedy,
    /// The mean of a zoo by `mehl-soup materialize`. Only on request
    Mean,
    /// Learning on the texts of a sweep (--spec) against plain passes over the same batches. Only on
    /// request
    Text,
}

/// Dtypes of iterations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchDtype {
    /// `compute.dtype = "f32"`
    F32,
    /// `compute.dtype = "bf16"`
    Bf16,
}

impl BenchDtype {
    fn name(self) -> &'static str {
        ComputeDtype::from(self).as_str()
    }
}

impl From<BenchDtype> for ComputeDtype {
    fn from(dtype: BenchDtype) -> Self {
        match dtype {
            BenchDtype::F32 => Self::F32,
            BenchDtype::Bf16 => Self::Bf16,
        }
    }
}

/// The task of a specification's own method, and an engine for it.
fn engine(spec: &Path, device: Device, threads: usize) -> anyhow::Result<(TorchEngine, Task)> {
    engine_of(parse_spec(spec)?, device, threads)
}

/// As [`engine`], of a specification that was read.
fn engine_of(spec: Spec, device: Device, threads: usize) -> anyhow::Result<(TorchEngine, Task)> {
    let is_own = |task: &Task| task.soup.method == spec.soup.method;
    let task = expand(&spec).into_iter().find(is_own).context("the sweep has its one task")?;
    let settings = Settings {
        device,
        kind: Kind::Float,
        threads,
        cache: HashCache::from_environment(),
        manifest_version: Manifest::VERSION,
    };
    Ok((TorchEngine::new(spec, settings), task))
}

/// Runs a task until its host stops it.
fn until_stopped(
    engine: &mut TorchEngine,
    task: &Task,
    manifest: &Manifest,
    host: &mut dyn TaskHost,
) -> anyhow::Result<()> {
    match engine.run(task, manifest, None, host) {
        Err(EngineError::Stopped) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("the task ended before the benchmark did"),
    }
}

/// A host that lets all be computed.
struct Unwatched;

impl TaskHost for Unwatched {
    fn progress(&mut self, _: &Progress) -> Directive {
        Directive::Continue
    }
    fn save(&mut self, _: &Checkpoint) -> Result<(), HostError> {
        Ok(())
    }
    fn note(&mut self, message: &str) {
        eprintln!("note: {message}");
    }
}

impl ScoresHost for Unwatched {
    fn scored(&mut self, _: &Manifest, _: usize, _: usize) -> Result<Directive, HostError> {
        Ok(Directive::Continue)
    }
    fn note(&mut self, message: &str) {
        eprintln!("note: {message}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
