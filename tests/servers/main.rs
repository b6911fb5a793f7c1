//! Tests with a real Redis, a real RabbitMQ, or both. One program, as each costs the compiler as much as many tests do.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod api_memory;
mod api_redis;
mod cli_pool;
mod pool;
mod pool_faults;
mod redis_connections;
mod redis_durability;
mod redis_sentinel;
mod serve_early;
mod store_creation;
mod store_damaged;
mod store_redis;
