//! The truth about sweeps and tasks: states, leases, checkpoints, tickets that are to be published.
//!
//! A message in the queue only says that a task can be worked on. Whether that is so, and whose the task is, is decided here, in one step for each
//! transition. Two backends keep the same promises and pass the same contract suite (`contract`): Redis, where each transition is a Lua
//! script, and memory, for one process.
//!
//! | file | holds |
//! |---|---|
//! | `types` | what is asked and answered |
//! | `memory` | the store of one process, and the model that Redis is tested against |
//! | `kept` | the same, with a keeper of what must outlive the process |
//! | `letters` | dead letters that are no tickets |
//! | `redis`, `scripts/*.lua` | the store of a pool, with Sentinels or without |
//! | `contract` | what both must do, as tests |

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
mod kept;
mod letters;
mod memory;
mod redis;
mod types;

use std::future::Future;
use std::time::Duration;

pub use kept::{Keeper, Kept, KeptRungs};
pub use letters::{KeptLetter, LARGEST_LETTER, Letter, Letters, MOST_LETTERS};
pub use memory::Memory;
pub use redis::{Promise, Redis, RedisSettings};
pub use types::{
    AtRung, ClaimAnswer, Claimant, Claimed, Completed, Expired, Held, Hold, Letting, NewSweep, NewTask, Onward, Order,
    Refusal, Request, Stage, Standing, SweepRecord, TaskEvent, TaskRecord, Tickets,
};

use crate::task::{TaskKey, Ticket};

/// Why a store did not answer. Every write may be repeated: the second time it answers as the first did, and changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer within its time: whether it was done is unknown. Repeat it.
    #[error("the store cannot be reached: {0}")]
    Unreachable(String),
    /// It takes no more writes. Repeat it later.
    #[error("the store is full: {0}")]
    Full(String),
    /// It is set up in a way that loses state, or refuses this user. A person has to change it.
    #[error("the store cannot be used: {0}")]
    Setup(String),
    /// An answer that this program does not understand: another version's, or damaged.
    #[error("the store answered in an unexpected way: {0}")]
    Protocol(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Full(_))
    }
}

/// What became of a sweep's creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Id of the sweep: the one asked for, or that of the earlier sweep of the same request.
    pub id: String,
    /// Whether it is new.
    pub is_new: bool,
}

/// Progress of a walk over a sweep's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// Tasks changed.
    pub changed: usize,
    /// Place to go on at, `None` at the end.
    pub next: Option<usize>,
}

/// Sweeps and tasks. One call is one step: it happens whole, or not at all.
pub trait Store: Send + Sync {
    /// Creates a sweep without tasks. `request` is the client's own key: the same again gives the sweep that it made.
    fn create_sweep(
        &self,
        sweep: &NewSweep,
        request: Option<&str>,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send;
    /// Adds tasks to a sweep that is being created, the first at place `order`. Tasks that are there stay as they are. Answers how many are new.
    fn add_tasks(
        &self,
        sweep: &str,
        order: usize,
        tasks: &[NewTask],
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// All tasks are there: the scores task gets its ticket. `None` if the sweep was open already.
    fn open_sweep(&self, sweep: &str) -> impl Future<Output = Result<Option<Ticket>, StoreError>> + Send;
    /// Once the scores task is done: the first `most` pending tasks become runnable. Answers how many.
    fn release_pending(&self, sweep: &str, most: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Runnable tasks of a sweep without a ticket, in order.
    fn ready(&self, sweep: &str, most: usize) -> impl Future<Output = Result<Vec<TaskKey>, StoreError>> + Send;
    /// Gives runnable tasks a ticket in the outbox. Answers how many had none.
    fn choose(&self, tasks: &[TaskKey]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tickets to be published, oldest first.
    fn outbox(&self, most: usize) -> impl Future<Output = Result<Vec<Ticket>, StoreError>> + Send;
    /// The broker has these tickets.
    fn confirmed(&self, tickets: &[Ticket]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tickets that the broker has had for `age` go back to the outbox, with their generation. Answers how many.
    fn republish(&self, age: Duration, most: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Takes a task for `lease`.
    fn claim(
        &self,
        ticket: &Ticket,
        claimant: &Claimant,
        lease: Duration,
    ) -> impl Future<Output = Result<ClaimAnswer, StoreError>> + Send;
    /// Prolongs a hold. `progress` is JSON for people and plots.
    fn renew(
        &self,
        hold: &Hold,
        lease: Duration,
        progress: Option<&str>,
    ) -> impl Future<Output = Result<Held<Order>, StoreError>> + Send;
    /// Keeps a checkpoint, if `sequence` is above that of the last, and prolongs the hold.
    fn save(
        &self,
        hold: &Hold,
        lease: Duration,
        sequence: u64,
        checkpoint: &[u8],
        progress: Option<&str>,
    ) -> impl Future<Output = Result<Held<Order>, StoreError>> + Send;
    /// Keeps a result, once, and drops the checkpoint.
    fn complete(&self, hold: &Hold, completed: &Completed)
    -> impl Future<Output = Result<Held<()>, StoreError>> + Send;
    /// Lets go of a task without a result.
    fn release(&self, hold: &Hold, why: &Letting) -> impl Future<Output = Result<Held<Onward>, StoreError>> + Send;
    /// Lets go of a task at a rung: its checkpoint is kept, and it waits until it is promoted or pruned, in a paused sweep too. In a cancelled one it ends.
    fn wait(&self, hold: &Hold, standing: &Standing) -> impl Future<Output = Result<Held<Onward>, StoreError>> + Send;
    /// Tasks that wait at these rungs become runnable, and are to be chosen for a ticket. Those that do not wait there any more, or whose sweep is paused
    /// or cancelled, are left alone. Answers how many.
    fn promote(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tasks that wait at these rungs are given up, under the same conditions; their checkpoints are dropped. Answers how many.
    fn prune(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Takes at most `most` tasks from workers whose lease ran out.
    fn expire(&self, most: usize) -> impl Future<Output = Result<Vec<Expired>, StoreError>> + Send;

    /// Keeps what a sweep's owner wants. Running tasks hear of it at their next write, idle ones by [`settle`](Self::settle). False if there is no
    /// such sweep, or it is cancelled and something else is asked.
    fn request(&self, sweep: &str, request: Request) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Brings at most `most` idle tasks from place `from` on in line with what the owner wants.
    fn settle(&self, sweep: &str, from: usize, most: usize) -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// Failed tasks among at most `most` from place `from` on can be worked on again.
    fn retry(&self, sweep: &str, from: usize, most: usize) -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// A ticket was dead-lettered. If its task still waits for it, it is published again, or after `most` times the task fails. Answers what the
    /// task then is, or `None` if the ticket was worthless.
    fn dead(&self, ticket: &Ticket, most: u32) -> impl Future<Output = Result<Option<Onward>, StoreError>> + Send;

    /// Keeps a dead letter that is no ticket, with the newest of them. Two that are equal are two: repeated, it is kept once more.
    fn keep_letter(&self, letter: &Letter) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// At most `most` of these letters.
    fn letters(&self, most: usize) -> impl Future<Output = Result<Letters, StoreError>> + Send;

    /// A task.
    fn task(&self, key: &TaskKey) -> impl Future<Output = Result<Option<TaskRecord>, StoreError>> + Send;
    /// Tasks of a sweep from place `from` on, in order.
    fn tasks(
        &self,
        sweep: &str,
        from: usize,
        most: usize,
    ) -> impl Future<Output = Result<Vec<TaskRecord>, StoreError>> + Send;
    /// A sweep.
    fn sweep(&self, sweep: &str) -> impl Future<Output = Result<Option<SweepRecord>, StoreError>> + Send;
    /// All sweeps, oldest first.
    fn sweeps(&self) -> impl Future<Output = Result<Vec<SweepRecord>, StoreError>> + Send;
    /// A sweep's specification and, once its scores task is done, its manifest, both as JSON.
    fn documents(
        &self,
        sweep: &str,
    ) -> impl Future<Output = Result<Option<(String, Option<String>)>, StoreError>> + Send;
    /// What happened to a task, oldest first, the last 200.
    fn events(&self, key: &TaskKey) -> impl Future<Output = Result<Vec<TaskEvent>, StoreError>> + Send;
    /// The last progress that a task's worker told, as JSON.
    fn progress(&self, key: &TaskKey) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    /// Removes a sweep whose tasks are all final, at most `most` tasks a call. False as long as there is more to remove.
    fn remove(&self, sweep: &str, most: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// A worker says that it is there, for `lifetime`; `about` is JSON for people.
    fn beat(
        &self,
        worker: &str,
        lifetime: Duration,
        about: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Workers that are there, by name, with what they said about themselves.
    fn workers(&self) -> impl Future<Output = Result<Vec<(String, String)>, StoreError>> + Send;

    /// All tickets on their way, sorted.
    fn tickets(&self) -> impl Future<Output = Result<Tickets, StoreError>> + Send;
    /// What a task had to show at the last rung that it has reached, as JSON.
    fn standing(&self, key: &TaskKey) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    /// A finished task's result and coefficients.
    fn result(&self, key: &TaskKey) -> impl Future<Output = Result<Option<Completed>, StoreError>> + Send;
}
