//! Tickets: who gets one, and where it is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::state::{State, millis};
use crate::store::{AfterRelease, StoreError, Tickets};
use crate::task::{TaskKey, TaskState, Ticket};

impl State {
    pub(super) fn due(&mut self, sweep: &str, limit: usize, now: u64) -> usize {
        let Some(of) = self.sweeps.get_mut(sweep) else { return 0 };
        let mut due: Vec<_> =
            of.delayed.iter().filter(|(_, at)| **at <= now).map(|(key, &at)| (at, key.clone())).collect();
        due.sort();
        due.truncate(limit);
        for (_, key) in &due {
            of.delayed.remove(key);
            if let Some(task) = self.tasks.get(key) {
                of.ready.insert((task.order, key.clone()));
            }
        }
        due.len()
    }

    pub(super) fn ready(&self, sweep: &str, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
        let ready = self.sweeps.get(sweep).into_iter().flat_map(|sweep| &sweep.ready);
        Ok(ready.take(limit).map(|(_, key)| key.clone()).collect())
    }

    pub(super) fn choose(&mut self, tasks: &[TaskKey], now: u64) -> Result<usize, StoreError> {
        let mut chosen = 0;
        for key in tasks {
            let (Some(task), Some(sweep)) = (self.tasks.get(key), self.sweeps.get_mut(&key.sweep)) else { continue };
            if sweep.ready.remove(&(task.order, key.clone())) {
                self.outbox.insert((key.clone(), task.record.generation), now);
                chosen += 1;
            }
        }
        Ok(chosen)
    }

    pub(super) fn outbox(&self, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        let mut by_age: Vec<_> = self.outbox.iter().collect();
        by_age.sort_by_key(|(_, at)| **at);
        Ok(by_age.into_iter().take(limit).map(|((key, generation), _)| Ticket::new(key.clone(), *generation)).collect())
    }

    pub(super) fn confirmed(&mut self, tickets: &[Ticket], now: u64) -> Result<usize, StoreError> {
        let mut moved = 0;
        for ticket in tickets {
            let entry = (ticket.task_id.clone(), ticket.generation);
            let waits = self.tasks.get(&ticket.task_id).is_some_and(|task| {
                task.record.state == TaskState::Queued && task.record.generation == ticket.generation
            });
            if self.outbox.remove(&entry).is_some() && waits {
                self.outstanding.insert(entry, now);
                moved += 1;
            }
        }
        Ok(moved)
    }

    pub(super) fn republish(&mut self, age: Duration, limit: usize, now: u64) -> Result<usize, StoreError> {
        let mut old: Vec<_> = self.outstanding.iter().map(|(entry, &at)| (at, entry.clone())).collect();
        old.retain(|(at, _)| at + millis(age) <= now);
        old.sort_by_key(|(at, _)| *at);
        let mut again = 0;
        for (_, entry) in old.into_iter().take(limit) {
            self.outstanding.remove(&entry);
            let record = &self.tasks[&entry.0].record;
            if record.state == TaskState::Queued && record.generation == entry.1 {
                self.outbox.insert(entry, now);
                again += 1;
            }
        }
        Ok(again)
    }

    pub(super) fn dead(&mut self, ticket: &Ticket, limit: u32, now: u64) -> Result<Option<AfterRelease>, StoreError> {
        let key = &ticket.task_id;
        let Some(task) = self.tasks.get_mut(key) else { return Ok(None) };
        if task.record.state != TaskState::Queued || task.record.generation != ticket.generation {
            return Ok(None);
        }
        let count = if task.dead.0 == ticket.generation { task.dead.1 + 1 } else { 1 };
        task.dead = (ticket.generation, count);
        self.drop_ticket(key);
        if count >= limit {
            return Ok(self.fail(key, format!("its ticket was dead-lettered {limit} times"), now));
        }
        self.outbox.insert((key.clone(), ticket.generation), now);
        Ok(Some(AfterRelease::Queued(ticket.clone())))
    }

    pub(super) fn tickets(&self) -> Result<Tickets, StoreError> {
        let list = |of: &BTreeMap<(TaskKey, u64), u64>| {
            of.keys().map(|(key, generation)| Ticket::new(key.clone(), *generation)).collect()
        };
        Ok(Tickets { outbox: list(&self.outbox), outstanding: list(&self.outstanding) })
    }
}
