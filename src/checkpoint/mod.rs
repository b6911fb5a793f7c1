//! Checkpoints: a task's saved coefficient state, never weights.

mod record;

pub use record::{
    BestSoFar, Build, Checkpoint, CheckpointError, Current, EpochRecord, FinishedBatch, GreedyState, SCHEMA, Totals,
};
