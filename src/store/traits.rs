//! What is asked of a store, by who asks. A caller takes the traits that it needs and no more: a
//! worker cannot call what only a scheduler may.
//!
//! One call is one step: it happens whole, or not at all.

use std::future::Future;
use std::time::Duration;

use super::{
    AfterRelease, AtRung, ClaimAnswer, Claimant, Completed, Created, Expiries, Extended, Findings, Held, Hold, Letter,
    Letters, Live, NewSweep, NewTask, Order, ReleaseReason, Saved, Standing, StoreError, SweepRecord, Sweeps,
    TaskEvent, TaskRecord, Tickets, Walked,
};
use crate::task::{TaskKey, Ticket};

/// What a worker does with tasks: it takes one, keeps it, and lets go of it.
pub trait Leases: Send + Sync {
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
    /// Lets go of a task at a rung: its checkpoint is kept, and it waits until it is promoted or
    /// pruned, in a paused sweep too. In a cancelled one it ends.
    fn wait(
        &self,
        hold: &Hold,
        standing: &Standing,
    ) -> impl Future<Output = Result<Held<AfterRelease>, StoreError>> + Send;
    /// A worker says that it is there, for `lifetime`; `about` is JSON for people.
    fn beat(
        &self,
        worker: &str,
        lifetime: Duration,
        about: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What whoever publishes tickets does: a scheduler, and a worker that gives a task back.
pub trait Publishing: Send + Sync {
    /// The broker has these tickets.
    fn confirmed(&self, tickets: &[Ticket]) -> impl Future<Output = Result<usize, StoreError>> + Send;
}

/// What whoever submits a sweep does: the API, and a run on one machine.
pub trait Admission: Send + Sync {
    /// Creates a sweep without tasks. `request` is the client's own key: the same again gives the
    /// sweep that it made.
    fn create_sweep(
        &self,
        sweep: &NewSweep,
        request: Option<&str>,
    ) -> impl Future<Output = Result<Created, StoreError>> + Send;
    /// Adds tasks to a sweep that is being created, the first at place `order`. Tasks that are
    /// there stay as they are. Answers how many are new.
    fn add_tasks(
        &self,
        sweep: &str,
        order: usize,
        tasks: &[NewTask],
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// All tasks are there: the scores task gets its ticket. `None` if the sweep was open already,
    /// or its scores task was cancelled while tasks were added.
    fn open_sweep(&self, sweep: &str) -> impl Future<Output = Result<Option<Ticket>, StoreError>> + Send;
}

/// What a search decides, carried out by a scheduler.
pub trait Steering: Send + Sync {
    /// Once the scores task is done: the first `limit` pending tasks become runnable. Answers how
    /// many.
    fn release_pending(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tasks that wait at these rungs become runnable, and are to be chosen for a ticket. Those
    /// that do not wait there any more, or whose sweep is paused or cancelled, are left alone.
    /// Answers how many.
    fn promote(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tasks that wait at these rungs are given up, under the same conditions; their checkpoints
    /// are dropped. Answers how many.
    fn prune(&self, tasks: &[AtRung]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Adds pending tasks to an open sweep whose search may open more, the first at place `place`;
    /// at most some hundreds. All of them are added, or none. The same tasks at the same places
    /// once more change nothing, also when the sweep is closed by then.
    fn extend(
        &self,
        sweep: &str,
        place: usize,
        tasks: &[NewTask],
    ) -> impl Future<Output = Result<Extended, StoreError>> + Send;
    /// The search opens no more tasks: the sweep ends when its tasks have. False if that was so
    /// before, or there is no such sweep.
    fn close(&self, sweep: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// How runnable tasks get their tickets, by a scheduler.
pub trait Outbox: Send + Sync {
    /// Runnable tasks whose wait after a crash is over are to be chosen for a ticket, at most
    /// `limit`. Answers how many.
    fn due(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Runnable tasks of a sweep without a ticket, in order.
    fn ready(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<Vec<TaskKey>, StoreError>> + Send;
    /// Gives runnable tasks a ticket in the outbox. Answers how many had none.
    fn choose(&self, tasks: &[TaskKey]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Tickets to be published, oldest first.
    fn outbox(&self, limit: usize) -> impl Future<Output = Result<Vec<Ticket>, StoreError>> + Send;
    /// Tickets that the broker has had for `age` go back to the outbox, with their generation.
    /// Answers how many.
    fn republish(&self, age: Duration, limit: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// A ticket was dead-lettered. If its task still waits for it, it is published again, or after
    /// `limit` times the task fails. Answers what the task then is, or `None` if the ticket was
    /// worthless.
    fn dead(
        &self,
        ticket: &Ticket,
        limit: u32,
    ) -> impl Future<Output = Result<Option<AfterRelease>, StoreError>> + Send;
    /// Keeps a dead letter that is no ticket, with the newest of them. Two that are equal are two:
    /// repeated, it is kept once more.
    fn keep_letter(&self, letter: &Letter) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What a scheduler does about lost workers and ended sweeps.
pub trait Upkeep: Send + Sync {
    /// Takes at most `limit` tasks from workers whose lease ran out. Where this was not called for
    /// longer than `gap`, workers may have been unable to renew as well: leases that ran out
    /// meanwhile are prolonged once.
    fn expire(&self, limit: usize, gap: Duration) -> impl Future<Output = Result<Expiries, StoreError>> + Send;
    /// Those of these sweeps that have ended are not live any more, until tasks of them are retried.
    /// Answers how many.
    fn retire(&self, sweeps: &[String]) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Every sweep that is not known to have ended is live: for those that an earlier version has
    /// made. Answers how many there are.
    fn adopt(&self) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// At most `limit` sweeps that were retired at least `age` ago.
    fn ended(&self, age: Duration, limit: usize) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
}

/// What a sweep's owner wants, by the API; a scheduler sees that it is done.
pub trait Owner: Send + Sync {
    /// Keeps what a sweep's owner wants. Running tasks hear of it at their next write, idle ones by
    /// [`settle`](Self::settle). False if there is no such sweep, or it is cancelled and something
    /// else is asked.
    fn order(&self, sweep: &str, order: Order) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// Brings at most `limit` idle tasks from place `from` on in line with what the owner wants.
    fn settle(&self, sweep: &str, from: usize, limit: usize)
    -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// Failed tasks among at most `limit` from place `from` on can be worked on again.
    fn retry(&self, sweep: &str, from: usize, limit: usize) -> impl Future<Output = Result<Walked, StoreError>> + Send;
    /// Removes a sweep that has ended, at most `limit` tasks a call. False as long as there is more
    /// to remove.
    fn remove(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// What anybody may read.
pub trait Reading: Send + Sync {
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
    /// A sweep's specification and, once its scores task is done, its manifest, both as JSON.
    fn documents(
        &self,
        sweep: &str,
    ) -> impl Future<Output = Result<Option<(String, Option<String>)>, StoreError>> + Send;
    /// What happened to a task, oldest first, the last 200.
    fn events(&self, key: &TaskKey) -> impl Future<Output = Result<Vec<TaskEvent>, StoreError>> + Send;
    /// The last progress that a task's worker told, as JSON.
    fn progress(&self, key: &TaskKey) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    /// Workers that are there, by name, with what they said about themselves.
    fn workers(&self) -> impl Future<Output = Result<Vec<(String, String)>, StoreError>> + Send;
    /// At most `limit` of the dead letters that are kept, the newest first.
    fn letters(&self, limit: usize) -> impl Future<Output = Result<Letters, StoreError>> + Send;
    /// All tickets on their way, sorted.
    fn tickets(&self) -> impl Future<Output = Result<Tickets, StoreError>> + Send;
    /// What a task had to show at the last rung that it has reached, as JSON.
    fn standing(&self, key: &TaskKey) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    /// Values of a finished task's units, if they are kept: [`UnitScores`](crate::sweep::paired::UnitScores) as bytes.
    fn units(&self, key: &TaskKey) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;
    /// A finished task's result and coefficients; without its units.
    fn result(&self, key: &TaskKey) -> impl Future<Output = Result<Option<Completed>, StoreError>> + Send;
    /// Writes something small: whether the store takes writes now.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What a person does about damaged records.
pub trait Repair: Send + Sync {
    /// Compares what is kept about a sweep with its tasks' own states, and with `repair` mends what
    /// differs, in one step. Holds stay as they are, so workers and schedulers may go on meanwhile.
    fn examine(&self, sweep: &str, repair: bool) -> impl Future<Output = Result<Findings, StoreError>> + Send;
    /// The same for what is kept about no single sweep: tickets, leases, sums.
    fn examine_pool(&self, repair: bool) -> impl Future<Output = Result<Findings, StoreError>> + Send;
    /// Removes a sweep whatever is left of it, at most `limit` tasks a call. Holds on its tasks are
    /// void then. False as long as there is more to remove.
    fn discard(&self, sweep: &str, limit: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// What a worker takes.
///
/// ```
/// use mehl_soup::store::{Hold, ReleaseReason, StoreError, WorkerStore};
///
/// async fn work(store: &impl WorkerStore, hold: &Hold) -> Result<(), StoreError> {
///     store.release(hold, &ReleaseReason::Preempted).await.map(drop)
/// }
/// ```
///
/// It has no call that only a scheduler may make, though the trait for it is in scope:
///
/// ```compile_fail,E0599
/// use mehl_soup::store::traits::Steering;
/// use mehl_soup::store::{StoreError, WorkerStore};
///
/// async fn work(store: &impl WorkerStore) -> Result<(), StoreError> {
///     store.release_pending("sweep", 1).await.map(drop)
/// }
/// ```
pub trait WorkerStore: Leases + Publishing + Reading {}
impl<S: Leases + Publishing + Reading> WorkerStore for S {}

/// What a scheduler takes. It takes no task.
pub trait SchedulerStore: Steering + Outbox + Publishing + Upkeep + Owner + Reading {}
impl<S: Steering + Outbox + Publishing + Upkeep + Owner + Reading> SchedulerStore for S {}

/// What the HTTP API takes.
pub trait ApiStore: Admission + Owner + Reading {}
impl<S: Admission + Owner + Reading> ApiStore for S {}

/// Everything: what a backend is.
pub trait Store: WorkerStore + SchedulerStore + ApiStore + Repair {}
impl<S: WorkerStore + SchedulerStore + ApiStore + Repair> Store for S {}
