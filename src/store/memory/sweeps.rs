//! Sweeps: their beginning, what their owner wants of them, and their end.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{State, Sweep, Task, unexpected};
use crate::store::{Created, NewSweep, NewTask, Order, Stage, StoreError, SweepRecord, Walked};
use crate::task::{Event, TaskKey, TaskState, Ticket};

impl State {
    pub(super) fn create_sweep(
        &mut self,
        new: &NewSweep,
        request: Option<&str>,
        now: u64,
    ) -> Result<Created, StoreError> {
        if let Some(id) = request.and_then(|request| self.requests.get(request)) {
            return Ok(Created { id: id.clone(), is_new: false });
        }
        if self.sweeps.contains_key(&new.id) {
            return Ok(Created { id: new.id.clone(), is_new: false });
        }
        let sweep = Sweep {
            new: new.clone(),
            stage: Stage::Creating,
            task_limit: new.task_limit,
            created: now,
            closes: if new.max_seconds > 0 { now + new.max_seconds * 1000 } else { 0 },
            is_cancelled: false,
            is_paused: false,
            manifest: None,
            tasks: BTreeMap::new(),
            scores: None,
            ready: BTreeSet::new(),
            delayed: BTreeMap::new(),
        };
        self.sweeps.insert(new.id.clone(), sweep);
        if let Some(request) = request {
            self.requests.insert(request.to_string(), new.id.clone());
        }
        Ok(Created { id: new.id.clone(), is_new: true })
    }

    pub(super) fn add_tasks(&mut self, sweep: &str, order: usize, tasks: &[NewTask]) -> Result<usize, StoreError> {
        let Some(of) = self.sweeps.get_mut(sweep) else { return unexpected("no such sweep") };
        if of.stage != Stage::Creating {
            return unexpected("the sweep is open: it takes no more tasks");
        }
        let mut new = 0;
        for (i, task) in tasks.iter().enumerate() {
            let key = TaskKey::new(sweep, &task.id).map_err(|e| StoreError::Protocol(e.to_string()))?;
            if self.tasks.contains_key(&key) {
                continue;
            }
            of.tasks.insert(order + i, key.clone());
            if task.is_scores {
                of.scores = Some(key.clone());
            }
            let task = Task::new(key.clone(), task, order + i);
            self.tasks.insert(key, task);
            new += 1;
        }
        Ok(new)
    }

    pub(super) fn open_sweep(&mut self, sweep: &str, now: u64) -> Result<Option<Ticket>, StoreError> {
        let Some((of, scores)) = self.sweeps.get_mut(sweep).and_then(|of| of.scores.clone().map(|s| (of, s))) else {
            return unexpected("no such sweep, or one without its scores task");
        };
        if of.stage != Stage::Creating {
            return Ok(None);
        }
        of.stage = Stage::Scoring;
        if self.tasks[&scores].record.state != TaskState::Pending {
            return Ok(None);
        }
        Ok(self.enqueue(&scores, Event::Enqueue, true, now))
    }

    pub(super) fn release_pending(&mut self, sweep: &str, limit: usize, now: u64) -> Result<usize, StoreError> {
        let Some(of) = self.sweeps.get(sweep).filter(|of| of.stage == Stage::Ready) else { return Ok(0) };
        let is_pending = |key: &&TaskKey| {
            let task = &self.tasks[*key];
            task.record.state == TaskState::Pending && !task.is_scores
        };
        let pending: Vec<TaskKey> = of.tasks.values().filter(is_pending).take(limit).cloned().collect();
        for key in &pending {
            self.enqueue(key, Event::Enqueue, false, now);
        }
        Ok(pending.len())
    }

    pub(super) fn order(&mut self, sweep: &str, order: Order) -> Result<bool, StoreError> {
        let Some(sweep) = self.sweeps.get_mut(sweep) else { return Ok(false) };
        match order {
            Order::Cancel => sweep.is_cancelled = true,
            _ if sweep.is_cancelled => return Ok(false),
            Order::Pause => sweep.is_paused = true,
            Order::Continue => sweep.is_paused = false,
        }
        Ok(true)
    }

    pub(super) fn settle(&mut self, sweep: &str, from: usize, limit: usize, now: u64) -> Result<Walked, StoreError> {
        let order = self.order_of(sweep, now);
        let scores = self.sweeps.get(sweep).and_then(|sweep| sweep.scores.clone());
        let is_hopeless = scores.is_some_and(|key| self.tasks[&key].record.state == TaskState::Failed);
        Ok(self.walk(sweep, from, limit, |state, key| {
            use TaskState::{Paused, Pending, Queued, Waiting};
            let found = state.tasks[key].record.state;
            let is_idle = matches!(found, Pending | Queued | Waiting | Paused);
            if is_idle && (order == Order::Cancel || is_hopeless) {
                state.drop_ticket(key);
                state.drop_checkpoint(key);
                state.note(key, "cancelled", is_hopeless.then(|| "the scores task failed".to_string()), now);
                state.step(key, Event::Cancel).is_some()
            } else if found == Queued && order == Order::Pause {
                state.drop_ticket(key);
                state.note(key, "paused", None, now);
                state.step(key, Event::Pause).is_some()
            } else if found == Paused && order == Order::Continue {
                state.note(key, "resumed", None, now);
                state.enqueue(key, Event::Enqueue, false, now).is_some()
            } else {
                false
            }
        }))
    }

    pub(super) fn retry(&mut self, sweep: &str, from: usize, limit: usize, now: u64) -> Result<Walked, StoreError> {
        let is_cancelled = self.order_of(sweep, now) == Order::Cancel;
        Ok(self.walk(sweep, from, limit, |state, key| {
            let Some(task) = state.tasks.get_mut(key).filter(|_| !is_cancelled) else { return false };
            let found = task.record.state;
            match found {
                TaskState::Failed => {
                    task.record.cause = None;
                    task.record.crashes = 0;
                    task.record.reached = 0;
                    task.forget_rungs();
                    state.ended.remove(&key.sweep);
                    let Some(task) = state.tasks.get(key) else { return false };
                    // The scores task is what all others wait for: it does not wait to be chosen.
                    let with_ticket = task.is_scores;
                    state.note(key, "retried", None, now);
                    state.enqueue(key, Event::Enqueue, with_ticket, now).is_some()
                }
                TaskState::Cancelled => {
                    task.record.reached = 0;
                    task.forget_rungs();
                    state.ended.remove(&key.sweep);
                    state.note(key, "retried", None, now);
                    state.step(key, Event::Restore).is_some()
                }
                _ => false,
            }
        }))
    }

    pub(super) fn remove(&mut self, sweep: &str, now: u64) -> Result<bool, StoreError> {
        let Some(of) = self.sweeps.get(sweep) else { return Ok(true) };
        if !self.summary(sweep, of, now).is_final() {
            return unexpected("the sweep has tasks that are not final, or its search may open more");
        }
        self.drop_sweep(sweep);
        Ok(true)
    }

    /// Removes all that there is of a sweep.
    pub(super) fn drop_sweep(&mut self, sweep: &str) {
        self.sweeps.remove(sweep);
        self.ended.remove(sweep);
        self.requests.retain(|_, id| id != sweep);
        self.tasks.retain(|key, _| key.sweep != sweep);
        self.leases.retain(|key, _| key.sweep != sweep);
        self.units.retain(|key, _| key.sweep != sweep);
        self.outbox.retain(|(key, _), _| key.sweep != sweep);
        self.outstanding.retain(|(key, _), _| key.sweep != sweep);
    }

    /// Sweeps that have ended, or the others.
    pub(super) fn summaries(&self, ended: bool, now: u64) -> Vec<SweepRecord> {
        let some = self.sweeps.iter().filter(|(id, _)| self.ended.contains_key(*id) == ended);
        let mut sweeps: Vec<_> = some.map(|(id, of)| self.summary(id, of, now)).collect();
        sweeps.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        sweeps
    }

    pub(super) fn retire(&mut self, sweeps: &[String], now: u64) -> usize {
        let mut retired = 0;
        for id in sweeps {
            let is_final = self.sweeps.get(id).is_some_and(|of| self.summary(id, of, now).is_final());
            if is_final && !self.ended.contains_key(id) {
                self.ended.insert(id.clone(), now);
                retired += 1;
            }
        }
        retired
    }
}
