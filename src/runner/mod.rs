//! Running tasks: the engine's boundary, and the sweep on one machine.

pub mod engine;
mod folder_error;
mod folder_files;
pub mod local;
pub mod pool;
pub mod publish;
pub mod reporter;
pub mod run_folder;
