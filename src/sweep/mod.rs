//! Sweeps: the specification, its search space, the tasks it spans, and what came of them.

pub mod manifest;
pub mod spec;
