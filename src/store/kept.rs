//! The store of one process whose tasks outlive it: states in memory, and what must not be lost with somebody who keeps it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::traits::{Admission, Leases, Outbox, Owner, Publishing, Reading, Repair, Steering, Upkeep};
use super::{
    AfterRelease, AtRung, ClaimAnswer, Claimant, Completed, Created, Expiries, Extended, Findings, Held, Hold, Letter,
    Letters, Live, Memory, NewSweep, NewTask, Order, ReleaseReason, Saved, Standing, StoreError, SweepRecord, Sweeps,
    TaskEvent, TaskRecord, Tickets, Walked,
};
use crate::sweep::score::SplitScore;
use crate::task::{TaskKey, TaskState, Ticket};

/// The rungs that a task has reached, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptRungs {
    /// Scores on select there, the first one first.
    pub scores: Vec<SplitScore>,
    /// Past how many of them it may go on.
    pub promoted: usize,
    /// What it had to show at the last one, as JSON.
    pub outcome: String,
}

/// Keeps what must not be lost. A fault of it holds up the step that it belongs to.
pub trait Keeper: Send + Sync {
    /// A task's last checkpoint, asked for when it is claimed.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn checkpoint(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, String>;
    /// Keeps a task's checkpoint in the place of the last.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_checkpoint(&self, key: &TaskKey, checkpoint: &[u8]) -> Result<(), String>;
    /// Keeps a task's result; its checkpoint is not needed any more.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_result(&self, key: &TaskKey, completed: &Completed) -> Result<(), String>;
    /// The result of a task that succeeded, as JSON, `None` for other tasks.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn result(&self, key: &TaskKey) -> Result<Option<String>, String>;
    /// Keeps tasks that a search adds to the open sweep, the first at this place. Kept once more, they are the same.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_opened(&self, place: usize, tasks: &[NewTask]) -> Result<(), String>;
    /// Keeps that a task failed, and why.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_failure(&self, key: &TaskKey, cause: &str) -> Result<(), String>;
    /// The rungs that a task has reached, and the state in which it ended, if it did: asked for when it is added.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn rungs(&self, key: &TaskKey) -> Result<(KeptRungs, Option<TaskState>), String>;
    /// Keeps the rungs that a task has reached.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_rungs(&self, key: &TaskKey, rungs: &KeptRungs) -> Result<(), String>;
    /// Keeps that a task was given up at its rung; its checkpoint is not needed any more.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_pruned(&self, key: &TaskKey, rungs: &KeptRungs) -> Result<(), String>;
}

/// A [`Memory`] with a [`Keeper`].
#[derive(Debug)]
pub struct Kept<K> {
    memory: Memory,
    keeper: Arc<K>,
    /// Told whenever a task has ended, or its worker has let go of it.
    pub changed: Notify,
    /// Told whenever a search may have something to decide: a task waits at a rung, or has ended in
    /// a sweep that takes tasks.
    pub waits: Notify,
}

impl<K: Keeper> Kept<K> {
    /// An empty one.
    pub fn new(keeper: Arc<K>) -> Self {
        Self { memory: Memory::default(), keeper, changed: Notify::new(), waits: Notify::new() }
    }
}

impl<K> Kept<K> {
    /// A task of this sweep has ended, or its worker has let go of it.
    async fn tell(&self, sweep: &str) {
        if matches!(self.memory.sweep(sweep).await, Ok(Some(sweep)) if sweep.takes_tasks()) {
            self.waits.notify_one();
        }
        self.changed.notify_one();
    }
}

/// A fault of the keeper holds the worker up as a full disk does.
fn full(fault: String) -> StoreError {
    StoreError::Full(fault)
}

/// Methods that are the memory's own.
macro_rules! as_in_memory {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {$(
        async fn $name(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
            self.memory.$name($($argument),*).await
        }
    )*};
}

impl<K: Keeper> Leases for Kept<K> {
    async fn claim(&self, ticket: &Ticket, claimant: &Claimant, lease: Duration) -> Result<ClaimAnswer, StoreError> {
        let mut answer = self.memory.claim(ticket, claimant, lease).await?;
        if let ClaimAnswer::Claimed(claimed) = &mut answer {
            claimed.checkpoint = self.keeper.checkpoint(&claimed.hold.key).map_err(full)?;
        }
        Ok(answer)
    }

    async fn save(&self, hold: &Hold, lease: Duration, saved: Saved<'_>) -> Result<Held<Order>, StoreError> {
        self.keeper.keep_checkpoint(&hold.key, saved.checkpoint).map_err(full)?;
        // Its bytes are kept already: once is enough.
        self.memory.save(hold, lease, Saved { checkpoint: b"", ..saved }).await
    }

    async fn complete(&self, hold: &Hold, completed: &Completed) -> Result<Held<()>, StoreError> {
        self.keeper.keep_result(&hold.key, completed).map_err(full)?;
        // A manifest is handed out with the sweep's tasks; the keeper has the other results.
        let result = if hold.key.is_scores() { completed.result.clone() } else { String::new() };
        let answer = self.memory.complete(hold, &Completed { result, coefficients: vec![], units: None }).await;
        self.tell(&hold.key.sweep).await;
        answer
    }

    async fn release(&self, hold: &Hold, why: &ReleaseReason) -> Result<Held<AfterRelease>, StoreError> {
        let answer = self.memory.release(hold, why).await?;
        if let (
            Held::Yes(AfterRelease::State(TaskState::Failed)),
            ReleaseReason::Crashed(cause) | ReleaseReason::Hopeless(cause),
        ) = (&answer, why)
        {
            self.keeper.keep_failure(&hold.key, cause).map_err(full)?;
        }
        self.tell(&hold.key.sweep).await;
        Ok(answer)
    }

    async fn wait(&self, hold: &Hold, standing: &Standing) -> Result<Held<AfterRelease>, StoreError> {
        let key = &hold.key;
        let (mut rungs, _) = self.keeper.rungs(key).map_err(full)?;
        if rungs.scores.len() == standing.rung as usize {
            rungs.scores.push(standing.select);
        }
        rungs.outcome.clone_from(&standing.outcome);
        self.keeper.keep_rungs(key, &rungs).map_err(full)?;
        let answer = self.memory.wait(hold, standing).await;
        self.changed.notify_one();
        self.waits.notify_one();
        answer
    }

    as_in_memory! {
        renew(hold: &Hold, lease: Duration, progress: Option<&str>) -> Held<Order>;
        beat(worker: &str, lifetime: Duration, about: &str) -> ();
    }
}

impl<K: Keeper> Publishing for Kept<K> {
    as_in_memory! {
        confirmed(tickets: &[Ticket]) -> usize;
    }
}

impl<K: Keeper> Admission for Kept<K> {
    async fn add_tasks(&self, sweep: &str, order: usize, tasks: &[NewTask]) -> Result<usize, StoreError> {
        let added = self.memory.add_tasks(sweep, order, tasks).await?;
        for task in tasks.iter().filter(|task| !task.is_scores) {
            let key = TaskKey::new(sweep, &task.id).map_err(|e| StoreError::Protocol(e.to_string()))?;
            let (rungs, ended) = self.keeper.rungs(&key).map_err(full)?;
            self.memory.restore(&key, rungs, ended);
        }
        Ok(added)
    }

    as_in_memory! {
        create_sweep(sweep: &NewSweep, request: Option<&str>) -> Created;
        open_sweep(sweep: &str) -> Option<Ticket>;
    }
}

impl<K: Keeper> Steering for Kept<K> {
    async fn extend(&self, sweep: &str, place: usize, tasks: &[NewTask]) -> Result<Extended, StoreError> {
        // Kept first: a task that is worked on must be known to the next process.
        match self.memory.extension(sweep, place, tasks)? {
            Extended::Added(1..) => self.keeper.keep_opened(place, tasks).map_err(full)?,
            answer => return Ok(answer),
        }
        self.memory.extend(sweep, place, tasks).await
    }

    async fn close(&self, sweep: &str) -> Result<bool, StoreError> {
        let closed = self.memory.close(sweep).await;
        self.changed.notify_one();
        closed
    }

    async fn promote(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        let promoted = self.memory.promote(tasks).await?;
        for AtRung { key, rung } in tasks {
            if self.memory.task(key).await?.is_some_and(|record| record.state == TaskState::Queued) {
                let (rungs, _) = self.keeper.rungs(key).map_err(full)?;
                // Should it end before this is kept, it is decided once more.
                self.keeper.keep_rungs(key, &KeptRungs { promoted: *rung as usize + 1, ..rungs }).map_err(full)?;
            }
        }
        Ok(promoted)
    }

    async fn prune(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        for AtRung { key, rung } in tasks {
            let record = self.memory.task(key).await?.filter(|record| record.rungs.len() == *rung as usize + 1);
            if record.is_none_or(|record| record.state != TaskState::Waiting) {
                continue;
            }
            // First, so that whoever sees that all tasks have ended finds them kept.
            let (rungs, _) = self.keeper.rungs(key).map_err(full)?;
            self.keeper.keep_pruned(key, &rungs).map_err(full)?;
        }
        let pruned = self.memory.prune(tasks).await;
        self.changed.notify_one();
        pruned
    }

    as_in_memory! {
        release_pending(sweep: &str, limit: usize) -> usize;
    }
}

impl<K: Keeper> Outbox for Kept<K> {
    as_in_memory! {
        ready(sweep: &str, limit: usize) -> Vec<TaskKey>;
        choose(tasks: &[TaskKey]) -> usize;
        outbox(limit: usize) -> Vec<Ticket>;
        republish(age: Duration, limit: usize) -> usize;
        due(sweep: &str, limit: usize) -> usize;
        dead(ticket: &Ticket, limit: u32) -> Option<AfterRelease>;
        keep_letter(letter: &Letter) -> ();
    }
}

impl<K: Keeper> Upkeep for Kept<K> {
    as_in_memory! {
        expire(limit: usize, gap: Duration) -> Expiries;
        retire(sweeps: &[String]) -> usize;
        adopt() -> usize;
        ended(age: Duration, limit: usize) -> Vec<String>;
    }
}

impl<K: Keeper> Owner for Kept<K> {
    as_in_memory! {
        order(sweep: &str, order: Order) -> bool;
        settle(sweep: &str, from: usize, limit: usize) -> Walked;
        retry(sweep: &str, from: usize, limit: usize) -> Walked;
        remove(sweep: &str, limit: usize) -> bool;
    }
}

impl<K: Keeper> Reading for Kept<K> {
    /// Without coefficients, which the keeper has.
    async fn result(&self, key: &TaskKey) -> Result<Option<Completed>, StoreError> {
        if key.is_scores() {
            return self.memory.result(key).await;
        }
        let result = self.keeper.result(key).map_err(full)?;
        Ok(result.map(|result| Completed { result, coefficients: vec![], units: None }))
    }

    as_in_memory! {
        live() -> Live;
        probe() -> ();
        task(key: &TaskKey) -> Option<TaskRecord>;
        tasks(sweep: &str, from: usize, limit: usize) -> Vec<TaskRecord>;
        sweep(sweep: &str) -> Option<SweepRecord>;
        sweeps() -> Sweeps;
        documents(sweep: &str) -> Option<(String, Option<String>)>;
        events(key: &TaskKey) -> Vec<TaskEvent>;
        progress(key: &TaskKey) -> Option<String>;
        workers() -> Vec<(String, String)>;
        letters(limit: usize) -> Letters;
        tickets() -> Tickets;
        standing(key: &TaskKey) -> Option<String>;
        units(key: &TaskKey) -> Option<Vec<u8>>;
        bodies(tasks: &[TaskKey]) -> Vec<Option<String>>;
    }
}

impl<K: Keeper> Repair for Kept<K> {
    as_in_memory! {
        examine(sweep: &str, repair: bool) -> Findings;
        examine_pool(repair: bool) -> Findings;
        discard(sweep: &str, limit: usize) -> bool;
    }
}
