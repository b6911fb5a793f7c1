//! Records that cannot be read: the scheduler sets them aside and goes on with all others, workers pass over them, and the doctor repairs what can be repaired.

use std::time::Duration;

use mehl_soup::queue::InProcess;
use mehl_soup::scheduler::{Scheduler, SchedulerSettings};
use mehl_soup::store::contract::{claimant, key, sweep, task};
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Claimed, Redis, StoreError};
use mehl_soup::task::{TaskState, Ticket};
use tokio::sync::Notify;

use crate::support::servers::{new_store_at, redis_command};

const LONG: Duration = Duration::from_secs(1000);

/// A store, and what a person needs to damage what is in it.
struct Patient {
    store: Redis,
    url: String,
    prefix: String,
}

impl Patient {
    /// Two sweeps, `a` and `b`, each with its scores task and two others; the scores tasks are done.
    async fn new() -> Self {
        let (store, url, installation) = new_store_at().await;
        let patient = Self { store, url, prefix: format!("{{{installation}}}:") };
        for id in ["a", "b"] {
            patient.store.create_sweep(&sweep(id), None).await.unwrap();
            let tasks = [task("scores", true), task("t0", false), task("t1", false)];
            patient.store.add_tasks(id, 0, &tasks).await.unwrap();
            let ticket = patient.store.open_sweep(id).await.unwrap().unwrap();
            let hold = patient.claim(&ticket).await.hold;
            let manifest = mehl_soup::store::contract::completed("{}");
            patient.store.complete(&hold, &manifest).await.unwrap();
        }
        patient
    }

    async fn claim(&self, ticket: &Ticket) -> Claimed {
        match self.store.claim(ticket, &claimant(&ticket.task_id.to_string()), LONG).await.unwrap() {
            ClaimAnswer::Claimed(claimed) => *claimed,
            refused => panic!("{refused:?}"),
        }
    }

    /// A command on the server; `@` stands for the installation's prefix.
    fn by_hand(&self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| word.replace('@', &self.prefix)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        redis_command(&self.url, &words);
    }

    /// One turn of a scheduler. Answers the ids that it set aside.
    async fn turn(&self) -> Vec<String> {
        let (queue, wake, settings) = (InProcess::default(), Notify::new(), SchedulerSettings::default());
        let scheduler = Scheduler { store: &self.store, queue: &queue, settings: &settings, wake: &wake };
        scheduler.turn().await.unwrap().aside.into_keys().collect()
    }

    async fn findings(&self, repair: bool) -> Vec<String> {
        let mut findings = self.store.examine("a", repair).await.unwrap();
        findings.extend(self.store.examine_pool(repair).await.unwrap());
        findings
    }
}

/// Every kind of damage: the other sweep goes on, the doctor finds it, and after repair nothing is found and the sweep can be worked on to its end.
#[tokio::test]
async fn damaged_sweeps_are_set_aside_and_can_be_repaired() {
    let damages: &[(&[&str], bool)] = &[
        // The fault that once ended the scheduler for good.
        (&["HSET", "@counts:a", "pending", "-1"], true),
        (&["HSET", "@counts:a", "pending", "many"], true),
        (&["HSET", "@counts:a", "resting", "3"], true),
        (&["HDEL", "@sweep:a", "created"], true),
        (&["HSET", "@sweep:a", "priority", "high"], true),
        (&["HSET", "@sweep:a", "cap", "-2"], true),
        (&["HSET", "@sweep:a", "stage", "resting"], true),
        (&["HDEL", "@sweep:a", "name"], true),
        (&["HDEL", "@sweep:a", "attempts"], true),
        (&["SET", "@ready:a", "text"], true),
        (&["SET", "@pending:a", "text"], true),
        // Here the sweep's own record can be read, so nobody is in the way.
        (&["HSET", "@task:a/t0", "state", "resting"], false),
        (&["HSET", "@task:a/t0", "generation", "one"], true),
        (&["DEL", "@task:a/t0"], false),
        (&["HSET", "@task:a/t0", "state", "running"], false),
        (&["ZREM", "@pending:a", "a/t0"], false),
        (&["SREM", "@live", "a"], false),
        (&["ZADD", "@outbox", "1", "no ticket"], false),
        (&["ZADD", "@outstanding", "1", "a/none 7"], false),
        (&["ZADD", "@leases", "1", "a/t0"], false),
        (&["ZADD", "@leases", "1", "no task"], false),
    ];
    for (damage, is_aside) in damages {
        // `SET` of a key of another type needs the key gone.
        let patient = Patient::new().await;
        if damage[0] == "SET" {
            patient.by_hand(&["DEL", damage[1]]);
        }
        patient.by_hand(damage);
        let before = patient.findings(false).await;
        let aside = patient.turn().await;
        assert_eq!(aside.contains(&"a".to_string()), *is_aside, "{damage:?}: {aside:?}");
        assert!(!aside.contains(&"b".to_string()), "{damage:?}: {aside:?}");
        let others = patient.store.sweep("b").await.unwrap().unwrap();
        assert_eq!(others.count(TaskState::Queued), 2, "{damage:?}: the other sweep went on");
        assert!(!before.is_empty(), "{damage:?}: nothing was found");

        let found = patient.findings(true).await;
        assert_eq!(patient.findings(false).await, Vec::<String>::new(), "{damage:?}: left after {found:?}");
        assert_eq!(patient.turn().await, Vec::<String>::new(), "{damage:?}");
        finish(&patient).await;
    }
}

/// Works on whatever there is until every sweep has ended.
async fn finish(patient: &Patient) {
    for _ in 0..50 {
        patient.turn().await;
        let sweeps = patient.store.sweeps().await.unwrap();
        assert_eq!(sweeps.unreadable, []);
        if sweeps.records.iter().all(mehl_soup::store::SweepRecord::is_final) {
            return;
        }
        for sweep in ["a", "b"] {
            for record in patient.store.tasks(sweep, 0, 10).await.unwrap() {
                let ticket = Ticket::new(record.key.clone(), record.generation);
                match record.state {
                    TaskState::Queued => {
                        let hold = patient.claim(&ticket).await.hold;
                        let completed = mehl_soup::store::contract::completed("{}");
                        patient.store.complete(&hold, &completed).await.unwrap();
                    }
                    // Nobody works on it: its lease runs out.
                    TaskState::Running => patient.by_hand(&["ZADD", "@leases", "1", &record.key.to_string()]),
                    _ => {}
                }
                patient.store.due(sweep, 10).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not end: {:?}", patient.store.sweeps().await.unwrap());
}

/// What cannot be repaired is removed, and nothing is left of it.
#[tokio::test]
async fn what_cannot_be_repaired_can_be_removed() {
    for damage in [&["HDEL", "@sweep:a", "spec"][..], &["DEL", "@task:a/scores"], &["SET", "@sweep:a", "text"]] {
        let patient = Patient::new().await;
        if damage[0] == "SET" {
            patient.by_hand(&["DEL", damage[1]]);
        }
        patient.by_hand(damage);
        patient.findings(true).await;
        let left = patient.findings(false).await;
        assert!(left.iter().any(|finding| finding.contains("it can only be deleted")), "{damage:?}: {left:?}");
        assert!(!patient.turn().await.contains(&"b".to_string()));
        while !patient.store.discard("a", 2).await.unwrap() {}
        assert_eq!(patient.store.examine_pool(true).await.unwrap(), Vec::<String>::new(), "{damage:?}");
        assert_eq!(patient.turn().await, Vec::<String>::new());
        let ids: Vec<_> = patient.store.sweeps().await.unwrap().records.into_iter().map(|sweep| sweep.id).collect();
        assert_eq!(ids, ["b"]);
    }
}

/// The doctor changes no hold: a worker that computes meanwhile ends its task as if nothing had been.
#[tokio::test]
async fn a_worker_goes_on_beside_the_doctor() {
    let patient = Patient::new().await;
    patient.turn().await;
    let ticket = Ticket::new(key("a/t0"), 1);
    let hold = patient.claim(&ticket).await.hold;
    patient.by_hand(&["HSET", "@counts:a", "running", "-4"]);
    patient.by_hand(&["ZREM", "@leases", "a/t0"]);
    assert!(patient.findings(true).await.len() >= 2);
    assert!(matches!(patient.store.renew(&hold, LONG, None).await.unwrap(), mehl_soup::store::Held::Yes(_)));
    let completed = mehl_soup::store::contract::completed("{}");
    assert_eq!(patient.store.complete(&hold, &completed).await.unwrap(), mehl_soup::store::Held::Yes(()));
    assert_eq!(patient.findings(false).await, Vec::<String>::new());
}

/// Tasks whose records are of another type stop neither leases nor tickets of others.
#[tokio::test]
async fn a_damaged_task_is_in_nobodys_way() {
    let patient = Patient::new().await;
    patient.turn().await;
    for id in ["a/t0", "b/t0"] {
        let ticket = Ticket::new(key(id), 1);
        patient.store.claim(&ticket, &claimant(id), Duration::ZERO).await.unwrap();
    }
    patient.by_hand(&["DEL", "@task:a/t0"]);
    patient.by_hand(&["SET", "@task:a/t0", "text"]);
    patient.by_hand(&["ZADD", "@leases", "1", "a/t0"]);
    let expiries = patient.store.expire(100, LONG).await.unwrap();
    let ids = |key: &mehl_soup::task::TaskKey| key.to_string();
    assert_eq!(expiries.expired.iter().map(|e| ids(&e.key)).collect::<Vec<_>>(), ["b/t0"]);
    assert_eq!(expiries.unreadable.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a/t0"]);
    assert_eq!(patient.store.expire(100, LONG).await.unwrap().unreadable, [], "not with every turn");
    let error = patient.store.claim(&Ticket::new(key("a/t0"), 2), &claimant("x"), LONG).await.unwrap_err();
    assert!(matches!(error, StoreError::Protocol(_)), "{error:?}");
    // A worker refuses the ticket; as a dead letter it does not stop the scheduler either.
    let error = patient.store.dead(&Ticket::new(key("a/t0"), 2), 3).await.unwrap_err();
    assert!(matches!(error, StoreError::Protocol(_)), "{error:?}");
    assert!(patient.findings(true).await.iter().any(|finding| finding.contains("a/t0")));
    assert_eq!(patient.findings(false).await, Vec::<String>::new());
    assert_eq!(patient.store.task(&key("a/t0")).await.unwrap().unwrap().state, TaskState::Failed);
}
