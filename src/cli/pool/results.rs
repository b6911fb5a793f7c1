//! `mehl-soup results`, and a sweep's coefficients.

use clap::{Args, ValueEnum};

use super::{ServerArgs, failed, sweep_id};
use crate::cli::exit::{Exit, say};
use crate::client::ClientError;
use crate::report::results_of;
use crate::sweep::csv::to_csv;
use crate::sweep::results::winner;
use crate::sweep::table;
use crate::untrusted::printable;

/// Flags of `results`.
#[derive(Debug, Args)]
pub struct ResultsArgs {
    /// Id of the sweep. It can be unfinished: the results so far are shown
    #[arg(value_parser = sweep_id)]
    sweep: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = ResultsFormat::Table)]
    format: ResultsFormat,
    #[command(flatten)]
    server: ServerArgs,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ResultsFormat {
    /// Table
    Table,
    /// JSON, as in results.json of `run`
    Json,
    /// CSV, one line per task
    Csv,
}

pub(in crate::cli) fn results(args: &ResultsArgs) -> Exit {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let results = match results_of(&client, &args.sweep) {
        Ok(results) => results,
        Err(error) => return failed(&error),
    };
    match args.format {
        ResultsFormat::Table => {
            let width = comfy_table::Table::new().width().unwrap_or(160);
            say(&printable(&table::render(&results, width)));
        }
        ResultsFormat::Json => match serde_json::to_string_pretty(&results) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
        ResultsFormat::Csv => say(&to_csv(&results)),
    }
    Exit::Done
}

/// The coefficients file of a task, or of the sweep's winner.
///
/// # Errors
/// With the exit code, once the fault is said.
pub(in crate::cli) fn coefficients(server: &ServerArgs, sweep: &str, task: Option<&str>) -> Result<Vec<u8>, Exit> {
    let client = server.client()?;
    let told = |error: ClientError| failed(&error);
    let task = match task {
        Some(task) => sweep_id(task).map_err(|_| Exit::Usage.say(format!("{task}: expected a task id")))?,
        None => {
            let results = results_of(&client, sweep).map_err(told)?;
            let row = winner(&results).map(|row| row.task_id.clone());
            row.ok_or_else(|| Exit::Failed.say(format!("sweep {sweep}: no task has succeeded yet")))?
        }
    };
    eprintln!("coefficients of task {task}");
    client.get_bytes(&format!("/v1/sweeps/{sweep}/tasks/{task}/coefficients")).map_err(told)
}
