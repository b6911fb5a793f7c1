//! What every store must do. Each function takes a new, empty store.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod growth;
mod rungs;
mod units;

use std::time::Duration;

pub use growth::*;
pub use rungs::*;
pub use units::*;

use super::{
    AfterRelease, Backoff, ClaimAnswer, Claimant, Claimed, Completed, Expired, Held, Hold, LARGEST_LETTER, Letter,
    Letters, MOST_LETTERS, NewSweep, NewTask, Order, Refusal, ReleaseReason, Saved, Store,
};
use crate::task::{TaskKey, TaskState, Ticket};

const LONG: Duration = Duration::from_secs(1000);

pub fn sweep(id: &str) -> NewSweep {
    let (name, spec) = ("digits".to_string(), r#"{"a":1}"#.to_string());
    // Without a wait after crashes: it depends on no clock then.
    let backoff = Backoff { first_ms: 0 };
    NewSweep {
        id: id.to_string(),
        name,
        spec,
        attempts: 2,
        cap: 0,
        priority: 0,
        max_seconds: 0,
        search_controlled: false,
        backoff,
        task_limit: 0,
    }
}

pub fn task(id: &str, is_scores: bool) -> NewTask {
    NewTask { id: id.to_string(), body: format!(r#"{{"id":"{id}"}}"#), is_scores }
}

pub fn key(text: &str) -> TaskKey {
    text.parse().unwrap()
}

pub fn claimant(nonce: &str) -> Claimant {
    Claimant { worker: format!("worker-{nonce}"), nonce: nonce.to_string() }
}

pub fn completed(result: &str) -> Completed {
    Completed { result: result.to_string(), coefficients: b"coefficients".to_vec(), units: None }
}

/// A checkpoint as it is saved, of a task that has come so far.
pub fn saved(sequence: u64, checkpoint: &[u8], reached: u64) -> Saved<'_> {
    Saved { sequence, checkpoint, reached, progress: None }
}

/// Tasks whose leases have run out, as long as turns follow each other.
async fn expired<S: Store>(store: &S) -> Vec<Expired> {
    let expiries = store.expire(10, LONG).await.unwrap();
    assert_eq!(expiries.unreadable, []);
    expiries.expired
}

/// The ticket of a task that crashed, once its wait is over and it was chosen.
async fn after_wait<S: Store>(store: &S, task: &str) -> Ticket {
    let key = key(task);
    assert_eq!(store.due(&key.sweep, 10).await.unwrap(), 1);
    assert_eq!(store.choose(std::slice::from_ref(&key)).await.unwrap(), 1);
    let generation = store.task(&key).await.unwrap().unwrap().generation;
    Ticket::new(key, generation)
}

/// A sweep `s` with a scores task and tasks `t0`, `t1`, ..., open.
async fn opened<S: Store>(store: &S, new: &NewSweep, tasks: usize) -> Ticket {
    assert!(store.create_sweep(new, None).await.unwrap().is_new);
    let mut list = vec![task("scores", true)];
    list.extend((0..tasks).map(|i| task(&format!("t{i}"), false)));
    assert_eq!(store.add_tasks(&new.id, 0, &list).await.unwrap(), tasks + 1);
    store.open_sweep(&new.id).await.unwrap().unwrap()
}

async fn claim<S: Store>(store: &S, ticket: &Ticket, nonce: &str) -> Claimed {
    match store.claim(ticket, &claimant(nonce), LONG).await.unwrap() {
        ClaimAnswer::Claimed(claimed) => *claimed,
        refused => panic!("{ticket:?}: {refused:?}"),
    }
}

async fn refusal<S: Store>(store: &S, ticket: &Ticket, nonce: &str) -> Refusal {
    match store.claim(ticket, &claimant(nonce), LONG).await.unwrap() {
        ClaimAnswer::Refused(why) => why,
        claimed => panic!("{claimed:?}"),
    }
}

/// The same, with its scores task done and all tasks chosen for a ticket; the tickets, in order.
async fn scored<S: Store>(store: &S, new: &NewSweep, tasks: usize) -> Vec<Ticket> {
    let scores = opened(store, new, tasks).await;
    let hold = claim(store, &scores, "scorer").await.hold;
    assert_eq!(store.release_pending(&new.id, 100).await.unwrap(), 0, "nothing runs before the scores are there");
    let manifest = Completed { result: r#"{"manifest":true}"#.to_string(), coefficients: vec![], units: None };
    assert_eq!(store.complete(&hold, &manifest).await.unwrap(), Held::Yes(()));
    assert_eq!(store.release_pending(&new.id, 100).await.unwrap(), tasks);
    let ready = store.ready(&new.id, 100).await.unwrap();
    assert_eq!(ready.len(), tasks);
    assert_eq!(store.choose(&ready).await.unwrap(), tasks);
    assert_eq!(store.choose(&ready).await.unwrap(), 0, "nothing is chosen twice");
    let tickets = store.outbox(100).await.unwrap();
    assert_eq!(tickets.len(), tasks);
    tickets
}

async fn state<S: Store>(store: &S, of: &str) -> TaskState {
    store.task(&key(of)).await.unwrap().unwrap().state
}

pub async fn creation_is_idempotent<S: Store>(store: S) {
    let first = store.create_sweep(&sweep("a"), Some("my key")).await.unwrap();
    assert_eq!((first.id.as_str(), first.is_new), ("a", true));
    let again = store.create_sweep(&sweep("b"), Some("my key")).await.unwrap();
    assert_eq!((again.id.as_str(), again.is_new), ("a", false));
    assert!(!store.create_sweep(&sweep("a"), None).await.unwrap().is_new);
    let tasks = [task("scores", true), task("t0", false)];
    assert_eq!(store.add_tasks("a", 0, &tasks).await.unwrap(), 2);
    assert_eq!(store.add_tasks("a", 0, &tasks).await.unwrap(), 0);
    let ticket = store.open_sweep("a").await.unwrap().unwrap();
    assert_eq!(ticket, Ticket::new(key("a/scores"), 1));
    assert_eq!(store.open_sweep("a").await.unwrap(), None);
    assert!(store.add_tasks("a", 2, &[task("t1", false)]).await.is_err(), "an open sweep takes no more tasks");
    assert!(store.add_tasks("none", 0, &tasks).await.is_err());
    assert!(store.open_sweep("none").await.is_err());
    assert_eq!(store.outbox(10).await.unwrap(), [ticket]);
    let records = store.tasks("a", 0, 10).await.unwrap();
    let states: Vec<_> = records.iter().map(|r| (r.key.task.as_str(), r.state)).collect();
    assert_eq!(states, [("scores", TaskState::Queued), ("t0", TaskState::Pending)]);
    assert_eq!(store.tasks("a", 1, 10).await.unwrap(), records[1..]);
    assert_eq!(store.task(&key("a/none")).await.unwrap(), None);
}

pub async fn a_task_is_claimed_once_and_completed_once<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 2).await;
    let first = claim(&store, &tickets[0], "one").await;
    assert_eq!((first.spec.as_str(), first.body.as_str()), (r#"{"a":1}"#, r#"{"id":"t0"}"#));
    assert_eq!(first.manifest.as_deref(), Some(r#"{"manifest":true}"#));
    assert_eq!((first.checkpoint.as_deref(), first.sequence, first.attempts), (None, 0, 1));
    // An answer that was lost: the same claim again gives the same hold.
    assert_eq!(claim(&store, &tickets[0], "one").await, first);
    assert_eq!(refusal(&store, &tickets[0], "two").await, Refusal::State(TaskState::Running));
    assert_eq!(refusal(&store, &Ticket::new(key("s/none"), 1), "two").await, Refusal::Unknown);
    assert_eq!(refusal(&store, &Ticket::new(key("s/t1"), 7), "two").await, Refusal::Generation(1));
    assert_eq!(store.tickets().await.unwrap().outbox, tickets[1..], "a claim takes the ticket");

    let stranger = Hold { nonce: "two".to_string(), ..first.hold.clone() };
    assert_eq!(store.complete(&stranger, &completed("x")).await.unwrap(), Held::Fenced);
    assert_eq!(store.complete(&first.hold, &completed("1")).await.unwrap(), Held::Yes(()));
    assert_eq!(store.complete(&first.hold, &completed("2")).await.unwrap(), Held::Yes(()), "the same attempt again");
    assert_eq!(store.result(&key("s/t0")).await.unwrap(), Some(completed("1")), "a result is written once");
    assert_eq!(store.renew(&first.hold, LONG, None).await.unwrap(), Held::Fenced);
    assert_eq!(store.release(&first.hold, &ReleaseReason::Preempted).await.unwrap(), Held::Fenced);
    assert_eq!(refusal(&store, &tickets[0], "three").await, Refusal::State(TaskState::Succeeded));
    assert_eq!(store.result(&key("s/t1")).await.unwrap(), None);
}

pub async fn checkpoints_are_fenced_and_the_newest_wins<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 1).await;
    let first = claim(&store, &tickets[0], "one").await.hold;
    let save = async |hold: &Hold, sequence, bytes: &[u8]| {
        store.save(hold, LONG, saved(sequence, bytes, sequence)).await.unwrap()
    };
    assert_eq!(save(&first, 1, b"first\0\xff").await, Held::Yes(Order::Continue));
    assert_eq!(save(&first, 3, b"third").await, Held::Yes(Order::Continue));
    assert_eq!(save(&first, 2, b"late").await, Held::Yes(Order::Continue));
    let Held::Yes(AfterRelease::Queued(ticket)) = store.release(&first, &ReleaseReason::Preempted).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(ticket, Ticket::new(key("s/t0"), 2));
    assert_eq!(
        store.release(&first, &ReleaseReason::Preempted).await.unwrap(),
        Held::Yes(AfterRelease::Queued(ticket.clone())),
        "a repeated release says the same"
    );
    assert_eq!(store.outbox(10).await.unwrap(), std::slice::from_ref(&ticket), "with one ticket");
    assert_eq!(refusal(&store, &tickets[0], "two").await, Refusal::Generation(2));
    let second = claim(&store, &ticket, "two").await;
    assert_eq!((second.checkpoint.as_deref(), second.sequence, second.attempts), (Some(b"third".as_slice()), 3, 2));
    assert_eq!(second.hold.epoch, 2);
    assert_eq!(save(&first, 9, b"stale").await, Held::Fenced);
    assert_eq!(store.complete(&first, &completed("stale")).await.unwrap(), Held::Fenced);
    assert_eq!(store.release(&first, &ReleaseReason::Preempted).await.unwrap(), Held::Fenced);
    assert_eq!(store.complete(&second.hold, &completed("good")).await.unwrap(), Held::Yes(()));
    let record = store.task(&key("s/t0")).await.unwrap().unwrap();
    assert!(!record.has_checkpoint && record.has_result, "{record:?}");
}

const CRASHED: AfterRelease = AfterRelease::State(TaskState::Queued);

pub async fn a_lease_that_runs_out_frees_the_task<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 1).await;
    assert_eq!(expired(&store).await, []);
    let ClaimAnswer::Claimed(lost) = store.claim(&tickets[0], &claimant("one"), Duration::ZERO).await.unwrap() else {
        panic!()
    };
    assert_eq!(expired(&store).await, [Expired { key: key("s/t0"), onward: CRASHED }]);
    assert_eq!(expired(&store).await, [], "once");
    assert_eq!(store.renew(&lost.hold, LONG, None).await.unwrap(), Held::Fenced);
    // One attempt without progress of two is used up. With progress in between the count begins anew.
    let next = after_wait(&store, "s/t0").await;
    assert_eq!(next, Ticket::new(key("s/t0"), 2));
    let again = claim(&store, &next, "two").await;
    store.save(&again.hold, Duration::ZERO, saved(1, b"progress", 1)).await.unwrap();
    assert_eq!(expired(&store).await[0].onward, CRASHED);
    let third = after_wait(&store, "s/t0").await;
    store.claim(&third, &claimant("three"), Duration::ZERO).await.unwrap();
    assert_eq!(expired(&store).await[0].onward, AfterRelease::State(TaskState::Failed));
    let record = store.task(&key("s/t0")).await.unwrap().unwrap();
    assert!(record.cause.unwrap().contains("lease"));
    assert!(!record.has_checkpoint);
}

pub async fn leases_that_nobody_could_renew_are_prolonged<S: Store>(store: S) {
    let tickets = scored(&store, &NewSweep { attempts: 1, ..sweep("s") }, 2).await;
    assert_eq!(expired(&store).await, []);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let lease = Duration::from_millis(1);
    let ClaimAnswer::Claimed(one) = store.claim(&tickets[0], &claimant("one"), lease).await.unwrap() else { panic!() };
    tokio::time::sleep(Duration::from_millis(5)).await;
    // No turn was possible for longer than there should be between two: the lease ran out meanwhile.
    let expiries = store.expire(10, Duration::from_millis(1)).await.unwrap();
    assert_eq!((expiries.expired, expiries.unreadable), (vec![], vec![]));
    assert_eq!(store.renew(&one.hold, lease, None).await.unwrap(), Held::Yes(Order::Continue));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(expired(&store).await[0].onward, AfterRelease::State(TaskState::Failed), "it is prolonged once");
}

pub async fn only_what_is_further_than_ever_is_progress<S: Store>(store: S) {
    let mut ticket = scored(&store, &NewSweep { attempts: 3, ..sweep("s") }, 1).await.remove(0);
    let crash = ReleaseReason::Crashed("killed".to_string());
    let crashes = async || store.task(&key("s/t0")).await.unwrap().unwrap().crashes;
    // Every attempt keeps checkpoints: the second comes no further than the first, the third does.
    for (attempt, reached, expected) in [(1, 5, 1), (2, 5, 2), (3, 6, 1), (4, 4, 2)] {
        let hold = claim(&store, &ticket, &format!("n{attempt}")).await.hold;
        store.save(&hold, LONG, saved(2 * attempt - 1, b"begun", 0)).await.unwrap();
        store.save(&hold, LONG, saved(2 * attempt, b"kept", reached)).await.unwrap();
        assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(CRASHED), "attempt {attempt}");
        assert_eq!(crashes().await, expected, "attempt {attempt}");
        ticket = after_wait(&store, "s/t0").await;
    }
    let hold = claim(&store, &ticket, "last").await.hold;
    store.save(&hold, LONG, saved(9, b"kept", 6)).await.unwrap();
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(AfterRelease::State(TaskState::Failed)));
    // Retried, it begins from nothing, and so does what counts as progress.
    store.retry("s", 0, 10).await.unwrap();
    store.choose(&[key("s/t0")]).await.unwrap();
    let hold = claim(&store, &Ticket::new(key("s/t0"), 6), "retried").await.hold;
    store.save(&hold, LONG, saved(10, b"kept", 1)).await.unwrap();
    let record = store.task(&key("s/t0")).await.unwrap().unwrap();
    assert_eq!((record.reached, record.crashes), (1, 0));
}

pub async fn a_task_that_crashed_waits_before_its_next_attempt<S: Store>(store: S) {
    let backoff = Backoff { first_ms: 30_000 };
    let tickets = scored(&store, &NewSweep { attempts: 9, backoff, ..sweep("s") }, 2).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    let crash = ReleaseReason::Crashed("out of memory".to_string());
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(CRASHED));
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(CRASHED), "a repeated release says the same");
    let record = store.sweep("s").await.unwrap().unwrap();
    assert_eq!((record.delayed, record.ready, record.count(TaskState::Queued)), (1, 0, 2));
    assert_eq!(store.tickets().await.unwrap().outbox, tickets[1..], "it has no ticket");
    assert_eq!(store.due("s", 10).await.unwrap(), 0, "its wait is not over");
    // Whoever comes by its ticket all the same is told how long it waits.
    let Refusal::Early(wait) = refusal(&store, &Ticket::new(key("s/t0"), 2), "two").await else { panic!() };
    assert!((20_000..=30_000).contains(&wait), "{wait}");
    // What its owner wants reaches it meanwhile.
    store.order("s", Order::Pause).await.unwrap();
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 2);
    assert_eq!(store.sweep("s").await.unwrap().unwrap().delayed, 0);
    store.order("s", Order::Continue).await.unwrap();
    store.settle("s", 0, 10).await.unwrap();
    assert_eq!(store.ready("s", 10).await.unwrap(), [key("s/t0"), key("s/t1")]);
    for (crashes, expected) in [(1, 30_000), (2, 60_000), (3, 60_000), (100, 60_000)] {
        assert_eq!(backoff.wait(crashes), expected);
    }
    assert_eq!([1, 2, 3, 7].map(|crashes| Backoff::default().wait(crashes)), [1000, 2000, 4000, 60_000]);
}

pub async fn crashes_are_counted_and_preemptions_are_not<S: Store>(store: S) {
    let mut ticket = scored(&store, &sweep("s"), 1).await.remove(0);
    for i in 0..5 {
        let hold = claim(&store, &ticket, &format!("p{i}")).await.hold;
        let Held::Yes(AfterRelease::Queued(next)) = store.release(&hold, &ReleaseReason::Preempted).await.unwrap()
        else {
            panic!()
        };
        ticket = next;
    }
    let hold = claim(&store, &ticket, "c1").await.hold;
    let crash = ReleaseReason::Crashed("out of memory".to_string());
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(CRASHED));
    let next = after_wait(&store, "s/t0").await;
    let hold = claim(&store, &next, "c2").await.hold;
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(AfterRelease::State(TaskState::Failed)));
    assert_eq!(store.release(&hold, &crash).await.unwrap(), Held::Yes(AfterRelease::State(TaskState::Failed)));
    assert_eq!(store.task(&key("s/t0")).await.unwrap().unwrap().cause.as_deref(), Some("out of memory"));
    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 1);
    assert_eq!(state(&store, "s/t0").await, TaskState::Queued);
    assert_eq!(store.ready("s", 10).await.unwrap(), [key("s/t0")]);
    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 0);
}

pub async fn a_sweep_that_ends_while_it_is_created_ends_whole<S: Store>(store: S) {
    store.create_sweep(&sweep("s"), None).await.unwrap();
    store.add_tasks("s", 0, &[task("scores", true), task("t0", false)]).await.unwrap();
    store.order("s", Order::Cancel).await.unwrap();
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 2);
    // Whoever creates it has not heard of that yet.
    assert_eq!(store.add_tasks("s", 2, &[task("t1", false)]).await.unwrap(), 1);
    assert_eq!(store.open_sweep("s").await.unwrap(), None, "its scores task gets no ticket");
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 1);
    let record = store.sweep("s").await.unwrap().unwrap();
    assert_eq!(record.counts, [(TaskState::Cancelled, 3)].into());
    assert!(record.is_final());
    assert_eq!(store.tickets().await.unwrap(), super::Tickets::default());
}

pub async fn sweeps_that_have_ended_are_not_looked_at<S: Store>(store: S) {
    let live = async || {
        let live = store.live().await.unwrap();
        let mut ids: Vec<_> = live.sweeps.records.into_iter().map(|record| record.id).collect();
        // Two that were created in the same millisecond are in no order.
        ids.sort();
        (ids, live.ended)
    };
    let tickets = scored(&store, &sweep("s"), 2).await;
    opened(&store, &sweep("other"), 1).await;
    assert_eq!(store.retire(&["s".to_string(), "other".to_string()]).await.unwrap(), 0, "neither has ended");
    for (i, ticket) in tickets.iter().enumerate() {
        let hold = claim(&store, ticket, &format!("n{i}")).await.hold;
        match i {
            0 => drop(store.complete(&hold, &completed("{}")).await.unwrap()),
            _ => drop(store.release(&hold, &ReleaseReason::Hopeless("no".to_string())).await.unwrap()),
        }
    }
    assert_eq!(live().await, (vec!["other".to_string(), "s".to_string()], [].into()));
    assert_eq!(store.retire(&["s".to_string(), "none".to_string()]).await.unwrap(), 1);
    assert_eq!(store.retire(&["s".to_string()]).await.unwrap(), 0, "once");
    let ended = [(TaskState::Succeeded, 2), (TaskState::Failed, 1)];
    assert_eq!(live().await, (vec!["other".to_string()], ended.into()));
    assert_eq!(store.adopt().await.unwrap(), 1);
    assert_eq!(store.ended(Duration::ZERO, 10).await.unwrap(), ["s"]);
    assert_eq!(store.ended(LONG, 10).await.unwrap(), [""; 0]);
    assert_eq!(store.sweeps().await.unwrap().records.len(), 2, "it can still be read");

    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 1);
    assert_eq!(live().await, (vec!["other".to_string(), "s".to_string()], [].into()), "it is worked on again");
    store.order("s", Order::Cancel).await.unwrap();
    store.settle("s", 0, 10).await.unwrap();
    assert_eq!(store.retire(&["s".to_string()]).await.unwrap(), 1);
    assert_eq!(live().await.1, [(TaskState::Succeeded, 2), (TaskState::Cancelled, 1)].into());
    while !store.remove("s", 2).await.unwrap() {}
    assert_eq!(live().await, (vec!["other".to_string()], [].into()));
    assert_eq!(store.ended(Duration::ZERO, 10).await.unwrap(), [""; 0]);
}

pub async fn a_sweep_can_be_discarded_whatever_it_does<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 3).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    assert_eq!(store.examine("s", false).await.unwrap(), [""; 0]);
    assert_eq!(store.examine_pool(true).await.unwrap(), [""; 0]);
    let mut calls = 0;
    while !store.discard("s", 2).await.unwrap() {
        calls += 1;
        assert!(calls < 4);
    }
    assert_eq!(store.renew(&hold, LONG, None).await.unwrap(), Held::Fenced);
    assert_eq!(store.sweep("s").await.unwrap(), None);
    assert_eq!(store.sweeps().await.unwrap().records, []);
    assert_eq!(store.tickets().await.unwrap(), super::Tickets::default());
    assert_eq!(expired(&store).await, []);
    assert_eq!(store.examine_pool(false).await.unwrap(), [""; 0]);
    assert_eq!(store.examine("s", false).await.unwrap(), ["there is no such sweep"]);
    assert!(store.create_sweep(&sweep("s"), None).await.unwrap().is_new, "nothing is left of it");
}

pub async fn hopeless_tasks_fail_at_once<S: Store>(store: S) {
    let ticket = scored(&store, &sweep("s"), 1).await.remove(0);
    let hold = claim(&store, &ticket, "one").await.hold;
    let why = ReleaseReason::Hopeless("loss is NaN".to_string());
    assert_eq!(store.release(&hold, &why).await.unwrap(), Held::Yes(AfterRelease::State(TaskState::Failed)));
    assert_eq!(refusal(&store, &ticket, "two").await, Refusal::State(TaskState::Failed));
}

pub async fn a_cancelled_sweep_computes_nothing_more<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 3).await;
    let running = claim(&store, &tickets[0], "one").await.hold;
    assert!(store.order("s", Order::Cancel).await.unwrap());
    assert!(!store.order("s", Order::Continue).await.unwrap(), "for good");
    assert!(!store.order("none", Order::Pause).await.unwrap());
    assert_eq!(store.renew(&running, LONG, None).await.unwrap(), Held::Yes(Order::Cancel));
    assert_eq!(refusal(&store, &tickets[1], "two").await, Refusal::State(TaskState::Cancelled));
    let walked = store.settle("s", 0, 2).await.unwrap();
    assert_eq!(walked.next, Some(2));
    store.settle("s", 2, 10).await.unwrap();
    assert_eq!(store.tickets().await.unwrap().outbox, []);
    assert_eq!(state(&store, "s/t2").await, TaskState::Cancelled);
    assert_eq!(
        store.release(&running, &ReleaseReason::Preempted).await.unwrap(),
        Held::Yes(AfterRelease::State(TaskState::Cancelled))
    );
    assert_eq!(state(&store, "s/scores").await, TaskState::Succeeded);
    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 0);
}

pub async fn a_paused_sweep_goes_on_when_it_is_resumed<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 3).await;
    let running = claim(&store, &tickets[0], "one").await.hold;
    assert!(store.order("s", Order::Pause).await.unwrap());
    let order = store.save(&running, LONG, saved(1, b"kept", 1)).await.unwrap();
    assert_eq!(order, Held::Yes(Order::Pause));
    assert_eq!(
        store.release(&running, &ReleaseReason::Preempted).await.unwrap(),
        Held::Yes(AfterRelease::State(TaskState::Paused))
    );
    assert_eq!(refusal(&store, &tickets[1], "two").await, Refusal::State(TaskState::Paused));
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 1);
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 0);
    assert_eq!(store.tickets().await.unwrap().outbox, []);
    assert!(store.order("s", Order::Continue).await.unwrap());
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 3);
    let ready = store.ready("s", 10).await.unwrap();
    assert_eq!(ready, [key("s/t0"), key("s/t1"), key("s/t2")]);
    store.choose(&ready).await.unwrap();
    let resumed = claim(&store, &Ticket::new(key("s/t0"), 2), "three").await;
    assert_eq!(resumed.checkpoint.as_deref(), Some(b"kept".as_slice()));
}

pub async fn tickets_move_from_the_outbox_to_the_broker_and_back<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 3).await;
    assert_eq!(store.confirmed(&tickets[..2]).await.unwrap(), 2);
    assert_eq!(store.confirmed(&tickets[..2]).await.unwrap(), 0, "a repeated confirmation changes nothing");
    let on_their_way = store.tickets().await.unwrap();
    assert_eq!((on_their_way.outbox, on_their_way.outstanding), (tickets[2..].to_vec(), tickets[..2].to_vec()));
    assert_eq!(store.republish(LONG, 10).await.unwrap(), 0, "not old enough");
    claim(&store, &tickets[0], "one").await;
    assert_eq!(store.republish(Duration::ZERO, 10).await.unwrap(), 1);
    let again = store.tickets().await.unwrap();
    assert_eq!((again.outbox, again.outstanding), (tickets[1..].to_vec(), vec![]));
    // A ticket that was claimed before its confirmation came is not outstanding.
    claim(&store, &tickets[2], "two").await;
    assert_eq!(store.confirmed(&tickets[2..]).await.unwrap(), 0);
    assert_eq!(store.tickets().await.unwrap().outstanding, []);
}

pub async fn a_cap_bounds_how_many_run_at_once<S: Store>(store: S) {
    let tickets = scored(&store, &NewSweep { cap: 1, ..sweep("s") }, 2).await;
    let first = claim(&store, &tickets[0], "one").await.hold;
    assert_eq!(refusal(&store, &tickets[1], "two").await, Refusal::Cap);
    assert_eq!(store.ready("s", 10).await.unwrap(), [key("s/t1")], "it waits to be chosen again");
    // A dead letter of the ticket that met the cap: it is published again, and its task no longer waits to be chosen.
    assert_eq!(store.dead(&tickets[1], 3).await.unwrap(), Some(AfterRelease::Queued(tickets[1].clone())));
    assert_eq!(store.ready("s", 10).await.unwrap(), []);
    assert_eq!(store.outbox(10).await.unwrap(), tickets[1..]);
    assert_eq!(refusal(&store, &tickets[1], "three").await, Refusal::Cap);
    store.complete(&first, &completed("1")).await.unwrap();
    store.choose(&[key("s/t1")]).await.unwrap();
    claim(&store, &tickets[1], "two").await;
}

pub async fn a_failed_scores_task_ends_its_sweep_until_it_is_retried<S: Store>(store: S) {
    let ticket = opened(&store, &sweep("s"), 2).await;
    let hold = claim(&store, &ticket, "one").await.hold;
    let why = ReleaseReason::Hopeless("no such zoo".to_string());
    store.release(&hold, &why).await.unwrap();
    assert_eq!(store.settle("s", 0, 10).await.unwrap().changed, 2);
    assert_eq!(state(&store, "s/t1").await, TaskState::Cancelled);
    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 3);
    let ticket = Ticket::new(key("s/scores"), 2);
    assert_eq!(store.outbox(10).await.unwrap(), std::slice::from_ref(&ticket));
    let hold = claim(&store, &ticket, "two").await.hold;
    store.complete(&hold, &completed("{}")).await.unwrap();
    assert_eq!(store.release_pending("s", 1).await.unwrap(), 1);
    assert_eq!(store.release_pending("s", 10).await.unwrap(), 1);
}

pub async fn dead_letters_matter_only_to_tasks_that_wait_for_them<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 1).await;
    store.confirmed(&tickets).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.dead(&tickets[0], 3).await.unwrap(), Some(AfterRelease::Queued(tickets[0].clone())));
        assert_eq!(store.outbox(10).await.unwrap(), tickets);
    }
    assert_eq!(store.dead(&Ticket::new(key("s/t0"), 9), 3).await.unwrap(), None);
    assert_eq!(store.dead(&Ticket::new(key("s/none"), 1), 3).await.unwrap(), None);
    assert_eq!(store.dead(&tickets[0], 3).await.unwrap(), Some(AfterRelease::State(TaskState::Failed)));
    assert_eq!(store.dead(&tickets[0], 3).await.unwrap(), None);
    assert_eq!(store.tickets().await.unwrap(), super::Tickets::default());
}

pub async fn dead_letters_that_are_no_tickets_are_kept_newest_first<S: Store>(store: S) {
    assert_eq!(store.letters(10).await.unwrap(), Letters::default());
    // Longer than what is kept, and not text.
    let bytes = Letter::new(&[0xff; 2 * LARGEST_LETTER], "rejected", "not a ticket");
    assert_eq!(
        (bytes.bytes, bytes.body.len()),
        (2 * LARGEST_LETTER, 4 * LARGEST_LETTER),
        "each byte as four characters"
    );
    let text = Letter::new("{\"a\": \"\u{0}b\u{1f600}\"}\n".as_bytes(), "delivery_limit", "expected `version` \u{7}");
    let empty = Letter::new(b"", "", "");
    for letter in [&bytes, &text, &empty, &empty] {
        store.keep_letter(letter).await.unwrap();
    }
    let kept = store.letters(10).await.unwrap();
    assert!(kept.newest.is_sorted_by(|a, b| a.at >= b.at) && kept.newest.iter().all(|kept| kept.at > 0), "{kept:?}");
    let letters: Vec<_> = kept.newest.into_iter().map(|kept| kept.letter).collect();
    assert_eq!((kept.total, letters), (4, vec![empty.clone(), empty, text.clone(), bytes]), "equal ones are two");
    assert_eq!(store.letters(1).await.unwrap().newest.len(), 1);
    assert_eq!(store.letters(0).await.unwrap(), Letters { total: 4, newest: vec![] });
    // There is an end to them.
    for _ in 0..MOST_LETTERS {
        store.keep_letter(&text).await.unwrap();
    }
    let kept = store.letters(usize::MAX).await.unwrap();
    assert_eq!((kept.total, kept.newest.len()), (MOST_LETTERS as u64 + 4, MOST_LETTERS));
    assert!(kept.newest.iter().all(|kept| kept.letter == text), "the oldest are gone");
}

pub async fn a_sweep_is_summed_up_and_removed<S: Store>(store: S) {
    assert_eq!(store.sweep("s").await.unwrap(), None);
    let tickets = scored(&store, &NewSweep { priority: -3, cap: 2, search_controlled: true, ..sweep("s") }, 3).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    store.renew(&hold, LONG, Some(r#"{"iterations":7}"#)).await.unwrap();
    assert_eq!(store.progress(&key("s/t0")).await.unwrap().as_deref(), Some(r#"{"iterations":7}"#));
    assert_eq!(store.progress(&key("s/t1")).await.unwrap(), None);
    let record = store.sweep("s").await.unwrap().unwrap();
    assert_eq!((record.name.as_str(), record.stage, record.order), ("digits", super::Stage::Ready, Order::Continue));
    assert_eq!((record.priority, record.cap, record.ready, record.tasks()), (-3, 2, 0, 4));
    assert!(record.search_controlled);
    let counts: Vec<_> = record.counts.iter().map(|(state, count)| (*state, *count)).collect();
    assert_eq!(counts, [(TaskState::Queued, 2), (TaskState::Running, 1), (TaskState::Succeeded, 1)]);
    assert_eq!(store.sweeps().await.unwrap().records, [record]);
    let documents = store.documents("s").await.unwrap().unwrap();
    assert_eq!(documents, (r#"{"a":1}"#.to_string(), Some(r#"{"manifest":true}"#.to_string())));
    assert_eq!(store.documents("none").await.unwrap(), None);
    assert!(store.remove("s", 10).await.is_err(), "not as long as something runs");

    store.release(&hold, &ReleaseReason::Hopeless("no".to_string())).await.unwrap();
    let events = store.events(&key("s/t0")).await.unwrap();
    let said: Vec<_> = events.iter().map(|e| (e.what.as_str(), e.detail.as_deref().unwrap_or(""))).collect();
    assert_eq!(said, [("claimed", "worker-one"), ("failed", "no")]);
    store.order("s", Order::Cancel).await.unwrap();
    assert_eq!(store.sweep("s").await.unwrap().unwrap().order, Order::Cancel);
    store.settle("s", 0, 10).await.unwrap();
    assert!(store.sweep("s").await.unwrap().unwrap().is_final());
    let mut calls = 0;
    while !store.remove("s", 3).await.unwrap() {
        calls += 1;
        assert!(calls < 3);
    }
    assert_eq!(store.sweeps().await.unwrap().records, []);
    assert_eq!(store.task(&key("s/t0")).await.unwrap(), None);
    assert_eq!(store.tickets().await.unwrap(), super::Tickets::default());
}

pub async fn workers_are_known_as_long_as_they_are_heard_of<S: Store>(store: S) {
    assert_eq!(store.workers().await.unwrap(), []);
    store.beat("b", LONG, "{}").await.unwrap();
    store.beat("a", LONG, r#"{"gpu":0}"#).await.unwrap();
    let pair = |name: &str, about: &str| (name.to_string(), about.to_string());
    assert_eq!(store.workers().await.unwrap(), [pair("a", r#"{"gpu":0}"#), pair("b", "{}")]);
    store.beat("a", Duration::ZERO, "").await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [pair("b", "{}")]);
}

/// Makes one test of each promise for a backend; `$make` gives a new, empty store.
#[macro_export]
macro_rules! store_contract {
    ($make:expr) => {
        $crate::store_contract!(@each $make;
            creation_is_idempotent,
            a_task_is_claimed_once_and_completed_once,
            checkpoints_are_fenced_and_the_newest_wins,
            a_lease_that_runs_out_frees_the_task,
            leases_that_nobody_could_renew_are_prolonged,
            only_what_is_further_than_ever_is_progress,
            a_task_that_crashed_waits_before_its_next_attempt,
            a_sweep_that_ends_while_it_is_created_ends_whole,
            sweeps_that_have_ended_are_not_looked_at,
            a_sweep_can_be_discarded_whatever_it_does,
            crashes_are_counted_and_preemptions_are_not,
            hopeless_tasks_fail_at_once,
            a_cancelled_sweep_computes_nothing_more,
            a_paused_sweep_goes_on_when_it_is_resumed,
            tickets_move_from_the_outbox_to_the_broker_and_back,
            a_cap_bounds_how_many_run_at_once,
            a_failed_scores_task_ends_its_sweep_until_it_is_retried,
            dead_letters_matter_only_to_tasks_that_wait_for_them,
            dead_letters_that_are_no_tickets_are_kept_newest_first,
            a_sweep_is_summed_up_and_removed,
            workers_are_known_as_long_as_they_are_heard_of,
            a_task_at_a_rung_waits_until_it_is_promoted,
            a_pruned_task_has_ended,
            pause_and_cancel_are_heard_at_a_rung,
            a_task_that_begins_anew_has_reached_no_rung,
            units_of_baselines_and_of_the_best_tasks_are_kept,
            tasks_are_added_to_an_open_sweep_once,
            a_sweep_ends_once_its_search_opens_no_more,
            a_sweep_takes_tasks_only_while_they_can_be_worked_on,
        );
    };
    (@each $make:expr; $($promise:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            $crate::store::contract::$promise($make.await).await;
        })*
    };
}

#[cfg(test)]
mod tests {
    crate::store_contract!(async { crate::store::Memory::default() });
}
