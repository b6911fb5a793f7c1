//! The series of one worker, every iteration.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use super::series;
use crate::runner::engine::{EngineError, Progress};
use crate::runner::pool::{Ended, WorkerObserver};
use crate::store::{AfterRelease, Claimed, Refusal};
use crate::task::{TaskKey, TaskState, Ticket};
use crate::{host, zoo};

/// Ways in which attempts end: see [`outcome`].
const OUTCOMES: [&str; 11] = [
    "succeeded",
    "released",
    "crashed",
    "waiting",
    "failed",
    "cancelled",
    "pruned",
    "paused",
    "fenced",
    "orphaned",
    "stalled",
];

/// The series of a worker, as [`series`] describes them.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// [`series::BROKER_CONNECTED`].
    pub broker_connected: IntGauge,
    /// [`series::REDIS_CONNECTED`].
    pub redis_connected: IntGauge,
    phases: HistogramVec,
    iterations: IntCounter,
    samples: IntCounter,
    samples_per_second: Gauge,
    learn_loss: Gauge,
    select_loss: Gauge,
    select_metric: GaugeVec,
    host_memory: IntGaugeVec,
    device_memory: IntGaugeVec,
    loads: Histogram,
    read: IntCounter,
    last_progress: Gauge,
    checkpoint_seconds: Histogram,
    checkpoint_bytes: IntGauge,
    checkpoint_failures: IntCounter,
    attempts: IntCounterVec,
    refused: IntCounter,
    fenced: IntCounter,
    completions_on_disk: IntCounterVec,
    task_info: IntGaugeVec,
    heartbeat: Mutex<Instant>,
}

impl WorkerMetrics {
    /// Defines all of them in `registry`.
    ///
    /// # Errors
    /// If it has one of that name already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            broker_connected: series::BROKER_CONNECTED.count(registry)?,
            redis_connected: series::REDIS_CONNECTED.count(registry)?,
            phases: series::ITERATION_DURATION.histograms(registry)?,
            iterations: series::ITERATIONS.counter(registry)?,
            samples: series::SAMPLES.counter(registry)?,
            samples_per_second: series::SAMPLES_PER_SECOND.gauge(registry)?,
            learn_loss: series::LEARN_LOSS.gauge(registry)?,
            select_loss: series::SELECT_LOSS.gauge(registry)?,
            select_metric: series::SELECT_METRIC.gauges(registry)?,
            host_memory: series::HOST_MEMORY.counts(registry)?,
            device_memory: series::DEVICE_MEMORY.counts(registry)?,
            loads: series::MODEL_BATCH_LOAD.histogram(registry)?,
            read: series::INGREDIENT_READ.counter(registry)?,
            last_progress: series::LAST_PROGRESS.gauge(registry)?,
            checkpoint_seconds: series::CHECKPOINT_WRITE.histogram(registry)?,
            checkpoint_bytes: series::CHECKPOINT_SIZE.count(registry)?,
            checkpoint_failures: series::CHECKPOINT_FAILURES.counter(registry)?,
            attempts: series::ATTEMPTS.counters(registry)?,
            refused: series::TICKETS_REFUSED.counter(registry)?,
            fenced: series::FENCED_WRITES.counter(registry)?,
            completions_on_disk: series::COMPLETIONS_ON_DISK.counters(registry)?,
            task_info: series::TASK_INFO.counts(registry)?,
            heartbeat: Mutex::new(Instant::now()),
        };
        series::BUILD_INFO.counts(registry)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // A counter that appears with its first event hides that event from `increase`.
        for confirmed in ["true", "false"] {
            metrics.completions_on_disk.with_label_values(&[confirmed]);
        }
        for outcome in OUTCOMES {
            metrics.attempts.with_label_values(&[outcome]);
        }
        metrics.refresh();
        Ok(metrics)
    }

    /// Brings up to date what is a matter of the moment in which it is asked for: memory of the host, and bytes read.
    pub fn refresh(&self) {
        let memory = host::memory();
        for (kind, bytes) in [
            ("resident", memory.resident),
            ("anonymous", memory.anonymous),
            ("peak", memory.peak),
            ("limit", host::memory_limit()),
        ] {
            self.host_memory.with_label_values(&[kind]).set(whole(bytes));
        }
        self.read.inc_by(zoo::bytes_read().saturating_sub(self.read.get()));
    }

    /// The store has told whether a completion is on disk.
    pub fn on_disk(&self, is_confirmed: bool) {
        self.completions_on_disk.with_label_values(&[if is_confirmed { "true" } else { "false" }]).inc();
    }

    /// Time since the worker last went round its loop; since it began, before the first time.
    pub fn heartbeat_age(&self) -> Duration {
        self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn progressed(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_progress.set(since.as_secs_f64());
    }

    /// The same, with values for labels that only work gives.
    #[cfg(test)]
    pub(super) fn with_every_label(self) -> Self {
        self.phases.with_label_values(&["mix"]);
        self.device_memory.with_label_values(&["peak"]);
        self.task_info.with_label_values(&["s", "t"]);
        self.select_metric.with_label_values(&["accuracy"]);
        self
    }
}

impl WorkerObserver for WorkerMetrics {
    fn say(&self, _: &str) {}

    fn beat(&self) {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn claimed(&self, claimed: &Claimed) {
        self.task_info.reset();
        self.task_info.with_label_values(&[&claimed.hold.key.sweep, &claimed.hold.key.task]).set(1);
        self.progressed();
    }

    fn refused(&self, _: &Ticket, _: Refusal) {
        self.refused.inc();
    }

    fn scored(&self, _: &crate::sweep::manifest::Manifest, _: usize, _: usize) {
        self.progressed();
    }

    fn iteration(&self, _: &TaskKey, progress: &Progress) {
        if let Some(iteration) = &progress.iteration {
            self.iterations.inc();
            self.samples.inc_by(iteration.samples);
            self.samples_per_second.set(progress.samples_per_second);
            self.learn_loss.set(progress.learn_loss);
            // Most iterations make no checkpoint; zeros would hide what one takes.
            for (phase, seconds) in iteration.phases.iter().filter(|(_, seconds)| *seconds > 0.0) {
                self.phases.with_label_values(&[phase]).observe(*seconds);
            }
        }
        if let Some(select) = &progress.select {
            self.select_loss.set(select.loss);
            for (metric, estimate) in select.metrics() {
                self.select_metric.with_label_values(&[metric.name()]).set(estimate.value);
            }
        }
        if let Some(device) = &progress.device {
            for (kind, bytes) in [("allocated", device.allocated), ("reserved", device.reserved), ("peak", device.peak)]
            {
                self.device_memory.with_label_values(&[kind]).set(whole(bytes));
            }
        }
        self.progressed();
    }

    fn loaded(&self, took: Duration) {
        self.loads.observe(took.as_secs_f64());
        self.progressed();
    }

    fn saved(&self, bytes: usize, took: Duration) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.checkpoint_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn not_saved(&self) {
        self.checkpoint_failures.inc();
    }

    fn gave_up(&self, _: &TaskKey, _: &EngineError) {}

    fn ended(&self, _: &TaskKey, ended: &Ended) {
        self.task_info.reset();
        if *ended == Ended::Fenced {
            self.fenced.inc();
        }
        self.attempts.with_label_values(&[outcome(ended)]).inc();
    }
}

fn outcome(ended: &Ended) -> &'static str {
    match ended {
        Ended::Completed => "succeeded",
        Ended::LetGo(AfterRelease::Queued(_)) => "released",
        Ended::LetGo(AfterRelease::State(TaskState::Failed)) => "failed",
        Ended::LetGo(AfterRelease::State(state)) => state.as_str(),
        Ended::Crashed => "crashed",
        Ended::Fenced => "fenced",
        Ended::Orphaned => "orphaned",
        Ended::Stalled(_) => "stalled",
    }
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::engine::{DeviceMemory, Iteration};
    use crate::sweep::metric::{Estimate, Metric};
    use crate::sweep::score::SplitScore;

    /// What the host counts is in the programs' own test; a device with memory of its own is not there.
    #[test]
    fn a_device_tells_its_memory_and_a_step_that_is_no_iteration_counts_as_none() {
        let metrics = WorkerMetrics::new(&Registry::new()).unwrap();
        let key = TaskKey::new("s", "t").unwrap();
        let estimate = |value| Estimate { value, standard_error: 0.1 };
        let accuracy = Metric::named("accuracy").unwrap();
        let mut progress = Progress {
            iterations: 0,
            planned_iterations: 9,
            learn_loss: 0.5,
            select: Some(SplitScore::new(8, estimate(0.25), [(accuracy, estimate(0.75))])),
            samples_per_second: 10.0,
            host_bytes: 1,
            device: Some(DeviceMemory { allocated: 3, reserved: 5, peak: 4 }),
            iteration: None,
            stage: "greedy",
        };
        metrics.iteration(&key, &progress);
        assert_eq!((metrics.iterations.get(), metrics.learn_loss.get()), (0, 0.0));
        assert_eq!(metrics.select_loss.get(), 0.25);
        assert_eq!(metrics.select_metric.with_label_values(&["accuracy"]).get(), 0.75);
        for (kind, bytes) in [("allocated", 3), ("reserved", 5), ("peak", 4)] {
            assert_eq!(metrics.device_memory.with_label_values(&[kind]).get(), bytes, "{kind}");
        }
        let phases = ["data", "mix", "forward", "backward", "project", "update", "snapshot"].map(|phase| (phase, 0.5));
        for (samples, snapshot) in [(8, 0.5), (3, 0.0)] {
            let mut phases = phases;
            phases[6].1 = snapshot;
            progress.iteration = Some(Iteration { samples, phases });
            metrics.iteration(&key, &progress);
        }
        assert_eq!((metrics.iterations.get(), metrics.samples.get(), metrics.learn_loss.get()), (2, 11, 0.5));
        let seen = |phase: &str| metrics.phases.with_label_values(&[phase]).get_sample_count();
        assert_eq!((seen("mix"), seen("snapshot")), (2, 1), "a checkpoint was made once");
    }

    #[test]
    fn a_counter_is_there_before_its_first_event() {
        let metrics = WorkerMetrics::new(&Registry::new()).unwrap();
        metrics.not_saved();
        metrics.ended(&TaskKey::new("s", "t").unwrap(), &Ended::Fenced);
        assert_eq!((metrics.checkpoint_failures.get(), metrics.fenced.get()), (1, 1));
        let registry = Registry::new();
        drop(WorkerMetrics::new(&registry).unwrap());
        let gathered = registry.gather();
        let attempts = gathered.iter().find(|family| family.name() == "mehl_soup_attempts_total").unwrap();
        assert_eq!(attempts.get_metric().len(), OUTCOMES.len());
        assert!(attempts.get_metric().iter().all(|metric| metric.get_counter().get_value() == 0.0));
    }
}
