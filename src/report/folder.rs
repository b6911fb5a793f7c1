//! A report from a run folder. It only reads, and locks nothing: a run may go on meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::data::{Detail, Report, chosen};
use crate::checkpoint::Checkpoint;
use crate::runner::run_folder::{HistoryFile, OpenedFile, SpecFile, SweepFile};
use crate::store::KeptRungs;
use crate::sweep::expand::expand;
use crate::sweep::manifest::Manifest;
use crate::sweep::metric::Metric;
use crate::sweep::results::{Baselines, IngredientResult, SweepResults, TaskOutcome};
use crate::sweep::spec::Spec;
use crate::task::{TaskState, is_id};
use crate::untrusted::{LARGEST_COEFFICIENTS, read};

/// Largest JSON file that is read, in bytes: results of a hundred thousand tasks.
const LARGEST_JSON: u64 = 1 << 30;
/// Most tasks that a specification may span here.
const MOST_TASKS: usize = 100_000;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder holds no sweep.
    #[error("{path} contains no sweep: expected results.json or sweep.json, as `mehl-soup run` writes them")]
    NotASweep {
        /// The folder.
        path: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's message.
        source: io::Error,
    },
    /// A file does not hold what this program wrote.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A file was written by another version of the program.
    #[error("{path} has version {found}, this program reads version {expected}")]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The one that is read.
        expected: u32,
    },
}

/// What there is of the sweep in a folder, finished or not.
///
/// # Errors
/// If the folder holds no sweep, or what is needed of it is damaged or of another version. A task's own files that cannot be read are noted in the report instead.
pub fn read_folder(root: &Path) -> Result<Report, ReadError> {
    let results: Option<SweepResults> = versioned(&root.join("results.json"), &[SweepResults::VERSION])?;
    let spec: Option<SpecFile> = versioned(&root.join("spec.json"), &[SpecFile::VERSION])?;
    let manifest: Option<Manifest> = versioned(&root.join("manifest.json"), &Manifest::VERSIONS)?;
    let sweep = json::<SweepFile>(&root.join("sweep.json"))?.or_else(|| unbound(root));
    // One that was changed by hand is not what this sweep computes.
    let spec = spec.map(|file| file.spec);
    let spec = spec.filter(|spec| sweep.as_ref().is_none_or(|sweep| sweep.is_of(spec)));
    let results = match (results, &spec, &manifest) {
        (Some(results), _, _) if results.tasks.iter().all(|row| row.state.is_final()) => results,
        (_, Some(spec), Some(manifest)) if spec.search.tasks <= MOST_TASKS => so_far(root, spec, manifest)?,
        (Some(results), _, _) => results,
        _ => begun(root, sweep, manifest.as_ref())?,
    };
    let details = chosen(&results).iter().map(|task| detail(root, task)).collect();
    Ok(Report::new(results, spec, manifest, details))
}

/// A run that has only just begun has locked its folder, and nothing else.
fn unbound(root: &Path) -> Option<SweepFile> {
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
    root.join(".lock").exists().then(|| SweepFile {
        version: Spec::IDENTITY,
        identity: String::new(),
        name: name.unwrap_or_default(),
    })
}

/// The results as they are now, as the run itself would write them.
fn so_far(root: &Path, spec: &Spec, manifest: &Manifest) -> Result<SweepResults, ReadError> {
    let mut tasks = expand(spec);
    let opened: Option<OpenedFile> = versioned(&root.join("opened.json"), &[OpenedFile::VERSION])?;
    tasks.extend(opened.into_iter().flat_map(|file| file.tasks.into_values()));
    let mut outcomes = BTreeMap::new();
    for task in &tasks {
        let folder = root.join("tasks").join(&task.id);
        let outcome = match json::<TaskOutcome>(&folder.join("outcome.json"))? {
            Some(outcome) => Some(outcome),
            None => at_rung(&folder)?,
        };
        if let Some(outcome) = outcome {
            outcomes.insert(task.id.clone(), outcome);
        }
    }
    Ok(SweepResults::build(spec, manifest, &tasks, &outcomes))
}

/// What an unfinished task had to show at its last rung.
fn at_rung(folder: &Path) -> Result<Option<TaskOutcome>, ReadError> {
    let path = folder.join("rungs.json");
    let Some(rungs) = json::<KeptRungs>(&path)? else { return Ok(None) };
    let outcome: TaskOutcome = parse(&path, rungs.outcome.as_bytes())?;
    let state = if rungs.scores.len() > rungs.promoted { TaskState::Waiting } else { TaskState::Queued };
    Ok(Some(TaskOutcome { state, ..outcome }))
}

/// A sweep of which nothing but its beginning is known.
fn begun(root: &Path, sweep: Option<SweepFile>, manifest: Option<&Manifest>) -> Result<SweepResults, ReadError> {
    let sweep = sweep.ok_or_else(|| ReadError::NotASweep { path: root.display().to_string() })?;
    let ingredients = manifest.map(|manifest| manifest.ingredients.as_slice()).unwrap_or_default();
    let ingredient = ingredients.iter().map(|entry| IngredientResult {
        name: entry.name.clone(),
        hash: entry.hash.clone(),
        select: entry.select,
    });
    Ok(SweepResults {
        version: SweepResults::VERSION,
        name: sweep.name,
        generated_by: String::new(),
        spec_identity: sweep.identity,
        inputs_hash: manifest.map(Manifest::inputs_hash).unwrap_or_default(),
        objective: manifest.map(|manifest| manifest.objective.name()).unwrap_or_default(),
        metric: Metric::LOSS,
        notes: manifest.map(|manifest| manifest.notes.clone()).unwrap_or_default(),
        ingredients: ingredient.collect(),
        baselines: Baselines::of(|_| None),
        tasks: vec![],
        comparisons: vec![],
    })
}

fn detail(root: &Path, task: &str) -> Detail {
    let mut detail = Detail::new(task);
    // A name from a file becomes part of a path only if it is one that this program gives.
    if !is_id(task) {
        detail.faults.push(format!("{task}: expected a task id"));
        return detail;
    }
    let folder = root.join("tasks").join(task);
    match versioned::<HistoryFile>(&folder.join("history.json"), &[HistoryFile::VERSION]) {
        Ok(file) => detail.history = file.map(|file| file.points).unwrap_or_default(),
        Err(error) => detail.faults.push(error.to_string()),
    }
    match bytes(&folder.join("coefficients.safetensors"), LARGEST_COEFFICIENTS) {
        Ok(Some(bytes)) => detail.read_soup(&bytes),
        Ok(None) => {}
        Err(error) => detail.faults.push(error.to_string()),
    }
    match bytes(&folder.join("checkpoint.safetensors"), LARGEST_COEFFICIENTS) {
        Ok(Some(bytes)) => match Checkpoint::from_bytes(&bytes) {
            Ok(checkpoint) => detail.epochs = checkpoint.history,
            Err(error) => detail.faults.push(format!("checkpoint of {task}: {error}")),
        },
        Ok(None) => {}
        Err(error) => detail.faults.push(error.to_string()),
    }
    detail
}

fn bytes(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError::Io { path: path.display().to_string(), source }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ReadError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ReadError::Damaged { path: path.display().to_string(), what: e.to_string() })
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReadError> {
    bytes(path, LARGEST_JSON)?.map(|bytes| parse(path, &bytes)).transpose()
}

/// A file of one version of its format. The version is read first: the rest of another version may not parse.
fn versioned<T: DeserializeOwned>(path: &Path, known: &[u32]) -> Result<Option<T>, ReadError> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let Some(bytes) = bytes(path, LARGEST_JSON)? else { return Ok(None) };
    let OnlyVersion { version: found } = parse(path, &bytes)?;
    if !known.contains(&found) {
        let expected = known.last().copied().unwrap_or_default();
        return Err(ReadError::Version { path: path.display().to_string(), found, expected });
    }
    parse(path, &bytes).map(Some)
}
