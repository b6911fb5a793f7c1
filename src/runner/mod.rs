//! Running tasks: the engine's boundary, and the sweep on one machine.

pub mod engine;
