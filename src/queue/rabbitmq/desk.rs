//! Questions to the broker, one at a time on a channel of their own: how much there is, and the dead letters.

use std::sync::Arc;

use lapin::message::Delivery as Message;
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::faults;
use super::link::Link;
use super::subscription::Settling;
use super::supervisor::Supervisor;
use super::topology::Topology;
use crate::queue::{Dead, DeadLetter, Depth, QueueError};

/// Asks over the connection that consumes.
#[derive(Debug)]
pub struct Consumers {
    supervisor: Supervisor,
    topology: Topology,
    /// Taken out while it is used: after a fault it is not put back, and the next question opens another.
    channel: Mutex<Option<(Arc<Link>, Channel)>>,
}

impl Consumers {
    /// Over a connection.
    pub fn new(supervisor: Supervisor, topology: Topology) -> Self {
        Self { supervisor, topology, channel: Mutex::new(None) }
    }

    /// Its connection.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// What the queue of tickets holds.
    pub async fn depth(&self, deadline: Instant) -> Result<Depth, QueueError> {
        self.ask(deadline, async |link, channel| self.topology.depth(link, channel, deadline).await).await
    }

    /// The oldest dead letter.
    pub async fn take_dead(&self, deadline: Instant) -> Result<Option<RabbitMqDead>, QueueError> {
        self.ask(deadline, async |link, channel| {
            let taken = channel.basic_get(self.topology.dead.as_str().into(), BasicGetOptions::default());
            let taken = link.answer(deadline, faults::error, taken).await?;
            Ok(taken.map(|message| RabbitMqDead::new(link, channel, message.delivery)))
        })
        .await
    }

    async fn ask<T>(
        &self,
        deadline: Instant,
        what: impl AsyncFnOnce(&Arc<Link>, &Channel) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let Ok(mut slot) = timeout_at(deadline, self.channel.lock()).await else {
            return Err(QueueError::Unreachable("others were asking all the while".to_string()));
        };
        let link = self.supervisor.link(deadline).await?;
        let channel = match slot.take() {
            Some((of, channel)) if Arc::ptr_eq(&of, &link) && channel.status().connected() => channel,
            _ => link.channel(deadline, &self.topology).await?,
        };
        let answer = what(&link, &channel).await?;
        *slot = Some((link, channel));
        Ok(answer)
    }
}

/// A dead letter from [`RabbitMq`](crate::queue::RabbitMq).
#[derive(Debug)]
pub struct RabbitMqDead {
    dead: Dead,
    settling: Settling,
}

impl RabbitMqDead {
    fn new(link: &Arc<Link>, channel: &Channel, message: Message) -> Self {
        let (reason, count) = death(&message.properties).unwrap_or(("unknown".to_string(), 0));
        let dead = Dead { body: message.data, reason, count };
        Self { dead, settling: Settling::new(link, channel, message.acker) }
    }
}

impl DeadLetter for RabbitMqDead {
    fn dead(&self) -> &Dead {
        &self.dead
    }

    async fn done(self) -> Result<(), QueueError> {
        self.settling.ack().await
    }

    async fn put_back(self) -> Result<(), QueueError> {
        self.settling.put_back().await
    }
}

/// Reason and count of the last death: the first entry of the header `x-death`. Anybody may have written it, so nothing of it is trusted.
fn death(properties: &BasicProperties) -> Option<(String, u64)> {
    let headers = properties.headers().as_ref()?.inner();
    let AMQPValue::FieldArray(deaths) = headers.get("x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    let reason = match last.inner().get("reason")? {
        AMQPValue::LongString(reason) => String::from_utf8_lossy(reason.as_bytes()).chars().take(40).collect(),
        _ => return None,
    };
    let count = match last.inner().get("count")? {
        AMQPValue::LongLongInt(count) => u64::try_from(*count).ok()?,
        _ => return None,
    };
    Some((reason, count))
}
