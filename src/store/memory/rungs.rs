//! Rungs: tasks that wait at one, go on past it, or end there.

use super::Memory;
use super::state::State;
use crate::store::{AfterRelease, AtRung, Held, Hold, KeptRungs, Order, Standing, StoreError};
use crate::task::{Event, TaskKey, TaskState};

impl Memory {
    /// Puts a task that was just added where it was in an earlier process: ended, waiting at a rung, or on its way past it.
    pub(in crate::store) fn restore(&self, key: &TaskKey, rungs: KeptRungs, ended: Option<TaskState>) {
        let (mut state, _) = self.locked();
        let Some(task) = state.tasks.get_mut(key).filter(|task| task.record.state == TaskState::Pending) else {
            return;
        };
        let waits = rungs.scores.len() > rungs.promoted;
        if let Some(reached) = ended.or(waits.then_some(TaskState::Waiting)) {
            task.record.state = reached;
        }
        task.standing = (!rungs.scores.is_empty()).then_some(rungs.outcome);
        task.record.rungs = rungs.scores;
    }
}

impl State {
    pub(super) fn wait(
        &mut self,
        hold: &Hold,
        standing: &Standing,
        now: u64,
    ) -> Result<Held<AfterRelease>, StoreError> {
        if !self.is_held(hold) {
            return Ok(self.once_more(hold, now));
        }
        let key = &hold.key;
        if let Some(task) = self.tasks.get_mut(key) {
            // A rung is reached once.
            if task.record.rungs.len() == standing.rung as usize {
                task.record.rungs.push(standing.select);
            }
            task.standing = Some(standing.outcome.clone());
        }
        self.leases.remove(key);
        let became = match self.order_of(&key.sweep, now) {
            Order::Cancel => self.onward(key, None, now),
            // A paused sweep's tasks wait all the same: nobody is promoted as long as it is paused.
            Order::Continue | Order::Pause => {
                self.note(key, "waiting", self.at_rung(key), now);
                self.step(key, Event::Wait).map(AfterRelease::State)
            }
        };
        became.map(Held::Yes).ok_or_else(|| StoreError::Protocol("a held task could not be let go of".to_string()))
    }

    pub(super) fn promote(&mut self, tasks: &[AtRung], now: u64) -> usize {
        self.decide(tasks, now, |state, key| {
            state.note(key, "promoted", state.at_rung(key), now);
            state.enqueue(key, Event::Enqueue, false, now).is_some()
        })
    }

    pub(super) fn prune(&mut self, tasks: &[AtRung], now: u64) -> usize {
        self.decide(tasks, now, |state, key| {
            state.drop_checkpoint(key);
            state.note(key, "pruned", state.at_rung(key), now);
            state.step(key, Event::Prune).is_some()
        })
    }

    /// A decision about tasks that wait at a rung, where it still holds. Answers how many.
    fn decide(&mut self, tasks: &[AtRung], now: u64, act: impl Fn(&mut Self, &TaskKey) -> bool) -> usize {
        let mut decided = 0;
        for AtRung { key, rung } in tasks {
            let waits = self.tasks.get(key).is_some_and(|task| {
                task.record.state == TaskState::Waiting && task.record.rungs.len() == *rung as usize + 1
            });
            if waits && self.order_of(&key.sweep, now) == Order::Continue {
                decided += usize::from(act(self, key));
            }
        }
        decided
    }

    /// The last rung that a task has reached, for people.
    fn at_rung(&self, key: &TaskKey) -> Option<String> {
        let rungs = &self.tasks.get(key)?.record.rungs;
        let last = rungs.last()?;
        Some(format!("rung {}: select {}", rungs.len() - 1, last.exact()))
    }
}
