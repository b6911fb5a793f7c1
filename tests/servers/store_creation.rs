//! Creation of a sweep against everything that can happen to it meanwhile: the client goes away, comes again with the same key, the sweep is cancelled, its time
//! is over. Random orders of these steps on a real Redis and on the model.

use std::collections::BTreeMap;

use mehl_soup::store::contract::{claimant, completed, key, sweep, task};
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Memory, NewSweep, NewTask, Order, Redis, ReleaseReason, Stage, Store, StoreError};
use mehl_soup::task::{TaskState, Ticket};
use proptest::prelude::*;

use crate::support::servers::{new_store_at, redis_command};

/// Tasks of the sweep, in batches as `admit` writes them.
fn batches() -> Vec<Vec<NewTask>> {
    let ids = [["scores", "t0"], ["t1", "t2"], ["t3", "t4"]];
    ids.map(|batch| batch.map(|id| task(id, id == "scores")).to_vec()).to_vec()
}

/// One step of a client, of an owner, of the scheduler, of a worker or of the clock.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The first time a creation, after that a repeat with the same key.
    Create,
    Add(usize),
    Open,
    Cancel,
    Pause,
    Resume,
    TimeIsOver,
    Settle,
    Release,
    Choose,
    /// A worker takes any ticket that was ever seen, and its attempt ends so.
    Work(usize, u8),
    Retry,
    Retire,
    Remove,
    /// A search adds a task at this place: the one that is expected there, or another.
    Extend(usize, bool),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Create),
        6 => (0..3usize).prop_map(Step::Add),
        3 => Just(Step::Open),
        2 => Just(Step::Cancel),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        2 => Just(Step::TimeIsOver),
        4 => Just(Step::Settle),
        1 => Just(Step::Release),
        1 => Just(Step::Choose),
        2 => (0..20usize, 0..4u8).prop_map(|(ticket, how)| Step::Work(ticket, how)),
        1 => Just(Step::Retry),
        1 => Just(Step::Retire),
        1 => Just(Step::Remove),
        3 => (4..9usize, prop::bool::weighted(0.8)).prop_map(|(place, is_own)| Step::Extend(place, is_own)),
        1 => Just(Step::Close),
    ]
}

struct Served {
    store: Redis,
    url: String,
    prefix: String,
}

/// The sweep's time is over from now on.
fn end_time_of_redis(served: &Served) {
    let key = format!("{}sweep:s", served.prefix);
    if redis_command(&served.url, &["EXISTS", &key]) == "1" {
        redis_command(&served.url, &["HSET", &key, "closes", "1"]);
    }
}

/// What a step answers, in words that do not depend on the clock.
async fn apply<S: Store>(
    store: &S,
    task_limit: usize,
    step: Step,
    seen: &mut Vec<Ticket>,
    claims: &mut usize,
) -> String {
    let told = |answer: Result<String, StoreError>| answer.unwrap_or_else(|error| error.to_string());
    let answer = match step {
        Step::Create => {
            let new = NewSweep { task_limit, ..sweep("s") };
            told(store.create_sweep(&new, Some("key")).await.map(|made| format!("{made:?}")))
        }
        Step::Extend(place, is_own) => {
            let id = if is_own { format!("t{}", place - 1) } else { "other".to_string() };
            told(store.extend("s", place, &[task(&id, false)]).await.map(|extended| format!("{extended:?}")))
        }
        Step::Close => store.close("s").await.unwrap().to_string(),
        Step::Add(batch) => {
            told(store.add_tasks("s", 2 * batch, &batches()[batch]).await.map(|added| added.to_string()))
        }
        Step::Open => told(store.open_sweep("s").await.map(|ticket| format!("{ticket:?}"))),
        // As the API does it: a sweep that is being created is opened first, so that it can end.
        Step::Cancel => {
            let known = store.sweep("s").await.unwrap();
            let requested = store.order("s", Order::Cancel).await.unwrap();
            if known.is_some_and(|sweep| sweep.stage == Stage::Creating) {
                drop(store.add_tasks("s", 0, &[task("scores", true)]).await);
                store.open_sweep("s").await.unwrap();
            }
            store.settle("s", 0, 100).await.unwrap();
            requested.to_string()
        }
        Step::Pause => store.order("s", Order::Pause).await.unwrap().to_string(),
        Step::Resume => store.order("s", Order::Continue).await.unwrap().to_string(),
        Step::TimeIsOver => String::new(),
        Step::Settle => format!("{:?}", store.settle("s", 0, 100).await.unwrap()),
        Step::Release => store.release_pending("s", 2).await.unwrap().to_string(),
        Step::Choose => {
            let ready = store.ready("s", 100).await.unwrap();
            store.choose(&ready).await.unwrap().to_string()
        }
        Step::Work(..) if seen.is_empty() => String::new(),
        Step::Work(which, how) => {
            let ticket = seen[which % seen.len()].clone();
            *claims += 1;
            let lease = std::time::Duration::from_secs(1000);
            match store.claim(&ticket, &claimant(&format!("n{claims}")), lease).await.unwrap() {
                ClaimAnswer::Refused(why) => format!("{why:?}"),
                ClaimAnswer::Claimed(claimed) => match how {
                    0 | 1 => format!("{:?}", store.complete(&claimed.hold, &completed("{}")).await.unwrap()),
                    2 => format!("{:?}", store.release(&claimed.hold, &ReleaseReason::Preempted).await.unwrap()),
                    _ => format!(
                        "{:?}",
                        store.release(&claimed.hold, &ReleaseReason::Hopeless("no".into())).await.unwrap()
                    ),
                },
            }
        }
        Step::Retry => format!("{:?}", store.retry("s", 0, 100).await.unwrap()),
        Step::Retire => store.retire(&["s".to_string()]).await.unwrap().to_string(),
        Step::Remove => told(store.remove("s", 100).await.map(|is_gone| is_gone.to_string())),
    };
    let tickets = store.tickets().await.unwrap();
    for ticket in tickets.outbox.into_iter().chain(tickets.outstanding) {
        if !seen.contains(&ticket) {
            seen.push(ticket);
        }
    }
    answer
}

/// What there is of the sweep, counted from its tasks and as it is summed up.
async fn state<S: Store>(store: &S) -> String {
    let tasks: Vec<_> = store.tasks("s", 0, 100).await.unwrap().into_iter().map(|t| (t.key.task, t.state)).collect();
    let mut counts = BTreeMap::new();
    tasks.iter().for_each(|(_, state)| *counts.entry(*state).or_insert(0) += 1);
    let record = store.sweep("s").await.unwrap();
    assert_eq!(record.as_ref().map_or(BTreeMap::new(), |record| record.counts.clone()), counts, "{tasks:?}");
    let live = store.live().await.unwrap();
    assert_eq!(live.sweeps.unreadable, []);
    let record = record.map(|record| (record.stage, record.order, record.ready, record.delayed, record.may_grow));
    format!("{tasks:?} {record:?} {:?} {:?}", live.sweeps.records.len(), live.ended)
}

fn histories() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(150),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(histories())]

    #[test]
    fn whatever_meets_a_creation_its_counts_are_right(
        task_limit in prop_oneof![Just(0), Just(8)],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, url, installation) = new_store_at().await;
            let served = Served { store, url, prefix: format!("{{{installation}}}:") };
            let (lua, model) = (&served.store, Memory::default());
            let (mut seen, mut seen_by_model, mut claims, mut claims_of_model) = (vec![], vec![], 0, 0);
            for (i, &step) in steps.iter().enumerate() {
                if matches!(step, Step::TimeIsOver) {
                    end_time_of_redis(&served);
                    model.end_time("s");
                }
                let answer = apply(lua, task_limit, step, &mut seen, &mut claims).await;
                let expected = apply(&model, task_limit, step, &mut seen_by_model, &mut claims_of_model).await;
                prop_assert_eq!(&answer, &expected, "step {}, {:?}", i, step);
                prop_assert_eq!(state(lua).await, state(&model).await, "after step {}, {:?}", i, step);
                // The doctor finds nothing: no ticket without a task, no task without its place.
                let findings = match lua.sweep("s").await.unwrap() {
                    Some(_) => lua.examine("s", false).await.unwrap(),
                    None => vec![],
                };
                let no_scores = findings.iter().all(|finding| finding.contains("scores task is lost"));
                prop_assert!(no_scores, "after step {}, {:?}: {:?}", i, step, findings);
                prop_assert_eq!(lua.examine_pool(false).await.unwrap(), Vec::<String>::new(), "after step {}", i);
            }
            // Whatever it is now, it can be brought to its end.
            if lua.sweep("s").await.unwrap().is_some() {
                apply(lua, task_limit, Step::Cancel, &mut seen, &mut claims).await;
                let record = lua.sweep("s").await.unwrap().unwrap();
                prop_assert!(record.is_final(), "{:?}", record);
                prop_assert!(record.counts.keys().all(|state| state.is_final() && *state != TaskState::Pruned));
                while !lua.remove("s", 2).await.unwrap() {}
                prop_assert_eq!(lua.task(&key("s/scores")).await.unwrap(), None);
            }
            Ok(())
        })?;
    }
}
