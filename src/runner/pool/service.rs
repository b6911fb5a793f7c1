//! A worker as a service: it says that it is there, works, and ends in order when asked to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::compute::Compute;
use super::watch::WorkerObserver;
use super::worker::{Worker, WorkerError, WorkerSettings};
use crate::queue::TicketQueue;
use crate::retry::Faults;
use crate::store::WorkerStore;
use crate::store::traits::Leases;

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// How long one holds: three may be lost.
const LIFETIME: Duration = Duration::from_secs(20);

/// Works until asked to end, and says all the while that it is there. `about` is JSON for people. Answers how many tasks it has had.
///
/// # Errors
/// As [`Worker::serve`].
pub async fn serve<S: WorkerStore, Q: TicketQueue>(
    store: &S,
    queue: &Q,
    compute: &Compute,
    settings: &WorkerSettings,
    about: &str,
    watch: Arc<dyn WorkerObserver>,
    stop: watch::Receiver<bool>,
) -> Result<u64, WorkerError> {
    let worker = Worker { store, queue, compute, settings, watch: watch.clone(), stop };
    let ended = tokio::select! {
        ended = worker.serve() => ended,
        never = beat(store, &settings.name, about, &*watch) => match never {},
    };
    // It is gone now, not in twenty seconds: the window of tickets follows.
    drop(tokio::time::timeout(Duration::from_secs(1), store.beat(&settings.name, Duration::ZERO, about)).await);
    ended
}

/// Says that this worker is there, for ever.
async fn beat(store: &impl Leases, name: &str, about: &str, watch: &dyn WorkerObserver) -> Infallible {
    let mut faults = Faults::default();
    loop {
        watch.beat();
        match store.beat(name, LIFETIME, about).await {
            Ok(()) => faults.none(),
            Err(error) => faults.met(&error, |fault| watch.say(fault)),
        }
        sleep(BEAT).await;
    }
}
