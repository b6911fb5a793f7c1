//! `mehl-soup inspect`.

use clap::Args;

use super::Format;
use super::exit::Exit;
use crate::zoo::{Zoo, inspect as look};

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
    let inspected = Zoo::resolve(&args.zoo, std::path::Path::new(".")).and_then(|paths| look(&paths));
    let inspection = match inspected {
        Ok(inspection) => inspection,
        Err(error) => return Exit::Usage.say(error),
    };
    match args.format {
        Format::Table => println!("{}", inspection.render()),
        Format::Json => match serde_json::to_string_pretty(&inspection) {
            Ok(json) => println!("{json}"),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    Exit::Done
}
