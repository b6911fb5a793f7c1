//! A task as a pool sees it: its key, its states, and the ticket that names it. What it computes is [`crate::sweep::task`].

mod key;
mod state;
mod ticket;

pub use key::{KeyError, TaskKey, is_id};
pub use state::{Event, TaskState};
pub use ticket::{Ticket, TicketError};
