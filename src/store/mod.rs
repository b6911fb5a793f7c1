//! The truth about sweeps and tasks: states, leases, checkpoints, tickets that are to be published.
//!
//! A message in the queue only says that a task can be worked on. Whether that is so, and whose the task is, is decided here, in one step for each
//! transition. Two backends keep the same promises and pass the same contract suite (`contract`): Redis, where each transition is a Lua
//! script, and memory, for one process.
//!
//! | file | holds |
//! |---|---|
//! | `traits` | what is asked of a store, by who asks |
//! | `types` | what goes in and comes out |
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
pub mod traits;
mod types;

pub use kept::{Keeper, Kept, KeptRungs};
pub use letters::{KeptLetter, LARGEST_LETTER, Letter, Letters, MOST_LETTERS};
pub use memory::Memory;
pub use redis::{Promise, Redis, RedisSettings};
pub use sweep_record::{Stage, SweepRecord};
pub use traits::{ApiStore, SchedulerStore, Store, WorkerStore};
pub use types::{
    AfterRelease, AtRung, Backoff, ClaimAnswer, Claimant, Claimed, Completed, Expired, Expiries, Extended, Findings,
    Held, Hold, KeptUnits, Live, NewSweep, NewTask, Order, Refusal, ReleaseReason, Saved, Standing, Sweeps, TaskEvent,
    TaskRecord, Tickets, Unreadable,
};

/// Why a store did not answer. Every write may be repeated: the second time it answers as the first did, and changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer within its time: whether it was done is unknown. Repeat it.
    #[error("cannot reach Redis: {0}")]
    Unreachable(String),
    /// It takes no more writes. Repeat it later.
    #[error("Redis is full: {0}")]
    Full(String),
    /// It refuses for now: its disk is full, or it does not accept this user, password or command.
    /// Repeat it later: it passes once the server is mended, or the password's file is replaced.
    #[error("Redis refused the command: {0}")]
    Refused(String),
    /// It was set up in a way that loses state, or the settings cannot be right. A person has to
    /// change it before this program is started again.
    #[error("cannot use Redis: {0}")]
    Setup(String),
    /// An answer that this program does not understand: another version's, or damaged.
    #[error("unexpected data in Redis: {0}")]
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
