//! The store of one process: plain maps behind a lock. Also the model that the Lua scripts are tested against, so it says in Rust what they say in Lua.
//!
//! | file | holds |
//! |---|---|
//! | `state` | what is kept, and the steps that transitions are made of |
//! | `sweeps`, `growth`, `tickets`, `attempts`, `rungs` | the transitions |

mod attempts;
mod growth;
mod rungs;
mod state;
mod sweeps;
mod tickets;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::state::{State, millis};
use super::{
    AfterRelease, AtRung, ClaimAnswer, Claimant, Completed, Created, Expiries, Extended, Findings, Held, Hold, Letter,
    Letters, Live, NewSweep, NewTask, Order, ReleaseReason, Saved, Standing, StoreError, SweepRecord, Sweeps,
    TaskEvent, TaskRecord, Tickets, Walked,
};
use crate::store::traits::{Admission, Leases, Outbox, Owner, Publishing, Reading, Repair, Steering, Upkeep};
use crate::task::{TaskKey, Ticket};

/// Sweeps and tasks in memory.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    began: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), began: Instant::now() }
    }
}

impl Memory {
    /// Ends a sweep's time, as if it had passed: for tests.
    #[cfg(any(test, feature = "test-support"))]
    pub fn end_time(&self, sweep: &str) {
        if let Some(sweep) = self.locked().0.sweeps.get_mut(sweep) {
            sweep.closes = 1;
        }
    }

    fn locked(&self) -> (MutexGuard<'_, State>, u64) {
        let now = self.began.elapsed().as_millis() as u64 + 1;
        // A panic while it was held left whole maps behind: each step below changes them without a call that can panic.
        (self.state.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl Leases for Memory {
    async fn claim(&self, ticket: &Ticket, claimant: &Claimant, lease: Duration) -> Result<ClaimAnswer, StoreError> {
        let (mut state, now) = self.locked();
        state.claim(ticket, claimant, lease, now)
    }

    async fn renew(&self, hold: &Hold, lease: Duration, progress: Option<&str>) -> Result<Held<Order>, StoreError> {
        let (mut state, now) = self.locked();
        state.renew(hold, lease, progress, now)
    }

    async fn save(&self, hold: &Hold, lease: Duration, saved: Saved<'_>) -> Result<Held<Order>, StoreError> {
        let (mut state, now) = self.locked();
        let answer = state.renew(hold, lease, saved.progress, now)?;
        state.save(hold, saved);
        Ok(answer)
    }

    async fn complete(&self, hold: &Hold, completed: &Completed) -> Result<Held<()>, StoreError> {
        let (mut state, now) = self.locked();
        state.complete(hold, completed, now)
    }

    async fn release(&self, hold: &Hold, why: &ReleaseReason) -> Result<Held<AfterRelease>, StoreError> {
        let (mut state, now) = self.locked();
        state.release(hold, why, now)
    }

    async fn wait(&self, hold: &Hold, standing: &Standing) -> Result<Held<AfterRelease>, StoreError> {
        let (mut state, now) = self.locked();
        state.wait(hold, standing, now)
    }

    async fn beat(&self, worker: &str, lifetime: Duration, about: &str) -> Result<(), StoreError> {
        let (mut state, now) = self.locked();
        state.workers.insert(worker.to_string(), (now + millis(lifetime), about.to_string()));
        Ok(())
    }
}

impl Publishing for Memory {
    async fn confirmed(&self, tickets: &[Ticket]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        state.confirmed(tickets, now)
    }
}

impl Admission for Memory {
    async fn create_sweep(&self, new: &NewSweep, request: Option<&str>) -> Result<Created, StoreError> {
        let (mut state, now) = self.locked();
        state.create_sweep(new, request, now)
    }

    async fn add_tasks(&self, sweep: &str, order: usize, tasks: &[NewTask]) -> Result<usize, StoreError> {
        self.locked().0.add_tasks(sweep, order, tasks)
    }

    async fn open_sweep(&self, sweep: &str) -> Result<Option<Ticket>, StoreError> {
        let (mut state, now) = self.locked();
        state.open_sweep(sweep, now)
    }
}

impl Steering for Memory {
    async fn extend(&self, sweep: &str, place: usize, tasks: &[NewTask]) -> Result<Extended, StoreError> {
        let (mut state, now) = self.locked();
        state.extend(sweep, place, tasks, now)
    }

    async fn close(&self, sweep: &str) -> Result<bool, StoreError> {
        Ok(self.locked().0.close(sweep))
    }

    async fn release_pending(&self, sweep: &str, limit: usize) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        state.release_pending(sweep, limit, now)
    }

    async fn promote(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        Ok(state.promote(tasks, now))
    }

    async fn prune(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        Ok(state.prune(tasks, now))
    }
}

impl Outbox for Memory {
    async fn ready(&self, sweep: &str, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
        self.locked().0.ready(sweep, limit)
    }

    async fn choose(&self, tasks: &[TaskKey]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        state.choose(tasks, now)
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        self.locked().0.outbox(limit)
    }

    async fn republish(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        state.republish(age, limit, now)
    }

    async fn dead(&self, ticket: &Ticket, limit: u32) -> Result<Option<AfterRelease>, StoreError> {
        let (mut state, now) = self.locked();
        state.dead(ticket, limit, now)
    }

    async fn due(&self, sweep: &str, limit: usize) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        Ok(state.due(sweep, limit, now))
    }

    async fn keep_letter(&self, letter: &Letter) -> Result<(), StoreError> {
        let (mut state, now) = self.locked();
        state.letters.keep(letter.clone(), now);
        Ok(())
    }
}

impl Upkeep for Memory {
    async fn expire(&self, limit: usize, gap: Duration) -> Result<Expiries, StoreError> {
        let (mut state, now) = self.locked();
        Ok(state.expire(limit, gap, now))
    }

    async fn retire(&self, sweeps: &[String]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        Ok(state.retire(sweeps, now))
    }

    async fn adopt(&self) -> Result<usize, StoreError> {
        let (state, _) = self.locked();
        Ok(state.sweeps.len() - state.ended.len())
    }

    async fn ended(&self, age: Duration, limit: usize) -> Result<Vec<String>, StoreError> {
        let (state, now) = self.locked();
        let mut ended: Vec<_> = state.ended.iter().filter(|(_, at)| **at + millis(age) <= now).collect();
        ended.sort_by_key(|(_, at)| **at);
        Ok(ended.into_iter().take(limit).map(|(id, _)| id.clone()).collect())
    }
}

impl Owner for Memory {
    async fn order(&self, sweep: &str, order: Order) -> Result<bool, StoreError> {
        self.locked().0.order(sweep, order)
    }

    async fn settle(&self, sweep: &str, from: usize, limit: usize) -> Result<Walked, StoreError> {
        let (mut state, now) = self.locked();
        state.settle(sweep, from, limit, now)
    }

    async fn retry(&self, sweep: &str, from: usize, limit: usize) -> Result<Walked, StoreError> {
        let (mut state, now) = self.locked();
        state.retry(sweep, from, limit, now)
    }

    async fn remove(&self, sweep: &str, _: usize) -> Result<bool, StoreError> {
        let (mut state, now) = self.locked();
        state.remove(sweep, now)
    }
}

impl Reading for Memory {
    async fn task(&self, key: &TaskKey) -> Result<Option<TaskRecord>, StoreError> {
        Ok(self.locked().0.tasks.get(key).map(|task| task.record.clone()))
    }

    async fn tasks(&self, sweep: &str, from: usize, limit: usize) -> Result<Vec<TaskRecord>, StoreError> {
        let (state, _) = self.locked();
        let keys = state.sweeps.get(sweep).into_iter().flat_map(|sweep| sweep.tasks.values());
        Ok(keys.skip(from).take(limit).map(|key| state.tasks[key].record.clone()).collect())
    }

    async fn bodies(&self, tasks: &[TaskKey]) -> Result<Vec<Option<String>>, StoreError> {
        let (state, _) = self.locked();
        Ok(tasks.iter().map(|key| state.tasks.get(key).map(|task| task.body.clone())).collect())
    }

    async fn sweep(&self, sweep: &str) -> Result<Option<SweepRecord>, StoreError> {
        let (state, now) = self.locked();
        Ok(state.sweeps.get(sweep).map(|of| state.summary(sweep, of, now)))
    }

    async fn sweeps(&self) -> Result<Sweeps, StoreError> {
        let (state, now) = self.locked();
        let mut records = [state.summaries(false, now), state.summaries(true, now)].concat();
        records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(Sweeps { records, unreadable: vec![] })
    }

    async fn live(&self) -> Result<Live, StoreError> {
        let (state, now) = self.locked();
        let mut live = Live::default();
        live.sweeps.records = state.summaries(false, now);
        for record in state.summaries(true, now) {
            for (state, count) in record.counts {
                *live.ended.entry(state).or_insert(0) += count;
            }
        }
        Ok(live)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn documents(&self, sweep: &str) -> Result<Option<(String, Option<String>)>, StoreError> {
        Ok(self.locked().0.sweeps.get(sweep).map(|of| (of.new.spec.clone(), of.manifest.clone())))
    }

    async fn events(&self, key: &TaskKey) -> Result<Vec<TaskEvent>, StoreError> {
        Ok(self.locked().0.tasks.get(key).map(|task| task.events.clone()).unwrap_or_default())
    }

    async fn progress(&self, key: &TaskKey) -> Result<Option<String>, StoreError> {
        Ok(self.locked().0.tasks.get(key).and_then(|task| task.progress.clone()))
    }

    async fn workers(&self) -> Result<Vec<(String, String)>, StoreError> {
        let (mut state, now) = self.locked();
        state.workers.retain(|_, (until, _)| *until > now);
        Ok(state.workers.iter().map(|(name, (_, about))| (name.clone(), about.clone())).collect())
    }

    async fn letters(&self, limit: usize) -> Result<Letters, StoreError> {
        Ok(self.locked().0.letters.newest(limit))
    }

    async fn tickets(&self) -> Result<Tickets, StoreError> {
        self.locked().0.tickets()
    }

    async fn standing(&self, key: &TaskKey) -> Result<Option<String>, StoreError> {
        Ok(self.locked().0.tasks.get(key).and_then(|task| task.standing.clone()))
    }

    async fn units(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.locked().0.units.get(key).map(|units| units.bytes.clone()))
    }

    async fn result(&self, key: &TaskKey) -> Result<Option<Completed>, StoreError> {
        Ok(self.locked().0.tasks.get(key).and_then(|task| task.completed.clone()))
    }
}

impl Repair for Memory {
    /// Nothing can differ: the sums of a sweep are made from its tasks when they are asked for.
    async fn examine(&self, sweep: &str, _: bool) -> Result<Findings, StoreError> {
        let is_there = self.locked().0.sweeps.contains_key(sweep);
        Ok(if is_there { vec![] } else { vec!["there is no such sweep".to_string()] })
    }

    async fn examine_pool(&self, _: bool) -> Result<Findings, StoreError> {
        Ok(vec![])
    }

    async fn discard(&self, sweep: &str, _: usize) -> Result<bool, StoreError> {
        self.locked().0.drop_sweep(sweep);
        Ok(true)
    }
}
