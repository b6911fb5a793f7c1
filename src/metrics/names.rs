//! Every series of this program, defined once: prefix `mehl_soup_`, the unit at the end of the name, no id of a sweep or a task as a label.

use std::collections::BTreeMap;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::store::SweepRecord;
use crate::task::TaskState;

/// The series of one process. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `mehl_soup_build_info{version}`: 1.
    pub build_info: IntGaugeVec,
    /// `mehl_soup_tasks{state}`: tasks by state.
    pub tasks: IntGaugeVec,
    /// `mehl_soup_tickets_published_total`: tickets that the broker confirmed.
    pub tickets_published: IntCounter,
    /// `mehl_soup_leases_expired_total`: tasks that were taken from a worker that was not heard of.
    pub leases_expired: IntCounter,
    /// `mehl_soup_dead_letters_total`: messages that became dead letters.
    pub dead_letters: IntCounter,
    /// `mehl_soup_malformed_letters_total`: those of them that are no tickets.
    pub malformed_letters: IntCounter,
    /// `mehl_soup_broker_connected`: 1 if the broker is connected and takes messages.
    pub broker_connected: IntGauge,
    /// `mehl_soup_redis_connected`: 1 if the store answered last time.
    pub redis_connected: IntGauge,
    /// `mehl_soup_http_requests_total{route, code}`: answers of the HTTP API; routes as in the OpenAPI document.
    pub http_requests: IntCounterVec,
}

impl Metrics {
    /// Defines all of them in `registry`.
    ///
    /// # Errors
    /// If it has one of that name already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("mehl_soup");
        let metrics = Self {
            build_info: IntGaugeVec::new(opts("build_info", "Version of the program; the value is 1"), &["version"])?,
            tasks: IntGaugeVec::new(opts("tasks", "Tasks by state, over all sweeps"), &["state"])?,
            tickets_published: IntCounter::with_opts(opts(
                "tickets_published_total",
                "Tickets that the broker has confirmed to keep",
            ))?,
            leases_expired: IntCounter::with_opts(opts(
                "leases_expired_total",
                "Tasks that were taken from a worker whose lease ran out",
            ))?,
            dead_letters: IntCounter::with_opts(opts(
                "dead_letters_total",
                "Messages taken from the dead-letter queue",
            ))?,
            malformed_letters: IntCounter::with_opts(opts(
                "malformed_letters_total",
                "Dead letters that are no tickets; GET /v1/dead-letters lists them",
            ))?,
            broker_connected: IntGauge::with_opts(opts(
                "broker_connected",
                "Whether the broker is connected and takes messages: 1 or 0",
            ))?,
            redis_connected: IntGauge::with_opts(opts(
                "redis_connected",
                "Whether the store answered when it was last asked: 1 or 0",
            ))?,
            http_requests: IntCounterVec::new(
                opts("http_requests_total", "Answers of the HTTP API by route and status code"),
                &["route", "code"],
            )?,
        };
        registry.register(Box::new(metrics.build_info.clone()))?;
        registry.register(Box::new(metrics.tasks.clone()))?;
        registry.register(Box::new(metrics.tickets_published.clone()))?;
        registry.register(Box::new(metrics.leases_expired.clone()))?;
        registry.register(Box::new(metrics.dead_letters.clone()))?;
        registry.register(Box::new(metrics.malformed_letters.clone()))?;
        registry.register(Box::new(metrics.broker_connected.clone()))?;
        registry.register(Box::new(metrics.redis_connected.clone()))?;
        registry.register(Box::new(metrics.http_requests.clone()))?;
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.set_tasks(&[]);
        Ok(metrics)
    }

    /// Sets [`tasks`](Self::tasks) to what these sweeps, all that there are, hold.
    pub fn set_tasks(&self, sweeps: &[SweepRecord]) {
        let mut counts: BTreeMap<TaskState, usize> = TaskState::ALL.into_iter().map(|state| (state, 0)).collect();
        for (state, count) in sweeps.iter().flat_map(|sweep| &sweep.counts) {
            *counts.entry(*state).or_default() += count;
        }
        for (state, count) in counts {
            self.tasks.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
