//! Attempts: a task is claimed, kept alive, and let go of.

use std::time::Duration;

use super::state::{State, millis};
use crate::store::{
    AfterRelease, ClaimAnswer, Claimant, Claimed, Completed, Expired, Expiries, Held, Hold, KeptUnits, Order, Refusal,
    ReleaseReason, Saved, Stage, StoreError,
};
use crate::task::{Event, TaskKey, TaskState, Ticket};

impl State {
    pub(super) fn claim(
        &mut self,
        ticket: &Ticket,
        claimant: &Claimant,
        lease: Duration,
        now: u64,
    ) -> Result<ClaimAnswer, StoreError> {
        let key = &ticket.task_id;
        let refused = |why| Ok(ClaimAnswer::Refused(why));
        let Some(task) = self.tasks.get(key) else { return refused(Refusal::Unknown) };
        let again = task.record.state == TaskState::Running && task.nonce == claimant.nonce;
        if !again {
            let record = &task.record;
            if record.state != TaskState::Queued {
                return refused(Refusal::State(record.state));
            }
            if record.generation != ticket.generation {
                return refused(Refusal::Generation(record.generation));
            }
            let wait = self.wait_of(key, now);
            if wait > 0 {
                return refused(Refusal::Early(wait));
            }
            self.drop_ticket(key);
            let put_aside = match self.order_of(&key.sweep, now) {
                Order::Continue => None,
                Order::Pause => {
                    self.note(key, "paused", None, now);
                    self.step(key, Event::Pause)
                }
                Order::Cancel => {
                    self.note(key, "cancelled", None, now);
                    self.drop_checkpoint(key);
                    self.step(key, Event::Cancel)
                }
            };
            if let Some(aside) = put_aside {
                return refused(Refusal::State(aside));
            }
            let cap = self.sweeps[&key.sweep].new.cap as usize;
            let running =
                self.tasks.values().filter(|t| t.record.key.sweep == key.sweep && t.record.state == TaskState::Running);
            if cap > 0 && running.count() >= cap {
                let order = self.tasks[key].order;
                self.sweeps.get_mut(&key.sweep).map(|sweep| sweep.ready.insert((order, key.clone())));
                return refused(Refusal::Cap);
            }
            self.step(key, Event::Claim);
            self.note(key, "claimed", Some(claimant.worker.clone()), now);
        }
        let Some(task) = self.tasks.get_mut(key) else { return refused(Refusal::Unknown) };
        if !again {
            task.record.epoch += 1;
            task.record.attempts += 1;
            task.nonce = claimant.nonce.clone();
            task.lease = millis(lease);
        }
        self.leases.insert(key.clone(), now + millis(lease));
        let sweep = &self.sweeps[&key.sweep];
        Ok(ClaimAnswer::Claimed(Box::new(Claimed {
            hold: Hold { key: key.clone(), epoch: task.record.epoch, nonce: claimant.nonce.clone() },
            body: task.body.clone(),
            is_scores: task.is_scores,
            spec: sweep.new.spec.clone(),
            manifest: sweep.manifest.clone(),
            checkpoint: task.checkpoint.clone(),
            sequence: task.record.sequence,
            attempts: task.record.attempts,
            rungs: task.record.rungs.len() as u32,
        })))
    }

    pub(super) fn renew(
        &mut self,
        hold: &Hold,
        lease: Duration,
        progress: Option<&str>,
        now: u64,
    ) -> Result<Held<Order>, StoreError> {
        if !self.is_held(hold) {
            return Ok(Held::Fenced);
        }
        self.leases.insert(hold.key.clone(), now + millis(lease));
        if let (Some(progress), Some(task)) = (progress, self.tasks.get_mut(&hold.key)) {
            task.progress = Some(progress.to_string());
        }
        Ok(Held::Yes(self.order_of(&hold.key.sweep, now)))
    }

    pub(super) fn save(&mut self, hold: &Hold, saved: Saved<'_>) {
        if !self.is_held(hold) {
            return;
        }
        if let Some(task) = self.tasks.get_mut(&hold.key).filter(|task| saved.sequence > task.record.sequence) {
            task.checkpoint = Some(saved.checkpoint.to_vec());
            task.record.has_checkpoint = true;
            task.record.sequence = saved.sequence;
            if saved.reached > task.record.reached {
                task.record.reached = saved.reached;
                task.record.crashes = 0;
            }
        }
    }

    pub(super) fn complete(&mut self, hold: &Hold, completed: &Completed, now: u64) -> Result<Held<()>, StoreError> {
        let Some(task) = self.tasks.get_mut(&hold.key) else { return Ok(Held::Fenced) };
        let record = &task.record;
        if record.state == TaskState::Succeeded && record.epoch == hold.epoch && task.nonce == hold.nonce {
            return Ok(Held::Yes(()));
        }
        if !self.is_held(hold) {
            return Ok(Held::Fenced);
        }
        self.leases.remove(&hold.key);
        self.drop_checkpoint(&hold.key);
        self.step(&hold.key, Event::Complete);
        self.note(&hold.key, "succeeded", None, now);
        if let Some(units) = &completed.units {
            self.keep_units(&hold.key, units);
        }
        if let Some(task) = self.tasks.get_mut(&hold.key) {
            task.completed = Some(Completed { units: None, ..completed.clone() });
            task.record.has_result = true;
            if let Some(sweep) = self.sweeps.get_mut(&hold.key.sweep).filter(|_| task.is_scores) {
                sweep.manifest = Some(completed.result.clone());
                sweep.stage = Stage::Ready;
            }
        }
        Ok(Held::Yes(()))
    }

    /// Keeps a task's units, and forgets those of the sweep's worst tasks above the limit.
    fn keep_units(&mut self, key: &TaskKey, units: &KeptUnits) {
        self.units.insert(key.clone(), units.clone());
        let of_sweep = self.units.iter().filter(|(other, _)| other.sweep == key.sweep);
        let mut ranked: Vec<(f64, TaskKey)> =
            of_sweep.filter_map(|(key, units)| Some((units.cost?, key.clone()))).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.task.cmp(&b.1.task)));
        for (_, worst) in ranked.into_iter().skip(units.limit) {
            self.units.remove(&worst);
        }
    }

    pub(super) fn release(
        &mut self,
        hold: &Hold,
        why: &ReleaseReason,
        now: u64,
    ) -> Result<Held<AfterRelease>, StoreError> {
        let key = &hold.key;
        if !self.is_held(hold) {
            return Ok(self.once_more(hold, now));
        }
        let became = match why {
            ReleaseReason::Crashed(cause) => self.crashed(key, cause.clone(), now),
            ReleaseReason::Hopeless(cause) => {
                self.leases.remove(key);
                self.fail(key, cause.clone(), now)
            }
            ReleaseReason::Preempted => {
                self.leases.remove(key);
                self.note(key, "released", None, now);
                self.onward(key, None, now)
            }
        };
        became.map(Held::Yes).ok_or_else(|| StoreError::Protocol("a held task could not be let go of".to_string()))
    }

    pub(super) fn expire(&mut self, limit: usize, gap: Duration, now: u64) -> Expiries {
        let last = std::mem::replace(&mut self.turned, now);
        let was_away = last > 0 && now - last > millis(gap);
        let mut overdue: Vec<(u64, TaskKey)> =
            self.leases.iter().filter(|(_, until)| **until <= now).map(|(key, &until)| (until, key.clone())).collect();
        overdue.sort();
        let mut expiries = Expiries::default();
        for (until, key) in overdue.into_iter().take(limit) {
            if was_away && until > last {
                let lease = self.tasks[&key].lease;
                self.leases.insert(key, now + lease);
                continue;
            }
            let cause = "lost its worker: the lease ran out".to_string();
            if let Some(onward) = self.crashed(&key, cause, now) {
                expiries.expired.push(Expired { key, onward });
            }
        }
        expiries
    }
}
