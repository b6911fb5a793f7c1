//! The series of one worker, every iteration.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::runner::engine::{EngineError, Progress};
use crate::runner::pool::{Ended, Watch};
use crate::store::{Claimed, Onward, Refusal};
use crate::task::{TaskKey, TaskState, Ticket};

/// The series of a worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// `mehl_soup_build_info{version}`: 1.
    pub build_info: IntGaugeVec,
    /// `mehl_soup_broker_connected`: 1 if the broker is connected.
    pub broker_connected: IntGauge,
    /// `mehl_soup_redis_connected`: 1 if the store answered last time.
    pub redis_connected: IntGauge,
    iterations: IntCounter,
    samples_per_second: Gauge,
    learn_loss: Gauge,
    select_loss: Gauge,
    host_memory: GaugeVec,
    device_memory: GaugeVec,
    last_progress: Gauge,
    checkpoint_seconds: Histogram,
    checkpoint_bytes: IntGauge,
    attempts: IntCounterVec,
    refused: IntCounter,
    fenced: IntCounter,
    completions_on_disk: IntCounterVec,
    task_info: IntGaugeVec,
    peak_host: Mutex<u64>,
    heartbeat: Mutex<Instant>,
}

impl WorkerMetrics {
    /// Defines all of them in `registry`.
    ///
    /// # Errors
    /// If it has one of that name already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("mehl_soup");
        let seconds = |name: &str, help: &str| {
            HistogramOpts::from(opts(name, help)).buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
        };
        let metrics = Self {
            build_info: IntGaugeVec::new(opts("build_info", "Version of the program; the value is 1"), &["version"])?,
            broker_connected: IntGauge::with_opts(opts("broker_connected", "Whether the broker is connected: 1 or 0"))?,
            redis_connected: IntGauge::with_opts(opts(
                "redis_connected",
                "Whether the store answered when it was last asked: 1 or 0",
            ))?,
            iterations: IntCounter::with_opts(opts("iterations_total", "Optimizer steps of this process"))?,
            samples_per_second: Gauge::with_opts(opts(
                "iteration_samples_per_second",
                "Learn samples of the last iteration over its seconds",
            ))?,
            learn_loss: Gauge::with_opts(opts("learn_loss", "Loss on the batch of the last iteration"))?,
            select_loss: Gauge::with_opts(opts("select_loss", "Loss on select when it was last scored"))?,
            host_memory: GaugeVec::new(
                opts(
                    "host_memory_bytes",
                    "Memory of this process: resident now, and the most seen at an iteration of the current task",
                ),
                &["kind"],
            )?,
            device_memory: GaugeVec::new(
                opts("device_memory_bytes", "Memory in use on the device, where it is not the host and can tell"),
                &["kind"],
            )?,
            last_progress: Gauge::with_opts(opts(
                "last_progress_timestamp_seconds",
                "When the last iteration or ingredient was done, in seconds since 1970",
            ))?,
            checkpoint_seconds: Histogram::with_opts(seconds(
                "checkpoint_write_seconds",
                "Time to write a checkpoint to the store",
            ))?,
            checkpoint_bytes: IntGauge::with_opts(opts(
                "checkpoint_bytes",
                "Size of the last checkpoint that was written",
            ))?,
            attempts: IntCounterVec::new(opts("attempts_total", "Attempts that have ended, by how"), &["outcome"])?,
            refused: IntCounter::with_opts(opts("tickets_refused_total", "Tickets that were worth nothing"))?,
            fenced: IntCounter::with_opts(opts(
                "fenced_writes_total",
                "Attempts whose task was somebody else's by then",
            ))?,
            completions_on_disk: IntCounterVec::new(
                opts(
                    "completions_on_disk_total",
                    "Completed tasks by whether Redis has confirmed that they are on its disk; none if it cannot say",
                ),
                &["confirmed"],
            )?,
            task_info: IntGaugeVec::new(
                opts("task_info", "The task that this worker is at; the value is 1"),
                &["sweep", "task"],
            )?,
            peak_host: Mutex::new(0),
            heartbeat: Mutex::new(Instant::now()),
        };
        let all: [Box<dyn prometheus::core::Collector>; 17] = [
            Box::new(metrics.build_info.clone()),
            Box::new(metrics.broker_connected.clone()),
            Box::new(metrics.redis_connected.clone()),
            Box::new(metrics.iterations.clone()),
            Box::new(metrics.samples_per_second.clone()),
            Box::new(metrics.learn_loss.clone()),
            Box::new(metrics.select_loss.clone()),
            Box::new(metrics.host_memory.clone()),
            Box::new(metrics.device_memory.clone()),
            Box::new(metrics.last_progress.clone()),
            Box::new(metrics.checkpoint_seconds.clone()),
            Box::new(metrics.checkpoint_bytes.clone()),
            Box::new(metrics.attempts.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.fenced.clone()),
            Box::new(metrics.completions_on_disk.clone()),
            Box::new(metrics.task_info.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        for confirmed in ["true", "false"] {
            metrics.completions_on_disk.with_label_values(&[confirmed]);
        }
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
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
}

impl Watch for WorkerMetrics {
    fn say(&self, _: &str) {}

    fn beat(&self) {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn claimed(&self, claimed: &Claimed) {
        self.task_info.reset();
        self.task_info.with_label_values(&[&claimed.hold.key.sweep, &claimed.hold.key.task]).set(1);
        *self.peak_host.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.progressed();
    }

    fn refused(&self, _: &Ticket, _: Refusal) {
        self.refused.inc();
    }

    fn scored(&self, _: &crate::sweep::manifest::Manifest, _: usize, _: usize) {
        self.progressed();
    }

    fn iteration(&self, _: &TaskKey, progress: &Progress) {
        self.iterations.inc();
        self.samples_per_second.set(progress.samples_per_second);
        self.learn_loss.set(progress.learn_loss);
        if let Some(loss) = progress.select_loss {
            self.select_loss.set(loss);
        }
        let mut peak = self.peak_host.lock().unwrap_or_else(PoisonError::into_inner);
        *peak = (*peak).max(progress.host_bytes);
        self.host_memory.with_label_values(&["resident"]).set(progress.host_bytes as f64);
        self.host_memory.with_label_values(&["peak"]).set(*peak as f64);
        if let Some(bytes) = progress.device_bytes {
            self.device_memory.with_label_values(&["allocated"]).set(bytes as f64);
        }
        self.progressed();
    }

    fn saved(&self, bytes: usize, took: Duration) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.checkpoint_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn gave_up(&self, _: &TaskKey, _: &EngineError) {}

    fn ended(&self, _: &TaskKey, ended: &Ended) {
        self.task_info.reset();
        let outcome = match ended {
            Ended::Completed => "succeeded",
            Ended::LetGo(Onward::Queued(_)) => "released",
            Ended::LetGo(Onward::State(TaskState::Failed)) => "failed",
            Ended::LetGo(Onward::State(state)) => state.as_str(),
            Ended::Fenced => "fenced",
            Ended::Orphaned => "orphaned",
            Ended::Stalled(_) => "stalled",
        };
        if *ended == Ended::Fenced {
            self.fenced.inc();
        }
        self.attempts.with_label_values(&[outcome]).inc();
    }
}
