//! `mehl-soup schema`: what a specification may hold.

use clap::{Args, ValueEnum};

use super::exit::{Exit, say};
use crate::sweep::reference;

/// Flags of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t = SchemaFormat::Json)]
    format: SchemaFormat,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemaFormat {
    /// JSON Schema, for editors and validators
    Json,
    /// Table of all keys with their defaults and meanings
    Markdown,
}

pub(super) fn show(args: &SchemaArgs) -> Exit {
    match args.format {
        SchemaFormat::Markdown => say(reference::markdown().trim_end()),
        SchemaFormat::Json => match serde_json::to_string_pretty(&reference::json_schema()) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    Exit::Done
}
