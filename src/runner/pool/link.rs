//! What the compute thread and the asynchronous side share about one task. The compute thread never waits for the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::runner::engine::Progress;
use crate::sweep::results::TaskOutcome;

/// Most points of a task's history; when it is full, every second one goes, and from then on every second iteration is kept.
const POINTS: usize = 512;

/// One iteration of a task's history, for plots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryPoint {
    /// Iterations so far.
    pub iteration: u64,
    /// Loss on this iteration's batch.
    pub learn_loss: f64,
    /// Loss on select when it was last scored.
    pub select_loss: Option<f64>,
    /// Samples a second.
    pub samples_per_second: f64,
    /// Resident memory of the process.
    pub host_bytes: u64,
    /// Memory of the device, where it can tell.
    pub device_bytes: Option<u64>,
}

/// What the store keeps as a finished task's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolResult {
    /// As on one machine.
    pub outcome: TaskOutcome,
    /// Iterations of the last attempt, thinned out to a bounded number.
    pub history: Vec<HistoryPoint>,
}

/// A checkpoint that waits to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Rises with each one of the task.
    pub sequence: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How far the task is with it: iterations, or ingredients that are scored.
    pub reached: u64,
}

/// Shared by the two sides.
#[derive(Debug)]
pub struct Link {
    stop: AtomicBool,
    latest: Mutex<Option<Snapshot>>,
    /// Told whenever there is a newer checkpoint.
    pub changed: Notify,
    progress: Mutex<(Option<Progress>, Instant)>,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    points: Vec<HistoryPoint>,
    every: u64,
    seen: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks here is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            latest: Mutex::new(None),
            changed: Notify::new(),
            progress: Mutex::new((None, Instant::now())),
            history: Mutex::default(),
        }
    }

    /// Asks the compute thread to keep a checkpoint and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The newest checkpoint replaces one that was not written yet.
    pub fn offer(&self, snapshot: Snapshot) {
        *locked(&self.latest) = Some(snapshot);
        self.changed.notify_one();
    }

    pub fn take(&self) -> Option<Snapshot> {
        locked(&self.latest).take()
    }

    /// Puts back a checkpoint that could not be written, unless there is a newer one.
    pub fn put_back(&self, snapshot: Snapshot) {
        locked(&self.latest).get_or_insert(snapshot);
    }

    /// An iteration, an ingredient, or another step is done.
    pub fn advance(&self, progress: Option<&Progress>) {
        let mut current = locked(&self.progress);
        current.1 = Instant::now();
        let Some(progress) = progress else { return };
        current.0 = Some(progress.clone());
        drop(current);
        locked(&self.history).add(progress);
    }

    /// The last iteration as JSON, and since when nothing has advanced.
    pub fn progress(&self) -> (Option<String>, Instant) {
        let current = locked(&self.progress);
        (current.0.as_ref().and_then(|progress| serde_json::to_string(progress).ok()), current.1)
    }

    pub fn history(&self) -> Vec<HistoryPoint> {
        locked(&self.history).points.clone()
    }
}

impl History {
    fn add(&mut self, progress: &Progress) {
        self.seen += 1;
        let every = self.every.max(1);
        if !(self.seen - 1).is_multiple_of(every) {
            return;
        }
        if self.points.len() == POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every = every * 2;
            if !(self.seen - 1).is_multiple_of(self.every) {
                return;
            }
        }
        self.points.push(HistoryPoint {
            iteration: progress.iterations,
            learn_loss: progress.learn_loss,
            select_loss: progress.select.map(|score| score.loss),
            samples_per_second: progress.samples_per_second,
            host_bytes: progress.host_bytes,
            device_bytes: progress.device.map(|device| device.allocated),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iteration(iterations: u64) -> Progress {
        Progress {
            iterations,
            planned_iterations: 0,
            learn_loss: 1.0,
            select: None,
            samples_per_second: 1.0,
            host_bytes: 1,
            device: None,
            iteration: None,
            stage: "learning",
        }
    }

    #[test]
    fn a_history_is_bounded_and_evenly_spread() {
        let link = Link::new();
        (1..=5000).for_each(|i| link.advance(Some(&iteration(i))));
        let points = link.history();
        assert!((POINTS / 4..=POINTS).contains(&points.len()), "{}", points.len());
        let steps: Vec<u64> = points.windows(2).map(|pair| pair[1].iteration - pair[0].iteration).collect();
        assert!(steps.iter().all(|&step| step == steps[0]), "{steps:?}");
        assert!(points.last().unwrap().iteration > 4900);
    }

    #[test]
    fn the_newest_checkpoint_wins() {
        let link = Link::new();
        let snapshot = |sequence| Snapshot { sequence, bytes: vec![], reached: 0 };
        link.offer(snapshot(1));
        link.offer(snapshot(2));
        let taken = link.take().unwrap();
        assert_eq!((taken.sequence, link.take()), (2, None));
        link.offer(snapshot(3));
        link.put_back(taken);
        assert_eq!(link.take(), Some(snapshot(3)));
    }
}
