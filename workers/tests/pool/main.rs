//! The programs as a pool with real servers.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

#[path = "../support/pool.rs"]
mod pool_support;
#[path = "../support/prometheus.rs"]
mod prometheus_support;
#[path = "../support/scrape.rs"]
mod scrape_support;
#[path = "../../../tests/support/mod.rs"]
mod servers_support;
#[path = "../support/mod.rs"]
mod support;

mod observe;
mod run;
