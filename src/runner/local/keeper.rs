//! The run folder as keeper of a sweep's tasks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Ending, RunError};
use crate::checkpoint::Checkpoint;
use crate::runner::engine::{Effort, HostError};
use crate::runner::pool::PoolResult;
use crate::runner::run_folder::{FolderError, RunFolder};
use crate::store::{Completed, Keeper, KeptRungs, NewTask};
use crate::sweep::manifest::Manifest;
use crate::sweep::results::TaskOutcome;
use crate::sweep::spec::Spec;
use crate::task::{TaskKey, TaskState};

/// Keeps tasks in a run folder. A fault of the folder ends the run.
#[derive(Debug)]
pub(super) struct FolderKeeper {
    folder: Arc<RunFolder>,
    spec: Spec,
    ending: Arc<Ending>,
    claimed: Mutex<HashMap<TaskKey, Instant>>,
}

impl FolderKeeper {
    pub(super) fn new(folder: Arc<RunFolder>, spec: Spec, ending: Arc<Ending>) -> Self {
        Self { folder, spec, ending, claimed: Mutex::default() }
    }

    fn fault(&self, error: FolderError) -> String {
        let text = error.to_string();
        self.ending.end(RunError::Folder(error));
        text
    }

    fn cannot_keep(&self, what: &str, error: &dyn std::fmt::Display) -> String {
        let text = format!("cannot write {what}: {error}");
        self.ending.end(RunError::Host(HostError(text.clone())));
        text
    }

    /// From the first manifest on the folder belongs to the specification: it is kept beside it.
    fn keep_manifest(&self, manifest: &Manifest) -> Result<(), FolderError> {
        self.folder.write_manifest(manifest)?;
        self.folder.write_spec(&self.spec)
    }

    /// What an attempt that has failed took: as far as its last checkpoint tells, and the time since it began.
    fn effort(&self, key: &TaskKey) -> (Effort, u32) {
        let last = self.folder.checkpoint(&key.task).ok().flatten();
        let totals = last.and_then(|bytes| Checkpoint::from_bytes(&bytes).ok()).map(|checkpoint| checkpoint.totals);
        let (mut effort, attempts) = totals.map_or((Effort::default(), 0), |totals| (totals.effort, totals.attempts));
        let claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        effort.seconds += claimed.map_or(0.0, |began| began.elapsed().as_secs_f64());
        (effort, attempts.max(1))
    }
}

impl Keeper for FolderKeeper {
    fn checkpoint(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, String> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Instant::now());
        if !key.is_scores() {
            return self.folder.checkpoint(&key.task).map_err(|error| self.fault(error));
        }
        let known = self.folder.manifest().map_err(|error| self.fault(error))?;
        known.map(|manifest| serde_json::to_vec(&manifest)).transpose().map_err(|e| e.to_string())
    }

    fn keep_checkpoint(&self, key: &TaskKey, checkpoint: &[u8]) -> Result<(), String> {
        if !key.is_scores() {
            return self
                .folder
                .write_checkpoint(&key.task, checkpoint)
                .map_err(|error| self.cannot_keep(&format!("the checkpoint of task {}", key.task), &error));
        }
        let what = "the ingredients' scores";
        let manifest: Manifest = serde_json::from_slice(checkpoint).map_err(|error| self.cannot_keep(what, &error))?;
        self.keep_manifest(&manifest).map_err(|error| self.cannot_keep(what, &error))
    }

    fn keep_result(&self, key: &TaskKey, completed: &Completed) -> Result<(), String> {
        let what = format!("the result of task {}", key.task);
        if key.is_scores() {
            let manifest = serde_json::from_str(&completed.result).map_err(|error| self.cannot_keep(&what, &error))?;
            return self.keep_manifest(&manifest).map_err(|error| self.fault(error));
        }
        let PoolResult { outcome, history } =
            serde_json::from_str(&completed.result).map_err(|error| self.cannot_keep(&what, &error))?;
        if !history.is_empty() {
            self.folder.write_history(&key.task, history).map_err(|error| self.fault(error))?;
        }
        if let Some(units) = &completed.units {
            self.folder.keep_units(&key.task, units).map_err(|error| self.fault(error))?;
        }
        self.folder.complete(&key.task, &outcome, Some(&completed.coefficients)).map_err(|error| self.fault(error))
    }

    fn result(&self, key: &TaskKey) -> Result<Option<String>, String> {
        let outcome = self.folder.outcome(&key.task).map_err(|error| self.fault(error))?;
        let succeeded = outcome.filter(|outcome| outcome.state == TaskState::Succeeded);
        let result = succeeded.map(|outcome| PoolResult { outcome, history: vec![] });
        result.map(|result| serde_json::to_string(&result)).transpose().map_err(|e| e.to_string())
    }

    fn keep_opened(&self, place: usize, tasks: &[NewTask]) -> Result<(), String> {
        let read = |(place, task): (usize, &NewTask)| Ok((place, serde_json::from_str(&task.body)?));
        let tasks: BTreeMap<_, _> = (place..)
            .zip(tasks)
            .map(read)
            .collect::<Result<_, serde_json::Error>>()
            .map_err(|error| self.cannot_keep("added tasks", &error))?;
        self.folder.keep_opened(tasks).map_err(|error| self.cannot_keep("added tasks", &error))
    }

    fn keep_failure(&self, key: &TaskKey, cause: &str) -> Result<(), String> {
        if key.is_scores() {
            return Ok(());
        }
        let (effort, attempts) = self.effort(key);
        let outcome = TaskOutcome::failed(cause.to_string(), effort, attempts);
        self.folder.complete(&key.task, &outcome, None).map_err(|error| self.fault(error))
    }

    fn rungs(&self, key: &TaskKey) -> Result<(KeptRungs, Option<TaskState>), String> {
        let rungs = self.folder.rungs(&key.task).map_err(|error| self.fault(error))?.unwrap_or_default();
        let outcome = self.folder.outcome(&key.task).map_err(|error| self.fault(error))?;
        Ok((rungs, outcome.map(|outcome| outcome.state)))
    }

    fn keep_rungs(&self, key: &TaskKey, rungs: &KeptRungs) -> Result<(), String> {
        let what = format!("the rungs of task {}", key.task);
        self.folder.write_rungs(&key.task, rungs).map_err(|error| self.cannot_keep(&what, &error))
    }

    fn keep_pruned(&self, key: &TaskKey, rungs: &KeptRungs) -> Result<(), String> {
        let what = format!("the pruning of task {}", key.task);
        let outcome: TaskOutcome =
            serde_json::from_str(&rungs.outcome).map_err(|error| self.cannot_keep(&what, &error))?;
        let outcome = TaskOutcome { state: TaskState::Pruned, ..outcome };
        self.folder.complete(&key.task, &outcome, None).map_err(|error| self.fault(error))
    }
}
