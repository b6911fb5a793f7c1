//! What every store must do with sweeps whose searches add tasks once they are open.

use super::{LONG, claim, completed, key, opened, scored, state, sweep, task};
use crate::store::{Extended, Held, NewSweep, NewTask, Order, ReleaseReason, Stage, Store};
use crate::task::{TaskState, Ticket};

/// A sweep that may have so many tasks, its scores task included.
fn growing(limit: usize) -> NewSweep {
    NewSweep { task_limit: limit, search_controlled: true, ..sweep("s") }
}

fn other(id: &str) -> NewTask {
    NewTask { body: "{\"other\":true}".to_string(), ..task(id, false) }
}

async fn extend<S: Store>(store: &S, place: usize, tasks: &[NewTask]) -> Extended {
    store.extend("s", place, tasks).await.unwrap()
}

async fn complete<S: Store>(store: &S, ticket: &Ticket) {
    let hold = claim(store, ticket, &format!("of {}", ticket.task_id.task)).await.hold;
    assert_eq!(store.complete(&hold, &completed("{}")).await.unwrap(), Held::Yes(()));
}

pub async fn tasks_are_added_to_an_open_sweep_once<S: Store>(store: S) {
    let tickets = scored(&store, &growing(6), 1).await;
    let [first, second] = [task("t1", false), task("t2", false)];
    assert_eq!(extend(&store, 2, std::slice::from_ref(&first)).await, Extended::Added(1));
    let before = store.tasks("s", 0, 10).await.unwrap();
    assert_eq!(extend(&store, 2, std::slice::from_ref(&first)).await, Extended::Added(0), "the same once more");
    assert_eq!(extend(&store, 2, &[]).await, Extended::Added(0));
    // Another task where one is, a known id at another place, a gap, and one id at two places.
    assert_eq!(extend(&store, 2, &[other("t1")]).await, Extended::Taken(2));
    assert_eq!(extend(&store, 2, &[task("t9", false)]).await, Extended::Taken(2));
    assert_eq!(extend(&store, 0, &[task("t9", false)]).await, Extended::Taken(0));
    assert_eq!(extend(&store, 3, std::slice::from_ref(&first)).await, Extended::Taken(3));
    assert_eq!(extend(&store, 4, &[task("t9", false)]).await, Extended::Taken(4));
    assert_eq!(extend(&store, 3, &[task("t9", false), task("t9", false)]).await, Extended::Taken(4));
    assert_eq!(store.tasks("s", 0, 10).await.unwrap(), before, "what is refused changes nothing");
    assert!(store.extend("none", 1, &[task("t1", false)]).await.is_err());

    assert_eq!(extend(&store, 2, &[first, second]).await, Extended::Added(1), "as far as it is new");
    let too_many = ["t3", "t4", "t5"].map(|id| task(id, false));
    assert_eq!(extend(&store, 4, &too_many).await, Extended::Full(6));
    assert_eq!(extend(&store, 4, &too_many[..2]).await, Extended::Added(2));
    assert_eq!(extend(&store, 6, &too_many[2..]).await, Extended::Full(6));
    let records = store.tasks("s", 0, 10).await.unwrap();
    let order: Vec<_> = records.iter().map(|record| record.key.task.as_str()).collect();
    assert_eq!(order, ["scores", "t0", "t1", "t2", "t3", "t4"]);
    let bodies = store.bodies(&[key("s/t2"), key("s/none"), key("s/t0")]).await.unwrap();
    assert_eq!(bodies, [Some(r#"{"id":"t2"}"#.to_string()), None, Some(r#"{"id":"t0"}"#.to_string())]);
    assert_eq!(store.bodies(&[]).await.unwrap(), [None; 0]);

    // They are worked on as the others are.
    assert_eq!(store.sweep("s").await.unwrap().unwrap().count(TaskState::Pending), 4);
    assert_eq!(store.release_pending("s", 2).await.unwrap(), 2);
    let ready = store.ready("s", 10).await.unwrap();
    assert_eq!(ready, [key("s/t1"), key("s/t2")]);
    store.choose(&ready).await.unwrap();
    complete(&store, &tickets[0]).await;
    assert_eq!(claim(&store, &Ticket::new(key("s/t2"), 1), "one").await.body, r#"{"id":"t2"}"#);
    assert_eq!(store.examine("s", false).await.unwrap(), [""; 0]);
    assert_eq!(extend(&store, 3, &[task("t2", false)]).await, Extended::Added(0), "whatever became of it");
}

pub async fn a_sweep_ends_once_its_search_opens_no_more<S: Store>(store: S) {
    let ids = ["s".to_string()];
    complete(&store, &scored(&store, &growing(9), 1).await[0]).await;
    let sweep = async || store.sweep("s").await.unwrap().unwrap();
    assert!(sweep().await.takes_tasks() && !sweep().await.is_final(), "all tasks have ended, the sweep has not");
    assert_eq!(store.retire(&ids).await.unwrap(), 0);
    assert!(store.remove("s", 10).await.is_err());
    assert_eq!(store.examine("s", false).await.unwrap(), [""; 0]);
    store.order("s", Order::Pause).await.unwrap();
    assert!(!sweep().await.is_final(), "it can be resumed");
    assert_eq!(store.retire(&ids).await.unwrap(), 0);
    store.order("s", Order::Continue).await.unwrap();

    assert_eq!(extend(&store, 2, &[task("t1", false)]).await, Extended::Added(1));
    assert!(store.close("s").await.unwrap());
    assert!(!store.close("s").await.unwrap(), "once");
    assert!(!store.close("none").await.unwrap());
    assert!(!sweep().await.takes_tasks() && !sweep().await.is_final(), "a task is left");
    assert_eq!(extend(&store, 2, &[task("t1", false)]).await, Extended::Added(0), "what it has may be told again");
    assert_eq!(extend(&store, 2, &[other("t1")]).await, Extended::Taken(2));
    assert_eq!(extend(&store, 3, &[task("t2", false)]).await, Extended::Closed);
    store.release_pending("s", 1).await.unwrap();
    store.choose(&[key("s/t1")]).await.unwrap();
    complete(&store, &Ticket::new(key("s/t1"), 1)).await;
    assert!(sweep().await.is_final());
    assert_eq!(store.retire(&ids).await.unwrap(), 1);
    assert_eq!(extend(&store, 3, &[task("t2", false)]).await, Extended::Closed);
    assert!(store.remove("s", 10).await.unwrap());
    assert_eq!(store.bodies(&[key("s/t1")]).await.unwrap(), [None]);
}

pub async fn a_sweep_takes_tasks_only_while_they_can_be_worked_on<S: Store>(store: S) {
    let scores = opened(&store, &growing(9), 1).await;
    let new = [task("t1", false)];
    assert_eq!(extend(&store, 2, &new).await, Extended::Closed, "its scores are not there");
    let hold = claim(&store, &scores, "one").await.hold;
    store.release(&hold, &ReleaseReason::Hopeless("no such zoo".to_string())).await.unwrap();
    store.settle("s", 0, 10).await.unwrap();
    let sweep = async || store.sweep("s").await.unwrap().unwrap();
    assert!(sweep().await.is_final(), "there is nothing to compute with");
    assert_eq!(store.retire(&["s".to_string()]).await.unwrap(), 1);
    store.retry("s", 0, 10).await.unwrap();
    complete(&store, &Ticket::new(key("s/scores"), 2)).await;
    assert_eq!((sweep().await.stage, sweep().await.may_grow), (Stage::Ready, true));
    store.release_pending("s", 1).await.unwrap();
    store.choose(&[key("s/t0")]).await.unwrap();
    let running = claim(&store, &Ticket::new(key("s/t0"), 1), "two").await.hold;
    store.order("s", Order::Cancel).await.unwrap();
    assert_eq!(extend(&store, 2, &new).await, Extended::Closed);
    assert_eq!(store.renew(&running, LONG, None).await.unwrap(), Held::Yes(Order::Cancel));
    store.release(&running, &ReleaseReason::Preempted).await.unwrap();
    assert_eq!(state(&store, "s/t0").await, TaskState::Cancelled);
    assert!(sweep().await.is_final() && sweep().await.may_grow, "nobody asks its search any more");
    assert_eq!(store.retire(&["s".to_string()]).await.unwrap(), 1);
    assert!(store.remove("s", 10).await.unwrap());

    // A sweep that has all its tasks when it is opened takes none, and ends as ever.
    complete(&store, &scored(&store, &growing(0), 1).await[0]).await;
    assert_eq!(extend(&store, 2, &new).await, Extended::Closed);
    assert!(sweep().await.is_final() && !sweep().await.may_grow);
}
