//! `mehl-soup status` and `mehl-soup logs`.

use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::submit::{follow, summary};
use super::{ServerArgs, failed, sweep_id};
use crate::api_types::{EventBody, EventsBody, SweepBody, SweepOutcome, SweepPage, TaskBody, TaskPage};
use crate::cli::Format;
use crate::cli::exit::{Exit, say};
use crate::client::{Client, ClientError};
use crate::untrusted::printable;

/// Tasks of one request.
const PAGE: usize = 500;

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Id of the sweep. Default: list all sweeps, newest first
    #[arg(value_parser = sweep_id)]
    sweep: Option<String>,
    /// Follow the sweep until it ends. Exit codes are those of `submit --wait`
    #[arg(long, requires = "sweep")]
    watch: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Id of the sweep, or of one task as SWEEP/TASK
    what: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub(in crate::cli) fn status(args: &StatusArgs) -> Exit {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    match &args.sweep {
        Some(id) if args.watch => follow(&client, id),
        Some(id) => told(one(&client, id, args.format)),
        None => told(all(&client, args.format)),
    }
}

fn told(done: Result<(), ClientError>) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(error) => failed(&error),
    }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

fn print_json(value: &impl Serialize) {
    // What came as JSON goes as JSON.
    say(&serde_json::to_string_pretty(value).unwrap_or_default());
}

fn all(client: &Client, format: Format) -> Result<(), ClientError> {
    let mut sweeps: Vec<SweepBody> = Vec::new();
    let mut after = None;
    loop {
        let query = after.map(|after: String| format!("&after={after}")).unwrap_or_default();
        let page: SweepPage = client.get(&format!("/v1/sweeps?limit=500{query}"))?;
        sweeps.extend(page.sweeps);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if format == Format::Json {
        print_json(&sweeps);
        return Ok(());
    }
    let mut rows = table(["sweep", "name", "progress", "outcome", "tasks"]);
    for sweep in &sweeps {
        let outcome = outcome(sweep.outcome);
        rows.add_row([
            sweep.id.clone(),
            sweep.name.clone(),
            format!("{:.0} %", sweep.progress),
            outcome,
            summary(sweep),
        ]);
    }
    say(&printable(&rows.trim_fmt()));
    Ok(())
}

fn outcome(outcome: Option<SweepOutcome>) -> String {
    match outcome {
        None => "-",
        Some(SweepOutcome::Done) => "done",
        Some(SweepOutcome::Failed) => "failed",
        Some(SweepOutcome::Cancelled) => "cancelled",
    }
    .to_string()
}

/// All tasks of a sweep, in its order.
fn tasks_of(client: &Client, id: &str) -> Result<Vec<TaskBody>, ClientError> {
    let (mut tasks, mut from) = (Vec::new(), Some(0));
    while let Some(place) = from {
        let page: TaskPage = client.get(&format!("/v1/sweeps/{id}/tasks?from={place}&limit={PAGE}"))?;
        tasks.extend(page.tasks);
        from = page.next;
    }
    Ok(tasks)
}

fn one(client: &Client, id: &str, format: Format) -> Result<(), ClientError> {
    let sweep: SweepBody = client.get(&format!("/v1/sweeps/{id}"))?;
    if format == Format::Json {
        print_json(&sweep);
        return Ok(());
    }
    let tasks = tasks_of(client, id)?;
    let mut rows = table(["task", "state", "attempts", "cause"]);
    for task in &tasks {
        let cause = task.cause.clone().unwrap_or_default();
        rows.add_row([task.id.clone(), task.state.to_string(), task.attempts.to_string(), cause]);
    }
    say(&printable(&rows.trim_fmt()));
    eprintln!("{}", printable(&format!("{id} ({}): {:.0} %, {}", sweep.name, sweep.progress, summary(&sweep))));
    Ok(())
}

/// An event with the task that it is of.
#[derive(Debug, Serialize)]
struct StatusLine {
    task: String,
    #[serde(flatten)]
    event: EventBody,
}

pub(in crate::cli) fn logs(args: &LogsArgs) -> Exit {
    let (sweep, task) = match args.what.split_once('/') {
        Some((sweep, task)) => (sweep, Some(task)),
        None => (args.what.as_str(), None),
    };
    for part in std::iter::once(sweep).chain(task) {
        if let Err(error) = sweep_id(part) {
            return Exit::Usage.say(format!("{}: {error}, or SWEEP/TASK for one task", args.what));
        }
    }
    match args.server.client() {
        Ok(client) => told(events(&client, sweep, task, args.format)),
        Err(exit) => exit,
    }
}

fn events(client: &Client, sweep: &str, task: Option<&str>, format: Format) -> Result<(), ClientError> {
    let tasks = match task {
        Some(task) => vec![task.to_string()],
        None => {
            // The sweep first: an unknown one is said as such.
            client.get::<SweepBody>(&format!("/v1/sweeps/{sweep}"))?;
            tasks_of(client, sweep)?.into_iter().map(|task| task.id).collect()
        }
    };
    let mut lines = Vec::new();
    for task in tasks {
        let body: EventsBody = client.get(&format!("/v1/sweeps/{sweep}/tasks/{task}/events"))?;
        lines.extend(body.events.into_iter().map(|event| StatusLine { task: task.clone(), event }));
    }
    // Stable: what happened in one millisecond stays in its order.
    lines.sort_by_key(|line| line.event.at);
    if format == Format::Json {
        print_json(&lines);
        return Ok(());
    }
    let mut rows = table(["UTC", "task", "event", "detail"]);
    for StatusLine { task, event } in lines {
        rows.add_row([clock(event.at), task, event.what, event.detail.unwrap_or_default()]);
    }
    say(&printable(&rows.trim_fmt()));
    Ok(())
}

/// Milliseconds since 1970 as date and time.
fn clock(at: u64) -> String {
    let (days, rest) = (at / 86_400_000, at % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}")
}

/// Year, month and day of a number of days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let (mut year, mut left) = (1970, days);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn times_are_those_of_the_calendar() {
        // As `date -u -d @SECONDS` says.
        assert_eq!(clock(0), "1970-01-01 00:00:00.000");
        assert_eq!(clock(951_782_399_999), "2000-02-28 23:59:59.999");
        assert_eq!(clock(951_868_799_000), "2000-02-29 23:59:59.000");
        assert_eq!(clock(1_795_588_582_494), "2026-11-25 06:36:22.494");
        assert_eq!(clock(4_107_542_400_000), "2100-03-01 00:00:00.000");
    }
}
