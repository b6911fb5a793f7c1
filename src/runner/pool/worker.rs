//! A worker's turns: a ticket, its task, the next ticket. No message is held while a long task runs, and no ticket waits on a busy worker.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::ExponentialBackoff;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::attempt::{Attempt, AttemptSettings, Ended};
use super::compute::Compute;
use super::watch::WorkerObserver;
use crate::logging::task_span;
use crate::queue::{Delivery, QueueError, Subscription, TicketQueue};
use crate::retry::{Faults, pauses};
use crate::store::{
    AfterRelease, ClaimAnswer, Claimant, Claimed, Held, Hold, Order, ReleaseReason, Stage, StoreError, SweepRecord,
    WorkerStore,
};
use crate::task::{TaskState, Ticket};

/// Waits before something that did not work is tried again.
const PAUSE: Duration = Duration::from_millis(300);
/// Longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// With `once`: so long a worker waits for a ticket while there is work. A scheduler looks around once a minute at the least.
const COLD: Duration = Duration::from_secs(75);
/// Longest wait for one answer of the broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// A task that ends within this costs the broker one acknowledged message. For one that takes longer the subscription is ended, so that no
/// message is held for the hours that it may take: brokers close the channel of who does that. Each subscription costs the broker a channel and two writes
/// to the log of a quorum queue, more than a ticket does.
const SHORT: Duration = Duration::from_millis(500);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its name, unique in the installation.
    pub name: String,
    /// How it holds its tasks.
    pub attempt: AttemptSettings,
    /// Whether it ends after one task, or when there is none.
    pub once: bool,
    /// Longest wait for a ticket before it looks around: whether it shall end, and, with `once`, whether the queue is empty.
    pub look: Duration,
}

/// Why a worker ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A person has to change something about the broker, which has not been of use yet.
    #[error(transparent)]
    Queue(QueueError),
    /// The engine stands still: its thread cannot be ended, so the process must be.
    #[error("the engine makes no progress. Its task was returned; this process ends, because its compute thread hangs")]
    Stalled,
}

/// A worker.
pub struct Worker<'a, S, Q> {
    /// The truth.
    pub store: &'a S,
    /// Where tickets come from.
    pub queue: &'a Q,
    /// Where tasks are computed.
    pub compute: &'a Compute,
    /// How it works.
    pub settings: &'a WorkerSettings,
    /// Told of what happens.
    pub watch: Arc<dyn WorkerObserver>,
    /// True once it is asked to end: its task is kept and given back first.
    pub stop: watch::Receiver<bool>,
}

impl<S: WorkerStore, Q: TicketQueue> Worker<'_, S, Q> {
    /// Works until it is asked to end. Answers how many tasks it has had.
    ///
    /// # Errors
    /// If a person has to change something, or the engine stands still.
    pub async fn serve(&self) -> Result<u64, WorkerError> {
        let mut tasks = 0;
        let mut turns = Turns::default();
        let served = loop {
            let (claimed, delivery) = match self.take(&mut turns).await {
                Ok(Some(taken)) => taken,
                Ok(None) => break Ok(tasks),
                Err(error) => break Err(error),
            };
            tasks += 1;
            let (key, hold) = (claimed.hold.key.clone(), claimed.hold.clone());
            let span = task_span(&key, claimed.attempts);
            span.in_scope(|| self.watch.claimed(&claimed));
            let attempt = Attempt {
                store: self.store,
                compute: self.compute,
                settings: &self.settings.attempt,
                watch: self.watch.clone(),
                stop: self.stop.clone(),
            };
            let ended =
                settled_in_time(attempt.run(*claimed).instrument(span.clone()), delivery, &mut turns.subscription)
                    .await;
            span.in_scope(|| self.watch.ended(&key, &ended));
            let stalled = matches!(ended, Ended::Stalled(_));
            if ended == Ended::Orphaned {
                self.give_back(&hold).await;
            }
            if let Ended::LetGo(AfterRelease::Queued(ticket)) | Ended::Stalled(Some(AfterRelease::Queued(ticket))) =
                ended
            {
                self.publish(&ticket).await;
            }
            if stalled {
                break Err(WorkerError::Stalled);
            }
            if self.settings.once {
                break Ok(tasks);
            }
        };
        if let Some(mut subscription) = turns.subscription {
            drop(subscription.cancel().await);
        }
        served
    }

    /// The next task that is ours, and its ticket, from this subscription if there is one; it is left open. `None` if the worker shall end, or, with `once`, if
    /// there is none.
    async fn take(&self, turns: &mut Turns<Q::Subscription>) -> Result<Option<Taken<Q>>, WorkerError> {
        while !self.is_stopped() {
            let mut open = match turns.subscription.take() {
                Some(open) => open,
                None => match self.queue.subscribe(PATIENCE).await {
                    Ok(open) => {
                        turns.works();
                        open
                    }
                    Err(error) => {
                        self.pause_after_fault(error, turns).await?;
                        continue;
                    }
                },
            };
            match self.listen(&mut open, turns).await? {
                Heard::Task(claimed, delivery) => {
                    turns.subscription = Some(open);
                    return Ok(Some((claimed, delivery)));
                }
                Heard::Fault => {}
                Heard::Nothing => {
                    drop(open.cancel().await);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    async fn listen(
        &self,
        subscription: &mut Q::Subscription,
        turns: &mut Turns<Q::Subscription>,
    ) -> Result<Heard<Q>, WorkerError> {
        let began = Instant::now();
        while !self.is_stopped() {
            let delivery = match subscription.next(self.settings.look).await {
                Ok(Some(delivery)) => delivery,
                Ok(None) if self.settings.once => match self.queue.depth(PATIENCE).await {
                    Ok(depth) if depth.ready == 0 && !(began.elapsed() < COLD && self.comes_soon().await) => {
                        return Ok(Heard::Nothing);
                    }
                    Ok(_) => continue,
                    Err(error) => {
                        self.pause_after_fault(error, turns).await?;
                        continue;
                    }
                },
                Ok(None) => continue,
                Err(error) => {
                    self.pause_after_fault(error, turns).await?;
                    return Ok(Heard::Fault);
                }
            };
            let ticket = match delivery.ticket() {
                Ok(ticket) => ticket,
                Err(error) => {
                    self.watch.say(&format!("a message was rejected: {error}"));
                    drop(delivery.refuse().await);
                    continue;
                }
            };
            match self.claim(&ticket).await {
                None => {
                    drop(delivery.put_back().await);
                    return Ok(Heard::Nothing);
                }
                // Another worker would read no more of it. The ticket is not at fault, so it is no dead letter: the scheduler publishes it again after a
                // while, and sets a sweep aside whose record is damaged.
                Some(Err(error)) => {
                    self.watch.say(&format!("cannot claim task {}: {error}", ticket.task_id));
                    drop(delivery.ack().await);
                }
                Some(Ok(ClaimAnswer::Claimed(claimed))) => return Ok(Heard::Task(claimed, delivery)),
                Some(Ok(ClaimAnswer::Refused(why))) => {
                    self.watch.refused(&ticket, why);
                    drop(delivery.ack().await);
                }
            }
        }
        Ok(Heard::Nothing)
    }

    /// Claims until the store answers; `None` if the worker shall end first. Each try has the same nonce, so that a claim whose answer was lost is not lost.
    async fn claim(&self, ticket: &Ticket) -> Option<Result<ClaimAnswer, StoreError>> {
        let claimant = Claimant { worker: self.settings.name.clone(), nonce: nonce(&self.settings.name) };
        let (mut faults, mut delays) = (Faults::default(), pauses(PAUSE, LONGEST_PAUSE));
        loop {
            match self.store.claim(ticket, &claimant, self.settings.attempt.lease).await {
                Err(error) if error.is_retryable() => faults.met(&error, |fault| self.watch.say(fault)),
                answer => return Some(answer),
            }
            if self.pause(delays.next()).await {
                return None;
            }
        }
    }

    /// Publishes the ticket of a task that this worker gave back. It is in the outbox too, so that whoever sweeps that does it if this fails.
    async fn publish(&self, ticket: &Ticket) {
        let published = self.queue.publish(std::slice::from_ref(ticket), PATIENCE).await;
        if let Some(fault) = published.fault {
            self.watch.say(&format!("{fault}; the scheduler will publish the ticket of {}", ticket.task_id));
        }
        if let Err(error) = self.store.confirmed(&published.confirmed).await {
            self.watch.say(&error.to_string());
        }
    }

    /// Gives a task back that was given up because the store was not there: without it, nothing else can be done either. Where another worker has the task by
    /// then, this writes nothing.
    async fn give_back(&self, hold: &Hold) {
        let (mut faults, mut delays) = (Faults::default(), pauses(PAUSE, LONGEST_PAUSE));
        while !self.is_stopped() {
            let mut stop = self.stop.clone();
            let answer = tokio::select! {
                answer = self.store.release(hold, &ReleaseReason::Preempted) => answer,
                // The attempt has waited for a lease already: another worker has the task by then.
                Ok(_) = stop.wait_for(|stop| *stop) => return,
            };
            match answer {
                Ok(Held::Yes(AfterRelease::Queued(ticket))) => return self.publish(&ticket).await,
                Err(error) if error.is_retryable() => faults.met(&error, |fault| self.watch.say(fault)),
                _ => return,
            }
            if self.pause(delays.next()).await {
                return;
            }
        }
    }

    /// Waits after a fault; answers one that no waiting mends: the broker was never of use, and a person has to change something.
    async fn pause_after_fault(
        &self,
        error: QueueError,
        turns: &mut Turns<Q::Subscription>,
    ) -> Result<(), WorkerError> {
        if error == QueueError::Closed || !(turns.has_worked || error.is_retryable()) {
            return Err(WorkerError::Queue(error));
        }
        turns.faults.met(&error, |fault| self.watch.say(fault));
        let delay = turns.delays.next();
        self.pause(delay).await;
        Ok(())
    }

    /// Waits for this long, or until the worker is to end. Answers whether it is.
    async fn pause(&self, delay: Option<Duration>) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep(delay.unwrap_or(LONGEST_PAUSE)) => self.is_stopped(),
            Ok(_) = stop.wait_for(|stop| *stop) => true,
        }
    }

    /// Whether there is work that a ticket is going to come for: the scheduler may not have seen this worker yet.
    async fn comes_soon(&self) -> bool {
        let (Ok(live), Ok(tickets)) = (self.store.live().await, self.store.tickets().await) else { return true };
        if !tickets.outbox.is_empty() {
            return true;
        }
        let is_open = |sweep: &&SweepRecord| sweep.order == Order::Continue;
        live.sweeps.records.iter().filter(is_open).any(|sweep| {
            let is_scored = sweep.stage == Stage::Ready;
            sweep.ready > 0 || sweep.delayed > 0 || is_scored && sweep.count(TaskState::Pending) > 0
        })
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// What a worker keeps from turn to turn.
struct Turns<S> {
    /// Left open after a short task.
    subscription: Option<S>,
    /// Whether the broker has ever been of use: then every fault of it can pass.
    has_worked: bool,
    faults: Faults,
    delays: ExponentialBackoff,
}

impl<S> Turns<S> {
    /// The broker is of use.
    fn works(&mut self) {
        self.has_worked = true;
        self.faults.none();
        self.delays = pauses(PAUSE, LONGEST_PAUSE);
    }
}

impl<S> Default for Turns<S> {
    fn default() -> Self {
        let delays = pauses(PAUSE, LONGEST_PAUSE);
        Self { subscription: None, has_worked: false, faults: Faults::default(), delays }
    }
}

/// A claimed task, and its ticket that is not settled yet.
type Taken<Q> = (Box<Claimed>, <<Q as TicketQueue>::Subscription as Subscription>::Delivery);

/// Computes a claimed task, and settles its ticket: at the task's end if that comes soon, so that the next one comes by the same subscription; else the
/// subscription is ended first. If the broker does not hear of it, the ticket comes again and is refused then.
async fn settled_in_time<S: Subscription>(
    attempt: impl Future<Output = Ended>,
    ticket: S::Delivery,
    subscription: &mut Option<S>,
) -> Ended {
    let mut attempt = pin!(attempt);
    if let Ok(ended) = timeout(SHORT, &mut attempt).await {
        if ticket.ack().await.is_err() {
            *subscription = None;
        }
        return ended;
    }
    let settle = async {
        if let Some(mut subscription) = subscription.take() {
            drop(subscription.cancel().await);
        }
        drop(ticket.ack().await);
    };
    tokio::join!(attempt, settle).0
}

/// What came of listening.
enum Heard<Q: TicketQueue> {
    Task(Box<Claimed>, <Q::Subscription as Subscription>::Delivery),
    /// The subscription has ended.
    Fault,
    Nothing,
}

/// Different for each claim of each process.
fn nonce(worker: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CLAIMS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = blake3::Hasher::new();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    hasher.update(worker.as_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&since.as_nanos().to_le_bytes());
    hasher.update(&CLAIMS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    hasher.finalize().to_hex()[..32].to_string()
}
