//! What is measured, for Prometheus.
//!
//! | file | holds |
//! |---|---|
//! | `names` | every series of the scheduler: name, unit, help |
//! | `worker` | every series of a worker |
//! | `listen` | a worker's probes and metrics over HTTP |

mod listen;
mod names;
mod worker;

pub use listen::{Probed, serve_metrics};
pub use names::Metrics;
pub use worker::WorkerMetrics;
