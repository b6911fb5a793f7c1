//! The series of a scheduler.

use std::collections::BTreeMap;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::series;
use crate::scheduler::Turn;
use crate::store::SweepRecord;
use crate::task::TaskState;

/// The series of one process, as [`series`] describes them. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// [`series::BROKER_CONNECTED`].
    pub broker_connected: IntGauge,
    /// [`series::REDIS_CONNECTED`].
    pub redis_connected: IntGauge,
    /// [`series::HTTP_REQUESTS`], by route as in the OpenAPI document.
    pub http_requests: IntCounterVec,
    tasks: IntGaugeVec,
    workers: IntGauge,
    tickets: IntGaugeVec,
    window: IntGauge,
    published: IntCounter,
    leases_expired: IntCounter,
    dead_letters: IntCounter,
    malformed_letters: IntCounter,
    aside: IntGauge,
}

impl Metrics {
    /// Defines all of them in `registry`.
    ///
    /// # Errors
    /// If it has one of that name already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            broker_connected: series::BROKER_CONNECTED.count(registry)?,
            redis_connected: series::REDIS_CONNECTED.count(registry)?,
            http_requests: series::HTTP_REQUESTS.counters(registry)?,
            tasks: series::TASKS.counts(registry)?,
            workers: series::WORKERS.count(registry)?,
            tickets: series::TICKETS.counts(registry)?,
            window: series::WINDOW_TICKETS.count(registry)?,
            published: series::TICKETS_PUBLISHED.counter(registry)?,
            leases_expired: series::LEASES_EXPIRED.counter(registry)?,
            dead_letters: series::DEAD_LETTERS.counter(registry)?,
            malformed_letters: series::MALFORMED_LETTERS.counter(registry)?,
            aside: series::SWEEPS_SET_ASIDE.count(registry)?,
        };
        series::BUILD_INFO.counts(registry)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.set_tasks(&[], &BTreeMap::new());
        metrics.set_tickets(0, 0);
        Ok(metrics)
    }

    /// Takes note of a turn.
    pub fn turned(&self, turn: &Turn) {
        self.published.inc_by(turn.published as u64);
        self.leases_expired.inc_by(turn.expired.len() as u64);
        self.dead_letters.inc_by(turn.dead.1 as u64);
        self.malformed_letters.inc_by(turn.malformed as u64);
        self.set_tasks(&turn.sweeps, &turn.ended);
        self.aside.set(whole(turn.aside.len()));
        self.set_tickets(turn.tickets.0, turn.tickets.1);
        self.workers.set(whole(turn.workers));
        self.window.set(whole(turn.window));
    }

    fn set_tickets(&self, outbox: usize, broker: usize) {
        self.tickets.with_label_values(&["outbox"]).set(whole(outbox));
        self.tickets.with_label_values(&["broker"]).set(whole(broker));
    }

    /// Counts the tasks of these sweeps, and those of the sweeps that have ended.
    pub fn set_tasks(&self, sweeps: &[SweepRecord], ended: &BTreeMap<TaskState, usize>) {
        let mut counts: BTreeMap<TaskState, usize> = TaskState::ALL.into_iter().map(|state| (state, 0)).collect();
        for (state, count) in sweeps.iter().flat_map(|sweep| &sweep.counts).chain(ended) {
            *counts.entry(*state).or_default() += count;
        }
        for (state, count) in counts {
            self.tasks.with_label_values(&[state.as_str()]).set(whole(count));
        }
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
