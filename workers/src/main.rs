//! `mehl-soup-worker`: parse, dispatch, exit code. People start it through `mehl-soup`.

mod bench;
mod check;
mod plan;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mehl_soup::cli::exit::{Exit, say};
use mehl_soup::cli::healthcheck::{self, HealthcheckArgs};
use mehl_soup::cli::inspect::{Checks, InspectArgs, inspect};
use mehl_soup::cli::pool_worker::{WorkerArgs, serve_worker};
use mehl_soup::cli::run::run_to_the_end;
use mehl_soup::cli::{DemoArgs, PlanArgs, RunArgs};
use mehl_soup::config::WorkerConfig;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::runner::run_folder::{FolderError, RunFolder};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::Spec;
use mehl_soup::zoo::HashCache;
use mehl_soup_worker::demo::{self, DemoError};
use mehl_soup_worker::engine::{Settings, TorchEngine, device, dtype, memory};
use tch::Kind;

/// Computes model soups with libtorch on the devices of this machine.
#[derive(Debug, Parser)]
#[command(name = "mehl-soup-worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a sweep on this machine. `mehl-soup run` starts it
    Local(RunArgs),
    /// Run tasks of a pool, one at a time on one device, until SIGTERM or Ctrl-C. On either it saves a
    /// checkpoint, returns its task and exits
    Serve(WorkerArgs),
    /// Check that the worker on this machine answers; exits with 0 if it does. For a container's health
    /// check
    Healthcheck(HealthcheckArgs),
    /// Print what a sweep will need on this machine. `mehl-soup plan` starts it
    Plan(PlanArgs),
    /// Make a zoo from UCI digits and run a sweep on it, or only make a zoo. `mehl-soup demo` starts it
    Demo(DemoArgs),
    /// Show what a zoo contains, and what a run would refuse. `mehl-soup inspect` starts it
    Inspect(InspectArgs),
    /// Benchmarks: image loading against torchvision, and an iteration by phase against a plain forward
    /// and backward pass of the same model
    Bench(BenchArgs),
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Folder for the random zoo and the results. ViT-B/32 needs 3 GB
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// Number of ingredients
    #[arg(long, default_value_t = 8)]
    pub ingredients: usize,
    /// Ingredients per model batch
    #[arg(long, default_value_t = 4)]
    pub model_batch: usize,
    /// Samples per iteration
    #[arg(long, default_value_t = 16)]
    pub batch: usize,
    /// Measured iterations in each of three rounds
    #[arg(long, default_value_t = 6)]
    pub iterations: usize,
    /// Dtypes of the iterations; each is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32,bf16")]
    pub dtype: Vec<bench::BenchDtype>,
    /// Also measure iterations with `compute.recompute`
    #[arg(long)]
    pub recompute: bool,
    /// CPU threads of the iterations. Default: all cores
    #[arg(long)]
    pub threads: Option<usize>,
    /// Device of `--part iteration` and `--part kernels`
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Measure only this part
    #[arg(long, value_enum)]
    pub part: Option<bench::Part>,
    /// Specification of the sweep on whose ingredients the errors of compact directions are measured.
    /// Default: not measured
    #[arg(long)]
    pub spec: Option<PathBuf>,
    /// How directions are stored in an iteration: auto, f32, bf16, int8, int4
    #[arg(long, default_value = "auto")]
    pub direction_dtype: String,
    /// Append a line of JSON to this file for each measured loop
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// Number of images. They are generated on first use
    #[arg(long, default_value_t = 400)]
    pub images: usize,
    /// Python interpreter with torchvision. Default: images are not measured
    #[arg(long)]
    pub python: Option<PathBuf>,
}

/// OpenMP's waiting threads look for work this often before they sleep. Its default, 300,000, is some milliseconds: beside other work (a compiler,
/// another task) every parallel region of a small model then waits for a thread that spins in another's place, seen to cost a factor of 7.
/// At 3,000 an idle machine was as fast as with the default, at 1,000 it was slower by more than half.
const SPIN_COUNT: &str = "3000";

/// Starts this program anew with the variable that OpenMP reads when it is loaded, which is before `main`, unless the user has set it or its kin.
#[cfg(unix)]
fn calm_openmp() {
    use std::os::unix::process::CommandExt;
    if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    if let Ok(own) = std::env::current_exe() {
        let mut command = std::process::Command::new(own);
        command.args(std::env::args_os().skip(1)).env("GOMP_SPINCOUNT", SPIN_COUNT);
        // Only returns if it fails, and then everything works as it is.
        drop(command.exec());
    }
}

#[cfg(not(unix))]
fn calm_openmp() {}

fn main() -> Exit {
    calm_openmp();
    memory::keep_freed_pages();
    match Cli::parse().command {
        Command::Local(args) => run_to_the_end(&args, engine),
        Command::Serve(args) => serve_worker(&args, prepare_device, pool_engine),
        Command::Healthcheck(args) => healthcheck::worker(&args),
        Command::Plan(args) => plan::plan(&args, engine),
        Command::Demo(args) => make_demo(&args),
        Command::Inspect(args) => inspect(&args, Some(&Checks { model: check::model, inputs: check::inputs })),
        Command::Bench(args) => match bench::run(&args) {
            Ok(()) => Exit::Done,
            Err(error) => Exit::Failed.say(format!("{error:#}")),
        },
    }
}

/// An engine for one of the specification's devices.
fn engine(spec: &Spec, slot: usize, cache: Option<HashCache>) -> Result<TorchEngine, EngineError> {
    let name = spec.compute.devices.get(slot).map_or("cpu", String::as_str);
    let slots = spec.compute.devices.len().max(1);
    let threads = spec.compute.threads.unwrap_or_else(|| device::cores() / slots).max(1);
    device::limit_threads(threads * slots);
    let settings = Settings {
        device: device::parse(name)?,
        kind: dtype::of_parameters(spec),
        threads,
        cache,
        manifest_version: Manifest::VERSION,
    };
    Ok(TorchEngine::new(spec.clone(), settings))
}

/// Loads a worker's device and computes on it once, so that what is wrong with it shows before a task is taken.
fn prepare_device(worker: &WorkerConfig) -> Result<(), EngineError> {
    let device = device::parse(&worker.device)?;
    let unusable = |error: tch::TchError| EngineError::Input(format!("`{}` cannot be used: {error}", worker.device));
    let ones = tch::Tensor::f_ones([2], (Kind::Float, device)).map_err(unusable)?;
    ones.f_sum(Kind::Float).and_then(f64::try_from).map_err(unusable)?;
    Ok(())
}

/// An engine for a worker of a pool: the specification says what is computed, the worker's own configuration where.
fn pool_engine(spec: &Spec, worker: &WorkerConfig, cache: Option<HashCache>) -> Result<TorchEngine, EngineError> {
    let threads = worker.threads.unwrap_or_else(device::cores).max(1);
    device::limit_threads(threads);
    let settings = Settings {
        device: device::parse(&worker.device)?,
        kind: dtype::of_parameters(spec),
        threads,
        cache,
        manifest_version: Manifest::VERSION_OF_POOLS,
    };
    let mut spec = spec.clone();
    // Those of the specification would be counted as slots that share this process's memory.
    spec.compute.devices = vec![worker.device.clone()];
    Ok(TorchEngine::new(spec, settings))
}

/// Makes a zoo; with `--make-zoo` that is all, without it a sweep over it follows.
fn make_demo(args: &DemoArgs) -> Exit {
    tch::set_num_threads(device::cores() as i32);
    let mut tell = |line: &str| eprintln!("{line}");
    let made = match &args.make_zoo {
        Some(folder) => demo::make_zoo(folder, args, &mut tell),
        None => demo::make(&args.out, args.seed, args.ingredients as usize, &args.ranges, &mut tell),
    };
    match (made, &args.make_zoo) {
        (Ok(spec), Some(folder)) => {
            let run = folder.join("run");
            eprintln!("next: mehl-soup run {} --out {}", spec.display(), run.display());
            say(&spec.display().to_string());
            Exit::Done
        }
        (Ok(spec), None) => {
            let run = RunArgs { spec, out: args.out.join("run"), format: args.format, retry_failed: false };
            if is_of_another_version(&run) {
                return Exit::Usage.say(format!(
                    "{} contains a run of another version of the demo; remove this folder to run \
                     the demo again",
                    run.out.display()
                ));
            }
            run_to_the_end(&run, engine)
        }
        (Err(error @ (DemoError::Io { .. } | DemoError::Other { .. } | DemoError::Input(_))), _) => {
            Exit::Usage.say(error)
        }
        (Err(error), _) => Exit::Failed.say(error),
    }
}

/// Whether a folder holds a run of another specification. What else is wrong with it, the run itself says.
fn is_of_another_version(run: &RunArgs) -> bool {
    let Ok(spec) = parse_spec(&run.spec) else { return false };
    matches!(RunFolder::open(&run.out, &spec), Err(FolderError::OtherSpec { .. }))
}
