//! Every series of the programs, defined once: prefix `mehl_soup_`, the unit in the name where it has one, no id of a sweep or a task as a label but in `task_info`.

use prometheus::{Gauge, GaugeVec, Opts, Registry, core::Collector};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// What every name begins with.
pub const PREFIX: &str = "mehl_soup";

/// What Prometheus does with a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only rises, and begins at 0 with the process.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of what was at most each of these values.
    Histogram(&'static [f64]),
}

/// Which program tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `mehl-soup serve`.
    Scheduler,
    /// `mehl-soup-worker serve`.
    Worker,
    /// Both.
    Both,
}

/// A series, or several that differ by their labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Series {
    /// Name without the prefix.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What its values count.
    pub unit: &'static str,
    /// Which program tells it.
    pub of: Of,
    /// What it is, in a line.
    pub help: &'static str,
}

/// One list for the constants and for the table of all.
macro_rules! series {
    ($($constant:ident = $of:ident $name:literal $labels:tt $kind:expr, $unit:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Series =
                Series { name: $name, kind: $kind, labels: &$labels, unit: $unit, of: Of::$of, help: $help };
        )*

        /// Every series there is.
        pub const SERIES: &[Series] = &[$($constant),*];
    };
}

use Kind::{Counter, Gauge as Level};

/// Phases of an iteration: from a small model's on a CPU to a large one's.
const PHASE: Kind = Kind::Histogram(&[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
/// Reading gigabytes from a disk or a file server.
const LOAD: Kind = Kind::Histogram(&[0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]);
/// Writing kilobytes to Redis.
const WRITE: Kind = Kind::Histogram(&[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);

series! {
    BUILD_INFO = Both "build_info" ["version"] Level, "none", "Version of the program; the value is 1";
    BROKER_CONNECTED = Both "broker_connected" [] Level, "0 or 1", "1 if RabbitMQ is connected and accepts messages, else 0";
    REDIS_CONNECTED = Both "redis_connected" [] Level, "0 or 1", "1 if Redis answered the last request, else 0";
    TASKS = Scheduler "tasks" ["state"] Level, "tasks", "Tasks by state, over all sweeps";
    WORKERS = Scheduler "workers" [] Level, "workers", "Workers that sent a heartbeat within the last 20 s";
    TICKETS = Scheduler "tickets" ["place"] Level, "tickets", "Tickets that no worker has claimed, by place: outbox (not published yet) or broker";
    WINDOW_TICKETS = Scheduler "window_tickets" [] Level, "tickets", "Limit of published, unclaimed tickets for the current number of workers";
    TICKETS_PUBLISHED = Scheduler "tickets_published_total" [] Counter, "tickets", "Tickets whose publication the broker has confirmed";
    LEASES_EXPIRED = Scheduler "leases_expired_total" [] Counter, "tasks", "Tasks taken from a worker because its lease expired";
    DEAD_LETTERS = Scheduler "dead_letters_total" [] Counter, "messages", "Messages taken from the dead-letter queue";
    MALFORMED_LETTERS = Scheduler "malformed_letters_total" [] Counter, "messages", "Dead letters that are not tickets; GET /v1/dead-letters lists them";
    SWEEPS_SET_ASIDE = Scheduler "sweeps_set_aside" [] Level, "records", "Sweeps and tasks whose records cannot be read. The scheduler skips them; its log gives the cause";
    HTTP_REQUESTS = Scheduler "http_requests_total" ["route", "code"] Counter, "requests", "HTTP responses by route and status code";
    ITERATION_DURATION = Worker "iteration_duration_seconds" ["phase"] PHASE, "seconds", "Time of an iteration by phase: data, mix, forward, backward, project, update, and snapshot (if a checkpoint was taken). On CUDA queued work is timed with events, which are read one iteration later";
    ITERATIONS = Worker "iterations_total" [] Counter, "iterations", "Optimizer steps in this process";
    SAMPLES = Worker "samples_total" [] Counter, "samples", "Samples of learn that went through a backward pass in this process";
    SAMPLES_PER_SECOND = Worker "iteration_samples_per_second" [] Level, "samples per second", "Samples per second in the last iteration";
    DEVICE_MEMORY = Worker "device_memory_bytes" ["kind"] Level, "bytes", "Memory of the GPU: allocated by tensors, reserved by the allocator, and the peak of allocated. Absent on a CPU";
    HOST_MEMORY = Worker "host_memory_bytes" ["kind"] Level, "bytes", "Memory of this process: resident, anonymous (part of resident), peak (of resident in this task), and limit (the smallest of its control groups' limits and the machine's memory)";
    LEARN_LOSS = Worker "learn_loss" [] Level, "nats", "Loss on the batch of the last iteration";
    SELECT_LOSS = Worker "select_loss" [] Level, "nats", "Loss of the last score on select";
    SELECT_METRIC = Worker "select_metric" ["metric"] Level, "as the metric", "Metrics of the last score on select besides the loss, such as accuracy in [0, 1]";
    MODEL_BATCH_LOAD = Worker "model_batch_load_seconds" [] LOAD, "seconds", "Time from the end of a model batch until the directions of the next are ready: reading that was not done ahead, and computing the directions";
    INGREDIENT_READ = Worker "ingredient_read_bytes_total" [] Counter, "bytes", "Bytes of ingredients' tensors read from disk or page cache, without hashing";
    LAST_PROGRESS = Worker "last_progress_timestamp_seconds" [] Level, "seconds", "Unix time of the last iteration, scored ingredient or task start";
    CHECKPOINT_WRITE = Worker "checkpoint_write_seconds" [] WRITE, "seconds", "Time to write a checkpoint to the store";
    CHECKPOINT_SIZE = Worker "checkpoint_bytes" [] Level, "bytes", "Size of the last checkpoint";
    CHECKPOINT_FAILURES = Worker "checkpoint_failures_total" [] Counter, "writes", "Checkpoint writes that failed. The checkpoint stays in memory; the write is repeated";
    ATTEMPTS = Worker "attempts_total" ["outcome"] Counter, "attempts", "Attempts that ended, by outcome: succeeded, released (on request), crashed (will be retried), failed (will not), stalled, orphaned, fenced, or the new state of the task";
    TICKETS_REFUSED = Worker "tickets_refused_total" [] Counter, "tickets", "Tickets that were refused: stale, duplicate, or for a task that cannot run";
    FENCED_WRITES = Worker "fenced_writes_total" [] Counter, "attempts", "Attempts whose task another worker had claimed: their writes were rejected";
    COMPLETIONS_ON_DISK = Worker "completions_on_disk_total" ["confirmed"] Counter, "tasks", "Completed tasks, by whether Redis confirmed that they are on its disk. Absent if Redis cannot confirm";
    TASK_INFO = Worker "task_info" ["sweep", "task"] Level, "none", "Task that the worker computes; the value is 1. Absent while the worker is idle";
}

impl Series {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help).namespace(PREFIX)
    }

    /// A counter without labels.
    pub(super) fn counter(&self, registry: &Registry) -> Result<IntCounter, prometheus::Error> {
        self.register(registry, IntCounter::with_opts(self.opts())?)
    }

    /// Counters by label.
    pub(super) fn counters(&self, registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
        self.register(registry, IntCounterVec::new(self.opts(), self.labels)?)
    }

    /// A gauge of whole numbers without labels.
    pub(super) fn count(&self, registry: &Registry) -> Result<IntGauge, prometheus::Error> {
        self.register(registry, IntGauge::with_opts(self.opts())?)
    }

    /// Gauges of whole numbers by label.
    pub(super) fn counts(&self, registry: &Registry) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(registry, IntGaugeVec::new(self.opts(), self.labels)?)
    }

    /// A gauge without labels.
    pub(super) fn gauge(&self, registry: &Registry) -> Result<Gauge, prometheus::Error> {
        self.register(registry, Gauge::with_opts(self.opts())?)
    }

    /// Gauges by label.
    pub(super) fn gauges(&self, registry: &Registry) -> Result<GaugeVec, prometheus::Error> {
        self.register(registry, GaugeVec::new(self.opts(), self.labels)?)
    }

    /// A histogram without labels.
    pub(super) fn histogram(&self, registry: &Registry) -> Result<Histogram, prometheus::Error> {
        self.register(registry, Histogram::with_opts(self.histogram_opts())?)
    }

    /// Histograms by label.
    pub(super) fn histograms(&self, registry: &Registry) -> Result<HistogramVec, prometheus::Error> {
        self.register(registry, HistogramVec::new(self.histogram_opts(), self.labels)?)
    }

    fn histogram_opts(&self) -> HistogramOpts {
        let buckets = match self.kind {
            Kind::Histogram(buckets) => buckets.to_vec(),
            Kind::Counter | Kind::Gauge => vec![],
        };
        HistogramOpts::from(self.opts()).buckets(buckets)
    }

    fn register<C: Collector + Clone + 'static>(&self, registry: &Registry, one: C) -> Result<C, prometheus::Error> {
        registry.register(Box::new(one.clone()))?;
        Ok(one)
    }
}

/// The table of the documentation, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| series | kind | unit | of | what |\n|---|---|---|---|---|\n");
    for Series { name, kind, labels, unit, of, help } in SERIES {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(", ")) };
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let of = match of {
            Of::Scheduler => "scheduler",
            Of::Worker => "worker",
            Of::Both => "scheduler, worker",
        };
        text.push_str(&format!("| `{PREFIX}_{name}{labels}` | {kind} | {unit} | {of} | {help} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricType;

    use super::*;
    use crate::metrics::{Metrics, WorkerMetrics};

    #[test]
    fn every_series_is_documented_as_it_is() {
        let (document, table) = (include_str!("../../docs/metrics.md"), markdown());
        assert!(document.contains(&table), "docs/metrics.md: its table is old, it should be\n{table}");
    }

    #[test]
    fn names_tell_units_and_kinds() {
        for (i, series) in SERIES.iter().enumerate() {
            let Series { name, kind, unit, help, .. } = series;
            assert!(SERIES[..i].iter().all(|other| other.name != *name), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            let plain = name.trim_end_matches("_total");
            assert_eq!(plain.ends_with("_bytes"), *unit == "bytes", "{name}");
            assert_eq!(plain.ends_with("_seconds"), *unit == "seconds", "{name}");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}: {help}");
            if let Kind::Histogram(buckets) = kind {
                assert!(buckets.len() > 5 && buckets.is_sorted(), "{name}");
            }
        }
    }

    /// A series without values is not gathered, so that each label is given one.
    #[test]
    fn programs_define_what_is_listed_and_nothing_else() {
        for of in [Of::Scheduler, Of::Worker] {
            let registry = Registry::new();
            match of {
                Of::Scheduler => drop(Metrics::new(&registry).unwrap().http_requests.with_label_values(&["/", "200"])),
                _ => drop(WorkerMetrics::new(&registry).unwrap().with_every_label()),
            }
            let gathered = registry.gather();
            let expected: Vec<&Series> = SERIES.iter().filter(|one| one.of == of || one.of == Of::Both).collect();
            assert_eq!(gathered.len(), expected.len(), "{of:?}");
            for series in expected {
                let full = format!("{PREFIX}_{}", series.name);
                let family = gathered.iter().find(|family| family.name() == full).unwrap_or_else(|| panic!("{full}"));
                let kind = match series.kind {
                    Kind::Counter => MetricType::COUNTER,
                    Kind::Gauge => MetricType::GAUGE,
                    Kind::Histogram(_) => MetricType::HISTOGRAM,
                };
                assert_eq!((family.get_field_type(), family.help()), (kind, series.help), "{full}");
                for metric in family.get_metric() {
                    let mut labels: Vec<&str> = metric.get_label().iter().map(|pair| pair.name()).collect();
                    let mut wanted = series.labels.to_vec();
                    labels.sort_unstable();
                    wanted.sort_unstable();
                    assert_eq!(labels, wanted, "{full}");
                    if let Kind::Histogram(buckets) = series.kind {
                        assert_eq!(metric.get_histogram().get_bucket().len(), buckets.len(), "{full}");
                    }
                }
            }
        }
    }
}
