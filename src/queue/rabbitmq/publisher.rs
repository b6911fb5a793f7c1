//! Publishing: many tickets at once, and what the broker confirmed of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::faults;
use super::link::Link;
use super::supervisor::Supervisor;
use super::topology::{KEY, Topology};
use crate::queue::{Published, QueueError};
use crate::task::Ticket;

/// AMQP's number for a message that is written to disk.
const PERSISTENT: u8 = 2;

/// Publishes over a connection of its own: a broker in need stops reading those that publish, and acknowledgements must not wait behind that.
///
/// Memory: nothing is handed to the connection before it is seen to be open for messages, and a channel after a fault is replaced by one whose
/// opening the broker has to answer, so what is left of earlier calls is never more than the tickets of one.
#[derive(Debug)]
pub struct Publisher {
    supervisor: Supervisor,
    topology: Topology,
    /// Taken out while it is used, so that a call that is dropped half-way leaves none behind.
    channel: Mutex<Option<(Arc<Link>, Channel)>>,
}

impl Publisher {
    /// Over a connection.
    pub fn new(supervisor: Supervisor, topology: Topology) -> Self {
        Self { supervisor, topology, channel: Mutex::new(None) }
    }

    /// Its connection.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Publishes tickets; see [`TicketQueue::publish`](crate::queue::TicketQueue::publish).
    pub async fn publish(&self, tickets: &[Ticket], patience: Duration) -> Published {
        if tickets.is_empty() {
            return Published { confirmed: Vec::new(), fault: None };
        }
        let deadline = Instant::now() + patience;
        let Ok(mut slot) = timeout_at(deadline, self.channel.lock()).await else {
            return Published::none(QueueError::Unreachable("others were publishing all the while".to_string()));
        };
        let (link, channel) = match self.open(slot.take(), deadline).await {
            Ok(opened) => opened,
            Err(fault) => return Published::none(fault),
        };
        let published = send(&link, &channel, &self.topology, tickets, deadline).await;
        match &published.fault {
            None => *slot = Some((link, channel)),
            Some(_) if Instant::now() >= deadline && patience >= link.timeout() => link.give_up_unless_blocked(),
            Some(_) => {}
        }
        published
    }

    async fn open(
        &self,
        last: Option<(Arc<Link>, Channel)>,
        deadline: Instant,
    ) -> Result<(Arc<Link>, Channel), QueueError> {
        // Asked each time: it says whether the queue was closed.
        let link = self.supervisor.link(deadline).await?;
        link.unblocked(deadline).await?;
        if let Some((of, channel)) = last
            && Arc::ptr_eq(&of, &link)
            && channel.status().connected()
        {
            return Ok((link, channel));
        }
        let channel = link.channel(deadline, &self.topology).await?;
        link.answer(deadline, faults::error, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok((link, channel))
    }
}

/// Tells tickets of one call apart when the broker returns some.
fn message_id(ticket: &Ticket) -> String {
    format!("{}/{}", ticket.task_id, ticket.generation)
}

async fn send(link: &Link, channel: &Channel, topology: &Topology, tickets: &[Ticket], deadline: Instant) -> Published {
    let mut fault: Option<QueueError> = None;
    let mut confirms = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(message_id(ticket).as_str().into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let body = ticket.to_bytes();
        let sent = channel.basic_publish(topology.tickets.as_str().into(), KEY.into(), options, &body, properties);
        match timeout_at(deadline, sent).await {
            Ok(Ok(confirm)) => confirms.push(confirm),
            Ok(Err(error)) => fault = Some(faults::error(&error)),
            Err(_) => fault = Some(link.late()),
        }
        if fault.is_some() {
            break;
        }
    }
    let mut is_kept = vec![false; tickets.len()];
    let mut returned = HashSet::new();
    for (is_kept, confirm) in is_kept.iter_mut().zip(confirms) {
        // After the deadline this still takes what has been confirmed by then.
        let told = match timeout_at(deadline, confirm).await {
            Ok(Ok(confirmation)) => {
                *is_kept = confirmation.is_ack();
                let refused = QueueError::Unreachable("RabbitMQ could not store the ticket".to_string());
                let told = (!*is_kept).then_some(refused);
                returned.extend(returned_id(confirmation));
                told
            }
            Ok(Err(error)) => Some(faults::error(&error)),
            Err(_) => Some(link.late()),
        };
        fault = fault.or(told);
    }
    if !returned.is_empty() {
        // No queue is bound. The fault makes the next call open a channel, and that declares everything anew.
        fault = fault.or_else(|| Some(QueueError::Withdrawn("the ticket queue is missing".to_string())));
    }
    // lapin attaches a returned message to whichever confirm comes next, so it is told by its id which ticket it was.
    let kept = tickets.iter().zip(is_kept).filter(|(ticket, kept)| *kept && !returned.contains(&message_id(ticket)));
    Published { confirmed: kept.map(|(ticket, _)| ticket.clone()).collect(), fault }
}

fn returned_id(confirmation: Confirmation) -> Option<String> {
    let message = confirmation.take_message()?;
    // Ours all have one; without it, no ticket is taken for returned, but the fault is still told.
    Some(message.delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default())
}
