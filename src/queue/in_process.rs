//! The queue of one process: tickets in memory, gone with it. The store of a run folder publishes them again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{
    DELIVERY_LIMIT, Dead, DeadLetter, Delivery, Depth, Published, QueueError, QueueState, Subscription, TicketQueue,
};
use crate::task::{Ticket, TicketError};

/// Tickets in memory. Clones are the same queue.
#[derive(Debug, Clone, Default)]
pub struct InProcess(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told of every change, so that whoever waits looks again.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Waiting>,
    dead: VecDeque<Dead>,
    consumers: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    /// Deliveries that ended without an answer.
    failures: u32,
}

impl Default for Shared {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left whole collections behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, QueueError> {
        let state = self.locked();
        if state.is_closed { Err(QueueError::Closed) } else { Ok(state) }
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.locked());
        self.changed.send_replace(());
    }
}

impl TicketQueue for InProcess {
    type Subscription = InProcessSubscription;
    type DeadLetter = InProcessDead;

    async fn ready(&self, _: Duration) -> Result<(), QueueError> {
        self.0.open().map(drop)
    }

    async fn publish(&self, tickets: &[Ticket], _: Duration) -> Published {
        match self.0.open() {
            Ok(mut state) => {
                state.ready.extend(tickets.iter().map(|ticket| Waiting { ticket: ticket.clone(), failures: 0 }));
            }
            Err(_) if tickets.is_empty() => {}
            Err(fault) => return Published::none(fault),
        }
        self.0.changed.send_replace(());
        Published { confirmed: tickets.to_vec(), fault: None }
    }

    async fn subscribe(&self, _: Duration) -> Result<InProcessSubscription, QueueError> {
        self.0.open()?.consumers += 1;
        Ok(InProcessSubscription { queue: self.clone(), busy: Arc::default(), is_active: true })
    }

    async fn depth(&self, _: Duration) -> Result<Depth, QueueError> {
        let state = self.0.open()?;
        Ok(Depth { ready: state.ready.len() as u64, consumers: state.consumers })
    }

    async fn take_dead(&self, _: Duration) -> Result<Option<InProcessDead>, QueueError> {
        let dead = self.0.open()?.dead.pop_front();
        Ok(dead.map(|dead| InProcessDead { queue: self.clone(), dead, is_settled: false }))
    }

    async fn probe(&self, _: Duration) -> Result<(), QueueError> {
        if self.state().is_connected { Ok(()) } else { Err(QueueError::Closed) }
    }

    fn state(&self) -> QueueState {
        let is_connected = !self.0.locked().is_closed;
        let fault = (!is_connected).then_some(QueueError::Closed);
        QueueState { is_connected, is_blocked: false, fault }
    }

    async fn close(&self) {
        self.0.change(|state| state.is_closed = true);
    }
}

/// A subscription to [`InProcess`].
#[derive(Debug)]
pub struct InProcessSubscription {
    queue: InProcess,
    /// Whether its last ticket is not settled yet.
    busy: Arc<Mutex<bool>>,
    is_active: bool,
}

impl InProcessSubscription {
    fn end(&mut self) {
        if std::mem::take(&mut self.is_active) {
            self.queue.0.change(|state| state.consumers -= 1);
        }
    }

    fn take(&self) -> Result<Option<InProcessDelivery>, QueueError> {
        let mut state = self.queue.0.open()?;
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if *busy {
            return Ok(None);
        }
        let waiting = state.ready.pop_front();
        *busy = waiting.is_some();
        let (queue, busy) = (self.queue.clone(), Arc::clone(&self.busy));
        Ok(waiting.map(|waiting| InProcessDelivery { queue, busy, waiting: Some(waiting) }))
    }
}

impl Subscription for InProcessSubscription {
    type Delivery = InProcessDelivery;

    async fn next(&mut self, patience: Duration) -> Result<Option<InProcessDelivery>, QueueError> {
        let deadline = Instant::now() + patience;
        let mut changed = self.queue.0.changed.subscribe();
        loop {
            if !self.is_active {
                return Err(QueueError::Withdrawn("the subscription has ended".to_string()));
            }
            // Looked for after the call above: a change since then ends the wait below at once.
            if let Some(delivery) = self.take()? {
                return Ok(Some(delivery));
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        self.end();
        Ok(())
    }
}

impl Drop for InProcessSubscription {
    fn drop(&mut self) {
        self.end();
    }
}

/// A ticket from [`InProcess`].
#[derive(Debug)]
pub struct InProcessDelivery {
    queue: InProcess,
    busy: Arc<Mutex<bool>>,
    /// `None` once it is settled.
    waiting: Option<Waiting>,
}

impl InProcessDelivery {
    fn settle(&mut self, how: impl FnOnce(&mut State, Waiting)) {
        let Some(waiting) = self.waiting.take() else { return };
        self.queue.0.change(|state| {
            how(state, waiting);
            *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        });
    }
}

fn bury(state: &mut State, ticket: &Ticket, reason: &str) {
    state.dead.push_back(Dead { body: ticket.to_bytes(), reason: reason.to_string(), count: 1 });
}

fn deliver_again(state: &mut State, waiting: Waiting) {
    let failures = waiting.failures + 1;
    if failures > DELIVERY_LIMIT {
        bury(state, &waiting.ticket, "delivery_limit");
    } else {
        state.ready.push_front(Waiting { failures, ..waiting });
    }
}

impl Delivery for InProcessDelivery {
    fn ticket(&self) -> Result<Ticket, TicketError> {
        let waiting = self.waiting.as_ref().expect("settling consumes the delivery");
        Ok(waiting.ticket.clone())
    }

    async fn ack(mut self) -> Result<(), QueueError> {
        self.settle(|_, _| {});
        Ok(())
    }

    async fn refuse(mut self) -> Result<(), QueueError> {
        self.settle(|state, waiting| bury(state, &waiting.ticket, "rejected"));
        Ok(())
    }

    async fn put_back(mut self) -> Result<(), QueueError> {
        self.settle(deliver_again);
        Ok(())
    }
}

impl Drop for InProcessDelivery {
    fn drop(&mut self) {
        self.settle(deliver_again);
    }
}

/// A dead letter of [`InProcess`].
#[derive(Debug)]
pub struct InProcessDead {
    queue: InProcess,
    dead: Dead,
    is_settled: bool,
}

impl DeadLetter for InProcessDead {
    fn dead(&self) -> &Dead {
        &self.dead
    }

    async fn done(mut self) -> Result<(), QueueError> {
        self.is_settled = true;
        Ok(())
    }

    async fn put_back(self) -> Result<(), QueueError> {
        Ok(())
    }
}

impl Drop for InProcessDead {
    fn drop(&mut self) {
        if !self.is_settled {
            let dead = self.dead.clone();
            self.queue.0.change(|state| state.dead.push_front(dead));
        }
    }
}
