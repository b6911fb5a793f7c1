//! `mehl-soup submit`, and following a sweep until it ends.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{ServerArgs, failed};
use crate::api_types::{CreatedBody, NewSweepBody, SpecFormat, SweepBody, SweepOutcome};
use crate::cli::exit::{Exit, say};
use crate::client::{Client, ClientError};
use crate::scheduler::unique_word;
use crate::sweep::parse::{Format, parse_spec};
use crate::untrusted::{self, LARGEST_SPEC, printable};

/// Time between two looks at a sweep.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Flags of `submit`.
#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// Specification: TOML, YAML or JSON. Paths in it must be valid on the workers. Relative paths
    /// start at the folder of this file, so workers must see it under the same path
    spec: PathBuf,
    /// Name of the sweep. Default: the name in the specification, else the file name without its
    /// extension
    #[arg(long)]
    name: Option<String>,
    /// Sweeps of higher priority run first. Can be negative
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    priority: Option<i64>,
    /// Largest number of tasks of this sweep that run at once. Default: as many as there are workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_running: Option<u32>,
    /// A task fails after this many attempts without progress
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: Option<u32>,
    /// Idempotency key: submitting again with the same key and specification creates no second sweep
    #[arg(long)]
    key: Option<String>,
    /// Follow the sweep until it ends. Exit with 0 if a soup succeeded, otherwise with 1. Ctrl-C
    /// stops following; the sweep continues
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(in crate::cli) fn submit(args: &SubmitArgs) -> Exit {
    // Faults have their places here, and cost no request.
    let name = match parse_spec(&args.spec) {
        Ok(spec) => args.name.clone().unwrap_or(spec.name),
        Err(error) => return Exit::Usage.say(error),
    };
    let body = match body(args, name) {
        Ok(body) => body,
        Err(error) => return Exit::Usage.say(format!("{}: {error}", args.spec.display())),
    };
    let client = match args.server.client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let id = match client.post::<CreatedBody>("/v1/sweeps", Some(&body)) {
        Ok(created) => created.id,
        Err(error) => return failed(&error),
    };
    say(&id);
    eprintln!("report, also while it runs: {}/sweeps/{id}", client.server());
    if args.wait { follow(&client, &id) } else { Exit::Done }
}

fn body(args: &SubmitArgs, name: String) -> Result<NewSweepBody, String> {
    let path = std::path::absolute(&args.spec).map_err(|e| e.to_string())?;
    let text = untrusted::read(&path, LARGEST_SPEC).map_err(|e| e.to_string())?;
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let format = match Format::of_extension(&ending) {
        Some(Format::Toml) => SpecFormat::Toml,
        Some(Format::Yaml) => SpecFormat::Yaml,
        Some(Format::Json) => SpecFormat::Json,
        None => return Err("expected a file name that ends in .toml, .yaml or .json".to_string()),
    };
    let folder = path.parent().unwrap_or(Path::new("/")).to_str().ok_or("the path of its folder is not UTF-8")?;
    Ok(NewSweepBody {
        spec: String::from_utf8(text).map_err(|e| e.to_string())?,
        format,
        folder: Some(folder.to_string()),
        name: Some(name),
        priority: args.priority,
        max_running: args.max_running,
        attempts: args.attempts,
        // A request that is repeated because its answer was lost makes no second sweep.
        key: Some(args.key.clone().unwrap_or_else(unique_word)),
    })
}

/// Follows a sweep until it ends, and gives its exit code.
pub(in crate::cli) fn follow(client: &Client, id: &str) -> Exit {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed)) {
        return Exit::Failed.say(format!("cannot install the Ctrl-C handler: {error}"));
    }
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(id.to_string());
        bar
    });
    let mut said = String::new();
    let mut away = false;
    let outcome = loop {
        if stop.load(Ordering::Relaxed) {
            break None;
        }
        match client.get::<SweepBody>(&format!("/v1/sweeps/{id}")) {
            Ok(sweep) => {
                away = false;
                let line = summary(&sweep);
                match &bar {
                    Some(bar) => show(bar, &sweep, line),
                    None if line != said => {
                        eprintln!("{}", printable(&format!("{id}: {line}")));
                        said = line;
                    }
                    None => {}
                }
                if sweep.outcome.is_some() {
                    break sweep.outcome;
                }
            }
            // It goes on without us, and the server may come back.
            Err(error @ ClientError::Unavailable { .. }) => {
                if !away {
                    eprintln!("{}; retrying", printable(&error.to_string()));
                }
                away = true;
            }
            Err(error) => return failed(&error),
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match outcome {
        Some(SweepOutcome::Done) => Exit::Done,
        Some(SweepOutcome::Failed) => {
            Exit::Failed.say(format!("sweep {id}: no soup succeeded; `mehl-soup logs {id}` shows the causes"))
        }
        Some(SweepOutcome::Cancelled) => Exit::Failed.say(format!("sweep {id} was cancelled")),
        None => {
            eprintln!("the sweep continues; to follow it again: mehl-soup status {id} --watch");
            Exit::Stopped
        }
    }
}

fn show(bar: &ProgressBar, sweep: &SweepBody, line: String) {
    let ended = (sweep.progress / 100.0 * sweep.tasks as f64).round() as u64;
    bar.set_length(sweep.tasks as u64);
    bar.set_position(ended);
    bar.set_message(line);
}

/// Where a sweep stands, in a few words.
pub(in crate::cli) fn summary(sweep: &SweepBody) -> String {
    let counts: Vec<String> = sweep.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let order = match sweep.order.as_str() {
        "continue" => String::new(),
        other => format!(" ({other})"),
    };
    format!("{}{order}", counts.join(", "))
}
