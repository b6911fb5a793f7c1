//! `mehl-soup run`: checks the specification, then hands over to the worker. And what the worker does around its engines.

use std::sync::Arc;

use tokio::sync::watch;

use super::exit::{Exit, leave, run_error, say};
use super::{Format, RunArgs, worker};
use crate::runner::engine::{EngineError, SoupEngine};
use crate::runner::local::{Surroundings, run_sweep};
use crate::runner::publish::publish_best;
use crate::runner::reporter::{Reporter, Stderr};
use crate::runner::run_folder::RunFolder;
use crate::search::Searches;
use crate::sweep::parse::parse_spec;
use crate::sweep::results::{Row, SweepResults, winner};
use crate::sweep::spec::Spec;
use crate::sweep::table;
use crate::sweep::task::Origin;
use crate::task::TaskState;
use crate::zoo::HashCache;

/// Refuses a bad specification before anything is started or written.
pub(super) fn check_and_start(args: &RunArgs) -> Exit {
    if let Err(error) = parse_spec(&args.spec) {
        return Exit::Usage.say(error);
    }
    let mut arguments = vec!["local".into(), args.spec.clone().into(), "--out".into(), args.out.clone().into()];
    arguments.extend(["--format".into(), args.format.as_str().into()]);
    if args.retry_failed {
        arguments.push("--retry-failed".into());
    }
    worker::start(&arguments)
}

/// Makes the engine of one of a specification's devices.
pub type EngineFactory<E> = fn(&Spec, usize, Option<HashCache>) -> Result<E, EngineError>;

/// How the best soup that was asked for is written, where a baseline is better and is written to `best/`.
fn asked_but_not_first(spec: &Spec, results: &SweepResults, folder: &RunFolder) -> Option<String> {
    // A method that is a baseline too is computed once.
    let is_asked = |row: &Row| row.origin != Origin::Baseline || row.method == spec.soup.method;
    let first = winner(results)?;
    let asked = results.tasks.iter().find(|row| is_asked(row) && row.state == TaskState::Succeeded)?;
    (!is_asked(first)).then(|| {
        format!(
            "{} ranks first and is written to {}. To write the best soup of your search, {}: \
             mehl-soup materialize {} --out DIR",
            first.task_id,
            folder.best().display(),
            asked.task_id,
            folder.coefficients_path(&asked.task_id).display()
        )
    })
}

/// Runs a sweep to its end with engines made by `engine`, prints its table, writes the winner's model.
pub fn run_to_the_end<E: SoupEngine + 'static>(args: &RunArgs, engine: EngineFactory<E>) -> Exit {
    let spec = match parse_spec(&args.spec) {
        Ok(spec) => spec,
        Err(error) => return Exit::Usage.say(error),
    };
    let folder = match RunFolder::open(&args.out, &spec) {
        Ok(folder) => Arc::new(folder),
        Err(error) => return Exit::Usage.say(error),
    };
    let (asked, stop) = watch::channel(false);
    let handler = ctrlc::set_handler(move || {
        if asked.send_replace(true) {
            // Asked twice: the last checkpoint is on disk, and nothing half-written has its final name.
            leave(Exit::Stopped);
        }
        eprintln!("stopping after this iteration, with a checkpoint; press Ctrl-C again to stop immediately");
    });
    if let Err(error) = handler {
        return Exit::Failed.say(format!("cannot install the Ctrl-C handler: {error}"));
    }
    let slots = spec.compute.devices.len();
    let reporter = Arc::new(Stderr::new(slots));
    let cache = HashCache::from_environment();
    let surroundings = Surroundings {
        stop,
        reporter: reporter.clone(),
        retry_failed: args.retry_failed,
        searches: Searches::default(),
    };
    let (wanted, hashes) = (spec.clone(), cache.clone());
    let make: Arc<dyn Fn(usize) -> Result<E, EngineError> + Send + Sync> =
        Arc::new(move |slot| engine(&wanted, slot, hashes.clone()));
    let finished = match run_sweep(&spec, &folder, slots, &make, &surroundings) {
        Ok(finished) => finished,
        Err(error) => return run_error(&error),
    };
    let results = finished.results;
    let published = publish_best(&folder, &results, cache.as_ref(), &*reporter);
    match args.format {
        Format::Table => {
            let width = comfy_table::Table::new().width().unwrap_or(160);
            say(&table::render(&results, width));
        }
        Format::Json => match serde_json::to_string_pretty(&results) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    if let Some(note) = asked_but_not_first(&spec, &results, &folder) {
        reporter.note(&note);
    }
    if finished.out_of_time {
        reporter.note(
            "search.max_seconds has passed. Unfinished tasks keep their checkpoints; run the \
             command again to continue",
        );
    }
    if let Err(error) = published {
        return Exit::Usage.say(error);
    }
    eprintln!("results: {}", folder.root().join("results.json").display());
    if folder.best().exists() {
        eprintln!("best model: {}", folder.best().display());
    }
    let failed = results.tasks.iter().filter(|row| row.state == TaskState::Failed).count();
    if failed > 0 {
        reporter.note(&format!("{failed} tasks failed; the table shows the causes. --retry-failed starts them again"));
    }
    let any = results.tasks.iter().any(|row| row.state == TaskState::Succeeded);
    if failed > 0 && !any { Exit::Failed } else { Exit::Done }
}
