//! Tests of the programs as a user starts them.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod exported;
mod honest;
mod image_sweep;
mod kill;
mod make_text_zoo;
mod make_zoo;
mod run_folder;
mod sweep;
mod upgrade;
