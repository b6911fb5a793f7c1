//! A pool of processes, one thing at a time. The processes are this program again.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod deaths;
mod network;
mod tasks;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that the other tests start"]
async fn process_of_a_pool() {
    support::pool_processes::work_as_told().await;
}
