//! Sweeps: the specification, its search space, the tasks it spans, and what came of them.

pub mod asha;
mod comparisons;
pub mod csv;
mod distribution;
mod dtype;
pub mod expand;
mod identity;
pub mod image_spec;
mod linear;
pub mod manifest;
pub mod method;
pub mod metric;
pub mod objective;
pub mod outcome;
pub mod paired;
pub mod parse;
pub mod reference;
pub mod results;
pub mod rows;
pub mod score;
mod space;
pub mod spec;
pub mod table;
pub mod task;
pub mod text_spec;
