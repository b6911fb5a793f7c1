//! A worker as a service: it says that it is there, works, and ends in order when asked to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::compute::Compute;
use super::watch::Watch;
use super::worker::{Worker, WorkerError, WorkerSettings};
use crate::queue::TicketQueue;
use crate::store::{Store, StoreError};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// How long one holds: three may be lost.
const LIFETIME: Duration = Duration::from_secs(20);

/// Works until asked to end, and says all the while that it is there. `about` is JSON for people. Answers how many tasks it has had.
///
/// # Errors
/// As [`Worker::serve`].
pub async fn serve<S: Store, Q: TicketQueue>(
    store: &S,
    queue: &Q,
    compute: &Compute,
    settings: &WorkerSettings,
    about: &str,
    watch: Arc<dyn Watch>,
    stop: watch::Receiver<bool>,
) -> Result<u64, WorkerError> {
    let worker = Worker { store, queue, compute, settings, watch: watch.clone(), stop };
    let ended = tokio::select! {
        ended = worker.serve() => ended,
        error = beat(store, &settings.name, about, &*watch) => Err(WorkerError::Store(error)),
    };
    // It is gone now, not in twenty seconds: the window of tickets follows.
    drop(tokio::time::timeout(Duration::from_secs(1), store.beat(&settings.name, Duration::ZERO, about)).await);
    ended
}

/// Says that this worker is there, until a person has to change something.
async fn beat(store: &impl Store, name: &str, about: &str, watch: &dyn Watch) -> StoreError {
    let mut said = None;
    loop {
        watch.beat();
        let fault = match store.beat(name, LIFETIME, about).await {
            Ok(()) => None,
            Err(error) if error.is_retryable() => Some(error.to_string()),
            Err(error) => return error,
        };
        if fault != said
            && let Some(fault) = &fault
        {
            watch.say(fault);
        }
        said = fault;
        sleep(BEAT).await;
    }
}
