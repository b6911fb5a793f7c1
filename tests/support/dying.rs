//! A store and a queue that end the process before or after a chosen call, or hold its caller for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mehl_soup::queue::{Delivery, Depth, Published, QueueError, QueueState, Subscription, TicketQueue};
use mehl_soup::store::traits::{Admission, Leases, Outbox, Owner, Publishing, Reading, Repair, Steering, Upkeep};
use mehl_soup::store::{
    AfterRelease, AtRung, ClaimAnswer, Claimant, Completed, Created, Expiries, Extended, Findings, Held, Hold, Letter,
    Letters, Live, NewSweep, NewTask, Order, ReleaseReason, Saved, Standing, StoreError, SweepRecord, Sweeps,
    TaskEvent, TaskRecord, Tickets, Walked,
};
use mehl_soup::task::{TaskKey, Ticket, TicketError};
use tokio::sync::Notify;

/// Where the process ends: `claim:before` or `claim:after`, say, at the n-th time.
#[derive(Debug)]
pub struct Fuse {
    point: String,
    left: AtomicU32,
    /// In place of the process, only the caller ends: told when it is held.
    held: Option<Notify>,
}

impl Fuse {
    pub fn new(point: &str, times: u32) -> Arc<Self> {
        Arc::new(Self { point: point.to_string(), left: AtomicU32::new(times), held: None })
    }

    /// One that holds its caller for ever, once: who waits for [`held`](Self::held) can drop it, as if its process had ended.
    pub fn holding(point: &str) -> Arc<Self> {
        Arc::new(Self { point: point.to_string(), left: AtomicU32::new(1), held: Some(Notify::new()) })
    }

    /// Until a caller is held.
    pub async fn held(&self) {
        match &self.held {
            Some(held) => held.notified().await,
            None => std::future::pending().await,
        }
    }

    async fn burn(&self, call: &str, when: &str) {
        if self.point == format!("{call}:{when}") && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let Some(held) = &self.held else { std::process::abort() };
            held.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: &str, work: impl Future<Output = T>) -> T {
        self.burn(call, "before").await;
        let done = work.await;
        self.burn(call, "after").await;
        done
    }
}

pub struct Dying<T> {
    pub inner: T,
    pub fuse: Arc<Fuse>,
}

macro_rules! around {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {$(
        async fn $name(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
            self.fuse.around(stringify!($name), self.inner.$name($($argument),*)).await
        }
    )*};
}

impl<S: Leases> Leases for Dying<S> {
    around! {
        claim(ticket: &Ticket, claimant: &Claimant, lease: Duration) -> ClaimAnswer;
        renew(hold: &Hold, lease: Duration, progress: Option<&str>) -> Held<Order>;
        save(hold: &Hold, lease: Duration, saved: Saved<'_>) -> Held<Order>;
        complete(hold: &Hold, completed: &Completed) -> Held<()>;
        release(hold: &Hold, why: &ReleaseReason) -> Held<AfterRelease>;
        wait(hold: &Hold, standing: &Standing) -> Held<AfterRelease>;
        beat(worker: &str, lifetime: Duration, about: &str) -> ();
    }
}

impl<S: Publishing> Publishing for Dying<S> {
    around! {
        confirmed(tickets: &[Ticket]) -> usize;
    }
}

impl<S: Admission> Admission for Dying<S> {
    around! {
        create_sweep(sweep: &NewSweep, request: Option<&str>) -> Created;
        add_tasks(sweep: &str, order: usize, tasks: &[NewTask]) -> usize;
        open_sweep(sweep: &str) -> Option<Ticket>;
    }
}

impl<S: Steering> Steering for Dying<S> {
    around! {
        extend(sweep: &str, place: usize, tasks: &[NewTask]) -> Extended;
        close(sweep: &str) -> bool;
        release_pending(sweep: &str, limit: usize) -> usize;
        promote(tasks: &[AtRung]) -> usize;
        prune(tasks: &[AtRung]) -> usize;
    }
}

impl<S: Outbox> Outbox for Dying<S> {
    around! {
        ready(sweep: &str, limit: usize) -> Vec<TaskKey>;
        choose(tasks: &[TaskKey]) -> usize;
        outbox(limit: usize) -> Vec<Ticket>;
        republish(age: Duration, limit: usize) -> usize;
        due(sweep: &str, limit: usize) -> usize;
        dead(ticket: &Ticket, limit: u32) -> Option<AfterRelease>;
        keep_letter(letter: &Letter) -> ();
    }
}

impl<S: Upkeep> Upkeep for Dying<S> {
    around! {
        expire(limit: usize, gap: Duration) -> Expiries;
        retire(sweeps: &[String]) -> usize;
        adopt() -> usize;
        ended(age: Duration, limit: usize) -> Vec<String>;
    }
}

impl<S: Owner> Owner for Dying<S> {
    around! {
        order(sweep: &str, order: Order) -> bool;
        settle(sweep: &str, from: usize, limit: usize) -> Walked;
        retry(sweep: &str, from: usize, limit: usize) -> Walked;
        remove(sweep: &str, limit: usize) -> bool;
    }
}

impl<S: Reading> Reading for Dying<S> {
    around! {
        bodies(tasks: &[TaskKey]) -> Vec<Option<String>>;
        live() -> Live;
        probe() -> ();
        task(key: &TaskKey) -> Option<TaskRecord>;
        tasks(sweep: &str, from: usize, limit: usize) -> Vec<TaskRecord>;
        sweep(sweep: &str) -> Option<SweepRecord>;
        sweeps() -> Sweeps;
        documents(sweep: &str) -> Option<(String, Option<String>)>;
        events(key: &TaskKey) -> Vec<TaskEvent>;
        progress(key: &TaskKey) -> Option<String>;
        workers() -> Vec<(String, String)>;
        letters(limit: usize) -> Letters;
        tickets() -> Tickets;
        standing(key: &TaskKey) -> Option<String>;
        units(key: &TaskKey) -> Option<Vec<u8>>;
        result(key: &TaskKey) -> Option<Completed>;
    }
}

impl<S: Repair> Repair for Dying<S> {
    around! {
        examine(sweep: &str, repair: bool) -> Findings;
        examine_pool(repair: bool) -> Findings;
        discard(sweep: &str, limit: usize) -> bool;
    }
}

impl<Q: TicketQueue> TicketQueue for Dying<Q> {
    type Subscription = Dying<Q::Subscription>;
    type DeadLetter = Q::DeadLetter;

    async fn ready(&self, patience: Duration) -> Result<(), QueueError> {
        self.inner.ready(patience).await
    }

    async fn publish(&self, tickets: &[Ticket], patience: Duration) -> Published {
        self.fuse.around("publish", self.inner.publish(tickets, patience)).await
    }

    async fn subscribe(&self, patience: Duration) -> Result<Self::Subscription, QueueError> {
        let inner = self.inner.subscribe(patience).await?;
        Ok(Dying { inner, fuse: self.fuse.clone() })
    }

    async fn depth(&self, patience: Duration) -> Result<Depth, QueueError> {
        self.inner.depth(patience).await
    }

    async fn take_dead(&self, patience: Duration) -> Result<Option<Self::DeadLetter>, QueueError> {
        self.inner.take_dead(patience).await
    }

    async fn probe(&self, patience: Duration) -> Result<(), QueueError> {
        self.inner.probe(patience).await
    }

    fn state(&self) -> QueueState {
        self.inner.state()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl<S: Subscription> Subscription for Dying<S> {
    type Delivery = Dying<S::Delivery>;

    async fn next(&mut self, patience: Duration) -> Result<Option<Self::Delivery>, QueueError> {
        let next = self.inner.next(patience).await?;
        Ok(next.map(|inner| Dying { inner, fuse: self.fuse.clone() }))
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let fuse = self.fuse.clone();
        fuse.around("cancel", self.inner.cancel()).await
    }
}

impl<D: Delivery> Delivery for Dying<D> {
    fn ticket(&self) -> Result<Ticket, TicketError> {
        self.inner.ticket()
    }

    async fn ack(self) -> Result<(), QueueError> {
        self.fuse.around("ack", self.inner.ack()).await
    }

    async fn refuse(self) -> Result<(), QueueError> {
        self.inner.refuse().await
    }

    async fn put_back(self) -> Result<(), QueueError> {
        self.inner.put_back().await
    }
}
