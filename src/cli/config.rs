//! `mehl-soup config`.

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};

use super::exit::{Exit, say};
use crate::config::{Config, ConfigArgs, Shown, markdown};
use crate::untrusted::printable;

/// Flags of `config`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t = ShowFormat::Table)]
    format: ShowFormat,
}

/// How the configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShowFormat {
    /// Table
    Table,
    /// JSON
    Json,
    /// Documentation of all keys: values, default, meaning. Reads no configuration
    Markdown,
}

pub(super) fn show(args: &ShowArgs) -> Exit {
    if args.format == ShowFormat::Markdown {
        say(&markdown());
        return Exit::Done;
    }
    let config = match Config::load(&args.config, &[]) {
        Ok(config) => config,
        Err(error) => return Exit::Usage.say(error),
    };
    match args.format {
        ShowFormat::Json => match serde_json::to_string_pretty(&config.shown) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
        _ => say(&printable(&render(&config.shown))),
    }
    for note in notes(&config) {
        eprintln!("note: {}", printable(&note));
    }
    Exit::Done
}

fn render(rows: &[Shown]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["key", "value", "from"]);
    for row in rows {
        let value = match &row.value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row([row.key.to_string(), value, row.from.to_string()]);
    }
    table.trim_fmt()
}

/// Why a program would not start on this machine. That can be intended: not every machine needs
/// every program and its files.
fn notes(config: &Config) -> Vec<String> {
    [
        ("every program of the pool", config.redis_settings().err()),
        ("every program of the pool", config.rabbitmq_settings("").err()),
        ("the scheduler", config.scheduler.token().err()),
        ("workers", config.worker.input_roots().err()),
        ("client commands", config.client.token().err()),
    ]
    .into_iter()
    .filter_map(|(who, error)| Some(format!("{who} would not start on this machine: {}", error?)))
    .collect()
}
