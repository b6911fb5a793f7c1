//! The truth about sweeps and tasks: states, leases, checkpoints, tickets that are to be published.
//!
//! A message in the queue only says that a task can be worked on. Whether that is so, and whose the task is, is decided here, in one step for each
//! transition. Two backends keep the same promises and pass the same contract suite (`contract`): Redis, where each transition is a Lua
//! script, and memory, for one process.
//!
//! | file | holds |
//! |---|---|
//! | `types` | what is asked and answered |
//! | `sweep_record` | how far a sweep is |
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
mod sweep_record;
mod types;

use std::future::Future;
use std::time::Duration;

pub use kept::{Keeper, Kept, KeptRungs};
pub use letters::{KeptLetter, LARGEST_LETTER, Letter, Letters, MOST_LETTERS};
pub use memory::Memory;
pub use redis::{Promise, Redis, RedisSettings};
pub use sweep_record::{Stage, SweepRecord};
pub use types::{
    AfterRelease, AtRung, Backoff, ClaimAnswer, Claimant, Claimed, Completed, Expired, Expiries, Extended, Findings,
    Held, Hold, Live, NewSweep, NewTask, Order, Refusal, ReleaseReason, Saved, Standing, Sweeps, TaskEvent, TaskRecord,
    Tickets, Unreadable,
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
    /// It refuses for now: its disk is full, or it does not accept this user, password or command.
    /// Repeat it later: it passes once the server is mended, or the password's file is replaced.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// It was set up in a way that loses state, or the settings cannot be right. A person has to
    /// change it before this program is started again.
    #[error("the store cannot be used: {0}")]
    Setup(String),
    /// An answer that this program does not understand: another version's, or damaged.
    #[error("the store answered in an unexpected way: {0}")]
    Protocol(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Full(_) | Self::Refused(_))
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
    /// All tasks are there: the scores task gets its ticket. `None` if the sweep was open already, or its scores task was cancelled while tasks were added.
    fn open_sweep(&self, sweep: &str) -> impl Future<Output = Result<Option<Ticket>, StoreError>> + Send;
    /// Adds pending tasks to an open sweep whose search may open more, the first at place `place`; at most some hundreds.
    /// All of them are added, or none. The same tasks at the same places once more change nothing, also when the sweep is
    /// closed by then.
    fn extend(
        &self,
        sweep: &str,
        place: usize,
        tasks: &[NewTask],
    ) -> impl Future<Output = Result<Extended, StoreError>> + Send;
    /// The search opens no more tasks: the sweep ends when its tasks have. False if that was so before, or there is no such sweep.
    fn close(&self, sweep: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Once the scores task is done: the first `most` pending tasks become runnable. Answers how many.
    fn release_pending(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Runnable tasks whose wait after a crash is over are to be chosen for a ticket, at most `most`. Answers how many.
    fn due(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Runnable tasks of a sweep without a ticket, in order.
    fn ready(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<Vec<TaskKey>, StoreError>> + Send;
    /// Gives runnable tasks a ticket in the outbox. Answers how many had none.
    fn choose(&self, tasks: &[TaskKey]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tickets to be published, oldest first.
    fn outbox(&self, limit: usize) -> impl Future<Output = Result<Vec<Ticket>, StoreError>> + Send;
    /// The broker has these tickets.
    fn confirmed(&self, tickets: &[Ticket]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tickets that the broker has had for `age` go back to the outbox, with their generation. Answers how many.
    fn republish(&self, age: Duration, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

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
    /// Keeps a checkpoint, if its sequence is above that of the last, and prolongs the hold.
    fn save(
        &self,
        hold: &Hold,
        lease: Duration,
        saved: Saved<'_>,
    ) -> impl Future<Output = Result<Held<Order>, StoreError>> + Send;
    /// Keeps a result, once, and drops the checkpoint.
    fn complete(&self, hold: &Hold, completed: &Completed)
    -> impl Future<Output = Result<Held<()>, StoreError>> + Send;
    /// Lets go of a task without a result.
    fn release(
        &self,
        hold: &Hold,
        why: &ReleaseReason,
    ) -> impl Future<Output = Result<Held<AfterRelease>, StoreError>> + Send;
    /// Lets go of a task at a rung: its checkpoint is kept, and it waits until it is promoted or pruned, in a paused sweep too. In a cancelled one it ends.
    fn wait(
        &self,
        hold: &Hold,
        standing: &Standing,
    ) -> impl Future<Output = Result<Held<AfterRelease>, StoreError>> + Send;
    /// Tasks that wait at these rungs become runnable, and are to be chosen for a ticket. Those that do not wait there any more, or whose sweep is paused
    /// or cancelled, are left alone. Answers how many.
    fn promote(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tasks that wait at these rungs are given up, under the same conditions; their checkpoints are dropped. Answers how many.
    fn prune(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Takes at most `most` tasks from workers whose lease ran out. Where this was not called for longer than `gap`, workers may have been unable
    /// to renew as well: leases that ran out meanwhile are prolonged once.
    fn expire(&self, limit: usize, gap: Duration) -> impl Future<Output = Result<Expiries, StoreError>> + Send;

    /// Keeps what a sweep's owner wants. Running tasks hear of it at their next write, idle ones by [`settle`](Self::settle). False if there is no
    /// such sweep, or it is cancelled and something else is asked.
    fn order(&self, sweep: &str, order: Order) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Brings at most `most` idle tasks from place `from` on in line with what the owner wants.
    fn settle(&self, sweep: &str, from: usize, limit: usize)
    -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// Failed tasks among at most `most` from place `from` on can be worked on again.
    fn retry(&self, sweep: &str, from: usize, limit: usize) -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// A ticket was dead-lettered. If its task still waits for it, it is published again, or after `most` times the task fails. Answers what the
    /// task then is, or `None` if the ticket was worthless.
    fn dead(
        &self,
        ticket: &Ticket,
        limit: u32,
    ) -> impl Future<Output = Result<Option<AfterRelease>, StoreError>> + Send;

    /// Keeps a dead letter that is no ticket, with the newest of them. Two that are equal are two: repeated, it is kept once more.
    fn keep_letter(&self, letter: &Letter) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// At most `most` of these letters.
    fn letters(&self, limit: usize) -> impl Future<Output = Result<Letters, StoreError>> + Send;

    /// A task.
    fn task(&self, key: &TaskKey) -> impl Future<Output = Result<Option<TaskRecord>, StoreError>> + Send;
    /// Tasks of a sweep from place `from` on, in order.
    fn tasks(
        &self,
        sweep: &str,
        from: usize,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<TaskRecord>, StoreError>> + Send;
    /// Tasks of one sweep as JSON, as they were added; `None` for those that are not there.
    fn bodies(&self, tasks: &[TaskKey]) -> impl Future<Output = Result<Vec<Option<String>>, StoreError>> + Send;
    /// A sweep.
    fn sweep(&self, sweep: &str) -> impl Future<Output = Result<Option<SweepRecord>, StoreError>> + Send;
    /// All sweeps, oldest first.
    fn sweeps(&self) -> impl Future<Output = Result<Sweeps, StoreError>> + Send;
    /// Sweeps that are not known to have ended, oldest first: what a scheduler's turn looks at.
    fn live(&self) -> impl Future<Output = Result<Live, StoreError>> + Send;
    /// Those of these sweeps whose tasks are all final are not live any more, until tasks of them are retried. Answers how many.
    fn retire(&self, sweeps: &[String]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Every sweep that is not known to have ended is live: for those that an earlier version has made. Answers how many there are.
    fn adopt(&self) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// At most `most` sweeps that were retired at least `age` ago.
    fn ended(&self, age: Duration, limit: usize) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
    /// Writes something small: whether the store takes writes now.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Compares what is kept about a sweep with its tasks' own states, and with `repair` mends what differs, in one step. Holds stay as they are, so
    /// workers and schedulers may go on meanwhile.
    fn examine(&self, sweep: &str, repair: bool) -> impl Future<Output = Result<Findings, StoreError>> + Send;
    /// The same for what is kept about no single sweep: tickets, leases, sums.
    fn examine_pool(&self, repair: bool) -> impl Future<Output = Result<Findings, StoreError>> + Send;
    /// Removes a sweep whatever is left of it, at most `most` tasks a call. Holds on its tasks are void then. False as long as there is more to remove.
    fn discard(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;
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
    fn remove(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;
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
