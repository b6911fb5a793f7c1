//! The store of one process whose tasks outlive it: states in memory, and what must not be lost with somebody who keeps it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{
    ClaimAnswer, Claimant, Completed, Created, Expired, Held, Hold, Letter, Letters, Letting, Memory, NewSweep,
    NewTask, Onward, Order, Request, Store, StoreError, SweepRecord, TaskEvent, TaskRecord, Tickets, Walked,
};
use crate::task::{TaskKey, TaskState, Ticket};

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
    /// Keeps that a task failed, and why.
    ///
    /// # Errors
    /// What is wrong, for a person.
    fn keep_failure(&self, key: &TaskKey, cause: &str) -> Result<(), String>;
}

/// A [`Memory`] with a [`Keeper`].
#[derive(Debug)]
pub struct Kept<K> {
    memory: Memory,
    keeper: Arc<K>,
    /// Told whenever a task has ended, or its worker has let go of it.
    pub changed: Notify,
}

impl<K: Keeper> Kept<K> {
    /// An empty one.
    pub fn new(keeper: Arc<K>) -> Self {
        Self { memory: Memory::default(), keeper, changed: Notify::new() }
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

impl<K: Keeper> Store for Kept<K> {
    async fn claim(&self, ticket: &Ticket, claimant: &Claimant, lease: Duration) -> Result<ClaimAnswer, StoreError> {
        let mut answer = self.memory.claim(ticket, claimant, lease).await?;
        if let ClaimAnswer::Claimed(claimed) = &mut answer {
            claimed.checkpoint = self.keeper.checkpoint(&claimed.hold.key).map_err(full)?;
        }
        Ok(answer)
    }

    async fn save(
        &self,
        hold: &Hold,
        lease: Duration,
        sequence: u64,
        checkpoint: &[u8],
        progress: Option<&str>,
    ) -> Result<Held<Order>, StoreError> {
        self.keeper.keep_checkpoint(&hold.key, checkpoint).map_err(full)?;
        // Its bytes are kept already: once is enough.
        self.memory.save(hold, lease, sequence, b"", progress).await
    }

    async fn complete(&self, hold: &Hold, completed: &Completed) -> Result<Held<()>, StoreError> {
        self.keeper.keep_result(&hold.key, completed).map_err(full)?;
        // A manifest is handed out with the sweep's tasks; of other results nobody asks this store.
        let result = if hold.key.is_scores() { completed.result.clone() } else { String::new() };
        let answer = self.memory.complete(hold, &Completed { result, coefficients: vec![] }).await;
        self.changed.notify_one();
        answer
    }

    async fn release(&self, hold: &Hold, why: &Letting) -> Result<Held<Onward>, StoreError> {
        let answer = self.memory.release(hold, why).await?;
        if let (Held::Yes(Onward::State(TaskState::Failed)), Letting::Crashed(cause) | Letting::Hopeless(cause)) =
            (&answer, why)
        {
            self.keeper.keep_failure(&hold.key, cause).map_err(full)?;
        }
        self.changed.notify_one();
        Ok(answer)
    }

    as_in_memory! {
        create_sweep(sweep: &NewSweep, request: Option<&str>) -> Created;
        add_tasks(sweep: &str, order: usize, tasks: &[NewTask]) -> usize;
        open_sweep(sweep: &str) -> Option<Ticket>;
        release_pending(sweep: &str, most: usize) -> usize;
        ready(sweep: &str, most: usize) -> Vec<TaskKey>;
        choose(tasks: &[TaskKey]) -> usize;
        outbox(most: usize) -> Vec<Ticket>;
        confirmed(tickets: &[Ticket]) -> usize;
        republish(age: Duration, most: usize) -> usize;
        renew(hold: &Hold, lease: Duration, progress: Option<&str>) -> Held<Order>;
        expire(most: usize) -> Vec<Expired>;
        request(sweep: &str, request: Request) -> bool;
        settle(sweep: &str, from: usize, most: usize) -> Walked;
        retry(sweep: &str, from: usize, most: usize) -> Walked;
        dead(ticket: &Ticket, most: u32) -> Option<Onward>;
        task(key: &TaskKey) -> Option<TaskRecord>;
        tasks(sweep: &str, from: usize, most: usize) -> Vec<TaskRecord>;
        sweep(sweep: &str) -> Option<SweepRecord>;
        sweeps() -> Vec<SweepRecord>;
        documents(sweep: &str) -> Option<(String, Option<String>)>;
        events(key: &TaskKey) -> Vec<TaskEvent>;
        progress(key: &TaskKey) -> Option<String>;
        remove(sweep: &str, most: usize) -> bool;
        beat(worker: &str, lifetime: Duration, about: &str) -> ();
        workers() -> Vec<(String, String)>;
        keep_letter(letter: &Letter) -> ();
        letters(most: usize) -> Letters;
        tickets() -> Tickets;
        result(key: &TaskKey) -> Option<Completed>;
    }
}
