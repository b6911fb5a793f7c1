//! Tickets from the store's outbox to the queue.

use std::time::Duration;

use crate::queue::{QueueError, TicketQueue};
use crate::store::StoreError;
use crate::store::traits::{Outbox, Publishing};

/// Publishes at most `most` tickets of the outbox, oldest first, and notes which of them the broker has. Answers how many, and why not all.
///
/// Should it end in between, tickets are published again: workers drop the second of two.
///
/// # Errors
/// If the store does not answer.
pub async fn publish_outbox(
    store: &(impl Outbox + Publishing),
    queue: &impl TicketQueue,
    limit: usize,
    patience: Duration,
) -> Result<(usize, Option<QueueError>), StoreError> {
    let tickets = store.outbox(limit).await?;
    if tickets.is_empty() {
        return Ok((0, None));
    }
    let published = queue.publish(&tickets, patience).await;
    store.confirmed(&published.confirmed).await?;
    Ok((published.confirmed.len(), published.fault))
}
