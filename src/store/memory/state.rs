//! What is kept, and the steps that transitions are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::store::letters::DeadLetters;
use crate::store::{
    AfterRelease, Completed, Held, Hold, KeptUnits, NewSweep, NewTask, Order, Stage, StoreError, SweepRecord,
    TaskEvent, TaskRecord, Walked,
};
use crate::task::{Event, TaskKey, TaskState, Ticket};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sweeps: BTreeMap<String, Sweep>,
    pub(super) requests: BTreeMap<String, String>,
    pub(super) tasks: BTreeMap<TaskKey, Task>,
    pub(super) outbox: BTreeMap<(TaskKey, u64), u64>,
    pub(super) outstanding: BTreeMap<(TaskKey, u64), u64>,
    pub(super) leases: BTreeMap<TaskKey, u64>,
    pub(super) units: BTreeMap<TaskKey, KeptUnits>,
    /// Until when, and what they said.
    pub(super) workers: BTreeMap<String, (u64, String)>,
    pub(super) letters: DeadLetters,
    /// Sweeps that have ended, and when.
    pub(super) ended: BTreeMap<String, u64>,
    /// When overdue leases were looked at last.
    pub(super) turned: u64,
}

#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) new: NewSweep,
    pub(super) stage: Stage,
    /// Most tasks while its search may open more; 0 once it does not.
    pub(super) task_limit: usize,
    pub(super) created: u64,
    /// Milliseconds at which nothing new is computed any more; 0 for never.
    pub(super) closes: u64,
    pub(super) is_cancelled: bool,
    pub(super) is_paused: bool,
    pub(super) manifest: Option<String>,
    /// By place.
    pub(super) tasks: BTreeMap<usize, TaskKey>,
    pub(super) scores: Option<TaskKey>,
    /// Runnable tasks without a ticket, by place.
    pub(super) ready: BTreeSet<(usize, TaskKey)>,
    /// Runnable tasks that wait after a crash, and until when.
    pub(super) delayed: BTreeMap<TaskKey, u64>,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) body: String,
    pub(super) is_scores: bool,
    pub(super) order: usize,
    pub(super) record: TaskRecord,
    pub(super) nonce: String,
    /// Milliseconds of its last lease.
    pub(super) lease: u64,
    pub(super) checkpoint: Option<Vec<u8>>,
    pub(super) completed: Option<Completed>,
    pub(super) dead: (u64, u32),
    pub(super) progress: Option<String>,
    pub(super) standing: Option<String>,
    pub(super) events: Vec<TaskEvent>,
}

impl Task {
    /// A pending task at a place.
    pub(super) fn new(key: TaskKey, task: &NewTask, order: usize) -> Self {
        let record = TaskRecord {
            key,
            state: TaskState::Pending,
            generation: 0,
            epoch: 0,
            attempts: 0,
            crashes: 0,
            reached: 0,
            sequence: 0,
            rungs: vec![],
            cause: None,
            has_checkpoint: false,
            has_result: false,
        };
        Self {
            body: task.body.clone(),
            is_scores: task.is_scores,
            order,
            record,
            nonce: String::new(),
            lease: 0,
            checkpoint: None,
            completed: None,
            dead: (0, 0),
            progress: None,
            standing: None,
            events: vec![],
        }
    }

    /// It begins from nothing: it has reached no rung.
    pub(super) fn forget_rungs(&mut self) {
        self.record.rungs.clear();
        self.standing = None;
    }
}

impl State {
    pub(super) fn note(&mut self, key: &TaskKey, what: &str, detail: Option<String>, now: u64) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.events.push(TaskEvent { at: now, what: what.to_string(), detail });
            let surplus = task.events.len().saturating_sub(200);
            task.events.drain(..surplus);
        }
    }

    pub(super) fn summary(&self, id: &str, sweep: &Sweep, now: u64) -> SweepRecord {
        let mut counts = BTreeMap::new();
        for key in sweep.tasks.values() {
            *counts.entry(self.tasks[key].record.state).or_insert(0) += 1;
        }
        SweepRecord {
            id: id.to_string(),
            name: sweep.new.name.clone(),
            stage: sweep.stage,
            order: self.order_of(id, now),
            created: sweep.created,
            priority: sweep.new.priority,
            cap: sweep.new.cap,
            attempts: sweep.new.attempts,
            search_controlled: sweep.new.search_controlled,
            counts,
            ready: sweep.ready.len(),
            delayed: sweep.delayed.len(),
            may_grow: sweep.task_limit > 0,
        }
    }

    /// Moves a task along the transition table.
    pub(super) fn step(&mut self, key: &TaskKey, event: Event) -> Option<TaskState> {
        let record = &mut self.tasks.get_mut(key)?.record;
        let next = record.state.after(event);
        debug_assert!(next.is_some(), "{key}: {event:?} in {}", record.state);
        record.state = next?;
        next
    }

    pub(super) fn drop_ticket(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let ticket = (key.clone(), task.record.generation);
        self.outbox.remove(&ticket);
        self.outstanding.remove(&ticket);
        let order = task.order;
        if let Some(sweep) = self.sweeps.get_mut(&key.sweep) {
            sweep.ready.remove(&(order, key.clone()));
            sweep.delayed.remove(key);
        }
    }

    pub(super) fn enqueue(&mut self, key: &TaskKey, event: Event, with_ticket: bool, now: u64) -> Option<Ticket> {
        self.step(key, event)?;
        let task = self.tasks.get_mut(key)?;
        task.record.generation += 1;
        let (generation, order) = (task.record.generation, task.order);
        if with_ticket {
            self.outbox.insert((key.clone(), generation), now);
        } else {
            self.sweeps.get_mut(&key.sweep)?.ready.insert((order, key.clone()));
        }
        Some(Ticket::new(key.clone(), generation))
    }

    /// Makes a crashed task runnable under a new generation. It gets no ticket before its time.
    fn delay(&mut self, key: &TaskKey, crashes: u64, now: u64) -> Option<AfterRelease> {
        let became = self.step(key, Event::Requeue)?;
        self.tasks.get_mut(key)?.record.generation += 1;
        let sweep = self.sweeps.get_mut(&key.sweep)?;
        sweep.delayed.insert(key.clone(), now + sweep.new.backoff.wait(crashes));
        Some(AfterRelease::State(became))
    }

    /// Milliseconds until a task's next attempt may begin; 0 for now.
    pub(super) fn wait_of(&self, key: &TaskKey, now: u64) -> u64 {
        let until = self.sweeps.get(&key.sweep).and_then(|sweep| sweep.delayed.get(key));
        until.map_or(0, |until| until.saturating_sub(now))
    }

    pub(super) fn order_of(&self, sweep: &str, now: u64) -> Order {
        match self.sweeps.get(sweep) {
            Some(sweep) if sweep.is_cancelled || (sweep.closes > 0 && now >= sweep.closes) => Order::Cancel,
            Some(sweep) if sweep.is_paused => Order::Pause,
            _ => Order::Continue,
        }
    }

    pub(super) fn drop_checkpoint(&mut self, key: &TaskKey) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.checkpoint = None;
            task.record.has_checkpoint = false;
        }
    }

    /// A task leaves its worker without a result: what its sweep's owner wants decides. After
    /// `crashes` it waits before the next attempt.
    pub(super) fn onward(&mut self, key: &TaskKey, crashes: Option<u64>, now: u64) -> Option<AfterRelease> {
        match self.order_of(&key.sweep, now) {
            Order::Cancel => {
                self.drop_checkpoint(key);
                self.note(key, "cancelled", None, now);
                self.step(key, Event::Cancel).map(AfterRelease::State)
            }
            Order::Pause => {
                self.note(key, "paused", None, now);
                self.step(key, Event::Pause).map(AfterRelease::State)
            }
            Order::Continue => match crashes {
                Some(crashes) => self.delay(key, crashes, now),
                None => self.enqueue(key, Event::Requeue, true, now).map(AfterRelease::Queued),
            },
        }
    }

    pub(super) fn fail(&mut self, key: &TaskKey, cause: String, now: u64) -> Option<AfterRelease> {
        self.note(key, "failed", Some(cause.clone()), now);
        self.drop_checkpoint(key);
        self.tasks.get_mut(key)?.record.cause = Some(cause);
        self.step(key, Event::Fail).map(AfterRelease::State)
    }

    pub(super) fn crashed(&mut self, key: &TaskKey, cause: String, now: u64) -> Option<AfterRelease> {
        self.leases.remove(key);
        self.note(key, "crashed", Some(cause.clone()), now);
        let attempts = self.sweeps.get(&key.sweep)?.new.attempts;
        let record = &mut self.tasks.get_mut(key)?.record;
        record.crashes += 1;
        let crashes = record.crashes;
        if crashes >= u64::from(attempts) { self.fail(key, cause, now) } else { self.onward(key, Some(crashes), now) }
    }

    pub(super) fn is_held(&self, hold: &Hold) -> bool {
        self.tasks.get(&hold.key).is_some_and(|task| {
            task.record.state == TaskState::Running && task.record.epoch == hold.epoch && task.nonce == hold.nonce
        })
    }

    /// A worker's try to let go of a task that it does not hold. If the same attempt has let go before, its first answer was lost: what became of the
    /// task is said once more, as long as nobody else has claimed it.
    pub(super) fn once_more(&self, hold: &Hold, now: u64) -> Held<AfterRelease> {
        let Some(task) = self.tasks.get(&hold.key) else { return Held::Fenced };
        let record = &task.record;
        let is_another = record.epoch != hold.epoch || task.nonce != hold.nonce;
        match record.state {
            _ if is_another => Held::Fenced,
            TaskState::Running | TaskState::Succeeded => Held::Fenced,
            TaskState::Queued if self.wait_of(&hold.key, now) > 0 => Held::Yes(AfterRelease::State(TaskState::Queued)),
            TaskState::Queued => Held::Yes(AfterRelease::Queued(Ticket::new(hold.key.clone(), record.generation))),
            other => Held::Yes(AfterRelease::State(other)),
        }
    }

    pub(super) fn walk(
        &mut self,
        sweep: &str,
        from: usize,
        limit: usize,
        mut change: impl FnMut(&mut Self, &TaskKey) -> bool,
    ) -> Walked {
        let limit = limit.max(1);
        let keys: Vec<TaskKey> = self
            .sweeps
            .get(sweep)
            .map(|sweep| sweep.tasks.values().skip(from).take(limit).cloned().collect())
            .unwrap_or_default();
        let next = (keys.len() == limit).then_some(from + limit);
        Walked { changed: keys.iter().filter(|key| change(self, key)).count(), next }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().min(u128::from(u64::MAX / 4)) as u64
}

pub(super) fn unexpected<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Protocol(what.to_string()))
}
