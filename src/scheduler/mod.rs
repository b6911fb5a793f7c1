//! What keeps a pool going, and holds nothing itself: the truth is in the store, so a second one does no harm.
//!
//! | file | does |
//! |---|---|
//! | `outbox` | publishes the tickets that are to be published |

mod outbox;

pub use outbox::publish_outbox;
