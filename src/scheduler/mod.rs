//! What keeps a pool going, and holds nothing itself: the truth is in the store, so a second one does no harm.
//!
//! | file | does |
//! |---|---|
//! | `plan` | what a turn changes: a pure function |
//! | `reconcile` | the turns |
//! | `outbox` | publishes the tickets that are to be published |

mod outbox;
mod plan;
mod reconcile;

pub use outbox::publish_outbox;
pub use plan::{Action, PlanSettings, Snapshot, plan};
pub use reconcile::{Scheduler, SchedulerSettings, Turn, Watcher};
