//! Speed of a pool with tasks that compute nothing, on servers of its own: creation, throughput beside Celery, checkpoints, a scheduler with many tasks, and how soon a task
//! goes on elsewhere. Prints a table for `docs/pool.md`.
//!
//! `make bench-pool` runs it; it needs the machine for itself. `BENCH_POOL` names parts of it, by commas: creation, noop, checkpoint, scheduler, resume.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "bench_pool/creation.rs"]
mod creation;
#[path = "bench_pool/iteration.rs"]
mod iteration;
#[path = "bench_pool/many.rs"]
mod many;
#[path = "bench_pool/noop.rs"]
mod noop;
#[path = "bench_pool/program.rs"]
mod program;
#[path = "bench_pool/resume.rs"]
mod resume;
mod support;

use std::time::Duration;

use support::pool_processes::work_as_told;
use support::servers::{RabbitServer, RedisServer};
use support::service::SPEC;

/// Times that anything is measured.
const ROUNDS: usize = 5;

/// What was measured, and what was aimed at.
struct Row {
    what: String,
    measured: String,
    target: &'static str,
    is_met: bool,
}

/// Two servers as an installation has them: with an append-only file that is written every second.
struct Servers {
    redis: RedisServer,
    rabbit: RabbitServer,
}

impl Servers {
    async fn start() -> Self {
        tokio::task::spawn_blocking(|| Self {
            redis: RedisServer::start(&["--appendfsync", "everysec"]),
            rabbit: RabbitServer::start(""),
        })
        .await
        .unwrap()
    }
}

/// A specification of so many soup tasks, a multiple of 3, and two baselines.
fn spec_of(tasks: usize) -> String {
    format!("{SPEC}seed = {{ int = [1, {}] }}\n", tasks / 3)
}

/// The value below which a part `p` of them is; sorts them.
fn quantile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * p).round() as usize]
}

fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn seconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(Duration::as_secs_f64).collect()
}

#[tokio::test(flavor = "current_thread")]
#[ignore = "a process that the benchmark starts"]
async fn process_of_a_pool() {
    work_as_told().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, and it needs the machine for itself: make bench-pool"]
async fn bench() {
    let servers = Servers::start().await;
    let only = std::env::var("BENCH_POOL").unwrap_or_default();
    let is_wanted = |part: &str| only.is_empty() || only.split(',').any(|wanted| wanted == part);
    let mut rows = vec![];
    if is_wanted("creation") {
        rows.extend(creation::measure(&servers).await);
    }
    if is_wanted("noop") {
        rows.extend(noop::measure(&servers).await);
    }
    if is_wanted("checkpoint") {
        rows.extend(iteration::measure(&servers).await);
    }
    if is_wanted("scheduler") {
        rows.extend(many::measure().await);
    }
    if is_wanted("resume") {
        rows.extend(resume::measure(&servers).await);
    }
    assert!(!rows.is_empty(), "BENCH_POOL={only}: no such part");
    println!("\n| what | measured | target | |\n|---|---|---|---|");
    for Row { what, measured, target, is_met } in &rows {
        println!("| {what} | {measured} | {target} | {} |", if *is_met { "met" } else { "missed" });
    }
}
