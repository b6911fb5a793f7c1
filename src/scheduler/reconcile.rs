//! The scheduler's turns: what was lost is found, what is wanted is done, what can be worked on gets its ticket.
//!
//! Everything here may end anywhere, be repeated, and be done by two schedulers at once: each step is one of the store's own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::histories::Histories;
use super::outbox::publish_outbox;
use super::plan::{Action, PlanSettings, Snapshot, plan};
use super::search::{Stepped, step_search};
use crate::queue::{DeadLetter, QueueError, TicketQueue};
use crate::search::Searches;
use crate::store::{AfterRelease, Expired, Letter, SchedulerStore, StoreError, SweepRecord};
use crate::task::{TaskState, Ticket};
use crate::untrusted::printable;

/// Most things that one step looks at: the store answers nobody else meanwhile.
const STEP: usize = 256;
/// Longest wait for the broker in a turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times that a current ticket may be dead-lettered before its task fails.
const DEAD_LETTERS: u32 = 3;
/// Most dead letters looked at in one turn.
const DEAD_A_TURN: usize = 64;
/// Wait after a turn that handed out work: workers may be waiting for more of it. It doubles with each turn that finds none to hand out.
const EAGER: Duration = Duration::from_millis(5);
/// A turn that begins so much later than it should follows an outage of the store, or of the schedulers.
const LATE: Duration = Duration::from_secs(1);

/// How a scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// How work is handed out.
    pub plan: PlanSettings,
    /// Time between two turns in which everything is looked at.
    pub interval: Duration,
    /// Age of a ticket that the broker has, beyond which it is published again if the queue is empty.
    pub republish_after: Duration,
    /// A sweep is removed so long after its end; `None` keeps it for ever.
    pub retention: Option<Duration>,
    /// What decides in sweeps that a search controls.
    pub searches: Searches,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            plan: PlanSettings::default(),
            interval: Duration::from_secs(1),
            republish_after: Duration::from_secs(60),
            retention: None,
            searches: Searches::default(),
        }
    }
}

/// What a turn did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Tasks taken from workers whose lease ran out.
    pub expired: Vec<Expired>,
    /// Tasks brought in line with what their sweep's owner wants.
    pub settled: usize,
    /// Tasks that became runnable after their sweep's scores.
    pub released: usize,
    /// Tasks whose wait after a crash was over.
    pub due: usize,
    /// What searches decided.
    pub searched: Stepped,
    /// Tasks that got a ticket.
    pub chosen: usize,
    /// Tickets that the broker confirmed.
    pub published: usize,
    /// Tickets that go out once more because they seem lost.
    pub republished: usize,
    /// Dead letters looked at: those whose task still waited for them, and all.
    pub dead: (usize, usize),
    /// Dead letters that are no tickets.
    pub malformed: usize,
    /// Sweeps that have not ended, as they were when work was handed out.
    pub sweeps: Vec<SweepRecord>,
    /// Tasks of sweeps that have ended, by state.
    pub ended: BTreeMap<TaskState, usize>,
    /// Sweeps and tasks that cannot be read, with what is wrong; they are left alone.
    pub aside: BTreeMap<String, String>,
    /// Workers that were there then.
    pub workers: usize,
    /// Tickets on their way then: to be published, and published.
    pub tickets: (usize, usize),
    /// Most tickets that may be on their way to so many workers.
    pub window: usize,
    /// Why not everything was published.
    pub fault: Option<QueueError>,
}

/// Told of each turn: for metrics.
pub trait Watcher: Send + Sync {
    /// A turn, and how long it took.
    fn turned(&self, _: &Turn, _: Duration) {}
    /// A turn that the store cut off.
    fn faulted(&self, _: &StoreError) {}
}

impl Watcher for () {}

/// A scheduler.
pub struct Scheduler<'a, S, Q> {
    /// The truth.
    pub store: &'a S,
    /// Where tickets go.
    pub queue: &'a Q,
    /// How it works.
    pub settings: &'a SchedulerSettings,
    /// Told when something was changed that it acts on: it need not wait for its next turn then.
    pub wake: &'a Notify,
}

impl<S: SchedulerStore, Q: TicketQueue> Scheduler<'_, S, Q> {
    /// Turns until it is asked to end. Whatever goes wrong is said once, and tried again.
    pub async fn run(&self, mut stop: watch::Receiver<bool>, watcher: &impl Watcher) {
        let mut whole: Option<Instant> = None;
        let mut said = None;
        let mut pause = EAGER;
        let mut aside = BTreeMap::new();
        let mut has_adopted = false;
        let mut was_refused = false;
        let histories = Histories::default();
        while !*stop.borrow() {
            let is_whole = whole.is_none_or(|last| last.elapsed() >= self.settings.interval);
            let began = Instant::now();
            let turn = match (is_whole, has_adopted) {
                (true, false) => match self.store.adopt().await {
                    Ok(_) => self.turn_after(was_refused, &histories).await,
                    Err(error) => Err(error),
                },
                (true, true) => self.turn_after(was_refused, &histories).await,
                (false, _) => self.hand_out(&histories).await,
            };
            if is_whole {
                whole = Some(began);
            }
            let mut next = (pause * 2).min(self.settings.interval);
            let fault = match turn {
                Ok(turn) => {
                    for expired in &turn.expired {
                        tracing::warn!(
                            "task {}: the lease of its worker expired; now {}",
                            expired.key,
                            onward(&expired.onward)
                        );
                    }
                    watcher.turned(&turn, began.elapsed());
                    say_aside(&aside, &turn.aside);
                    aside.clone_from(&turn.aside);
                    has_adopted |= is_whole;
                    was_refused &= !is_whole;
                    if turn.chosen + turn.searched.opened > 0 {
                        next = EAGER;
                    }
                    turn.fault.map(|fault| fault.to_string())
                }
                Err(error) => {
                    was_refused = true;
                    watcher.faulted(&error);
                    Some(error.to_string())
                }
            };
            // A fault that lasts is said once.
            if fault != said
                && let Some(fault) = &fault
            {
                tracing::warn!("{}", printable(fault));
            }
            said = fault;
            pause = next;
            tokio::select! {
                // If nobody can ask any more, it goes on.
                Ok(_) = stop.wait_for(|stop| *stop) => {}
                () = self.wake.notified() => whole = None,
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn turn(&self) -> Result<Turn, StoreError> {
        self.turn_after(false, &Histories::default()).await
    }

    /// Looks at everything once. `was_refused`: the store did not do what was asked of it since the last time, and workers could not renew
    /// their leases either.
    async fn turn_after(&self, was_refused: bool, histories: &Histories) -> Result<Turn, StoreError> {
        let mut turn = Turn::default();
        // Turns that follow each other are at most so far apart, as long as the store takes writes.
        let gap = if was_refused { Duration::ZERO } else { self.settings.interval + LATE };
        loop {
            let expiries = self.store.expire(STEP, gap).await?;
            let is_last = expiries.expired.len() + expiries.unreadable.len() < STEP;
            turn.expired.extend(expiries.expired);
            turn.aside.extend(expiries.unreadable.into_iter().map(|record| (record.id, record.why)));
            if is_last {
                break;
            }
        }
        // First what the last turn left: questions that a slow broker never answers in time must not
        // keep tickets from being published.
        self.publish(&mut turn).await?;
        self.bury(&mut turn).await?;
        self.republish(&mut turn).await?;
        self.carry_out(&mut turn, histories).await?;
        self.forget(&mut turn).await?;
        Ok(turn)
    }

    /// Hands out work, and nothing else.
    async fn hand_out(&self, histories: &Histories) -> Result<Turn, StoreError> {
        let mut turn = Turn::default();
        self.carry_out(&mut turn, histories).await?;
        Ok(turn)
    }

    async fn carry_out(&self, turn: &mut Turn, histories: &Histories) -> Result<(), StoreError> {
        let live = self.store.live().await?;
        let sweeps = live.sweeps.records;
        turn.ended = live.ended;
        turn.aside.extend(live.sweeps.unreadable.into_iter().map(|record| (record.id, record.why)));
        let ended: Vec<String> = sweeps.iter().filter(|sweep| sweep.is_final()).map(|sweep| sweep.id.clone()).collect();
        if !ended.is_empty() {
            self.store.retire(&ended).await?;
        }
        histories.keep_only(&sweeps);
        let workers = self.store.workers().await?.len();
        let on_their_way = self.store.tickets().await?;
        turn.tickets = (on_their_way.outbox.len(), on_their_way.outstanding.len());
        (turn.workers, turn.window) = (workers, self.settings.plan.window(workers));
        let tickets = turn.tickets.0 + turn.tickets.1;
        for action in plan(&self.settings.plan, &Snapshot { sweeps: &sweeps, workers, tickets }) {
            match self.act(&action, &sweeps, histories, turn).await {
                Ok(()) => {}
                // A record of this sweep cannot be read: the others go on.
                Err(StoreError::Protocol(why)) => drop(turn.aside.insert(action.sweep().to_string(), why)),
                Err(error) => return Err(error),
            }
        }
        turn.sweeps = sweeps;
        self.publish(turn).await
    }

    /// Publishes the outbox.
    async fn publish(&self, turn: &mut Turn) -> Result<(), StoreError> {
        while self.is_there(turn) {
            let (published, fault) = publish_outbox(self.store, self.queue, STEP, PATIENCE).await?;
            turn.published += published;
            turn.fault = fault;
            if published < STEP {
                break;
            }
        }
        Ok(())
    }

    async fn act(
        &self,
        action: &Action,
        sweeps: &[SweepRecord],
        histories: &Histories,
        turn: &mut Turn,
    ) -> Result<(), StoreError> {
        match action {
            Action::Settle(sweep) => turn.settled += self.settle(sweep).await?,
            Action::Due(sweep) => turn.due += self.store.due(sweep, STEP).await?,
            Action::Release { sweep, limit } => turn.released += self.store.release_pending(sweep, *limit).await?,
            Action::Search { sweep, slots } => {
                if let Some(record) = sweeps.iter().find(|record| record.id == *sweep) {
                    turn.searched +=
                        step_search(self.store, &self.settings.searches, histories, record, *slots).await?;
                }
            }
            Action::Choose { sweep, limit } => {
                let ready = self.store.ready(sweep, *limit).await?;
                turn.chosen += self.store.choose(&ready).await?;
            }
        }
        Ok(())
    }

    /// Whether the broker can be asked. Where it is known to be away, or has let this turn wait already, the turn does not wait for it: what else there is to do is
    /// done meanwhile, and the next turn comes soon.
    fn is_there(&self, turn: &mut Turn) -> bool {
        let state = self.queue.state();
        turn.fault = turn.fault.take().or(state.fault);
        state.is_connected && turn.fault.is_none()
    }

    /// Removes sweeps that ended long enough ago.
    async fn forget(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let Some(retention) = self.settings.retention else { return Ok(()) };
        for sweep in self.store.ended(retention, STEP).await? {
            let removed = loop {
                match self.store.remove(&sweep, STEP).await {
                    Ok(false) => {}
                    Ok(true) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match removed {
                Ok(()) => tracing::info!("sweep {sweep} deleted, as it ended {} s ago", retention.as_secs()),
                // Retried meanwhile, or not to be read.
                Err(StoreError::Protocol(why)) => drop(turn.aside.insert(sweep, why)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn settle(&self, sweep: &str) -> Result<usize, StoreError> {
        let (mut changed, mut from) = (0, Some(0));
        while let Some(place) = from {
            let walked = self.store.settle(sweep, place, STEP).await?;
            changed += walked.changed;
            from = walked.next;
        }
        Ok(changed)
    }

    /// Tickets that the broker has had for long while nothing is ready there are lost, or in the hands of a worker that will be refused.
    async fn republish(&self, turn: &mut Turn) -> Result<(), StoreError> {
        if !self.is_there(turn) || self.store.tickets().await?.outstanding.is_empty() {
            return Ok(());
        }
        match self.queue.depth(PATIENCE).await {
            Ok(depth) if depth.ready == 0 => {
                turn.republished = self.store.republish(self.settings.republish_after, STEP).await?;
            }
            Ok(_) => {}
            Err(error) => turn.fault = Some(error),
        }
        Ok(())
    }

    async fn bury(&self, turn: &mut Turn) -> Result<(), StoreError> {
        for _ in 0..DEAD_A_TURN {
            if !self.is_there(turn) {
                return Ok(());
            }
            let letter = match self.queue.take_dead(PATIENCE).await {
                Ok(Some(letter)) => letter,
                Ok(None) => return Ok(()),
                Err(error) => {
                    turn.fault = Some(error);
                    return Ok(());
                }
            };
            turn.dead.1 += 1;
            let dead = letter.dead();
            match Ticket::from_bytes(&dead.body) {
                Ok(ticket) => {
                    let (id, reason) = (&ticket.task_id, &dead.reason);
                    match self.store.dead(&ticket, DEAD_LETTERS).await {
                        Ok(None) => {}
                        Ok(Some(became)) => {
                            turn.dead.0 += 1;
                            tracing::warn!(
                                "the ticket of {id} was returned undelivered ({reason}); the task is now {}",
                                onward(&became)
                            );
                        }
                        // The task's record cannot be read. Its ticket is worth nothing as long as that is so.
                        Err(StoreError::Protocol(why)) => drop(turn.aside.insert(id.to_string(), why)),
                        Err(error) => {
                            drop(letter.put_back().await);
                            return Err(error);
                        }
                    }
                }
                Err(error) => {
                    let text = String::from_utf8_lossy(&dead.body[..dead.body.len().min(200)]).into_owned();
                    tracing::warn!("a dead letter is not a ticket ({error}): {}", printable(&text));
                    // Kept before it is settled: should that fail, it comes again.
                    let kept = Letter::new(&dead.body, &dead.reason, &error.to_string());
                    if let Err(error) = self.store.keep_letter(&kept).await {
                        drop(letter.put_back().await);
                        return Err(error);
                    }
                    turn.malformed += 1;
                }
            }
            // Not settled, it comes again, and is worth nothing then.
            drop(letter.done().await);
        }
        Ok(())
    }
}

/// Says which records were set aside since the last turn, and which can be read again.
fn say_aside(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) {
    for (id, why) in now.iter().filter(|(id, why)| before.get(*id) != Some(why)) {
        tracing::error!(
            "{} is set aside; all others continue: {} (check and repair it with `mehl-soup doctor`)",
            printable(id),
            printable(why)
        );
    }
    for id in before.keys().filter(|id| !now.contains_key(*id)) {
        tracing::info!("{} can be read again and is no longer set aside", printable(id));
    }
}

fn onward(onward: &AfterRelease) -> TaskState {
    match onward {
        AfterRelease::Queued(_) => TaskState::Queued,
        AfterRelease::State(state) => *state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::InProcess;
    use crate::scheduler::{Terms, admit, new_tasks};
    use crate::store::traits::*;
    use crate::store::{Memory, Order};
    use crate::sweep::parse::{Format, parse_spec_text};

    async fn turned_until(store: &Memory, retention: Option<Duration>, done: impl AsyncFn(&Memory) -> bool) -> bool {
        let settings =
            SchedulerSettings { interval: Duration::from_millis(2), retention, ..SchedulerSettings::default() };
        let (queue, wake, (_ask, stop)) = (InProcess::default(), Notify::new(), watch::channel(false));
        let scheduler = Scheduler { store, queue: &queue, settings: &settings, wake: &wake };
        let looked = async {
            while !done(store).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = scheduler.run(stop, &()) => panic!("it has ended"),
            () = looked => true,
            () = sleep(Duration::from_secs(20)) => false,
        }
    }

    #[tokio::test]
    async fn sweeps_that_have_ended_are_kept_as_long_as_they_are_to_be() {
        let store = Memory::default();
        let text = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'";
        let spec = parse_spec_text(text, Format::Toml, std::path::Path::new("/")).unwrap();
        let admitted = admit(&store, &spec, &new_tasks(&spec), Terms::default(), None).await.unwrap();
        store.order(&admitted.id, Order::Cancel).await.unwrap();
        let is_final = async |store: &Memory| store.sweep(&admitted.id).await.unwrap().unwrap().is_final();
        assert!(turned_until(&store, None, is_final).await, "it is cancelled");
        assert_eq!(store.sweeps().await.unwrap().records.len(), 1, "without retention it stays");
        let is_gone = async |store: &Memory| store.sweeps().await.unwrap().records.is_empty();
        assert!(turned_until(&store, Some(Duration::from_millis(10)), is_gone).await, "it is removed");
    }
}
