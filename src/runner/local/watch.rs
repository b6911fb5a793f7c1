//! What the worker of one device does, for the reporter of a run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Ending, RunError};
use crate::runner::engine::{EngineError, Progress};
use crate::runner::pool::{Ended, WorkerObserver};
use crate::runner::reporter::Reporter;
use crate::runner::run_folder::RunFolder;
use crate::store::{AfterRelease, Claimed};
use crate::sweep::manifest::Manifest;
use crate::sweep::task::Task;
use crate::task::{TaskKey, TaskState};

/// Watches one device's worker.
pub(super) struct SlotWatch {
    slot: usize,
    /// Tasks in all.
    all: usize,
    /// Of which so many have begun, on any device.
    begun: Arc<AtomicUsize>,
    folder: Arc<RunFolder>,
    ending: Arc<Ending>,
    reporter: Arc<dyn Reporter>,
    /// What the worker is at.
    task: Mutex<Option<Arc<Task>>>,
}

impl SlotWatch {
    pub(super) fn new(
        slot: usize,
        all: usize,
        begun: Arc<AtomicUsize>,
        folder: Arc<RunFolder>,
        ending: Arc<Ending>,
        reporter: Arc<dyn Reporter>,
    ) -> Self {
        Self { slot, all, begun, folder, ending, reporter, task: Mutex::default() }
    }

    fn task(&self) -> Option<Arc<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl WorkerObserver for SlotWatch {
    fn say(&self, message: &str) {
        // What follows from a fault that ends the run is not worth a line of its own.
        if !self.ending.is_over() {
            self.reporter.note(message);
        }
    }

    fn claimed(&self, claimed: &Claimed) {
        let task: Option<Arc<Task>> = serde_json::from_str(&claimed.body).ok().map(Arc::new);
        if let Some(task) = &task {
            // One that goes on past its rung has been counted.
            let begun = match claimed.attempts {
                0 | 1 => self.begun.fetch_add(1, Ordering::Relaxed) + 1,
                _ => self.begun.load(Ordering::Relaxed),
            };
            self.reporter.started(self.slot, task, self.all.saturating_sub(begun));
        }
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
    }

    fn scored(&self, so_far: &Manifest, done: usize, total: usize) {
        let entry = done.checked_sub(1).and_then(|last| so_far.ingredients.get(last));
        if let Some((entry, score)) = entry.and_then(|entry| Some((entry, entry.select.as_ref()?))) {
            self.reporter.scored(&entry.name, score, done, total);
        }
    }

    fn iteration(&self, _: &TaskKey, progress: &Progress) {
        if let Some(task) = self.task() {
            self.reporter.progress(self.slot, &task, progress);
        }
    }

    fn checkpoint_refused(&self, key: &TaskKey, why: &str) {
        self.say(&format!("task {}: cannot use the checkpoint ({why}); the task starts from the beginning", key.task));
    }

    fn gave_up(&self, key: &TaskKey, error: &EngineError) {
        // Without scores there is no run.
        if key.is_scores() && !matches!(error, EngineError::Stopped | EngineError::ForeignCheckpoint(_)) {
            self.ending.end(RunError::from(error));
        }
    }

    fn ended(&self, key: &TaskKey, ended: &Ended) {
        let Some(task) = self.task() else { return };
        let outcome = match ended {
            Ended::LetGo(AfterRelease::State(TaskState::Waiting)) => self.folder.standing(&key.task),
            _ => self.folder.outcome(&key.task),
        };
        if let Ok(Some(outcome)) = outcome {
            self.reporter.finished(self.slot, &task, &outcome);
        }
    }
}
