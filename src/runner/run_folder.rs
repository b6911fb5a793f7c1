//! The folder of a sweep on one machine: the embedded store of its tasks.
//!
//! ```text
//! DIR/.lock                              held while a run works here
//! DIR/sweep.json                         which specification this folder belongs to
//! DIR/spec.json                          that specification, as it was understood
//! DIR/manifest.json                      what the scores task found out
//! DIR/opened.json                        tasks that the search has added since it began
//! DIR/tasks/<id>/checkpoint.safetensors  a task in progress
//! DIR/tasks/<id>/rungs.json              where it was stopped at rungs
//! DIR/tasks/<id>/history.json            iterations of its last attempt, thinned out
//! DIR/tasks/<id>/outcome.json            a finished task
//! DIR/tasks/<id>/coefficients.safetensors
//! DIR/tasks/<id>/units.safetensors       values of single samples, for comparisons: of baselines and the best tasks
//! DIR/results.json  DIR/best/            what the sweep is for
//! ```
//!
//! Every file is written under a temporary name and renamed, so that a crash at any moment leaves the old one or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use super::folder_error::FolderError;
pub use super::folder_files::{HistoryFile, OpenedFile, SpecFile, SweepFile};
use crate::files::{NewFolder, remove_temporary_files, write_atomic};
use crate::runner::pool::HistoryPoint;
use crate::store::{KeptRungs, KeptUnits};
use crate::sweep::manifest::Manifest;
use crate::sweep::paired::UnitScores;
use crate::sweep::results::{SweepResults, TaskOutcome};
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// Name of the file with the values of a task's units.
const UNITS: &str = "units.safetensors";

/// A locked run folder.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// What it says of the sweep it belongs to, once it does.
    sweep: SweepFile,
    /// Costs and names of the tasks whose units are kept, once they are known: folders of many tasks are listed once.
    unit_costs: Mutex<Option<Vec<(f64, String)>>>,
    /// Held for as long as this lives; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Opens a folder for the sweep of a specification, making it if it is not there, and locks it.
    ///
    /// # Errors
    /// If it cannot be written, belongs to another specification, holds something else, or is in use.
    pub fn open(root: &Path, spec: &Spec) -> Result<Self, FolderError> {
        let path = root.display().to_string();
        let not_writable = |source| FolderError::NotWritable { path: path.clone(), source };
        fs::create_dir_all(root).map_err(not_writable)?;
        let sweep_file = root.join("sweep.json");
        let lock_file = root.join(".lock");
        if !sweep_file.exists() && !lock_file.exists() {
            let mut entries = fs::read_dir(root).map_err(not_writable)?;
            if entries.next().is_some() {
                return Err(FolderError::NotASweep { path });
            }
        }
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_file).map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        }
        let folder =
            Self { root: root.to_path_buf(), sweep: SweepFile::of(spec), unit_costs: Mutex::default(), _lock: lock };
        match folder.read_json::<SweepFile>(&sweep_file)? {
            Some(found) if found.is_of(spec) => {}
            Some(SweepFile { version: found, .. }) if found > Spec::IDENTITY => {
                return Err(FolderError::Newer { path, found, expected: Spec::IDENTITY });
            }
            Some(found) => {
                return Err(FolderError::OtherSpec {
                    path,
                    expected: folder.sweep.identity,
                    found: found.identity,
                    found_name: found.name,
                });
            }
            // Bound with the first manifest, when the specification's inputs were found good: a typo does not claim the folder.
            None => {}
        }
        folder.remove_leftovers().map_err(not_writable)?;
        Ok(folder)
    }

    /// Removes what killed runs left half-written; under the lock nobody else writes here.
    fn remove_leftovers(&self) -> io::Result<()> {
        NewFolder::remove_leftovers(&self.best())?;
        remove_temporary_files(&self.root)?;
        match fs::read_dir(self.root.join("tasks")) {
            Ok(tasks) => {
                for task in tasks {
                    let task = task?;
                    if task.file_type()?.is_dir() {
                        remove_temporary_files(&task.path())?;
                    }
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the winner's model goes.
    pub fn best(&self) -> PathBuf {
        self.root.join("best")
    }

    /// A task's coefficients file.
    pub fn coefficients_path(&self, task: &str) -> PathBuf {
        self.task_file(task, "coefficients.safetensors")
    }

    /// What the scores task has found out so far.
    pub fn manifest(&self) -> Result<Option<Manifest>, FolderError> {
        self.read_json(&self.root.join("manifest.json"))
    }

    /// Keeps what the scores task found out. From the first time on, the folder belongs to its specification.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<(), FolderError> {
        let sweep_file = self.root.join("sweep.json");
        if !sweep_file.exists() {
            self.write_json(&sweep_file, &self.sweep)?;
        }
        self.write_json(&self.root.join("manifest.json"), manifest)
    }

    /// Keeps the specification for whoever reads the folder, unless it is there.
    pub fn write_spec(&self, spec: &Spec) -> Result<(), FolderError> {
        let path = self.root.join("spec.json");
        if path.exists() {
            return Ok(());
        }
        self.write_json(&path, &SpecFile { version: SpecFile::VERSION, spec: spec.clone() })
    }

    /// Tasks that a search has added to its open sweep, by their places in it.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or was written by a newer version of this program.
    pub fn opened(&self) -> Result<BTreeMap<usize, Task>, FolderError> {
        let path = self.root.join("opened.json");
        let Some(file) = self.read_json::<OpenedFile>(&path)? else { return Ok(BTreeMap::new()) };
        if file.version > OpenedFile::VERSION {
            return Err(FolderError::Newer {
                path: path.display().to_string(),
                found: file.version,
                expected: OpenedFile::VERSION,
            });
        }
        Ok(file.tasks)
    }

    /// Keeps tasks that a search adds to its open sweep, beside those that it added before.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn keep_opened(&self, added: BTreeMap<usize, Task>) -> Result<(), FolderError> {
        let mut tasks = self.opened()?;
        tasks.extend(added);
        self.write_json(&self.root.join("opened.json"), &OpenedFile { version: OpenedFile::VERSION, tasks })
    }

    /// Keeps a task's iterations.
    pub fn write_history(&self, task: &str, points: Vec<HistoryPoint>) -> Result<(), FolderError> {
        let path = self.task_file(task, "history.json");
        let file = HistoryFile { version: HistoryFile::VERSION, points };
        let bytes = serde_json::to_vec(&file)
            .map_err(|e| FolderError::Damaged { path: path.display().to_string(), what: e.to_string() })?;
        self.write(&path, &bytes)
    }

    /// A finished task.
    pub fn outcome(&self, task: &str) -> Result<Option<TaskOutcome>, FolderError> {
        self.read_json(&self.task_file(task, "outcome.json"))
    }

    /// Keeps a finished task: first its coefficients, then its outcome; then its checkpoint is dropped.
    pub fn complete(&self, task: &str, outcome: &TaskOutcome, coefficients: Option<&[u8]>) -> Result<(), FolderError> {
        if let Some(bytes) = coefficients {
            self.write(&self.coefficients_path(task), bytes)?;
        }
        self.write_json(&self.task_file(task, "outcome.json"), outcome)?;
        self.drop_checkpoint(task)
    }

    /// Keeps the values of a task's units, and removes those of the worst tasks above the limit.
    pub fn keep_units(&self, task: &str, units: &KeptUnits) -> Result<(), FolderError> {
        self.write(&self.task_file(task, UNITS), &units.bytes)?;
        let Some(cost) = units.cost else { return Ok(()) };
        let mut kept = self.unit_costs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranked = match kept.take() {
            Some(ranked) => ranked,
            None => self.read_unit_costs()?,
        };
        ranked.retain(|(_, name)| name != task);
        ranked.push((cost, task.to_string()));
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        let worst = ranked.split_off(units.limit.min(ranked.len()));
        *kept = Some(ranked);
        worst.iter().try_for_each(|(_, name)| self.remove(&self.task_file(name, UNITS)))
    }

    /// Costs of the tasks whose units an earlier run has kept, without baselines.
    fn read_unit_costs(&self) -> Result<Vec<(f64, String)>, FolderError> {
        let tasks = self.root.join("tasks");
        let io = |source| FolderError::Io { path: tasks.display().to_string(), source };
        let mut costs = vec![];
        for entry in fs::read_dir(&tasks).map_err(io)? {
            let Ok(name) = entry.map_err(io)?.file_name().into_string() else { continue };
            let Some(bytes) = self.read(&self.task_file(&name, UNITS))? else { continue };
            if let Some(cost) = UnitScores::cost_of(&bytes).map_err(|what| self.damaged(&name, what))? {
                costs.push((cost, name));
            }
        }
        Ok(costs)
    }

    /// Values of a finished task's units, if they are kept.
    pub fn units(&self, task: &str) -> Result<Option<UnitScores>, FolderError> {
        let bytes = self.read(&self.task_file(task, UNITS))?;
        bytes.map(|bytes| UnitScores::from_bytes(&bytes)).transpose().map_err(|what| self.damaged(task, what))
    }

    fn damaged(&self, task: &str, what: String) -> FolderError {
        FolderError::Damaged { path: self.task_file(task, UNITS).display().to_string(), what }
    }

    /// The bytes of a task's checkpoint.
    pub fn checkpoint(&self, task: &str) -> Result<Option<Vec<u8>>, FolderError> {
        self.read(&self.task_file(task, "checkpoint.safetensors"))
    }

    /// Keeps a task's checkpoint.
    pub fn write_checkpoint(&self, task: &str, bytes: &[u8]) -> Result<(), FolderError> {
        self.write(&self.task_file(task, "checkpoint.safetensors"), bytes)
    }

    /// Removes a task's checkpoint, if there is one.
    pub fn drop_checkpoint(&self, task: &str) -> Result<(), FolderError> {
        self.remove(&self.task_file(task, "checkpoint.safetensors"))
    }

    /// Forgets that a task failed, and the rungs that it had reached: it begins from nothing.
    pub fn drop_outcome(&self, task: &str) -> Result<(), FolderError> {
        self.remove(&self.task_file(task, "rungs.json"))?;
        self.remove(&self.task_file(task, "outcome.json"))
    }

    /// The rungs that a task has reached.
    pub fn rungs(&self, task: &str) -> Result<Option<KeptRungs>, FolderError> {
        self.read_json(&self.task_file(task, "rungs.json"))
    }

    /// What a task that has not ended had to show at the last rung that it has reached.
    pub fn standing(&self, task: &str) -> Result<Option<TaskOutcome>, FolderError> {
        let Some(rungs) = self.rungs(task)? else { return Ok(None) };
        let outcome: TaskOutcome = serde_json::from_str(&rungs.outcome).map_err(|e| FolderError::Damaged {
            path: self.task_file(task, "rungs.json").display().to_string(),
            what: e.to_string(),
        })?;
        let state = if rungs.scores.len() > rungs.promoted { TaskState::Waiting } else { TaskState::Queued };
        Ok(Some(TaskOutcome { state, ..outcome }))
    }

    /// Keeps the rungs that a task has reached.
    pub fn write_rungs(&self, task: &str, rungs: &KeptRungs) -> Result<(), FolderError> {
        self.write_json(&self.task_file(task, "rungs.json"), rungs)
    }

    /// Keeps the sweep's results.
    pub fn write_results(&self, results: &SweepResults) -> Result<(), FolderError> {
        self.write_json(&self.root.join("results.json"), results)
    }

    /// The bytes of a file, `None` if there is none.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FolderError::Io { path: path.display().to_string(), source }),
        }
    }

    /// Removes a file, if it is there.
    fn remove(&self, path: &Path) -> Result<(), FolderError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FolderError::Io { path: path.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }

    fn task_file(&self, task: &str, file: &str) -> PathBuf {
        self.root.join("tasks").join(task).join(file)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
        let io = |source| FolderError::Io { path: path.display().to_string(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        write_atomic(path, bytes).map_err(io)
    }

    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, FolderError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| FolderError::Damaged { path: path.display().to_string(), what: e.to_string() })
    }

    fn write_json<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), FolderError> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|e| FolderError::Damaged { path: path.display().to_string(), what: e.to_string() })?;
        self.write(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::parse::{Format, parse_spec_text};

    #[test]
    fn a_folder_is_locked_and_belongs_to_one_specification() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let first = RunFolder::open(&root, &spec(1, "one")).unwrap();
        assert!(matches!(RunFolder::open(&root, &spec(1, "one")), Err(FolderError::InUse { .. })));
        drop(first);
        // Nothing was found good yet: another specification may have the folder.
        let second = RunFolder::open(&root, &spec(2, "two")).unwrap();
        second.write_manifest(&manifest()).unwrap();
        drop(second);
        assert!(matches!(RunFolder::open(&root, &spec(1, "one")), Err(FolderError::OtherSpec { .. })));
        let again = RunFolder::open(&root, &spec(2, "renamed")).unwrap();
        assert_eq!(again.manifest().unwrap(), Some(manifest()));
        let newer = SweepFile { version: Spec::IDENTITY + 1, ..again.sweep.clone() };
        again.write_json(&root.join("sweep.json"), &newer).unwrap();
        drop(again);
        let error = RunFolder::open(&root, &spec(2, "two")).unwrap_err().to_string();
        assert!(error.contains("has version 3, this program reads up to 2"), "{error}");
    }

    fn spec(seed: u64, name: &str) -> Spec {
        let text = format!("seed = {seed}\nname = '{name}'\nzoo.ingredients = 'z'\ndata.learn = 'l'");
        parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap()
    }

    fn manifest() -> Manifest {
        Manifest {
            objective: Default::default(),
            version: Manifest::VERSION,
            family: crate::sweep::spec::Family::Vit,
            architecture: serde_json::Value::Null,
            ingredients: vec![],
            base: None,
            data: vec![],
            notes: vec![],
        }
    }

    #[test]
    fn what_killed_runs_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let folder = RunFolder::open(&root, &spec(1, "one")).unwrap();
        folder.write_checkpoint("task", b"kept").unwrap();
        drop(folder);
        fs::write(root.join(".tmp-1"), "half").unwrap();
        fs::write(root.join("tasks/task/.tmp-2"), "half").unwrap();
        fs::create_dir_all(root.join(".best.tmp-3/deep")).unwrap();
        let folder = RunFolder::open(&root, &spec(1, "one")).unwrap();
        let names = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(&root.join("tasks/task")), ["checkpoint.safetensors"]);
        assert_eq!(names(&root).len(), 2, "the lock and tasks: {:?}", names(&root));
        assert_eq!(folder.checkpoint("task").unwrap().as_deref(), Some(b"kept".as_slice()));
    }

    #[test]
    fn units_of_baselines_and_of_the_best_tasks_are_kept_by_the_next_run_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("run");
        let keep = |folder: &RunFolder, task: &str, cost: Option<f64>| {
            let mut units = UnitScores::default();
            units.add("select", [(crate::sweep::metric::Metric::LOSS, vec![0.5])]);
            units.cost = cost;
            folder.keep_units(task, &KeptUnits { bytes: units.to_bytes(), cost, limit: 2 }).unwrap();
        };
        let kept = |folder: &RunFolder| {
            let all = ["a", "b", "best", "c", "d"];
            all.into_iter().filter(|task| folder.units(task).unwrap().is_some()).collect::<Vec<_>>()
        };
        let folder = RunFolder::open(&root, &spec(1, "one")).unwrap();
        for (task, cost) in [("best", None), ("a", Some(0.3)), ("b", Some(0.2)), ("b", Some(0.2))] {
            keep(&folder, task, cost);
        }
        assert_eq!(kept(&folder), ["a", "b", "best"]);
        drop(folder);
        let folder = RunFolder::open(&root, &spec(1, "one")).unwrap();
        keep(&folder, "c", Some(0.1));
        assert_eq!(kept(&folder), ["b", "best", "c"], "the worst has to go");
        keep(&folder, "d", Some(0.9));
        assert_eq!(kept(&folder), ["b", "best", "c"]);
    }

    #[test]
    fn a_folder_with_other_things_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(RunFolder::open(dir.path(), &spec(1, "one")), Err(FolderError::NotASweep { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_in_the_folders_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = RunFolder::open(&path.join("run"), &spec(1, "one")).unwrap_err();
        assert!(matches!(error, FolderError::NotWritable { .. }) && error.to_string().contains("run"), "{error}");
    }
}
