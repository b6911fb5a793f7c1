//! Tests of the engine within the process. One program, as each costs the compiler as much as many tests do; what looks at the memory or the reads of its
//! process has one of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../../../tests/support/memory_source.rs"]
#[allow(dead_code, missing_docs, reason = "each test binary uses its part of this")]
mod memory_source;

mod base;
mod batch_norm;
mod directions;
mod exact_resume;
mod exported;
mod golden_images;
mod golden_models;
mod golden_objectives;
mod golden_text;
mod golden_trajectories;
mod golden_vision;
mod identity;
mod image_data;
mod objective_sweeps;
mod objectives;
mod precision;
mod properties;
mod rungs;
mod sources;
mod state;
mod text_data;
