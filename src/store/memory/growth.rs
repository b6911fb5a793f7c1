//! Tasks that are added to an open sweep.

use super::Memory;
use super::state::{State, Task, unexpected};
use crate::store::{Extended, NewTask, StoreError};
use crate::task::TaskKey;

impl Memory {
    /// What [`extend`](crate::store::traits::Steering::extend) would answer.
    ///
    /// # Errors
    /// As that.
    pub(in crate::store) fn extension(
        &self,
        sweep: &str,
        place: usize,
        tasks: &[NewTask],
    ) -> Result<Extended, StoreError> {
        let (state, now) = self.locked();
        state.extension(sweep, place, tasks, now)
    }
}

impl State {
    pub(super) fn extend(
        &mut self,
        sweep: &str,
        place: usize,
        tasks: &[NewTask],
        now: u64,
    ) -> Result<Extended, StoreError> {
        let answer = self.extension(sweep, place, tasks, now)?;
        let Extended::Added(new) = answer else { return Ok(answer) };
        for (place, task) in (place..).zip(tasks).skip(tasks.len() - new) {
            let key = TaskKey::new(sweep, &task.id).map_err(|e| StoreError::Protocol(e.to_string()))?;
            self.tasks.insert(key.clone(), Task::new(key.clone(), task, place));
            if let Some(of) = self.sweeps.get_mut(sweep) {
                of.tasks.insert(place, key);
            }
        }
        Ok(answer)
    }

    /// What `extend` would answer. New tasks are the last ones, since places have no gaps.
    pub(super) fn extension(
        &self,
        sweep: &str,
        place: usize,
        tasks: &[NewTask],
        now: u64,
    ) -> Result<Extended, StoreError> {
        let Some(of) = self.sweeps.get(sweep) else { return unexpected("no such sweep") };
        let next = of.tasks.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut new: Vec<TaskKey> = Vec::new();
        for (place, task) in (place..).zip(tasks) {
            let key = TaskKey::new(sweep, &task.id).map_err(|e| StoreError::Protocol(e.to_string()))?;
            if place < next {
                // An earlier call: the same task once more changes nothing.
                let there = of.tasks.get(&place).filter(|there| **there == key);
                if there.is_none_or(|there| self.tasks[there].body != task.body) {
                    return Ok(Extended::Taken(place));
                }
            } else {
                if self.tasks.contains_key(&key) || new.contains(&key) || place != next + new.len() {
                    return Ok(Extended::Taken(place));
                }
                new.push(key);
            }
        }
        if new.is_empty() {
            return Ok(Extended::Added(0));
        }
        if !self.summary(sweep, of, now).takes_tasks() {
            return Ok(Extended::Closed);
        }
        if of.tasks.len() + new.len() > of.task_limit {
            return Ok(Extended::Full(of.task_limit));
        }
        Ok(Extended::Added(new.len()))
    }

    pub(super) fn close(&mut self, sweep: &str) -> bool {
        self.sweeps.get_mut(sweep).is_some_and(|of| std::mem::take(&mut of.task_limit) > 0)
    }
}
