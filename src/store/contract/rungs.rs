//! What every store must do with tasks that stop at rungs.

use std::time::Duration;

use super::{LONG, after_wait, claim, completed, expired, key, refusal, saved, scored, state, sweep};
use crate::store::{
    AfterRelease, AtRung, ClaimAnswer, Held, Hold, Order, Refusal, ReleaseReason, Standing, Store, Tickets,
};
use crate::sweep::metric::{Estimate, Metric};
use crate::sweep::objective::CLASSIFICATION;
use crate::sweep::score::SplitScore;
use crate::task::{TaskState, Ticket};

/// Where a task stands at a rung with this loss.
pub fn standing(rung: u32, loss: f64) -> Standing {
    let estimate = |value| Estimate { value, standard_error: 0.01 };
    let accuracy = Metric::of(CLASSIFICATION.metrics[0]);
    let select = SplitScore::new(50, estimate(loss), [(accuracy, estimate(0.75))]);
    Standing { rung, select, outcome: format!(r#"{{"rung":{rung}}}"#) }
}

fn at(task: &str, rung: u32) -> AtRung {
    AtRung { key: key(task), rung }
}

async fn losses<S: Store>(store: &S, task: &str) -> Vec<f64> {
    store.task(&key(task)).await.unwrap().unwrap().rungs.iter().map(|score| score.loss).collect()
}

async fn wait<S: Store>(store: &S, hold: &Hold, rung: u32, loss: f64) -> Held<AfterRelease> {
    store.wait(hold, &standing(rung, loss)).await.unwrap()
}

const WAITING: Held<AfterRelease> = Held::Yes(AfterRelease::State(TaskState::Waiting));

pub async fn a_task_at_a_rung_waits_until_it_is_promoted<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 2).await;
    let first = claim(&store, &tickets[0], "one").await;
    assert_eq!(first.rungs, 0);
    store.save(&first.hold, LONG, saved(1, b"at the rung", 1)).await.unwrap();
    assert_eq!(wait(&store, &first.hold, 0, 0.5).await, WAITING);
    assert_eq!(wait(&store, &first.hold, 0, 0.5).await, WAITING, "a repeated wait says the same");
    assert_eq!(losses(&store, "s/t0").await, [0.5]);
    assert_eq!(store.renew(&first.hold, LONG, None).await.unwrap(), Held::Fenced);
    assert_eq!(expired(&store).await, [], "nobody holds it");
    assert_eq!(store.standing(&key("s/t0")).await.unwrap().as_deref(), Some(r#"{"rung":0}"#));
    assert_eq!(store.standing(&key("s/t1")).await.unwrap(), None);
    assert_eq!(refusal(&store, &tickets[0], "two").await, Refusal::State(TaskState::Waiting));

    assert_eq!(store.promote(&[at("s/t0", 1), at("s/t1", 0), at("s/none", 0)]).await.unwrap(), 0, "none waits there");
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 1);
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 0, "once");
    let next = Ticket::new(key("s/t0"), 2);
    assert_eq!(
        wait(&store, &first.hold, 0, 0.5).await,
        Held::Yes(AfterRelease::Queued(next.clone())),
        "what became of it"
    );
    assert_eq!(store.ready("s", 10).await.unwrap(), [key("s/t0")], "it is to be chosen");
    store.choose(&[key("s/t0")]).await.unwrap();
    let second = claim(&store, &next, "two").await;
    assert_eq!((second.rungs, second.checkpoint.as_deref()), (1, Some(b"at the rung".as_slice())));
    assert_eq!(wait(&store, &first.hold, 0, 0.5).await, Held::Fenced);
    assert_eq!(wait(&store, &second.hold, 1, f64::NAN).await, WAITING);
    let losses = losses(&store, "s/t0").await;
    assert!(losses[0] == 0.5 && losses[1].is_nan(), "{losses:?}");
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 0, "what was decided about another rung");
    assert_eq!(store.promote(&[at("s/t0", 1)]).await.unwrap(), 1);

    let ticket = Ticket::new(key("s/t0"), 3);
    let third = claim(&store, &ticket, "three").await;
    assert_eq!(store.complete(&third.hold, &completed("done")).await.unwrap(), Held::Yes(()));
    assert_eq!(wait(&store, &third.hold, 2, 0.1).await, Held::Fenced);
    let events = store.events(&key("s/t0")).await.unwrap();
    let told: Vec<_> = events.iter().map(|e| (e.what.as_str(), e.detail.as_deref().unwrap_or(""))).collect();
    let at_first = "rung 0: select loss 0.5, accuracy 0.75";
    assert_eq!(told[1..4], [("waiting", at_first), ("promoted", at_first), ("claimed", "worker-two")]);
    assert_eq!(told[4], ("waiting", "rung 1: select loss NaN, accuracy 0.75"));
}

pub async fn a_pruned_task_has_ended<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 2).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    store.save(&hold, LONG, saved(1, b"at the rung", 1)).await.unwrap();
    assert_eq!(store.prune(&[at("s/t0", 0)]).await.unwrap(), 0, "it runs");
    assert_eq!(wait(&store, &hold, 0, 0.5).await, WAITING);
    assert_eq!(store.prune(&[at("s/t0", 1), at("s/t1", 0)]).await.unwrap(), 0, "none waits there");
    assert_eq!(store.prune(&[at("s/t0", 0)]).await.unwrap(), 1);
    assert_eq!(store.prune(&[at("s/t0", 0)]).await.unwrap(), 0, "once");
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 0, "for good");
    assert_eq!(store.retry("s", 0, 10).await.unwrap().changed, 0);
    let record = store.task(&key("s/t0")).await.unwrap().unwrap();
    assert_eq!((record.state, record.has_checkpoint, record.rungs.len()), (TaskState::Pruned, false, 1));
    assert_eq!(store.events(&key("s/t0")).await.unwrap().last().unwrap().what, "pruned");
    assert!(store.standing(&key("s/t0")).await.unwrap().is_some(), "what it had to show is kept");
    let hold = claim(&store, &tickets[1], "two").await.hold;
    store.complete(&hold, &completed("done")).await.unwrap();
    assert!(store.sweep("s").await.unwrap().unwrap().is_final());
    assert!(store.remove("s", 10).await.unwrap());
    assert_eq!(store.standing(&key("s/t0")).await.unwrap(), None);
}

pub async fn pause_and_cancel_are_heard_at_a_rung<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 3).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    assert!(store.order("s", Order::Pause).await.unwrap());
    assert_eq!(wait(&store, &hold, 0, 0.5).await, WAITING, "it does not run, so there is nothing to pause");
    store.settle("s", 0, 10).await.unwrap();
    assert_eq!(state(&store, "s/t0").await, TaskState::Waiting);
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 0, "not while it is paused");
    assert_eq!(store.prune(&[at("s/t0", 0)]).await.unwrap(), 0);
    assert!(store.order("s", Order::Continue).await.unwrap());
    store.settle("s", 0, 10).await.unwrap();
    assert_eq!(store.promote(&[at("s/t0", 0)]).await.unwrap(), 1);

    let ready = store.ready("s", 10).await.unwrap();
    assert_eq!(ready, [key("s/t0"), key("s/t1"), key("s/t2")]);
    store.choose(&ready).await.unwrap();
    let first = claim(&store, &Ticket::new(key("s/t0"), 2), "two").await.hold;
    let second = claim(&store, &Ticket::new(key("s/t1"), 2), "three").await.hold;
    assert_eq!(wait(&store, &first, 1, 0.4).await, WAITING);
    assert!(store.order("s", Order::Cancel).await.unwrap());
    assert_eq!(wait(&store, &second, 0, 0.5).await, Held::Yes(AfterRelease::State(TaskState::Cancelled)));
    assert_eq!(store.promote(&[at("s/t0", 1)]).await.unwrap(), 0);
    assert_eq!(store.prune(&[at("s/t0", 1)]).await.unwrap(), 0);
    store.settle("s", 0, 10).await.unwrap();
    let record = store.task(&key("s/t0")).await.unwrap().unwrap();
    assert_eq!((record.state, record.has_checkpoint), (TaskState::Cancelled, false));
    assert_eq!(store.sweep("s").await.unwrap().unwrap().order, Order::Cancel);
    assert_eq!(store.tickets().await.unwrap(), Tickets::default());
}

pub async fn a_task_that_begins_anew_has_reached_no_rung<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 1).await;
    let hold = claim(&store, &tickets[0], "one").await.hold;
    wait(&store, &hold, 0, 0.5).await;
    store.promote(&[at("s/t0", 0)]).await.unwrap();
    let ClaimAnswer::Claimed(claimed) =
        store.claim(&Ticket::new(key("s/t0"), 2), &super::claimant("two"), Duration::ZERO).await.unwrap()
    else {
        panic!()
    };
    // Its worker is lost: it goes on from its checkpoint, past the rung.
    assert_eq!(claimed.rungs, 1);
    assert_eq!(expired(&store).await.len(), 1);
    let hold = claim(&store, &after_wait(&store, "s/t0").await, "three").await;
    assert_eq!(hold.rungs, 1);
    store.release(&hold.hold, &ReleaseReason::Hopeless("loss is NaN".into())).await.unwrap();
    assert_eq!(losses(&store, "s/t0").await, [0.5]);
    store.retry("s", 0, 10).await.unwrap();
    assert!(losses(&store, "s/t0").await.is_empty());
    assert_eq!(store.standing(&key("s/t0")).await.unwrap(), None);
    assert_eq!(claim(&store, &Ticket::new(key("s/t0"), 4), "four").await.rungs, 0);
}
