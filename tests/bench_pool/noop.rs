//! Tasks that do nothing, from their submission to their completion, beside Celery with the same servers and as many processes.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use mehl_soup::store::traits::*;
use serde::Deserialize;

use crate::program::Program;
use crate::support::pool_processes::Pool;
use crate::{ROUNDS, Row, Servers, median, quantile, spec_of};

const WORKERS: usize = 16;
const TASKS: usize = 3_000;

/// Tasks submitted at once.
#[derive(Deserialize)]
struct Burst {
    /// From the first submission to the last completion.
    seconds: f64,
    /// From the first submission to its completion, of each task.
    latencies: Vec<f64>,
}

#[derive(Deserialize)]
struct Bursts {
    version: String,
    rounds: Vec<Burst>,
}

/// Medians over the rounds: tasks a second, and the times within which a half and 99 of 100 tasks were done.
fn summary(rounds: Vec<Burst>) -> [f64; 3] {
    let [mut speeds, mut halves, mut most] = [vec![], vec![], vec![]];
    for mut burst in rounds {
        speeds.push(burst.latencies.len() as f64 / burst.seconds);
        halves.push(quantile(&mut burst.latencies, 0.5));
        most.push(quantile(&mut burst.latencies, 0.99));
    }
    println!("tasks/s {speeds:.0?}, p50 {halves:.3?}, p99 {most:.3?}");
    [median(&mut speeds), median(&mut halves), median(&mut most)]
}

pub async fn measure(servers: &Servers) -> Vec<Row> {
    let own = summary(own(servers).await);
    let celery = celery(servers).await;
    let version = celery.version;
    let celery = summary(celery.rounds);
    let ratio = own[0] / celery[0];
    let words = |[speed, half, most]: [f64; 3]| format!("{speed:.0} tasks/s, p50 {half:.2} s, p99 {most:.2} s");
    vec![
        Row {
            what: format!("{TASKS} no-op tasks submitted at once, {WORKERS} worker processes"),
            measured: format!("{}: {ratio:.1} times Celery", words(own)),
            target: "at least as many as Celery, aim 5 times",
            is_met: ratio >= 1.0,
        },
        Row {
            what: format!("the same in Celery {version}, {WORKERS} processes"),
            measured: words(celery),
            target: "",
            is_met: true,
        },
    ]
}

/// By the scheduler as it is deployed, over HTTP; the workers' engine computes one iteration of no time.
async fn own(servers: &Servers) -> Vec<Burst> {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::new(&servers.redis.url(), &servers.rabbit.url(), folder.path(), 1, 0).await;
    pool.site.rabbit.installation = pool.site.redis.installation.clone();
    for i in 0..WORKERS {
        pool.worker(&format!("w{i}"), "interval=60000");
    }
    let (redis, rabbit, name) = (servers.redis.url(), servers.rabbit.url(), pool.site.redis.installation.clone());
    let mut program = tokio::task::spawn_blocking(move || Program::start(&redis, &rabbit, &name)).await.unwrap();
    pool.until("all workers are there", async |pool| pool.store.workers().await.unwrap().len() == WORKERS).await;
    let mut bursts = vec![];
    for round in 0..=ROUNDS {
        let tasks = if round == 0 { 20 * WORKERS } else { TASKS };
        let (id, began, back) = tokio::task::spawn_blocking(move || {
            let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let id = program.submit(&spec_of(tasks));
            let path = format!("/v1/sweeps/{id}");
            program.until("the sweep ends", || !program.get(&path)["outcome"].is_null());
            (id, began, program)
        })
        .await
        .unwrap();
        program = back;
        let records = pool.store.tasks(&id, 1, TASKS + 10).await.unwrap();
        let ends = stream::iter(&records).map(async |record| {
            let events = pool.store.events(&record.key).await.unwrap();
            events.iter().find(|event| event.what == "succeeded").unwrap().at as f64 / 1e3
        });
        let ends: Vec<f64> = ends.buffered(64).collect().await;
        let last = ends.iter().copied().fold(0.0, f64::max);
        let latencies = ends.iter().map(|end| end - began).collect();
        // The first is to warm up.
        if round > 0 {
            bursts.push(Burst { seconds: last - began, latencies });
        }
    }
    bursts
}

async fn celery(servers: &Servers) -> Bursts {
    let python = std::env::var("CELERY_PYTHON").expect("CELERY_PYTHON: make bench-pool sets it");
    let mut command = Command::new(python);
    command.arg("tests/python/celery_noop.py").args([WORKERS, TASKS, ROUNDS].map(|n| n.to_string()));
    command.env("CELERY_BROKER", servers.rabbit.url()).env("CELERY_RESULTS", servers.redis.url());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
