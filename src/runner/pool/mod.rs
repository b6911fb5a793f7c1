//! One worker of a pool: takes tickets, claims their tasks, computes them on a thread of its own, and keeps the store informed.
//!
//! | file | holds |
//! |---|---|
//! | `compute` | the thread that owns the engine, and with it every tensor |
//! | `link` | what that thread and the asynchronous side share |
//! | `attempt` | one claimed task from its claim to its end |
//! | `worker` | ticket after ticket |
//! | `watch` | what all of this tells people and metrics |
//! | `service` | the same, with signs of life |

mod attempt;
mod compute;
mod link;
mod service;
mod watch;
mod worker;

pub use attempt::{Attempt, AttemptSettings, Ended};
pub use compute::Compute;
pub use link::{HistoryPoint, PoolResult};
pub use service::serve;
pub use watch::{Lines, WorkerObserver};
pub use worker::{Worker, WorkerError, WorkerSettings};
