//! What every store must do with the values of finished tasks' units.

use super::{claim, completed, key, scored, sweep};
use crate::store::{Completed, Held, KeptUnits, Store};

async fn complete<S: Store>(store: &S, ticket: &crate::task::Ticket, cost: Option<f64>) {
    let hold = claim(store, ticket, &ticket.task_id.to_string()).await.hold;
    let units = KeptUnits { bytes: ticket.task_id.task.as_bytes().to_vec(), cost, limit: 2 };
    let completed = Completed { units: Some(units), ..completed("{}") };
    assert_eq!(store.complete(&hold, &completed).await.unwrap(), Held::Yes(()));
    assert_eq!(store.complete(&hold, &completed).await.unwrap(), Held::Yes(()), "the same again changes nothing");
}

async fn kept<S: Store>(store: &S, count: usize) -> Vec<String> {
    let mut kept = vec![];
    for task in 0..count {
        let found = store.units(&key(&format!("s/t{task}"))).await.unwrap();
        kept.extend(found.map(|bytes| String::from_utf8(bytes).unwrap()));
    }
    kept
}

pub async fn units_of_baselines_and_of_the_best_tasks_are_kept<S: Store>(store: S) {
    let tickets = scored(&store, &sweep("s"), 7).await;
    assert_eq!(kept(&store, 7).await, [""; 0]);
    complete(&store, &tickets[0], None).await;
    complete(&store, &tickets[1], Some(0.5)).await;
    complete(&store, &tickets[2], Some(-1e-7)).await;
    assert_eq!(kept(&store, 7).await, ["t0", "t1", "t2"]);
    complete(&store, &tickets[3], Some(0.25)).await;
    assert_eq!(kept(&store, 7).await, ["t0", "t2", "t3"], "the worst has to go, the baseline has not");
    complete(&store, &tickets[4], Some(0.75)).await;
    assert_eq!(kept(&store, 7).await, ["t0", "t2", "t3"], "a worse one is not kept");
    complete(&store, &tickets[5], Some(0.25)).await;
    assert_eq!(kept(&store, 7).await, ["t0", "t2", "t3"], "of equal ones the first by name");
    let hold = claim(&store, &tickets[6], "last").await.hold;
    store.complete(&hold, &completed("{}")).await.unwrap();
    assert_eq!(kept(&store, 7).await, ["t0", "t2", "t3"], "a task without units");
    assert!(store.remove("s", 100).await.unwrap());
    assert_eq!(kept(&store, 7).await, [""; 0], "they go with their sweep");
}
