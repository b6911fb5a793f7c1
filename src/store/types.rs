//! What is asked of a store, and what it answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SweepRecord;
use crate::sweep::score::SplitScore;
use crate::task::{TaskKey, TaskState, Ticket};

/// A sweep as it is created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSweep {
    /// Its id, unique in the installation.
    pub id: String,
    /// For people.
    pub name: String,
    /// The specification, as JSON.
    pub spec: String,
    /// Attempts that may end without progress before a task fails, at least 1.
    pub attempts: u32,
    /// Tasks of the sweep that may run at once; 0 for any number.
    pub cap: u32,
    /// Sweeps of higher priority are worked on first.
    pub priority: i64,
    /// Seconds from its creation after which nothing new is computed; 0 for no end.
    pub max_seconds: u64,
    /// Whether its pending tasks are begun as a search wants them, and not as soon as there is room.
    pub search_controlled: bool,
    /// Wait before the attempt after a crash.
    #[serde(default)]
    pub backoff: Backoff,
    /// Most tasks of the sweep, its scores task included, if its search may open more once it is
    /// open. 0 for a sweep that has all its tasks by then.
    #[serde(default)]
    pub task_limit: usize,
}

/// Wait before another attempt of a task whose last one crashed, so that a task that crashes
/// its workers leaves them to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Milliseconds after the first crash; each further crash without progress doubles it.
    pub first_ms: u64,
}

impl Backoff {
    /// Longest wait, in milliseconds.
    pub const LONGEST_MS: u64 = 60_000;

    /// Milliseconds to wait after so many crashes without progress.
    pub fn wait(self, crashes: u64) -> u64 {
        let doubled = u32::try_from(crashes.saturating_sub(1)).ok().and_then(|n| 1u64.checked_shl(n));
        doubled.map_or(Self::LONGEST_MS, |factor| self.first_ms.saturating_mul(factor)).min(Self::LONGEST_MS)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 1000 }
    }
}

/// A task as it is created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    /// Its id within the sweep.
    pub id: String,
    /// The task, as JSON.
    pub body: String,
    /// Whether it is the sweep's scores task, which the others wait for.
    pub is_scores: bool,
}

/// Answer to the wish that an open sweep gets more tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// The sweep has them, and so many of them are new: 0 if it had them all.
    Added(usize),
    /// Nothing was added: this place, or this task's id, is another task's, or the place before it
    /// is empty.
    Taken(usize),
    /// Nothing was added: the sweep would have more tasks than this limit, its scores task
    /// included.
    Full(usize),
    /// Nothing was added: the sweep takes no tasks. It was closed or cancelled, or its scores task
    /// is not done.
    Closed,
}

/// Who asks for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The worker's name, for people.
    pub worker: String,
    /// Drawn at random for this claim: it tells a repeated claim from another one.
    pub nonce: String,
}

/// A worker's hold on a task. Every write of the attempt carries it; one that is not the task's current is fenced off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hold {
    /// The task.
    pub key: TaskKey,
    /// Rises with each claim of the task.
    pub epoch: u64,
    /// The claim's nonce.
    pub nonce: String,
}

/// A claimed task: everything that its worker needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The hold.
    pub hold: Hold,
    /// The task, as JSON.
    pub body: String,
    /// Whether it is a scores task.
    pub is_scores: bool,
    /// The sweep's specification, as JSON.
    pub spec: String,
    /// The sweep's manifest, as JSON, once its scores task is done.
    pub manifest: Option<String>,
    /// The last checkpoint.
    pub checkpoint: Option<Vec<u8>>,
    /// Number of the last checkpoint, 0 without one; the attempt's own go on from there.
    pub sequence: u64,
    /// Claims so far, this one included.
    pub attempts: u64,
    /// Rungs that it has reached: the next one has this number.
    pub rungs: u32,
}

/// Answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimAnswer {
    /// The task is the claimant's.
    Claimed(Box<Claimed>),
    /// It is not; the ticket is worth nothing any more.
    Refused(Refusal),
}

/// Why a claim was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such task.
    Unknown,
    /// It is in a state in which it cannot be claimed.
    State(TaskState),
    /// The ticket is of another generation than the task.
    Generation(u64),
    /// As many tasks of its sweep run as may; it waits for another ticket.
    Cap,
    /// Its last attempt crashed: the next one may begin in so many milliseconds, with another ticket.
    Early(u64),
}

/// What the owner of a sweep wants: a user gives the order, the store keeps it, workers obey it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Compute.
    Continue,
    /// Compute nothing until there is another order; a running task keeps a checkpoint and is given back.
    Pause,
    /// Compute nothing more, for good.
    Cancel,
}

/// Answer to a write under a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<T> {
    /// It was done, now or by an earlier try of the same write.
    Yes(T),
    /// The task is somebody else's, or nobody's, by now: nothing was written, the worker leaves the task.
    Fenced,
}

/// What becomes of a task that its worker lets go of, or that is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterRelease {
    /// It can be worked on again; this ticket says so, and whoever gets the answer publishes it.
    Queued(Ticket),
    /// It is in this state now. A queued task without a ticket waits because its last attempt crashed.
    State(TaskState),
}

/// Why a worker lets go of a task without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseReason {
    /// The worker is asked to go (SIGTERM), or was ordered to pause or cancel: no attempt is counted.
    Preempted,
    /// The attempt went wrong in a way that another may not (out of memory, a panic, a stall): counted as a crash.
    Crashed(String),
    /// Another attempt would end the same way: the task fails.
    Hopeless(String),
}

/// Where a task stands that its worker lets go of at a rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The rung, from 0.
    pub rung: u32,
    /// Score on select there.
    pub select: SplitScore,
    /// What it has to show so far, as JSON.
    pub outcome: String,
}

/// A task at a rung, as somebody saw it. What is decided about it holds only while it still waits there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRung {
    /// The task.
    pub key: TaskKey,
    /// The rung, from 0.
    pub rung: u32,
}

/// What a worker has to show for a finished task.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// The result, as JSON: for a scores task the manifest, else the task's row.
    pub result: String,
    /// The coefficients file; empty for a scores task.
    pub coefficients: Vec<u8>,
    /// Values of single units, for comparisons with other tasks.
    pub units: Option<KeptUnits>,
}

/// Values of a finished task's units. They are kept for every baseline, and for the best tasks of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptUnits {
    /// [`UnitScores`](crate::sweep::paired::UnitScores) as bytes.
    pub bytes: Vec<u8>,
    /// What ranks the task: the lowest costs are kept, equal ones in the order of task names. `None`: a baseline, which
    /// is kept in any case.
    pub cost: Option<f64>,
    /// Most tasks of the sweep, baselines besides, whose units are kept.
    pub limit: usize,
}

/// A checkpoint as it is saved.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// Number of the checkpoint: each of a task is larger than the last.
    pub sequence: u64,
    /// Its bytes.
    pub checkpoint: &'a [u8],
    /// How far the task is: iterations, or for a scores task ingredients that are scored. Crashes
    /// are counted anew when this is larger than any earlier attempt's.
    pub reached: u64,
    /// The last iteration as JSON, for people and plots.
    pub progress: Option<&'a str>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Sweep or task.
    pub id: String,
    /// What is wrong with it.
    pub why: String,
}

/// Sweeps, and those among them that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweeps {
    /// Oldest first.
    pub records: Vec<SweepRecord>,
    /// The others stay as they are.
    pub unreadable: Vec<Unreadable>,
}

/// Sweeps that are to be looked at, and how many tasks the others have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Sweeps that are not known to have ended.
    pub sweeps: Sweeps,
    /// Tasks of all other sweeps, by state.
    pub ended: BTreeMap<TaskState, usize>,
}

/// What became of overdue leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiries {
    /// Tasks that were taken from their workers.
    pub expired: Vec<Expired>,
    /// Tasks whose records cannot be read: they are looked at again in a minute.
    pub unreadable: Vec<Unreadable>,
}

/// What is wrong with what is kept of a sweep, one sentence each. Empty if nothing is.
pub type Findings = Vec<String>;

/// A lease that ran out, and what became of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The task.
    pub key: TaskKey,
    /// What became of it.
    pub onward: AfterRelease,
}

/// A task as the store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The task.
    pub key: TaskKey,
    /// State.
    pub state: TaskState,
    /// Rises whenever the task becomes runnable again.
    pub generation: u64,
    /// Rises with each claim.
    pub epoch: u64,
    /// Claims so far.
    pub attempts: u64,
    /// Attempts since the last progress that ended without any.
    pub crashes: u64,
    /// How far any attempt came: iterations, or scored ingredients.
    pub reached: u64,
    /// Number of the last checkpoint.
    pub sequence: u64,
    /// Scores on select at the rungs that it has reached, the first one first.
    pub rungs: Vec<SplitScore>,
    /// Why it failed.
    pub cause: Option<String>,
    /// Whether it has a checkpoint.
    pub has_checkpoint: bool,
    /// Whether it has a result.
    pub has_result: bool,
}

/// One thing that happened to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// Milliseconds since 1970.
    pub at: u64,
    /// `claimed`, `released`, `crashed`, `failed`, `succeeded`, `cancelled`, `paused`, `resumed`, `retried`, `waiting`, `promoted`, `pruned`.
    pub what: String,
    /// The worker, the cause, or the rung with the score there.
    #[serde(default)]
    pub detail: Option<String>,
}

/// Tickets that are on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tickets {
    /// To be published.
    pub outbox: Vec<Ticket>,
    /// Published and confirmed, not claimed yet.
    pub outstanding: Vec<Ticket>,
}
