//! The queue of a pool, in RabbitMQ.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | where the broker is, looked at before anything is sent |
//! | `topology` | exchanges and queues, and what differs between versions of the broker |
//! | `wire` | the socket, with TLS and with a switch that ends it |
//! | `link` | one connection, and the deadline of every answer |
//! | `supervisor` | keeps a connection up |
//! | `publisher` | tickets and their confirms, over a connection of its own |
//! | `subscription` | tickets as they are delivered |
//! | `desk` | depth and dead letters |
//! | `faults` | what an error means to the caller |
//!
//! lapin's own recovery is not used: it replays what it remembers, while here everything is declared anew with each channel, so a queue that was deleted,
//! or a broker that was wiped, is mended by the next call.
//!
//! At its finest level of logging, lapin writes the frames of the handshake, and the password with them. Keep that level off for it.

mod desk;
mod faults;
mod link;
mod publisher;
mod settings;
mod subscription;
mod supervisor;
mod topology;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use desk::RabbitMqDead;
pub use settings::RabbitMqSettings;
pub use subscription::{RabbitMqDelivery, RabbitMqSubscription};

use super::{Depth, Published, QueueError, QueueState, TicketQueue};
use crate::task::Ticket;
use desk::Consumers;
use publisher::Publisher;
use supervisor::Supervisor;
use topology::Topology;

/// Tickets in RabbitMQ, over two connections that are kept up as long as there is a clone of this.
#[derive(Debug, Clone)]
pub struct RabbitMq(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    publisher: Publisher,
    desk: Consumers,
    topology: Topology,
    installation: String,
}

impl RabbitMq {
    /// Begins to connect, and goes on trying for ever; [`ready`](TicketQueue::ready) waits for it. Call it on a tokio runtime.
    ///
    /// # Errors
    /// [`QueueError::Setup`] if the settings cannot be right.
    pub fn start(settings: &RabbitMqSettings) -> Result<Self, QueueError> {
        let checked = settings.check()?;
        let topology = Topology::new(&checked.installation);
        let supervise = |purpose| Supervisor::start(checked.clone(), purpose, topology.clone());
        let publisher = Publisher::new(supervise("publishes"), topology.clone());
        let desk = Consumers::new(supervise("consumes"), topology.clone());
        Ok(Self(Arc::new(Shared { publisher, desk, topology, installation: checked.installation })))
    }

    /// The installation whose queue it is.
    pub fn installation(&self) -> &str {
        &self.0.installation
    }

    fn connections(&self) -> [&Supervisor; 2] {
        [self.0.publisher.supervisor(), self.0.desk.supervisor()]
    }
}

impl TicketQueue for RabbitMq {
    type Subscription = RabbitMqSubscription;
    type DeadLetter = RabbitMqDead;

    async fn ready(&self, patience: Duration) -> Result<(), QueueError> {
        let deadline = Instant::now() + patience;
        for connection in self.connections() {
            connection.link(deadline).await?;
        }
        Ok(())
    }

    async fn publish(&self, tickets: &[Ticket], patience: Duration) -> Published {
        self.0.publisher.publish(tickets, patience).await
    }

    async fn subscribe(&self, patience: Duration) -> Result<RabbitMqSubscription, QueueError> {
        let deadline = Instant::now() + patience;
        let link = self.0.desk.supervisor().link(deadline).await?;
        RabbitMqSubscription::start(link, &self.0.topology, deadline).await
    }

    async fn depth(&self, patience: Duration) -> Result<Depth, QueueError> {
        self.0.desk.depth(Instant::now() + patience).await
    }

    async fn take_dead(&self, patience: Duration) -> Result<Option<RabbitMqDead>, QueueError> {
        self.0.desk.take_dead(Instant::now() + patience).await
    }

    async fn probe(&self, patience: Duration) -> Result<(), QueueError> {
        let deadline = Instant::now() + patience;
        for connection in self.connections() {
            let link = connection.link(deadline).await?;
            // A new channel: brokers remember for an old one what they have allowed.
            let channel = link.channel(deadline, &self.0.topology).await?;
            drop(link.answer(deadline, faults::error, channel.close(200, "probed".into())).await);
        }
        Ok(())
    }

    fn state(&self) -> QueueState {
        let links = self.connections().map(Supervisor::now);
        let is_blocked = links.iter().flatten().any(|link| link.is_blocked());
        let fault = links.into_iter().find_map(Result::err);
        QueueState { is_connected: fault.is_none(), is_blocked, fault }
    }

    async fn close(&self) {
        for connection in self.connections() {
            connection.close().await;
        }
    }
}
