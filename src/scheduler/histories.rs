//! What searches are told of their sweeps' tasks.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::search::{History, SeenTask};
use crate::store::traits::Reading;
use crate::store::{StoreError, SweepRecord, TaskRecord};
use crate::sweep::results::TaskOutcome;
use crate::sweep::score::SplitScore;
use crate::sweep::task::Task;
use crate::task::{TaskKey, TaskState};

/// Tasks that are read in one call of the store.
const PAGE: usize = 500;

/// Reads histories. It remembers what does not change, so that each task and each result is read
/// once, and not at every decision.
#[derive(Debug, Default)]
pub(super) struct Histories {
    seen: Mutex<HashMap<TaskKey, Seen>>,
}

#[derive(Debug)]
struct Seen {
    task: Task,
    /// Once the task has succeeded.
    select: Option<SplitScore>,
}

/// A result as workers write it, as far as it matters here.
#[derive(Deserialize)]
struct Shown {
    outcome: TaskOutcome,
}

impl Histories {
    /// A sweep's tasks but its scores task, as a search sees them, and their keys.
    pub(super) async fn read(
        &self,
        store: &impl Reading,
        sweep: &str,
        with_results: bool,
    ) -> Result<(Vec<TaskKey>, History), StoreError> {
        let mut records = all_tasks(store, sweep).await?;
        records.retain(|record| !record.key.is_scores());
        if with_results {
            self.read_bodies(store, &records).await?;
            self.read_results(store, &records).await?;
        }
        let seen = self.locked();
        let (mut keys, mut history) = (Vec::with_capacity(records.len()), History::default());
        for TaskRecord { key, state, rungs, .. } in records {
            let known = seen.get(&key).filter(|_| with_results);
            history.tasks.push(SeenTask {
                state,
                rungs,
                task: known.map(|known| known.task.clone()),
                select: known.and_then(|known| known.select),
            });
            keys.push(key);
        }
        Ok((keys, history))
    }

    /// Forgets all but these sweeps.
    pub(super) fn keep_only(&self, sweeps: &[SweepRecord]) {
        let mut seen = self.locked();
        if !seen.is_empty() {
            let live: HashSet<&str> = sweeps.iter().map(|sweep| sweep.id.as_str()).collect();
            seen.retain(|key, _| live.contains(key.sweep.as_str()));
        }
    }

    async fn read_bodies(&self, store: &impl Reading, records: &[TaskRecord]) -> Result<(), StoreError> {
        let new: Vec<TaskKey> = {
            let seen = self.locked();
            records.iter().filter(|record| !seen.contains_key(&record.key)).map(|record| record.key.clone()).collect()
        };
        for part in new.chunks(PAGE) {
            let bodies = store.bodies(part).await?;
            for (key, body) in part.iter().zip(bodies) {
                let Some(body) = body else { continue };
                let seen = Seen { task: read_json(key, &body)?, select: None };
                self.locked().insert(key.clone(), seen);
            }
        }
        Ok(())
    }

    async fn read_results(&self, store: &impl Reading, records: &[TaskRecord]) -> Result<(), StoreError> {
        for TaskRecord { key, .. } in records.iter().filter(|record| record.state == TaskState::Succeeded) {
            if self.locked().get(key).is_none_or(|seen| seen.select.is_some()) {
                continue;
            }
            let Some(completed) = store.result(key).await? else { continue };
            let Shown { outcome } = read_json(key, &completed.result)?;
            if let Some(seen) = self.locked().get_mut(key) {
                seen.select = outcome.scores.map(|scores| scores.select);
            }
        }
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<TaskKey, Seen>> {
        // What is behind the lock is whole at any moment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_json<T: DeserializeOwned>(key: &TaskKey, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Protocol(format!("what is kept of task {key}: {e}")))
}

async fn all_tasks(store: &impl Reading, sweep: &str) -> Result<Vec<TaskRecord>, StoreError> {
    let mut records = Vec::new();
    loop {
        let page = store.tasks(sweep, records.len(), PAGE).await?;
        let is_last = page.len() < PAGE;
        records.extend(page);
        if is_last {
            return Ok(records);
        }
    }
}
