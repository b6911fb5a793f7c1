//! Checkpoints: a task's saved coefficient state, never weights.

mod blob;
mod record;

pub use blob::CheckpointError;
pub use record::{BestSoFar, Build, Checkpoint, Current, EpochRecord, FinishedBatch, GreedyState, SCHEMA, Totals};
