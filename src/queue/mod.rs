//! The queue of tickets: it tells workers that there is something to do, and nothing else.
//!
//! What a ticket says is looked up in the [store](crate::store) before anything is done, so a queue may deliver a ticket twice, late, or after its
//! task is done. It must not lose one that it confirmed; should it all the same (a broker that was wiped), the ticket is published again from
//! the store. Two backends keep the same promises and pass the same contract suite (`contract`): RabbitMQ, and one for a single process.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | the traits, and errors by what the caller does next |
//! | `in_process` | the queue of one process |
//! | `rabbitmq` | the queue of a pool |
//! | `contract` | what both must do, as tests |
//!
//! A worker's turn, so that no message is held while a long task runs, and no second ticket waits on a busy worker:
//!
//! ```text
//! subscribe -> next -> claim in the store -> run the task -> ack -> next                              a task of less than half a second
//!                                        \-> run it, and meanwhile cancel -> ack -> subscribe again   a longer one
//! ```
//!
//! Every call has a deadline: `patience` is the longest that it takes, whatever the broker does.

#[cfg(any(test, feature = "test-support"))]
pub mod contract;
mod in_process;
mod rabbitmq;

use std::future::Future;
use std::time::Duration;

pub use in_process::{InProcess, InProcessDead, InProcessDelivery, InProcessSubscription};
pub use rabbitmq::{RabbitMq, RabbitMqDead, RabbitMqDelivery, RabbitMqSettings, RabbitMqSubscription};

use crate::task::{Ticket, TicketError};

/// Deliveries of a ticket that may end without an answer, or with [`put_back`](Delivery::put_back), before it becomes a dead letter. RabbitMQ from 4.3
/// on does not count `put_back`.
pub const DELIVERY_LIMIT: u32 = 20;

/// Why a queue did not do as asked, by what the caller does next. No message holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Nobody there, or no answer in time; what was asked may have been done. Repeat it.
    #[error("cannot reach RabbitMQ: {0}")]
    Unreachable(String),
    /// The broker takes no messages until its memory or disk alarm ends. Repeat it later; a person may have to help the broker.
    #[error("RabbitMQ accepts no messages: {0}")]
    Blocked(String),
    /// The queue, the channel or the subscription ended under the caller. Repeat it: everything is declared anew.
    #[error("the queue was deleted: {0}")]
    Withdrawn(String),
    /// The broker refuses for now: the user, the password, or a permission. Repeat it later: it
    /// passes once the broker is mended, or the password's file is replaced.
    #[error("RabbitMQ refused the request: {0}")]
    Refused(String),
    /// Address, certificate or password are wrong, and were never right since this program began. A person has to change them before it is started
    /// again; it is tried again all the while.
    #[error("cannot use RabbitMQ: {0}")]
    Setup(String),
    /// An exchange or queue of our name is there, declared in another way, since before this program began. A person has to remove it, or name the
    /// installation otherwise.
    #[error("the name is already in use: {0}")]
    Foreign(String),
    /// [`close`](TicketQueue::close) was called.
    #[error("the queue is closed")]
    Closed,
}

impl QueueError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Blocked(_) | Self::Withdrawn(_) | Self::Refused(_))
    }
}

/// What became of tickets that were published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Those that the broker has confirmed to keep, in the order in which they were given.
    pub confirmed: Vec<Ticket>,
    /// Why the others were not, told of the first of them; `None` if there are none. The broker may hold them all the same.
    pub fault: Option<QueueError>,
}

impl Published {
    /// None was confirmed.
    fn none(fault: QueueError) -> Self {
        Self { confirmed: Vec::new(), fault: Some(fault) }
    }
}

/// What the queue of tickets holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Tickets that wait for a consumer.
    pub ready: u64,
    /// Subscriptions.
    pub consumers: u64,
}

/// What is known of the broker without asking it; for readiness, and for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Whether all connections are up, and everything is declared.
    pub is_connected: bool,
    /// Whether the broker takes no messages because of an alarm. It says so only to those that have published since.
    pub is_blocked: bool,
    /// Why a connection is down; `None` if all are up.
    pub fault: Option<QueueError>,
}

/// What a dead letter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The message: a ticket, or whatever it was that could not be read as one.
    pub body: Vec<u8>,
    /// Why the broker let go of it: `rejected`, `delivery_limit`; `unknown` for one that somebody put there.
    pub reason: String,
    /// How often that happened to this message.
    pub count: u64,
}

/// Tickets on their way from whoever made a task runnable to a worker.
pub trait TicketQueue: Send + Sync {
    /// Of [`subscribe`](Self::subscribe).
    type Subscription: Subscription;
    /// Of [`take_dead`](Self::take_dead).
    type DeadLetter: DeadLetter;

    /// Waits until the broker can be used.
    ///
    /// # Errors
    /// What keeps it from that: at once if a person has to change something, else when `patience` is over.
    fn ready(&self, patience: Duration) -> impl Future<Output = Result<(), QueueError>> + Send;
    /// Publishes tickets in order, all before the first confirm is waited for. A ticket counts as confirmed only if the broker says within `patience`
    /// that it keeps it. Calls take turns; nothing is kept for later, so after a fault the caller publishes again what was not confirmed.
    fn publish(&self, tickets: &[Ticket], patience: Duration) -> impl Future<Output = Published> + Send;
    /// Asks for tickets, one at a time.
    fn subscribe(&self, patience: Duration) -> impl Future<Output = Result<Self::Subscription, QueueError>> + Send;
    /// Looks how much there is. Those that are delivered and not settled are not counted.
    fn depth(&self, patience: Duration) -> impl Future<Output = Result<Depth, QueueError>> + Send;
    /// Takes the oldest dead letter, `None` if there is none.
    fn take_dead(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<Self::DeadLetter>, QueueError>> + Send;
    /// Asks the broker whether everything that is done with the queue is allowed now.
    ///
    /// # Errors
    /// Why not.
    fn probe(&self, patience: Duration) -> impl Future<Output = Result<(), QueueError>> + Send;
    /// What is known without asking.
    fn state(&self) -> QueueState;
    /// Ends subscriptions and connections. Whatever is asked afterwards is answered with [`QueueError::Closed`].
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// Tickets as they are delivered, one at a time: the next comes after the last was settled. Dropping it ends it too, without waiting.
pub trait Subscription: Send {
    /// A ticket in the subscriber's hands.
    type Delivery: Delivery;

    /// Waits for a ticket. `None` if none came within `patience`.
    ///
    /// # Errors
    /// If the subscription has ended: subscribe again.
    fn next(&mut self, patience: Duration) -> impl Future<Output = Result<Option<Self::Delivery>, QueueError>> + Send;
    /// Ends the subscription. A ticket that was on its way is put back; one that was given out can still be settled.
    ///
    /// # Errors
    /// If the broker did not answer. The subscription has ended all the same, and what was not settled is delivered again.
    fn cancel(&mut self) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// A delivered ticket. Settle it by one of the three; one that is dropped is delivered again at the latest when its subscription has ended.
///
/// That settling succeeds means that the broker was told, not that it heard: a ticket may be delivered again after it was settled.
#[must_use = "a delivery that is not settled is delivered again"]
pub trait Delivery: Send {
    /// The ticket.
    ///
    /// # Errors
    /// If the message is none: [`refuse`](Self::refuse) it.
    fn ticket(&self) -> Result<Ticket, TicketError>;
    /// It is dealt with.
    fn ack(self) -> impl Future<Output = Result<(), QueueError>> + Send;
    /// It can never be dealt with: it becomes a dead letter.
    fn refuse(self) -> impl Future<Output = Result<(), QueueError>> + Send;
    /// Somebody else is to have it.
    fn put_back(self) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// A dead letter. One that is dropped comes again, at the latest when the connection has ended.
#[must_use = "a dead letter that is not settled comes again"]
pub trait DeadLetter: Send {
    /// What it holds.
    fn dead(&self) -> &Dead;
    /// It is dealt with.
    fn done(self) -> impl Future<Output = Result<(), QueueError>> + Send;
    /// It is to come again.
    fn put_back(self) -> impl Future<Output = Result<(), QueueError>> + Send;
}
