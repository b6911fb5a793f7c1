//! The command line of `mehl-soup`: what the flags say, and one file per family of commands.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 bad usage, input or output folder, 130 stopped by Ctrl-C.

mod config;
mod demo;
mod doctor;
pub mod exit;
pub mod healthcheck;
pub mod inspect;
mod materialize;
mod merge;
pub mod plan;
mod pool;
pub mod pool_worker;
mod report;
pub mod run;
mod serve;
mod service;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use demo::{DemoArgs, Ends, Ranges, ZooArgs, ZooFamily};
use exit::Exit;
use pool::{actions, results, status, submit};

/// Learn the mixing coefficients of a model soup.
#[derive(Debug, Parser)]
#[command(name = "mehl-soup", version, about, long_about = None, after_help = "\
Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 stopped by Ctrl-C.
stdout holds data (tables, JSON), stderr everything else.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Learn all soups of a specification here, without servers; run again to go on where it stopped
    Run(RunArgs),
    /// Say what a specification will take here: memory, bytes read, iterations, time; does some passes, loads no model batch
    Plan(PlanArgs),
    /// Train a small zoo on UCI digits, learn soups of it with every method, print the table; or make a zoo on images of your own (--make-zoo)
    Demo(DemoArgs),
    /// Show what a zoo holds, what is assumed of it, and what a run would refuse: tensors, dtypes, differences, who stands out
    Inspect(inspect::InspectArgs),
    /// Write the model that a coefficients file, or a sweep's winner, stands for
    Materialize(materialize::MaterializeArgs),
    /// Write the mean of models, or a fixed mix, from files alone: nothing is learned or scored, no data are needed
    Merge(merge::MergeArgs),
    /// Write what came of a sweep as one HTML page, with plots
    Report(report::ReportArgs),
    /// Serve a pool of workers: take sweeps over HTTP, hand out their tasks, look after tasks whose workers were lost. All state is in Redis: end it
    /// and start it again at any time, or run two
    Serve(serve::ServeArgs),
    /// Give a sweep to a scheduler, for its pool of workers; prints its id
    Submit(submit::SubmitArgs),
    /// Show where the sweeps of a scheduler stand, or the tasks of one
    Status(status::StatusArgs),
    /// Show what came of a sweep, best first by select
    Results(results::ResultsArgs),
    /// Show what happened to a sweep's tasks: claims, releases, failures with their causes
    Logs(status::LogsArgs),
    /// Compute nothing more for these sweeps. Running tasks end within an iteration; results that are there stay
    Cancel(actions::ActionArgs),
    /// Compute nothing for these sweeps until `resume`. Running tasks keep a checkpoint
    Pause(actions::ActionArgs),
    /// Go on with paused sweeps
    Resume(actions::ActionArgs),
    /// Begin the failed tasks of these sweeps anew
    Retry(actions::ActionArgs),
    /// Remove sweeps that have ended, with their results, for good
    Delete(actions::ActionArgs),
    /// Show the configuration of the pool's programs, with where each value came from; secrets are hidden
    Config(config::ShowArgs),
    /// Compare what Redis keeps about sweeps with their tasks' own states; `--repair` mends what differs. Ends with 1 if something is left
    Doctor(doctor::DoctorArgs),
    /// Ask the scheduler on this machine whether it lives; ends with 0 if it does. For the health check of a container
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Specification: TOML, YAML or JSON
    pub spec: PathBuf,
    /// Folder for checkpoints, coefficients, results.json and best/. Made if missing; one folder belongs to one specification
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How results are printed to stdout when all is done
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Begin tasks that failed in an earlier run anew, instead of leaving them failed
    #[arg(long)]
    pub retry_failed: bool,
}

/// Flags of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Specification: TOML, YAML or JSON
    pub spec: PathBuf,
    /// Budget instead of the specification's `compute.memory`, such as 24GiB: what does not fit is shown as refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<bytesize::ByteSize>,
    /// How the plan is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Format {
    /// As the flag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
    }
}

/// Parses the process's arguments and does what they say.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // If the terminal is gone there is nobody to tell.
            let _ = error.print();
            return exit;
        }
    };
    match cli.command {
        Command::Run(args) => run::check_and_start(&args),
        Command::Plan(args) => plan::check_and_start(&args),
        // The worker takes the same flags: they are handed on as they were given.
        Command::Demo(_) => worker::start(&std::env::args_os().skip(1).collect::<Vec<_>>()),
        Command::Inspect(args) => inspect::check_and_start(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Submit(args) => submit::submit(&args),
        Command::Status(args) => status::status(&args),
        Command::Results(args) => results::results(&args),
        Command::Logs(args) => status::logs(&args),
        Command::Cancel(args) => actions::act(&args, "cancel"),
        Command::Pause(args) => actions::act(&args, "pause"),
        Command::Resume(args) => actions::act(&args, "resume"),
        Command::Retry(args) => actions::act(&args, "retry"),
        Command::Delete(args) => actions::delete(&args),
        Command::Materialize(args) => materialize::materialize(&args),
        Command::Merge(args) => merge::merge(&args),
        Command::Report(args) => report::report(&args),
        Command::Config(args) => config::show(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Healthcheck(args) => healthcheck::scheduler(&args),
    }
}
