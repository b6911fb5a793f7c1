//! What is read from the store once: the tasks that a sweep's specification spans, and outcomes of tasks that succeeded. Neither changes any more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::ApiError;
use crate::store::{Store, StoreError};
use crate::sweep::expand::expand;
use crate::sweep::results::TaskOutcome;
use crate::sweep::spec::Spec;
use crate::task::Task;

/// Sweeps that are remembered: those that were asked for last.
const SWEEPS: usize = 16;

/// A sweep.
#[derive(Debug)]
pub struct Known {
    /// Its specification.
    pub spec: Spec,
    /// Its tasks in order, the scores task left out.
    pub tasks: Vec<Task>,
    places: HashMap<String, usize>,
    outcomes: Mutex<HashMap<String, TaskOutcome>>,
}

impl Known {
    fn new(spec: Spec) -> Self {
        let tasks = expand(&spec);
        let places = tasks.iter().enumerate().map(|(place, task)| (task.id.clone(), place)).collect();
        Self { spec, tasks, places, outcomes: Mutex::default() }
    }

    /// A task by its id.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.places.get(id).map(|&place| &self.tasks[place])
    }

    /// What came of a task, if it was asked before.
    pub fn outcome(&self, id: &str) -> Option<TaskOutcome> {
        locked(&self.outcomes).get(id).cloned()
    }

    /// Remembers what came of a task that succeeded.
    pub fn remember(&self, id: &str, outcome: &TaskOutcome) {
        locked(&self.outcomes).insert(id.to_string(), outcome.clone());
    }
}

/// The sweeps.
#[derive(Debug, Default)]
pub struct KnownSweeps(Mutex<VecDeque<(String, Arc<Known>)>>);

impl KnownSweeps {
    /// A sweep of this `spec` text of the store.
    ///
    /// # Errors
    /// If the text is no specification.
    pub async fn of(&self, id: &str, spec: String) -> Result<Arc<Known>, ApiError> {
        if let Some(known) = self.find(id) {
            return Ok(known);
        }
        // Some seconds for a hundred thousand tasks.
        let made = tokio::task::spawn_blocking(move || {
            let spec: Spec = serde_json::from_str(&spec).map_err(|e| StoreError::Protocol(e.to_string()))?;
            Ok::<_, StoreError>(Arc::new(Known::new(spec)))
        });
        let made = made.await.map_err(|e| ApiError::Internal(format!("a specification was not read: {e}")))??;
        let mut sweeps = locked(&self.0);
        sweeps.push_front((id.to_string(), made.clone()));
        sweeps.truncate(SWEEPS);
        Ok(made)
    }

    /// The same, with its text looked up; `None` without the sweep.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn find_or_read(&self, store: &impl Store, id: &str) -> Result<Option<Arc<Known>>, ApiError> {
        if let Some(known) = self.find(id) {
            return Ok(Some(known));
        }
        match store.documents(id).await? {
            Some((spec, _)) => self.of(id, spec).await.map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, id: &str) -> Option<Arc<Known>> {
        let mut sweeps = locked(&self.0);
        let place = sweeps.iter().position(|(known, _)| known == id)?;
        let found = sweeps.remove(place)?;
        let known = found.1.clone();
        sweeps.push_front(found);
        Some(known)
    }

    /// A sweep is deleted.
    pub fn forget(&self, id: &str) {
        locked(&self.0).retain(|(known, _)| known != id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks here is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
