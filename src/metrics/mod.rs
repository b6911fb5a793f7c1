//! What is measured, for Prometheus.
//!
//! | file | holds |
//! |---|---|
//! | `series` | every series: name, kind, labels, unit, help |
//! | `scheduler` | those of the scheduler |
//! | `worker` | those of a worker |
//! | `listen` | a worker's probes and metrics over HTTP |

mod listen;
mod scheduler;
pub mod series;
mod worker;

pub use listen::{Probed, serve_metrics};
pub use scheduler::Metrics;
pub use worker::WorkerMetrics;
