//! What a worker does, told to whoever watches it: people, and metrics.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Ended;
use crate::runner::engine::{EngineError, Progress};
use crate::store::{AfterRelease, Claimed, Refusal};
use crate::sweep::manifest::Manifest;
use crate::task::{TaskKey, Ticket};
use crate::untrusted::printable;

/// Told of everything that a worker does, from the compute thread and from the asynchronous side: it must not wait for anything.
pub trait WorkerObserver: Send + Sync {
    /// Something a person should read.
    fn say(&self, message: &str);
    /// The worker goes round its loop: it lives, whether the store answers or not.
    fn beat(&self) {}
    /// A task is ours.
    fn claimed(&self, _: &Claimed) {}
    /// A ticket was refused.
    fn refused(&self, _: &Ticket, _: Refusal) {}
    /// An ingredient was scored; `done` of `total`.
    fn scored(&self, _: &Manifest, _done: usize, _total: usize) {}
    /// An iteration is done.
    fn iteration(&self, _: &TaskKey, _: &Progress) {}
    /// A model batch was read; how long that took.
    fn loaded(&self, _took: Duration) {}
    /// A checkpoint was not written, as the store did not answer: it stays in memory.
    fn not_saved(&self) {}
    /// A checkpoint of so many bytes was written; how long that took.
    fn saved(&self, _bytes: usize, _took: Duration) {}
    /// A checkpoint cannot be read, or is another task's or version's: the task begins anew.
    fn checkpoint_refused(&self, _: &TaskKey, _why: &str) {}
    /// The engine gave up.
    fn gave_up(&self, _: &TaskKey, _: &EngineError) {}
    /// An attempt has ended.
    fn ended(&self, _: &TaskKey, _: &Ended) {}
}

/// An event of the log for each; iterations are for `RUST_LOG=mehl_soup=debug`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lines;

impl WorkerObserver for Lines {
    fn say(&self, message: &str) {
        tracing::info!("{}", printable(message));
    }

    fn claimed(&self, claimed: &Claimed) {
        self.say(&format!("task {}: attempt {} starts", claimed.hold.key, claimed.attempts));
    }

    fn refused(&self, ticket: &Ticket, why: Refusal) {
        self.say(&format!("ticket of {} generation {} is refused: {why:?}", ticket.task_id, ticket.generation));
    }

    fn scored(&self, _: &Manifest, done: usize, total: usize) {
        tracing::debug!(done, total, "ingredient scored");
    }

    fn iteration(&self, _: &TaskKey, progress: &Progress) {
        let Progress { iterations, planned_iterations, learn_loss, samples_per_second, .. } = progress;
        tracing::debug!(iterations, planned_iterations, learn_loss, samples_per_second, "{}", progress.stage);
    }

    fn loaded(&self, took: Duration) {
        tracing::debug!(seconds = took.as_secs_f64(), "model batch read");
    }

    fn saved(&self, bytes: usize, took: Duration) {
        tracing::debug!(bytes, seconds = took.as_secs_f64(), "checkpoint written");
    }

    fn not_saved(&self) {
        tracing::debug!("a checkpoint could not be written; it stays in memory and is retried");
    }

    fn checkpoint_refused(&self, key: &TaskKey, why: &str) {
        tracing::warn!(
            "task {key}: cannot use the checkpoint ({}); the task starts from the beginning",
            printable(why)
        );
    }

    fn gave_up(&self, key: &TaskKey, error: &EngineError) {
        tracing::warn!("task {key}: {}", printable(&error.to_string()));
    }

    fn ended(&self, key: &TaskKey, ended: &Ended) {
        self.say(&format!("task {key}: {}", words(ended)));
    }
}

fn words(ended: &Ended) -> String {
    match ended {
        Ended::Completed => "succeeded".to_string(),
        Ended::LetGo(AfterRelease::Queued(_)) => "returned; another worker can continue it".to_string(),
        Ended::LetGo(AfterRelease::State(state)) => state.to_string(),
        Ended::Crashed => "failed; it will be retried".to_string(),
        Ended::Fenced => "taken over by another worker; nothing was written".to_string(),
        Ended::Orphaned => "abandoned: Redis was unreachable for too long".to_string(),
        Ended::Stalled(_) => "no progress".to_string(),
    }
}

/// Several that watch.
impl<A: WorkerObserver + ?Sized, B: WorkerObserver + ?Sized> WorkerObserver for (Arc<A>, Arc<B>) {
    fn say(&self, message: &str) {
        self.0.say(message);
        self.1.say(message);
    }

    fn beat(&self) {
        self.0.beat();
        self.1.beat();
    }

    fn claimed(&self, claimed: &Claimed) {
        self.0.claimed(claimed);
        self.1.claimed(claimed);
    }

    fn refused(&self, ticket: &Ticket, why: Refusal) {
        self.0.refused(ticket, why);
        self.1.refused(ticket, why);
    }

    fn scored(&self, so_far: &Manifest, done: usize, total: usize) {
        self.0.scored(so_far, done, total);
        self.1.scored(so_far, done, total);
    }

    fn iteration(&self, key: &TaskKey, progress: &Progress) {
        self.0.iteration(key, progress);
        self.1.iteration(key, progress);
    }

    fn loaded(&self, took: Duration) {
        self.0.loaded(took);
        self.1.loaded(took);
    }

    fn not_saved(&self) {
        self.0.not_saved();
        self.1.not_saved();
    }

    fn saved(&self, bytes: usize, took: Duration) {
        self.0.saved(bytes, took);
        self.1.saved(bytes, took);
    }

    fn checkpoint_refused(&self, key: &TaskKey, why: &str) {
        self.0.checkpoint_refused(key, why);
        self.1.checkpoint_refused(key, why);
    }

    fn gave_up(&self, key: &TaskKey, error: &EngineError) {
        self.0.gave_up(key, error);
        self.1.gave_up(key, error);
    }

    fn ended(&self, key: &TaskKey, ended: &Ended) {
        self.0.ended(key, ended);
        self.1.ended(key, ended);
    }
}
