//! The store on a real Redis: the contract, random histories against the model, and servers that cannot be trusted.

use std::time::Duration;

use crate::support::servers::{RedisServer, new_store, settings};
use mehl_soup::store::contract::{claimant, completed, key, saved, standing, sweep, task};
use mehl_soup::store::traits::*;
use mehl_soup::store::{
    AfterRelease, AtRung, ClaimAnswer, Held, Hold, Memory, NewSweep, Order, Redis, RedisSettings, ReleaseReason, Store,
    StoreError, TaskRecord, Tickets,
};
use mehl_soup::task::Ticket;
use proptest::prelude::*;

mehl_soup::store_contract!(new_store());

const TASKS: usize = 4;

/// One step of a history. Numbers pick a task, a ticket or a hold among those that there are.
#[derive(Debug, Clone)]
enum Step {
    ReleasePending(usize),
    Due,
    Choose(usize),
    Confirm(usize),
    Republish,
    Claim { ticket: usize, nonce: u8, lives: bool },
    Renew { hold: usize, lives: bool },
    Save { hold: usize, sequence: u64, reached: u64, lives: bool },
    Complete(usize),
    Release { hold: usize, why: u8 },
    Expire(usize),
    Request(u8),
    Settle { from: usize, limit: usize },
    Retry,
    Dead(usize),
    Wait { hold: usize, rung: u32, loss: u8 },
    Promote { task: usize, rung: u32 },
    Prune { task: usize, rung: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..4usize).prop_map(Step::ReleasePending),
        2 => Just(Step::Due),
        3 => (0..5usize).prop_map(Step::Choose),
        2 => (0..40usize).prop_map(Step::Confirm),
        1 => Just(Step::Republish),
        8 => (0..40usize, 0..6u8, prop::bool::weighted(0.7))
            .prop_map(|(ticket, nonce, lives)| Step::Claim { ticket, nonce, lives }),
        2 => (0..40usize, prop::bool::weighted(0.7)).prop_map(|(hold, lives)| Step::Renew { hold, lives }),
        4 => (0..40usize, 0..5u64, 0..4u64, prop::bool::weighted(0.7))
            .prop_map(|(hold, sequence, reached, lives)| Step::Save { hold, sequence, reached, lives }),
        3 => (0..40usize).prop_map(Step::Complete),
        4 => (0..40usize, 0..3u8).prop_map(|(hold, why)| Step::Release { hold, why }),
        3 => (1..4usize).prop_map(Step::Expire),
        1 => (0..8u8).prop_map(Step::Request),
        2 => (0..4usize, 1..6usize).prop_map(|(from, limit)| Step::Settle { from, limit }),
        1 => Just(Step::Retry),
        1 => (0..40usize).prop_map(Step::Dead),
        5 => (0..40usize, 0..3u32, any::<u8>()).prop_map(|(hold, rung, loss)| Step::Wait { hold, rung, loss }),
        4 => (0..TASKS, 0..2u32).prop_map(|(task, rung)| Step::Promote { task, rung }),
        1 => (0..TASKS, 0..2u32).prop_map(|(task, rung)| Step::Prune { task, rung }),
    ]
}

/// What a history has seen: tickets and holds, worthless ones too.
#[derive(Default)]
struct Seen {
    tickets: Vec<Ticket>,
    holds: Vec<Hold>,
}

fn pick<T: Clone>(from: &[T], number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[number % from.len()].clone())
}

fn at(task: usize, rung: u32) -> AtRung {
    AtRung { key: key(&format!("s/t{task}")), rung }
}

/// Short, so that it has run out at the next step that looks.
fn lease(lives: bool) -> Duration {
    if lives { Duration::from_secs(1000) } else { Duration::ZERO }
}

/// Does a step, and says what was answered, without what depends on the clock.
async fn apply<S: Store>(store: &S, step: &Step, seen: &mut Seen) -> String {
    let answer = match step {
        Step::ReleasePending(limit) => format!("{:?}", store.release_pending("s", *limit).await.unwrap()),
        // Without a wait (`sweep`), which of several are due first depends on the clock: so all of them.
        Step::Due => format!("{:?}", store.due("s", 100).await.unwrap()),
        Step::Choose(limit) => {
            let ready = store.ready("s", *limit).await.unwrap();
            format!("{ready:?} {:?}", store.choose(&ready).await.unwrap())
        }
        Step::Confirm(ticket) => match pick(&seen.tickets, *ticket) {
            Some(ticket) => format!("{:?}", store.confirmed(&[ticket]).await.unwrap()),
            None => String::new(),
        },
        Step::Republish => format!("{:?}", store.republish(Duration::ZERO, 100).await.unwrap()),
        Step::Claim { ticket, nonce, lives } => match pick(&seen.tickets, *ticket) {
            Some(ticket) => {
                let answer = store.claim(&ticket, &claimant(&format!("n{nonce}")), lease(*lives)).await.unwrap();
                if let ClaimAnswer::Claimed(claimed) = &answer {
                    seen.holds.push(claimed.hold.clone());
                }
                format!("{answer:?}")
            }
            None => String::new(),
        },
        Step::Renew { hold, lives } => match pick(&seen.holds, *hold) {
            Some(hold) => format!("{:?}", store.renew(&hold, lease(*lives), Some("{}")).await.unwrap()),
            None => String::new(),
        },
        Step::Save { hold, sequence, reached, lives } => match pick(&seen.holds, *hold) {
            Some(hold) => {
                let bytes = format!("{sequence} of {hold:?}");
                format!(
                    "{:?}",
                    store.save(&hold, lease(*lives), saved(*sequence, bytes.as_bytes(), *reached)).await.unwrap()
                )
            }
            None => String::new(),
        },
        Step::Complete(hold) => match pick(&seen.holds, *hold) {
            Some(hold) => format!("{:?}", store.complete(&hold, &completed(&hold.nonce)).await.unwrap()),
            None => String::new(),
        },
        Step::Release { hold, why } => match pick(&seen.holds, *hold) {
            Some(hold) => {
                let why = match why {
                    0 => ReleaseReason::Preempted,
                    1 => ReleaseReason::Crashed("crash".to_string()),
                    _ => ReleaseReason::Hopeless("hopeless".to_string()),
                };
                format!("{:?}", store.release(&hold, &why).await.unwrap())
            }
            None => String::new(),
        },
        Step::Expire(limit) => {
            // Which of several overdue leases is the oldest depends on the clock: so all of them, whatever is asked, in order of their names.
            let _ = limit;
            let mut expired: Vec<_> =
                store.expire(100, lease(true)).await.unwrap().expired.into_iter().map(|e| (e.key, e.onward)).collect();
            expired.sort_by(|(a, _), (b, _)| a.cmp(b));
            format!("{expired:?}")
        }
        // Mostly pause and resume: nothing follows a cancel.
        Step::Request(what) => {
            let request = match what {
                0 => Order::Cancel,
                1..=3 => Order::Pause,
                _ => Order::Continue,
            };
            format!("{:?}", store.order("s", request).await.unwrap())
        }
        Step::Settle { from, limit } => format!("{:?}", store.settle("s", *from, *limit).await.unwrap()),
        Step::Retry => format!("{:?}", store.retry("s", 0, 100).await.unwrap()),
        Step::Dead(ticket) => match pick(&seen.tickets, *ticket) {
            Some(ticket) => format!("{:?}", store.dead(&ticket, 3).await.unwrap()),
            None => String::new(),
        },
        Step::Wait { hold, rung, loss } => match pick(&seen.holds, *hold) {
            Some(hold) => {
                // The rung that it is at, mostly.
                let reached = store.task(&hold.key).await.unwrap().map_or(0, |record| record.rungs.len() as u32);
                let rung = if *rung == 2 { 2 } else { reached };
                format!("{:?}", store.wait(&hold, &standing(rung, f64::from(*loss) / 7.0)).await.unwrap())
            }
            None => String::new(),
        },
        Step::Promote { task, rung } => format!("{:?}", store.promote(&[at(*task, *rung)]).await.unwrap()),
        Step::Prune { task, rung } => format!("{:?}", store.prune(&[at(*task, *rung)]).await.unwrap()),
    };
    let on_their_way = store.tickets().await.unwrap();
    for ticket in on_their_way.outbox.into_iter().chain(on_their_way.outstanding) {
        if !seen.tickets.contains(&ticket) {
            seen.tickets.push(ticket);
        }
    }
    answer
}

/// The whole of a store's state, without times and without the words of causes.
async fn dump<S: Store>(store: &S) -> (Vec<TaskRecord>, Tickets, Vec<String>, Vec<Vec<String>>) {
    let mut records = store.tasks("s", 0, 100).await.unwrap();
    for record in &mut records {
        record.cause = record.cause.take().map(|cause| cause.chars().take(9).collect());
    }
    let ready = store.ready("s", 100).await.unwrap().iter().map(ToString::to_string).collect();
    // What happened at rungs is told in the same words.
    let mut told = Vec::new();
    for record in &records {
        let events = store.events(&record.key).await.unwrap();
        let at_rungs = events.into_iter().filter(|e| ["waiting", "promoted", "pruned"].contains(&e.what.as_str()));
        told.push(at_rungs.map(|e| format!("{} {}", e.what, e.detail.unwrap_or_default())).collect());
    }
    (records, store.tickets().await.unwrap(), ready, told)
}

async fn begin<S: Store>(store: &S, cap: u32) {
    store.create_sweep(&NewSweep { cap, ..sweep("s") }, None).await.unwrap();
    let mut tasks = vec![task("scores", true)];
    tasks.extend((0..TASKS).map(|i| task(&format!("t{i}"), false)));
    store.add_tasks("s", 0, &tasks).await.unwrap();
    let ticket = store.open_sweep("s").await.unwrap().unwrap();
    let ClaimAnswer::Claimed(claimed) = store.claim(&ticket, &claimant("begin"), lease(true)).await.unwrap() else {
        panic!("the scores task is free");
    };
    store.complete(&claimed.hold, &completed("manifest")).await.unwrap();
    store.release_pending("s", 3).await.unwrap();
    let ready = store.ready("s", 2).await.unwrap();
    store.choose(&ready).await.unwrap();
}

/// As many as `PROPTEST_CASES` says; by default so few that they take seconds.
fn histories() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(200),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(histories())]

    /// The Lua scripts and the model take the same histories to the same states, with the same answers at each step.
    #[test]
    fn lua_and_model_agree(cap in 0..3u32, steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (lua, model) = (new_store().await, Memory::default());
            let (mut seen, mut seen_by_model) = (Seen::default(), Seen::default());
            begin(&lua, cap).await;
            begin(&model, cap).await;
            for (i, step) in steps.iter().enumerate() {
                let answer = apply(&lua, step, &mut seen).await;
                let expected = apply(&model, step, &mut seen_by_model).await;
                prop_assert_eq!(&answer, &expected, "step {}, {:?}", i, step);
                prop_assert_eq!(dump(&lua).await, dump(&model).await, "after step {}, {:?}", i, step);
            }
            Ok(())
        })?;
    }
}

fn refused(settings: &RedisSettings) -> StoreError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Redis::connect(settings).await.err().expect("it is refused") })
}

#[test]
fn a_server_that_throws_away_is_refused() {
    let server = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let error = refused(&settings(server.url()));
    assert!(matches!(&error, StoreError::Setup(what) if what.contains("noeviction")), "{error}");
}

#[test]
fn a_wrong_password_is_a_set_up_fault_and_is_not_repeated_in_the_message() {
    let server = RedisServer::start(&["--requirepass", "secret"]);
    let with = |password: &str| settings(server.url().replace("redis://", &format!("redis://:{password}@")));
    for bad in [settings(server.url()), with("guessed-wrong")] {
        let error = refused(&bad);
        assert!(matches!(error, StoreError::Setup(_)), "{error:?}");
        assert!(!error.to_string().contains("guessed-wrong"), "{error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(runtime.block_on(Redis::connect(&with("secret"))).is_ok());
}

#[test]
fn nobody_there_is_told_in_time() {
    let mut bad = settings(format!("redis://127.0.0.1:{}/", crate::support::servers::free_port()));
    bad.timeout = Duration::from_millis(200);
    let error = refused(&bad);
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_full_server_says_so_and_loses_nothing() {
    let server = RedisServer::start(&["--maxmemory", "3mb"]);
    let store = Redis::connect(&settings(server.url())).await.unwrap();
    begin(&store, 0).await;
    let ticket = store.outbox(1).await.unwrap().remove(0);
    let ClaimAnswer::Claimed(claimed) = store.claim(&ticket, &claimant("one"), lease(true)).await.unwrap() else {
        panic!("free");
    };
    let mut sequence = 0;
    let error = loop {
        sequence += 1;
        assert!(sequence < 100, "the server takes more than its limit");
        // Each in place of the last, so only one that is too large does not fit.
        match store
            .save(&claimed.hold, lease(true), saved(sequence, &vec![7; (sequence as usize * 256) << 10], sequence))
            .await
        {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let record = store.task(&claimed.hold.key).await.unwrap().unwrap();
    assert_eq!(record.sequence, sequence - 1);
}

#[tokio::test]
async fn a_server_that_is_killed_goes_on_with_all_that_it_confirmed() {
    let mut server = RedisServer::start(&[]);
    let store = Redis::connect(&settings(server.url())).await.unwrap();
    begin(&store, 0).await;
    let ticket = store.outbox(1).await.unwrap().remove(0);
    let ClaimAnswer::Claimed(claimed) = store.claim(&ticket, &claimant("one"), lease(true)).await.unwrap() else {
        panic!("free");
    };
    store.save(&claimed.hold, lease(true), saved(5, b"kept", 5)).await.unwrap();
    let before = dump(&store).await;
    server.kill_and_restart();
    let after = loop {
        match store.tasks("s", 0, 100).await {
            Ok(_) => break dump(&store).await,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    };
    assert_eq!(after, before);
    let Held::Yes(AfterRelease::Queued(next)) = store.release(&claimed.hold, &ReleaseReason::Preempted).await.unwrap()
    else {
        panic!("it is still held");
    };
    let ClaimAnswer::Claimed(again) = store.claim(&next, &claimant("two"), lease(true)).await.unwrap() else {
        panic!("free");
    };
    assert_eq!(again.checkpoint.as_deref(), Some(b"kept".as_slice()));
    assert_eq!(store.task(&key("s/none")).await.unwrap(), None);
}

#[tokio::test]
async fn beyond_the_last_task_there_are_none() {
    let store = new_store().await;
    begin(&store, 0).await;
    let count = store.tasks("s", 0, 100).await.unwrap().len();
    assert_eq!(store.tasks("s", count, 100).await.unwrap(), []);
    assert_eq!(store.tasks("none", 0, 100).await.unwrap(), []);
}
