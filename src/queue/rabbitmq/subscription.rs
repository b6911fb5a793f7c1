//! Consuming: one channel a subscription, one ticket at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::time::{Instant, timeout};

use super::faults;
use super::link::Link;
use super::topology::Topology;
use crate::queue::{Delivery, QueueError, Subscription};
use crate::task::{Ticket, TicketError};

/// A subscription to [`RabbitMq`](crate::queue::RabbitMq). It ends with its connection, and is not made anew by itself.
#[derive(Debug)]
pub struct RabbitMqSubscription {
    link: Arc<Link>,
    channel: Channel,
    /// `None` once it has ended.
    consumer: Option<Consumer>,
}

impl RabbitMqSubscription {
    pub(super) async fn start(link: Arc<Link>, topology: &Topology, deadline: Instant) -> Result<Self, QueueError> {
        let channel = link.channel(deadline, topology).await?;
        // More than one would wait here while this worker is busy, though others are idle.
        link.answer(deadline, faults::error, channel.basic_qos(1, BasicQosOptions::default())).await?;
        // An empty tag: the broker draws one.
        let (queue, options) = (topology.tickets.as_str().into(), BasicConsumeOptions::default());
        let consumed = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        let consumer = link.answer(deadline, faults::error, consumed).await?;
        Ok(Self { link, channel, consumer: Some(consumer) })
    }

    fn held(&self, message: Message) -> RabbitMqDelivery {
        RabbitMqDelivery { body: message.data, settling: Settling::new(&self.link, &self.channel, message.acker) }
    }
}

fn ended() -> QueueError {
    QueueError::Withdrawn("the subscription has ended".to_string())
}

impl Subscription for RabbitMqSubscription {
    type Delivery = RabbitMqDelivery;

    async fn next(&mut self, patience: Duration) -> Result<Option<RabbitMqDelivery>, QueueError> {
        let Some(consumer) = &mut self.consumer else { return Err(ended()) };
        let fault = match timeout(patience, consumer.next()).await {
            Err(_) if self.link.is_up() => return Ok(None),
            Err(_) => QueueError::Unreachable("the connection was lost".to_string()),
            Ok(Some(Ok(message))) => return Ok(Some(self.held(message))),
            Ok(Some(Err(error))) => faults::error(&error),
            // The broker cancels consumers of a queue that is deleted.
            Ok(None) => QueueError::Withdrawn("the broker ended the subscription".to_string()),
        };
        self.consumer = None;
        Err(fault)
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        self.link.answer_soon(self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default())).await?;
        // The broker's answer came after all that it had sent.
        while let Some(Some(Ok(message))) = consumer.next().now_or_never() {
            self.held(message).put_back().await?;
        }
        Ok(())
    }
}

/// What settles a message, on the channel that it came by.
#[derive(Debug)]
pub struct Settling {
    acker: Acker,
    link: Arc<Link>,
    /// Kept open until it is settled, also when the subscription is gone.
    _channel: Channel,
}

impl Settling {
    pub fn new(link: &Arc<Link>, channel: &Channel, acker: Acker) -> Self {
        Self { acker, link: Arc::clone(link), _channel: channel.clone() }
    }

    /// It is dealt with.
    pub async fn ack(self) -> Result<(), QueueError> {
        self.settled(self.acker.ack(BasicAckOptions::default())).await
    }

    /// It becomes a dead letter. By `basic.reject`, which says that the message is at fault.
    pub async fn refuse(self) -> Result<(), QueueError> {
        self.settled(self.acker.reject(BasicRejectOptions { requeue: false })).await
    }

    /// It is delivered again. By `basic.nack`, which says that the message is not at fault.
    pub async fn put_back(self) -> Result<(), QueueError> {
        self.settled(self.acker.nack(BasicNackOptions { requeue: true, ..Default::default() })).await
    }

    async fn settled(&self, told: impl Future<Output = lapin::Result<bool>>) -> Result<(), QueueError> {
        match self.link.answer_soon(told).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(QueueError::Withdrawn("its channel is closed; the message is delivered again".to_string()))
            }
            Err(fault) => Err(fault),
        }
    }
}

/// A ticket from [`RabbitMq`](crate::queue::RabbitMq).
#[derive(Debug)]
pub struct RabbitMqDelivery {
    body: Vec<u8>,
    settling: Settling,
}

impl Delivery for RabbitMqDelivery {
    fn ticket(&self) -> Result<Ticket, TicketError> {
        Ticket::from_bytes(&self.body)
    }

    async fn ack(self) -> Result<(), QueueError> {
        self.settling.ack().await
    }

    async fn refuse(self) -> Result<(), QueueError> {
        self.settling.refuse().await
    }

    async fn put_back(self) -> Result<(), QueueError> {
        self.settling.put_back().await
    }
}
