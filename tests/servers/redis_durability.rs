//! Whether a completed task is on Redis's disk: asked with `WAITAOF`, where there is one, and never waited for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::servers::{RedisServer, new_store, settings, until};
use crate::support::waitaof::{Disk, WithWaitAof};
use mehl_soup::store::contract::{claimant, completed, sweep, task};
use mehl_soup::store::traits::*;
use mehl_soup::store::{ClaimAnswer, Held, Hold, Promise, Redis, RedisSettings};
use mehl_soup::task::{TaskState, Ticket};

const LEASE: Duration = Duration::from_secs(30);
/// Longest wait for an answer; that for the disk is five times as long.
const ANSWER: Duration = Duration::from_millis(500);
/// Without a wait for the disk, a claim and a completion take this long at most.
const SOON: Duration = Duration::from_secs(1);

/// A store behind `WAITAOF`, and what it was told.
struct Site {
    server: RedisServer,
    proxy: WithWaitAof,
    store: Redis,
    told: Arc<Mutex<Vec<bool>>>,
    tickets: Vec<Ticket>,
}

impl Site {
    async fn new(disk: Disk) -> Self {
        let server = RedisServer::start(&[]);
        let address = server.url().trim_start_matches("redis://").trim_end_matches('/').to_string();
        let proxy = WithWaitAof::start(&address, disk);
        let settings = RedisSettings { timeout: ANSWER, ..settings(proxy.url()) };
        let store = Redis::connect(&settings).await.unwrap();
        assert_eq!(*store.promise(), Promise::Confirmed);
        let told = listened(&store);
        let tickets = four_tasks(&store).await;
        Self { server, proxy, store, told, tickets }
    }

    /// Claims and completes one task; answers how long that took.
    async fn complete(&mut self) -> Duration {
        let began = Instant::now();
        let hold = claim(&self.store, &self.tickets.remove(0)).await;
        assert_eq!(self.store.complete(&hold, &completed("1")).await.unwrap(), Held::Yes(()));
        began.elapsed()
    }

    fn told(&self) -> Vec<bool> {
        self.told.lock().unwrap().clone()
    }
}

fn listened(store: &Redis) -> Arc<Mutex<Vec<bool>>> {
    let told: Arc<Mutex<Vec<bool>>> = Arc::default();
    let list = told.clone();
    store.tell_confirmations(move |is_confirmed| list.lock().unwrap().push(is_confirmed));
    told
}

async fn claim(store: &Redis, ticket: &Ticket) -> Hold {
    match store.claim(ticket, &claimant(&ticket.task_id.task), LEASE).await.unwrap() {
        ClaimAnswer::Claimed(claimed) => claimed.hold,
        ClaimAnswer::Refused(why) => panic!("{why:?}"),
    }
}

/// A sweep whose scores are done, and the tickets of its four tasks.
async fn four_tasks(store: &Redis) -> Vec<Ticket> {
    store.create_sweep(&sweep("s"), None).await.unwrap();
    let tasks = ["scores", "a", "b", "c", "d"].map(|id| task(id, id == "scores"));
    store.add_tasks("s", 0, &tasks).await.unwrap();
    let ticket = store.open_sweep("s").await.unwrap().unwrap();
    let hold = claim(store, &ticket).await;
    store.complete(&hold, &completed("{}")).await.unwrap();
    store.release_pending("s", 10).await.unwrap();
    let ready = store.ready("s", 10).await.unwrap();
    store.choose(&ready).await.unwrap();
    store.outbox(10).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_confirmed_on_a_connection_of_its_own() {
    let mut site = Site::new(Disk::Has).await;
    until("the scores are confirmed", || site.told() == [true]);
    assert_eq!((site.proxy.asked(), site.proxy.accepted()), (1, 2));
    for number in 2..=4 {
        assert!(site.complete().await < SOON);
        until("it is confirmed", || site.told() == vec![true; number]);
    }
    assert_eq!(site.proxy.accepted(), 2, "the connection is kept");
    // A connection that breaks meanwhile is nothing to a completion that is still there.
    site.proxy.set(Disk::Silent);
    site.complete().await;
    until("it is asked", || site.proxy.asked() == 5);
    let copy = site.server.copy_data();
    site.server.stop();
    site.proxy.set(Disk::Has);
    site.server.start_with(&copy);
    until("it is confirmed", || site.told() == [true; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_late_or_silent_holds_up_nobody() {
    let mut site = Site::new(Disk::Late).await;
    until("the scores are not confirmed", || site.told() == [false]);
    site.proxy.set(Disk::Silent);
    let began = Instant::now();
    for _ in 0..3 {
        let took = site.complete().await;
        assert!(took < SOON, "{took:?}: it waited for the disk");
    }
    // One wait for the first, and one for both that came meanwhile.
    until("none is confirmed", || site.told() == [false; 4]);
    assert_eq!(site.proxy.asked(), 3);
    let (took, least) = (began.elapsed(), 2 * 6 * ANSWER);
    assert!((least..least + Duration::from_secs(3)).contains(&took), "{took:?}");
    // Answers go on as soon as there are any: none is taken for one to an earlier question.
    site.proxy.set(Disk::Has);
    site.complete().await;
    until("it is confirmed", || site.told().last() == Some(&true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_forgotten_is_not_confirmed() {
    let mut site = Site::new(Disk::Has).await;
    until("the scores are confirmed", || site.told() == [true]);
    let copy = site.server.copy_data();
    site.proxy.set(Disk::Silent);
    site.complete().await;
    until("it is asked", || site.proxy.asked() == 2);
    // It comes back without the completion, and with a disk that is quick.
    site.proxy.set(Disk::Has);
    site.server.stop();
    site.server.start_with(&copy);
    until("it is told", || site.told().len() == 2);
    assert_eq!(site.told(), [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_the_question_takes_completions() {
    let mut site = Site::new(Disk::Unknown).await;
    site.complete().await;
    // The real server below, of 7.0, answers that there is no such command.
    let unknown = new_store().await.promise() != &Promise::Confirmed;
    until("both are told", || site.told().len() == 2);
    assert_eq!(site.told(), [!unknown; 2]);
    assert_eq!(site.store.sweep("s").await.unwrap().unwrap().count(TaskState::Succeeded), 2);
}

/// Whatever this machine has.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_this_machine() {
    let store = new_store().await;
    let told = listened(&store);
    let tickets = four_tasks(&store).await;
    for ticket in &tickets {
        let hold = claim(&store, ticket).await;
        assert_eq!(store.complete(&hold, &completed("1")).await.unwrap(), Held::Yes(()));
    }
    match store.promise() {
        Promise::Confirmed => until("all are confirmed", || *told.lock().unwrap() == [true; 5]),
        Promise::Unconfirmed(why) => {
            assert!(why.contains("no WAITAOF"), "{why}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(told.lock().unwrap().is_empty(), "nothing is asked");
        }
    }
}

#[tokio::test]
async fn without_an_append_only_file_nothing_is_promised() {
    let server = RedisServer::start(&["--appendonly", "no"]);
    let address = server.url().trim_start_matches("redis://").trim_end_matches('/').to_string();
    let proxy = WithWaitAof::start(&address, Disk::Has);
    let store = Redis::connect(&settings(proxy.url())).await.unwrap();
    let Promise::Unconfirmed(why) = store.promise() else { panic!("nothing is kept") };
    assert!(why.contains("append-only"), "{why}");
}
