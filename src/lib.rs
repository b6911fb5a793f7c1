//! Control plane of mehl-soup: everything but the tensors.
//!
//! | module | holds |
//! |---|---|
//! | [`sweep`] | specification, search space, tasks of a sweep, manifest |
//! | [`task`] | one soup task |
//! | [`zoo`] | ingredients on disk: safetensors files and Hugging Face folders, hashes, layout, layer groups |
//! | [`coefficients`] | the table `A`, its file, the exact mix, the written model |
//! | [`checkpoint`] | a task's saved state |
//! | [`host`] | memory of this process, and how much it may have |
//! | [`canonical`] | identities: hashes of canonical JSON |
//! | [`files`] | writing files and folders so that no reader sees half of one |
//! | [`operator_file`] | files that the operator names: secrets and authorities |
//! | [`server_address`] | addresses of servers, with their passwords, read again when a password changes |
//! | [`untrusted`] | reading files that somebody else made, within limits |
//! | [`source`] | where files of zoos and data lie: the only module that opens them |
//! | [`store`] | the truth about sweeps and tasks of a pool: in Redis, or in memory |
//! | [`queue`] | tickets that tell workers of work: in RabbitMQ, or within one process |
//! | [`api_types`] | what the API takes and answers |
//! | [`api`] | the scheduler's HTTP API |
//! | [`serving`] | listening, and HTTP connections within limits |
//! | [`metrics`] | what is measured |
//! | [`logging`] | what the programs of a pool say, as text or JSON |
//! | [`search`] | which tasks a sweep computes, and which of them go on |
//! | [`scheduler`] | what keeps a pool going |
//! | [`client`] | a client of the scheduler's HTTP API |
//! | [`retry`] | trying again: pauses that grow, and faults that are said once |
//! | [`runner`] | the engine's boundary, and the sweep on one machine |
//! | [`report`] | a sweep as a page that people look at, and its plots |
//! | [`config`] | settings of the programs of a pool, from file, environment and flags |
//! | [`cli`] | the command line |
//!
//! The crate links no libtorch; `mehl-soup-worker` depends on it, never the reverse.

pub mod api;
pub mod api_types;
pub mod canonical;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod coefficients;
pub mod config;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod logging;
pub mod metrics;
pub mod queue;
pub mod report;
pub mod retry;
pub mod runner;
pub mod scheduler;
pub mod search;
pub mod server_address;
pub mod serving;
pub mod source;
pub mod store;
pub mod sweep;
pub mod task;
pub mod untrusted;
pub mod zoo;

pub use untrusted::operator_file;
