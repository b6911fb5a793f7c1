//! Tests of the library and its program; all but one of `asha` need no server. One program, as each costs the compiler as much as many tests do.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod api_faults;
mod api_results;
mod asha;
mod formats;
mod fuzz_corpus;
mod hostile_changes;
mod hostile_documents;
mod hostile_folders;
mod hostile_headers;
mod hostile_ingredients;
mod http_limits;
mod inspect;
mod materialize;
mod read_speed;
mod report;
mod search;
mod slow_broker;
mod sources;
