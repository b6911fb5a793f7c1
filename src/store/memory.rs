//! The store of one process: plain maps behind a lock. Also the model that the Lua scripts are tested against, so it says in Rust what they say in Lua.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::letters::{Letter, Letters, Shelf};
use super::{
    ClaimAnswer, Claimant, Claimed, Completed, Created, Expired, Held, Hold, Letting, NewSweep, NewTask, Onward, Order,
    Refusal, Request, Stage, Store, StoreError, SweepRecord, TaskEvent, TaskRecord, Tickets, Walked,
};
use crate::task::{Event, TaskKey, TaskState, Ticket};

/// Sweeps and tasks in memory.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    began: Instant,
}

#[derive(Debug, Default)]
struct State {
    sweeps: BTreeMap<String, Sweep>,
    requests: BTreeMap<String, String>,
    tasks: BTreeMap<TaskKey, Task>,
    outbox: BTreeMap<(TaskKey, u64), u64>,
    outstanding: BTreeMap<(TaskKey, u64), u64>,
    leases: BTreeMap<TaskKey, u64>,
    /// Until when, and what they said.
    workers: BTreeMap<String, (u64, String)>,
    letters: Shelf,
}

#[derive(Debug)]
struct Sweep {
    new: NewSweep,
    stage: Stage,
    created: u64,
    /// Milliseconds at which nothing new is computed any more; 0 for never.
    closes: u64,
    is_cancelled: bool,
    is_paused: bool,
    manifest: Option<String>,
    /// By place.
    tasks: BTreeMap<usize, TaskKey>,
    scores: Option<TaskKey>,
    /// Runnable tasks without a ticket, by place.
    ready: BTreeSet<(usize, TaskKey)>,
}

#[derive(Debug)]
struct Task {
    body: String,
    is_scores: bool,
    order: usize,
    record: TaskRecord,
    nonce: String,
    checkpoint: Option<Vec<u8>>,
    completed: Option<Completed>,
    dead: (u64, u32),
    progress: Option<String>,
    events: Vec<TaskEvent>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), began: Instant::now() }
    }
}

impl Memory {
    fn locked(&self) -> (MutexGuard<'_, State>, u64) {
        let now = self.began.elapsed().as_millis() as u64 + 1;
        // A panic while it was held left whole maps behind: each step below changes them without a call that can panic.
        (self.state.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

impl State {
    fn note(&mut self, key: &TaskKey, what: &str, detail: Option<String>, now: u64) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.events.push(TaskEvent { at: now, what: what.to_string(), detail });
            let surplus = task.events.len().saturating_sub(200);
            task.events.drain(..surplus);
        }
    }

    fn summary(&self, id: &str, sweep: &Sweep, now: u64) -> SweepRecord {
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
            counts,
            ready: sweep.ready.len(),
        }
    }

    /// Moves a task along the transition table.
    fn step(&mut self, key: &TaskKey, event: Event) -> Option<TaskState> {
        let record = &mut self.tasks.get_mut(key)?.record;
        let next = record.state.after(event);
        debug_assert!(next.is_some(), "{key}: {event:?} in {}", record.state);
        record.state = next?;
        next
    }

    fn drop_ticket(&mut self, key: &TaskKey) {
        let Some(task) = self.tasks.get(key) else { return };
        let ticket = (key.clone(), task.record.generation);
        self.outbox.remove(&ticket);
        self.outstanding.remove(&ticket);
        let order = task.order;
        if let Some(sweep) = self.sweeps.get_mut(&key.sweep) {
            sweep.ready.remove(&(order, key.clone()));
        }
    }

    fn enqueue(&mut self, key: &TaskKey, event: Event, with_ticket: bool, now: u64) -> Option<Ticket> {
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

    fn order_of(&self, sweep: &str, now: u64) -> Order {
        match self.sweeps.get(sweep) {
            Some(sweep) if sweep.is_cancelled || (sweep.closes > 0 && now >= sweep.closes) => Order::Cancel,
            Some(sweep) if sweep.is_paused => Order::Pause,
            _ => Order::Continue,
        }
    }

    fn drop_checkpoint(&mut self, key: &TaskKey) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.checkpoint = None;
            task.record.has_checkpoint = false;
        }
    }

    /// A task leaves its worker without a result: what its sweep's owner wants decides.
    fn onward(&mut self, key: &TaskKey, now: u64) -> Option<Onward> {
        match self.order_of(&key.sweep, now) {
            Order::Cancel => {
                self.drop_checkpoint(key);
                self.note(key, "cancelled", None, now);
                self.step(key, Event::Cancel).map(Onward::State)
            }
            Order::Pause => {
                self.note(key, "paused", None, now);
                self.step(key, Event::Pause).map(Onward::State)
            }
            Order::Continue => self.enqueue(key, Event::Requeue, true, now).map(Onward::Queued),
        }
    }

    fn fail(&mut self, key: &TaskKey, cause: String, now: u64) -> Option<Onward> {
        self.note(key, "failed", Some(cause.clone()), now);
        self.drop_checkpoint(key);
        self.tasks.get_mut(key)?.record.cause = Some(cause);
        self.step(key, Event::Fail).map(Onward::State)
    }

    fn crashed(&mut self, key: &TaskKey, cause: String, now: u64) -> Option<Onward> {
        self.leases.remove(key);
        self.note(key, "crashed", Some(cause.clone()), now);
        let attempts = self.sweeps.get(&key.sweep)?.new.attempts;
        let record = &mut self.tasks.get_mut(key)?.record;
        record.crashes += 1;
        if record.crashes >= u64::from(attempts) { self.fail(key, cause, now) } else { self.onward(key, now) }
    }

    fn is_held(&self, hold: &Hold) -> bool {
        self.tasks.get(&hold.key).is_some_and(|task| {
            task.record.state == TaskState::Running && task.record.epoch == hold.epoch && task.nonce == hold.nonce
        })
    }

    fn walk(
        &mut self,
        sweep: &str,
        from: usize,
        most: usize,
        mut change: impl FnMut(&mut Self, &TaskKey) -> bool,
    ) -> Walked {
        let most = most.max(1);
        let keys: Vec<TaskKey> = self
            .sweeps
            .get(sweep)
            .map(|sweep| sweep.tasks.values().skip(from).take(most).cloned().collect())
            .unwrap_or_default();
        let next = (keys.len() == most).then_some(from + most);
        Walked { changed: keys.iter().filter(|key| change(self, key)).count(), next }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().min(u128::from(u64::MAX / 4)) as u64
}

fn unexpected<T>(what: &str) -> Result<T, StoreError> {
    Err(StoreError::Protocol(what.to_string()))
}

impl Store for Memory {
    async fn create_sweep(&self, new: &NewSweep, request: Option<&str>) -> Result<Created, StoreError> {
        let (mut state, now) = self.locked();
        if let Some(id) = request.and_then(|request| state.requests.get(request)) {
            return Ok(Created { id: id.clone(), is_new: false });
        }
        if state.sweeps.contains_key(&new.id) {
            return Ok(Created { id: new.id.clone(), is_new: false });
        }
        let sweep = Sweep {
            new: new.clone(),
            stage: Stage::Creating,
            created: now,
            closes: if new.max_seconds > 0 { now + new.max_seconds * 1000 } else { 0 },
            is_cancelled: false,
            is_paused: false,
            manifest: None,
            tasks: BTreeMap::new(),
            scores: None,
            ready: BTreeSet::new(),
        };
        state.sweeps.insert(new.id.clone(), sweep);
        if let Some(request) = request {
            state.requests.insert(request.to_string(), new.id.clone());
        }
        Ok(Created { id: new.id.clone(), is_new: true })
    }

    async fn add_tasks(&self, sweep: &str, order: usize, tasks: &[NewTask]) -> Result<usize, StoreError> {
        let (mut state, _) = self.locked();
        let state = &mut *state;
        let Some(of) = state.sweeps.get_mut(sweep) else { return unexpected("no such sweep") };
        if of.stage != Stage::Creating {
            return unexpected("the sweep is open: it takes no more tasks");
        }
        let mut new = 0;
        for (i, task) in tasks.iter().enumerate() {
            let key = TaskKey::new(sweep, &task.id).map_err(|e| StoreError::Protocol(e.to_string()))?;
            if state.tasks.contains_key(&key) {
                continue;
            }
            let record = TaskRecord {
                key: key.clone(),
                state: TaskState::Pending,
                generation: 0,
                epoch: 0,
                attempts: 0,
                crashes: 0,
                sequence: 0,
                cause: None,
                has_checkpoint: false,
                has_result: false,
            };
            of.tasks.insert(order + i, key.clone());
            if task.is_scores {
                of.scores = Some(key.clone());
            }
            let task = Task {
                body: task.body.clone(),
                is_scores: task.is_scores,
                order: order + i,
                record,
                nonce: String::new(),
                checkpoint: None,
                completed: None,
                dead: (0, 0),
                progress: None,
                events: vec![],
            };
            state.tasks.insert(key, task);
            new += 1;
        }
        Ok(new)
    }

    async fn open_sweep(&self, sweep: &str) -> Result<Option<Ticket>, StoreError> {
        let (mut state, now) = self.locked();
        let Some((of, scores)) = state.sweeps.get_mut(sweep).and_then(|of| of.scores.clone().map(|s| (of, s))) else {
            return unexpected("no such sweep, or one without its scores task");
        };
        if of.stage != Stage::Creating {
            return Ok(None);
        }
        of.stage = Stage::Scoring;
        Ok(state.enqueue(&scores, Event::Enqueue, true, now))
    }

    async fn release_pending(&self, sweep: &str, most: usize) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        let Some(of) = state.sweeps.get(sweep).filter(|of| of.stage == Stage::Ready) else { return Ok(0) };
        let is_pending = |key: &&TaskKey| {
            let task = &state.tasks[*key];
            task.record.state == TaskState::Pending && !task.is_scores
        };
        let pending: Vec<TaskKey> = of.tasks.values().filter(is_pending).take(most).cloned().collect();
        for key in &pending {
            state.enqueue(key, Event::Enqueue, false, now);
        }
        Ok(pending.len())
    }

    async fn ready(&self, sweep: &str, most: usize) -> Result<Vec<TaskKey>, StoreError> {
        let (state, _) = self.locked();
        let ready = state.sweeps.get(sweep).into_iter().flat_map(|sweep| &sweep.ready);
        Ok(ready.take(most).map(|(_, key)| key.clone()).collect())
    }

    async fn choose(&self, tasks: &[TaskKey]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        let state = &mut *state;
        let mut chosen = 0;
        for key in tasks {
            let (Some(task), Some(sweep)) = (state.tasks.get(key), state.sweeps.get_mut(&key.sweep)) else { continue };
            if sweep.ready.remove(&(task.order, key.clone())) {
                state.outbox.insert((key.clone(), task.record.generation), now);
                chosen += 1;
            }
        }
        Ok(chosen)
    }

    async fn outbox(&self, most: usize) -> Result<Vec<Ticket>, StoreError> {
        let (state, _) = self.locked();
        let mut by_age: Vec<_> = state.outbox.iter().collect();
        by_age.sort_by_key(|(_, at)| **at);
        Ok(by_age.into_iter().take(most).map(|((key, generation), _)| Ticket::new(key.clone(), *generation)).collect())
    }

    async fn confirmed(&self, tickets: &[Ticket]) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        let mut moved = 0;
        for ticket in tickets {
            let entry = (ticket.task_id.clone(), ticket.generation);
            let waits = state.tasks.get(&ticket.task_id).is_some_and(|task| {
                task.record.state == TaskState::Queued && task.record.generation == ticket.generation
            });
            if state.outbox.remove(&entry).is_some() && waits {
                state.outstanding.insert(entry, now);
                moved += 1;
            }
        }
        Ok(moved)
    }

    async fn republish(&self, age: Duration, most: usize) -> Result<usize, StoreError> {
        let (mut state, now) = self.locked();
        let mut old: Vec<_> = state.outstanding.iter().map(|(entry, &at)| (at, entry.clone())).collect();
        old.retain(|(at, _)| at + millis(age) <= now);
        old.sort_by_key(|(at, _)| *at);
        let mut again = 0;
        for (_, entry) in old.into_iter().take(most) {
            state.outstanding.remove(&entry);
            let record = &state.tasks[&entry.0].record;
            if record.state == TaskState::Queued && record.generation == entry.1 {
                state.outbox.insert(entry, now);
                again += 1;
            }
        }
        Ok(again)
    }

    async fn claim(&self, ticket: &Ticket, claimant: &Claimant, lease: Duration) -> Result<ClaimAnswer, StoreError> {
        let (mut state, now) = self.locked();
        let state = &mut *state;
        let key = &ticket.task_id;
        let refused = |why| Ok(ClaimAnswer::Refused(why));
        let Some(task) = state.tasks.get(key) else { return refused(Refusal::Unknown) };
        let again = task.record.state == TaskState::Running && task.nonce == claimant.nonce;
        if !again {
            let record = &task.record;
            if record.state != TaskState::Queued {
                return refused(Refusal::State(record.state));
            }
            if record.generation != ticket.generation {
                return refused(Refusal::Generation(record.generation));
            }
            state.drop_ticket(key);
            let put_aside = match state.order_of(&key.sweep, now) {
                Order::Continue => None,
                Order::Pause => {
                    state.note(key, "paused", None, now);
                    state.step(key, Event::Pause)
                }
                Order::Cancel => {
                    state.note(key, "cancelled", None, now);
                    state.drop_checkpoint(key);
                    state.step(key, Event::Cancel)
                }
            };
            if let Some(aside) = put_aside {
                return refused(Refusal::State(aside));
            }
            let cap = state.sweeps[&key.sweep].new.cap as usize;
            let running = state
                .tasks
                .values()
                .filter(|t| t.record.key.sweep == key.sweep && t.record.state == TaskState::Running);
            if cap > 0 && running.count() >= cap {
                let order = state.tasks[key].order;
                state.sweeps.get_mut(&key.sweep).map(|sweep| sweep.ready.insert((order, key.clone())));
                return refused(Refusal::Cap);
            }
            state.step(key, Event::Claim);
            state.note(key, "claimed", Some(claimant.worker.clone()), now);
        }
        let Some(task) = state.tasks.get_mut(key) else { return refused(Refusal::Unknown) };
        if !again {
            task.record.epoch += 1;
            task.record.attempts += 1;
            task.nonce = claimant.nonce.clone();
        }
        state.leases.insert(key.clone(), now + millis(lease));
        let sweep = &state.sweeps[&key.sweep];
        Ok(ClaimAnswer::Claimed(Box::new(Claimed {
            hold: Hold { key: key.clone(), epoch: task.record.epoch, nonce: claimant.nonce.clone() },
            body: task.body.clone(),
            is_scores: task.is_scores,
            spec: sweep.new.spec.clone(),
            manifest: sweep.manifest.clone(),
            checkpoint: task.checkpoint.clone(),
            sequence: task.record.sequence,
            attempts: task.record.attempts,
        })))
    }

    async fn renew(&self, hold: &Hold, lease: Duration, progress: Option<&str>) -> Result<Held<Order>, StoreError> {
        let (mut state, now) = self.locked();
        if !state.is_held(hold) {
            return Ok(Held::Fenced);
        }
        state.leases.insert(hold.key.clone(), now + millis(lease));
        if let (Some(progress), Some(task)) = (progress, state.tasks.get_mut(&hold.key)) {
            task.progress = Some(progress.to_string());
        }
        Ok(Held::Yes(state.order_of(&hold.key.sweep, now)))
    }

    async fn save(
        &self,
        hold: &Hold,
        lease: Duration,
        sequence: u64,
        checkpoint: &[u8],
        progress: Option<&str>,
    ) -> Result<Held<Order>, StoreError> {
        {
            let (mut state, _) = self.locked();
            if !state.is_held(hold) {
                return Ok(Held::Fenced);
            }
            let newer = state.tasks.get_mut(&hold.key).filter(|task| sequence > task.record.sequence);
            if let Some(task) = newer {
                task.checkpoint = Some(checkpoint.to_vec());
                task.record.has_checkpoint = true;
                task.record.sequence = sequence;
                task.record.crashes = 0;
            }
        }
        self.renew(hold, lease, progress).await
    }

    async fn complete(&self, hold: &Hold, completed: &Completed) -> Result<Held<()>, StoreError> {
        let (mut state, now) = self.locked();
        let state = &mut *state;
        let Some(task) = state.tasks.get_mut(&hold.key) else { return Ok(Held::Fenced) };
        let record = &task.record;
        if record.state == TaskState::Succeeded && record.epoch == hold.epoch && task.nonce == hold.nonce {
            return Ok(Held::Yes(()));
        }
        if !state.is_held(hold) {
            return Ok(Held::Fenced);
        }
        state.leases.remove(&hold.key);
        state.drop_checkpoint(&hold.key);
        state.step(&hold.key, Event::Complete);
        state.note(&hold.key, "succeeded", None, now);
        if let Some(task) = state.tasks.get_mut(&hold.key) {
            task.completed = Some(completed.clone());
            task.record.has_result = true;
            if let Some(sweep) = state.sweeps.get_mut(&hold.key.sweep).filter(|_| task.is_scores) {
                sweep.manifest = Some(completed.result.clone());
                sweep.stage = Stage::Ready;
            }
        }
        Ok(Held::Yes(()))
    }

    async fn release(&self, hold: &Hold, why: &Letting) -> Result<Held<Onward>, StoreError> {
        let (mut state, now) = self.locked();
        let key = &hold.key;
        let Some(task) = state.tasks.get(key) else { return Ok(Held::Fenced) };
        if !state.is_held(hold) {
            let record = &task.record;
            let is_another = record.epoch != hold.epoch || task.nonce != hold.nonce;
            return Ok(match record.state {
                _ if is_another => Held::Fenced,
                TaskState::Running | TaskState::Succeeded => Held::Fenced,
                TaskState::Queued => Held::Yes(Onward::Queued(Ticket::new(key.clone(), record.generation))),
                other => Held::Yes(Onward::State(other)),
            });
        }
        let became = match why {
            Letting::Crashed(cause) => state.crashed(key, cause.clone(), now),
            Letting::Hopeless(cause) => {
                state.leases.remove(key);
                state.fail(key, cause.clone(), now)
            }
            Letting::Preempted => {
                state.leases.remove(key);
                state.note(key, "released", None, now);
                state.onward(key, now)
            }
        };
        became.map(Held::Yes).ok_or_else(|| StoreError::Protocol("a held task could not be let go of".to_string()))
    }

    async fn expire(&self, most: usize) -> Result<Vec<Expired>, StoreError> {
        let (mut state, now) = self.locked();
        let mut overdue: Vec<(u64, TaskKey)> =
            state.leases.iter().filter(|(_, until)| **until <= now).map(|(key, &until)| (until, key.clone())).collect();
        overdue.sort();
        let mut expired = Vec::new();
        for (_, key) in overdue.into_iter().take(most) {
            let cause = "lost its worker: the lease ran out".to_string();
            if let Some(onward) = state.crashed(&key, cause, now) {
                expired.push(Expired { key, onward });
            }
        }
        Ok(expired)
    }

    async fn request(&self, sweep: &str, request: Request) -> Result<bool, StoreError> {
        let (mut state, _) = self.locked();
        let Some(sweep) = state.sweeps.get_mut(sweep) else { return Ok(false) };
        match request {
            Request::Cancel => sweep.is_cancelled = true,
            _ if sweep.is_cancelled => return Ok(false),
            Request::Pause => sweep.is_paused = true,
            Request::Resume => sweep.is_paused = false,
        }
        Ok(true)
    }

    async fn settle(&self, sweep: &str, from: usize, most: usize) -> Result<Walked, StoreError> {
        let (mut state, now) = self.locked();
        let order = state.order_of(sweep, now);
        let scores = state.sweeps.get(sweep).and_then(|sweep| sweep.scores.clone());
        let is_hopeless = scores.is_some_and(|key| state.tasks[&key].record.state == TaskState::Failed);
        Ok(state.walk(sweep, from, most, |state, key| {
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

    async fn retry(&self, sweep: &str, from: usize, most: usize) -> Result<Walked, StoreError> {
        let (mut state, now) = self.locked();
        let is_cancelled = state.order_of(sweep, now) == Order::Cancel;
        Ok(state.walk(sweep, from, most, |state, key| {
            let Some(task) = state.tasks.get_mut(key).filter(|_| !is_cancelled) else { return false };
            let found = task.record.state;
            match found {
                TaskState::Failed => {
                    task.record.cause = None;
                    task.record.crashes = 0;
                    // The scores task is what all others wait for: it does not wait to be chosen.
                    let with_ticket = task.is_scores;
                    state.note(key, "retried", None, now);
                    state.enqueue(key, Event::Enqueue, with_ticket, now).is_some()
                }
                TaskState::Cancelled => {
                    state.note(key, "retried", None, now);
                    state.step(key, Event::Restore).is_some()
                }
                _ => false,
            }
        }))
    }

    async fn dead(&self, ticket: &Ticket, most: u32) -> Result<Option<Onward>, StoreError> {
        let (mut state, now) = self.locked();
        let key = &ticket.task_id;
        let Some(task) = state.tasks.get_mut(key) else { return Ok(None) };
        if task.record.state != TaskState::Queued || task.record.generation != ticket.generation {
            return Ok(None);
        }
        let count = if task.dead.0 == ticket.generation { task.dead.1 + 1 } else { 1 };
        task.dead = (ticket.generation, count);
        state.drop_ticket(key);
        if count >= most {
            return Ok(state.fail(key, format!("its ticket was dead-lettered {most} times"), now));
        }
        state.outbox.insert((key.clone(), ticket.generation), now);
        Ok(Some(Onward::Queued(ticket.clone())))
    }

    async fn task(&self, key: &TaskKey) -> Result<Option<TaskRecord>, StoreError> {
        Ok(self.locked().0.tasks.get(key).map(|task| task.record.clone()))
    }

    async fn tasks(&self, sweep: &str, from: usize, most: usize) -> Result<Vec<TaskRecord>, StoreError> {
        let (state, _) = self.locked();
        let keys = state.sweeps.get(sweep).into_iter().flat_map(|sweep| sweep.tasks.values());
        Ok(keys.skip(from).take(most).map(|key| state.tasks[key].record.clone()).collect())
    }

    async fn sweep(&self, sweep: &str) -> Result<Option<SweepRecord>, StoreError> {
        let (state, now) = self.locked();
        Ok(state.sweeps.get(sweep).map(|of| state.summary(sweep, of, now)))
    }

    async fn sweeps(&self) -> Result<Vec<SweepRecord>, StoreError> {
        let (state, now) = self.locked();
        let mut sweeps: Vec<_> = state.sweeps.iter().map(|(id, of)| state.summary(id, of, now)).collect();
        sweeps.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(sweeps)
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

    async fn remove(&self, sweep: &str, _: usize) -> Result<bool, StoreError> {
        let (mut state, now) = self.locked();
        let Some(of) = state.sweeps.get(sweep) else { return Ok(true) };
        if !state.summary(sweep, of, now).is_final() {
            return unexpected("the sweep has tasks that are not final");
        }
        state.sweeps.remove(sweep);
        state.requests.retain(|_, id| id != sweep);
        state.tasks.retain(|key, _| key.sweep != sweep);
        Ok(true)
    }

    async fn beat(&self, worker: &str, lifetime: Duration, about: &str) -> Result<(), StoreError> {
        let (mut state, now) = self.locked();
        state.workers.insert(worker.to_string(), (now + millis(lifetime), about.to_string()));
        Ok(())
    }

    async fn workers(&self) -> Result<Vec<(String, String)>, StoreError> {
        let (mut state, now) = self.locked();
        state.workers.retain(|_, (until, _)| *until > now);
        Ok(state.workers.iter().map(|(name, (_, about))| (name.clone(), about.clone())).collect())
    }

    async fn keep_letter(&self, letter: &Letter) -> Result<(), StoreError> {
        let (mut state, now) = self.locked();
        state.letters.keep(letter.clone(), now);
        Ok(())
    }

    async fn letters(&self, most: usize) -> Result<Letters, StoreError> {
        Ok(self.locked().0.letters.newest(most))
    }

    async fn tickets(&self) -> Result<Tickets, StoreError> {
        let (state, _) = self.locked();
        let list = |of: &BTreeMap<(TaskKey, u64), u64>| {
            of.keys().map(|(key, generation)| Ticket::new(key.clone(), *generation)).collect()
        };
        Ok(Tickets { outbox: list(&state.outbox), outstanding: list(&state.outstanding) })
    }

    async fn result(&self, key: &TaskKey) -> Result<Option<Completed>, StoreError> {
        Ok(self.locked().0.tasks.get(key).and_then(|task| task.completed.clone()))
    }
}
