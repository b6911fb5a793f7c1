//! What is measured, for Prometheus.
//!
//! | file | holds |
//! |---|---|
//! | `names` | every series: name, unit, help |

mod names;

pub use names::Metrics;
