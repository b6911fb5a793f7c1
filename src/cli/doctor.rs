//! `mehl-soup doctor`: compares what the store keeps about sweeps with their tasks' own states.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::timeout;

use super::Format;
use super::exit::{Exit, say};
use crate::config::{Config, ConfigArgs};
use crate::store::traits::{Reading, Repair};
use crate::store::{Redis, RedisSettings, StoreError};
use crate::task::is_id;
use crate::untrusted::printable;

/// Longest time for everything: the largest sweeps take a second each.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest wait for one answer.
const STEP_PATIENCE: Duration = Duration::from_secs(120);
/// Tasks that are removed in one step.
const STEP: usize = 500;

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Sweeps to check. Default: all sweeps, and the records that belong to no sweep
    #[arg(value_parser = sweep)]
    sweeps: Vec<String>,
    /// Repair what can be repaired. Tasks keep their states and workers; a task with a damaged record
    /// fails. Schedulers and workers can keep running, but Redis answers no other request while one
    /// sweep is checked (about a second for the largest)
    #[arg(long)]
    repair: bool,
    /// Delete a sweep that cannot be repaired, with all its records and results. Can be repeated
    #[arg(long, value_name = "SWEEP", value_parser = sweep, conflicts_with_all = ["sweeps", "repair"])]
    remove: Vec<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    config: ConfigArgs,
}

fn sweep(text: &str) -> Result<String, String> {
    if is_id(text) { Ok(text.to_string()) } else { Err("expected a sweep id".to_string()) }
}

/// What was found about one sweep, or about the pool.
#[derive(Debug, Serialize)]
struct Examined {
    /// The sweep; none for the pool as a whole.
    sweep: Option<String>,
    findings: Vec<String>,
    /// What is left after repair; as `findings` without it.
    left: Vec<String>,
}

pub(super) fn doctor(args: &DoctorArgs) -> Exit {
    let config = match Config::load(&args.config, &[]) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(error),
    };
    let settings = match config.redis_settings() {
        // A large sweep is examined in one step, which may take longer than any other answer.
        Ok(settings) => RedisSettings { timeout: settings.timeout.max(STEP_PATIENCE), ..settings },
        Err(error) => return Exit::Usage.say(error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::Failed.say(format!("no threads: {error}")),
    };
    let work = async {
        let store = Redis::connect(&settings).await?;
        if args.remove.is_empty() { examine(&store, args).await } else { remove(&store, &args.remove).await }
    };
    match runtime.block_on(async { timeout(PATIENCE, work).await }) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error @ StoreError::Setup(_))) => Exit::Usage.say(error),
        Ok(Err(error)) => Exit::Failed.say(error),
        Err(_) => Exit::Failed.say(format!("not finished within {} s", PATIENCE.as_secs())),
    }
}

async fn remove(store: &impl Repair, sweeps: &[String]) -> Result<Exit, StoreError> {
    for sweep in sweeps {
        while !store.discard(sweep, STEP).await? {}
        eprintln!("sweep {sweep} deleted");
    }
    // The sums over ended sweeps may have held a part of it.
    store.examine_pool(true).await?;
    Ok(Exit::Done)
}

async fn examine(store: &(impl Reading + Repair), args: &DoctorArgs) -> Result<Exit, StoreError> {
    let mut sweeps: Vec<String> = args.sweeps.clone();
    if sweeps.is_empty() {
        let all = store.sweeps().await?;
        sweeps.extend(all.unreadable.into_iter().map(|record| record.id));
        sweeps.extend(all.records.into_iter().map(|record| record.id));
    }
    let mut examined = Vec::new();
    for sweep in sweeps {
        let findings = store.examine(&sweep, args.repair).await?;
        let is_repaired = args.repair && !findings.is_empty();
        let left = if is_repaired { store.examine(&sweep, false).await? } else { findings.clone() };
        examined.push(Examined { sweep: Some(sweep), findings, left });
    }
    if args.sweeps.is_empty() || args.repair {
        let findings = store.examine_pool(args.repair).await?;
        let left = if args.repair { vec![] } else { findings.clone() };
        examined.push(Examined { sweep: None, findings, left });
    }
    print(&examined, args.format);
    let (found, left) =
        examined.iter().fold((0, 0), |(found, left), one| (found + one.findings.len(), left + one.left.len()));
    eprintln!("{}", verdict(found, left, args.repair));
    Ok(if left == 0 { Exit::Done } else { Exit::Failed })
}

fn print(examined: &[Examined], format: Format) {
    if format == Format::Json {
        // Plain data serializes.
        say(&serde_json::to_string_pretty(examined).unwrap_or_default());
        return;
    }
    let mut text = String::new();
    for one in examined {
        let of = one.sweep.as_deref().map_or("pool".to_string(), |sweep| format!("sweep {sweep}"));
        for finding in &one.findings {
            text.push_str(&format!("{of}: {finding}\n"));
        }
    }
    if !text.is_empty() {
        say(&printable(&text));
    }
}

fn verdict(found: usize, left: usize, repair: bool) -> String {
    match (found, left) {
        (0, _) => "no problems found".to_string(),
        (found, 0) => format!("{found} problems found, all repaired"),
        (_, left) if repair => {
            format!("{left} problems cannot be repaired; `--remove SWEEP` deletes a sweep with its results")
        }
        (_, left) => format!("{left} problems found; `--repair` repairs those that can be repaired"),
    }
}
