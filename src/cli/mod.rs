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
mod schema;
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
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 stopped by Ctrl-C.
stdout has data (tables, JSON); stderr has everything else.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a sweep on this machine, without servers. Run the same command again to continue it
    Run(RunArgs),
    /// Print what a sweep will need: memory, bytes read, iterations, time. Runs a few passes, learns nothing
    Plan(PlanArgs),
    /// Fine-tune a small zoo on UCI digits and run every method on it; or make a zoo from your own images (--make-zoo)
    Demo(DemoArgs),
    /// Show what a zoo contains, what is assumed about it, and what a run would refuse
    Inspect(inspect::InspectArgs),
    /// Write the model of a coefficients file, or of a sweep's winner
    Materialize(materialize::MaterializeArgs),
    /// Write the mean of models, or a fixed mix. Needs no data; nothing is learned or scored
    Merge(merge::MergeArgs),
    /// Write the results of a sweep as one HTML page with plots
    Report(report::ReportArgs),
    /// Print the JSON Schema of a specification, or a table of its keys
    Schema(schema::SchemaArgs),
    /// Run the scheduler of a pool: HTTP API, task tickets, recovery of lost tasks. Its state is in Redis: stop and restart it at any time, or run two
    Serve(serve::ServeArgs),
    /// Submit a sweep to a scheduler. Prints its id
    Submit(submit::SubmitArgs),
    /// Show the progress of a scheduler's sweeps, or of one sweep's tasks
    Status(status::StatusArgs),
    /// Show the results of a sweep, best first by select
    Results(results::ResultsArgs),
    /// Show the events of a sweep's tasks: claims, releases, failures with their causes
    Logs(status::LogsArgs),
    /// Cancel sweeps. Running tasks stop within an iteration; results are kept
    Cancel(actions::ActionArgs),
    /// Pause sweeps until `resume`. Running tasks stop with a checkpoint
    Pause(actions::ActionArgs),
    /// Continue paused sweeps
    Resume(actions::ActionArgs),
    /// Start the failed tasks of sweeps again
    Retry(actions::ActionArgs),
    /// Delete sweeps that have ended, with their results. This cannot be undone
    Delete(actions::ActionArgs),
    /// Show the settings of the pool's programs, and where each value comes from. Secrets are hidden
    Config(config::ShowArgs),
    /// Check Redis for records that contradict each other; `--repair` corrects them. Exits with 1 if a problem remains
    Doctor(doctor::DoctorArgs),
    /// Check that the scheduler on this machine answers; exits with 0 if it does. For a container's health check
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Specification: TOML, YAML or JSON
    pub spec: PathBuf,
    /// Output folder: checkpoints, coefficients, results.json, best/. Created if missing. A folder belongs to one specification
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Format of the results on stdout
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Start tasks again that failed in an earlier run
    #[arg(long)]
    pub retry_failed: bool,
}

/// Flags of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Specification: TOML, YAML or JSON
    pub spec: PathBuf,
    /// Memory budget, for example 24GiB; overrides `compute.memory`. Tasks that need more are shown as refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<bytesize::ByteSize>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Table
    Table,
    /// JSON
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
        Command::Schema(args) => schema::show(&args),
        Command::Config(args) => config::show(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Healthcheck(args) => healthcheck::scheduler(&args),
    }
}
