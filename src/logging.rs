//! What the long-lived programs say: an event a line on stderr, as text for people or as JSON for programs that collect logs.
//!
//! Everything that is said about a task is said within its span, whichever thread says it: the line then has the task's id. `RUST_LOG` chooses what is
//! said, as `tracing-subscriber` documents it: `warn`, `mehl_soup=debug`, `info,lapin=debug`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Names the variable that chooses what is said.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

/// What is said where nobody chooses: what this program does. What is wrong within a library comes back as an error, and is said once; libraries say it at each try.
const DEFAULT: &str = "mehl_soup=info,mehl_soup_worker=info";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, span, message.
    Text,
    /// One object a line: `timestamp`, `level`, `message`, `target`, `threadName`, and `span` with the fields of the span.
    Json,
}

impl LogFormat {
    /// Words that [`parse`](Self::parse) knows.
    pub const WORDS: [&str; 2] = ["text", "json"];

    /// From its word in the configuration.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// From here on, events of this process are said. What panics say becomes an event too.
///
/// # Errors
/// If `RUST_LOG` cannot be understood, or this was done already.
pub fn start(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| format!("{FILTER_VARIABLE}: {error}, found `{text}`"))?
        }
        _ => EnvFilter::new(DEFAULT),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_thread_names(true)
            .finish()
            .try_init(),
    };
    started.map_err(|error| format!("cannot write a log: {error}"))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

/// The span of everything that is said of a task. It is of the highest level, so that no filter takes the id from a line that is said.
pub fn task_span(key: &crate::task::TaskKey, attempt: u64) -> tracing::Span {
    tracing::error_span!("task", sweep = %key.sweep, task = %key.task, attempt)
}
