//! What keeps a pool going. Its whole state is in the store, so a second scheduler does no harm.
//!
//! | file | does |
//! |---|---|
//! | `admit` | a specification becomes a sweep of the store |
//! | `plan` | what a turn changes: a pure function |
//! | `reconcile` | the turns |
//! | `search` | carries out what a search decides |
//! | `histories` | what searches are told |
//! | `outbox` | publishes the tickets that are to be published |

mod admit;
mod histories;
mod outbox;
mod plan;
mod reconcile;
mod search;

pub(crate) use admit::unique_word;
pub use admit::{
    AdmitError, Admitted, SCORES, Terms, admit, is_sweep_id, new_sweep, new_tasks, scores_task, searched_sweep,
    soup_task,
};
pub use outbox::publish_outbox;
pub use plan::{Action, PlanSettings, Snapshot, plan};
pub use reconcile::{Scheduler, SchedulerSettings, Turn, Watcher};
pub use search::Stepped;
