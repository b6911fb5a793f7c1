//! Exchanges and queues of an installation.
//!
//! | name | kind | arguments |
//! |---|---|---|
//! | `<installation>.tickets` | direct exchange, durable | |
//! | `<installation>.tickets` | quorum queue, bound by the key `ticket` | `x-queue-type`, `x-delivery-limit`, `x-dead-letter-exchange` |
//! | `<installation>.dead` | fanout exchange, durable | |
//! | `<installation>.dead` | quorum queue | `x-queue-type` |
//!
//! A declaration that is there already must equal ours argument by argument, so these are the same on every version of the broker, and stay so: a
//! broker that is upgraded keeps its queues. What the same arguments mean differs. (Only 3.10 was run; 4.x is from its documentation.)
//!
//! | | RabbitMQ 3.10 | RabbitMQ 4.x |
//! |---|---|---|
//! | quorum queue without `x-delivery-limit` | delivers for ever | delivers 20 times, then drops the message. So the limit of tickets is stated; and a dead letter that was taken 20 times and never dealt with is dropped. Nothing depends on it: a ticket that is still wanted is published again from the store |
//! | `x-delivery-limit = -1` (no limit) | refused | allowed. So the queue of dead letters does not state it |
//! | `basic.nack` with requeue | counts against the limit | counts until 4.2; from 4.3 on only `basic.reject`, closed channels and lost connections do |
//! | dead-lettering | at most once | at most once, unless `x-dead-letter-strategy` says otherwise, which needs a queue that rejects when it is full |
//!
//! Seen on a single node of 3.10.8: one that is killed (not stopped) within seconds of the first declaration comes back with a queue of tickets that
//! never has a leader. Declaring and connecting succeed, nothing is ever confirmed or delivered, and no client can mend it: its operator deletes the
//! queue, it is declared anew by the next call, and the tickets come again from the store.
//!
//! `x-delivery-limit` makes sense for tickets: one that ends every worker that takes it, before it is claimed, must not go round for ever. Policies of
//! the broker (`x-max-length` and the like) can be added by its operator, as they are no part of a declaration.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tokio::time::Instant;

use super::faults;
use super::link::Link;
use crate::queue::{DELIVERY_LIMIT, Depth, QueueError};

/// Routing key of tickets.
pub const KEY: &str = "ticket";

/// Names of an installation.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Exchange and queue of tickets.
    pub tickets: String,
    /// Exchange and queue of dead letters.
    pub dead: String,
}

impl Topology {
    /// Of an installation.
    pub fn new(installation: &str) -> Self {
        Self { tickets: format!("{installation}.tickets"), dead: format!("{installation}.dead") }
    }

    /// Declares everything; what is there already stays.
    pub async fn declare(&self, link: &Link, channel: &Channel, deadline: Instant) -> Result<(), QueueError> {
        self.exchange(link, channel, deadline, &self.dead, ExchangeKind::Fanout).await?;
        self.queue(link, channel, deadline, &self.dead, quorum()).await?;
        self.exchange(link, channel, deadline, &self.tickets, ExchangeKind::Direct).await?;
        let mut arguments = quorum();
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT as i32));
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(self.dead.as_str().into()));
        self.queue(link, channel, deadline, &self.tickets, arguments).await
    }

    async fn exchange(
        &self,
        link: &Link,
        channel: &Channel,
        deadline: Instant,
        name: &str,
        kind: ExchangeKind,
    ) -> Result<(), QueueError> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        link.answer(deadline, faults::declaration, declared).await
    }

    async fn queue(
        &self,
        link: &Link,
        channel: &Channel,
        deadline: Instant,
        name: &str,
        arguments: FieldTable,
    ) -> Result<(), QueueError> {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.queue_declare(name.into(), options, arguments);
        link.answer(deadline, faults::declaration, declared).await?;
        let bound = channel.queue_bind(
            name.into(),
            name.into(),
            KEY.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        link.answer(deadline, faults::declaration, bound).await
    }

    /// What the queue of tickets holds.
    pub async fn depth(&self, link: &Link, channel: &Channel, deadline: Instant) -> Result<Depth, QueueError> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let looked = channel.queue_declare(self.tickets.as_str().into(), options, FieldTable::default());
        let queue = link.answer(deadline, faults::error, looked).await?;
        Ok(Depth { ready: queue.message_count().into(), consumers: queue.consumer_count().into() })
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments
}
