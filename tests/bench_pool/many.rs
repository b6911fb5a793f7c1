//! A scheduler with 100,000 tasks: how long a turn takes, and how much memory the program has.

use std::time::Instant;

use mehl_soup::queue::InProcess;
use mehl_soup::scheduler::{Scheduler, SchedulerSettings};
use mehl_soup::store::traits::*;
use mehl_soup::store::{Claimant, Completed, Redis};
use tokio::sync::Notify;

use crate::program::Program;
use crate::support::servers::settings;
use crate::{ROUNDS, Row, Servers, median, seconds, spec_of};

const TASKS: usize = 99_996;

pub async fn measure() -> Vec<Row> {
    // Servers of its own, so that nobody else's keys are in the way.
    let servers = Servers::start().await;
    let settings = settings(servers.redis.url());
    let (redis, rabbit, name) = (servers.redis.url(), servers.rabbit.url(), settings.installation.clone());
    let (id, created, program) = tokio::task::spawn_blocking(move || {
        let program = Program::start(&redis, &rabbit, &name);
        let began = Instant::now();
        (program.submit(&spec_of(TASKS)), began.elapsed(), program)
    })
    .await
    .unwrap();
    let store = Redis::connect(&settings).await.unwrap();
    // With its scores, the tasks can be worked on.
    let ticket = loop {
        let tickets = store.tickets().await.unwrap();
        match tickets.outstanding.first() {
            Some(ticket) => break ticket.clone(),
            None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let claimant = Claimant { worker: "measured".into(), nonce: "n".into() };
    let claimed = store.claim(&ticket, &claimant, std::time::Duration::from_secs(60)).await.unwrap();
    let mehl_soup::store::ClaimAnswer::Claimed(claimed) = claimed else { panic!("{ticket:?}: {claimed:?}") };
    let result = r#"{"version":1,"family":"vit","architecture":"stub","ingredients":[],"data":[],"notes":[]}"#;
    let completed = Completed { result: result.into(), coefficients: vec![], units: None };
    store.complete(&claimed.hold, &completed).await.unwrap();
    let path = format!("/v1/sweeps/{id}/tasks?state=queued");
    let (program, resident) = tokio::task::spawn_blocking(move || {
        program.until("tasks are handed out", || program.get(&path)["tasks"].as_array().is_some_and(|t| !t.is_empty()));
        std::thread::sleep(std::time::Duration::from_secs(5));
        let resident = program.resident();
        (program, resident)
    })
    .await
    .unwrap();
    drop(program);
    let (queue, wake, turns) = (InProcess::default(), Notify::new(), SchedulerSettings::default());
    let scheduler = Scheduler { store: &store, queue: &queue, settings: &turns, wake: &wake };
    let mut took = vec![];
    for _ in 0..=ROUNDS {
        let began = Instant::now();
        scheduler.turn().await.unwrap();
        took.push(began.elapsed());
    }
    let turn = median(&mut seconds(&took));
    println!("creation {created:?}, turns {took:?}");
    let mib = |bytes: u64| bytes >> 20;
    vec![
        Row {
            what: format!("a turn of the scheduler over a sweep of {TASKS} tasks"),
            measured: format!(
                "{turn:.4} s (the longest of {}: {:.4} s)",
                took.len(),
                took.iter().max().unwrap().as_secs_f64()
            ),
            target: "under 1 s",
            is_met: turn < 1.0,
        },
        Row {
            what: format!(
                "resident memory of the scheduler that created it over HTTP in {:.1} s",
                created.as_secs_f64()
            ),
            measured: format!("{} MiB at rest, {} MiB at most", mib(resident.0), mib(resident.1)),
            target: "under 300 MB",
            is_met: resident.1 < 300_000_000,
        },
    ]
}
