//! `mehl-soup inspect`.

use clap::Args;

use super::Format;
use super::exit::{Exit, say};
use crate::zoo::{Zoo, inspect as look, render};

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Ingredients: files, folders, globs
    #[arg(required = true)]
    zoo: Vec<String>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn inspect(args: &InspectArgs) -> Exit {
    let inspection = match Zoo::resolve(&args.zoo, std::path::Path::new(".")) {
        Ok(paths) => look(&paths),
        Err(error) => return Exit::Usage.say(error),
    };
    match args.format {
        Format::Table => say(&render(&inspection)),
        Format::Json => match serde_json::to_string_pretty(&inspection) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    // Differences between ingredients are what a run would refuse.
    if inspection.is_sound() { Exit::Done } else { Exit::Usage }
}
