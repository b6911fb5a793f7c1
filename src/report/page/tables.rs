//! The leaderboard, what is not on it, and why tasks failed.

use maud::{Markup, html};
use serde_json::Value;

use super::words;
use crate::report::data::Report;
use crate::sweep::metric::Metric;
use crate::sweep::results::Row;
use crate::sweep::task::Origin;
use crate::task::TaskState;

/// Rows of the leaderboard.
const MOST_ROWS: usize = 50;
/// Different causes that are shown, and letters of each.
const MOST_CAUSES: usize = 12;
const LONGEST: usize = 400;
/// Searched values of one task that are shown.
const MOST_SEARCHED: usize = 20;

/// The best tasks, a line about the others, and the causes of failures.
pub fn leaderboard(report: &Report) -> Markup {
    let tasks = &report.results.tasks;
    let has_test = tasks.iter().any(|row| row.test.is_some());
    let winner = report.winner().map(|row| row.task_id.as_str());
    let (shown, others) = split(tasks);
    let metrics = report.results.metrics();
    html! {
        @if !tasks.is_empty() {
            section {
                h2 { "Leaderboard" }
                p.hint { "Ranked by select. ± is one standard error over " (report.results.unit().plural()) ". Grey rows are baselines." }
                div.scroll { table {
                    thead { tr {
                        th.n { "#" } th { "task" } th.spare { "method" }
                        @for metric in &metrics { th.n { "select " (metric.facts().shown.heading) } }
                        @if has_test { @for metric in &metrics { th.n { "test " (metric.facts().shown.heading) } } }
                        th.n { "iterations" } th.n { "time" } th.n { "samples/s" } th.n { "memory" } th { "state" }
                    } }
                    tbody { @for (rank, row) in &shown { (line(row, *rank, winner == Some(&row.task_id), has_test, &metrics)) } }
                } }
                @if !others.is_empty() { p.hint { (rest(&others)) } }
                (causes(tasks))
            }
        }
    }
}

/// The rows that are shown, with their ranks, and the others. Baselines are always shown.
fn split(tasks: &[Row]) -> (Vec<(Option<usize>, &Row)>, Vec<&Row>) {
    let (mut shown, mut others, mut rank) = (vec![], vec![], 0);
    for row in tasks {
        let ranked = (row.state == TaskState::Succeeded).then(|| {
            rank += 1;
            rank
        });
        if shown.len() < MOST_ROWS || row.origin == Origin::Baseline {
            shown.push((ranked, row));
        } else {
            others.push(row);
        }
    }
    (shown, others)
}

fn line(row: &Row, rank: Option<usize>, is_winner: bool, has_test: bool, metrics: &[Metric]) -> Markup {
    let is_baseline = row.origin == Origin::Baseline;
    let memory = row.peak_device_bytes.unwrap_or(row.peak_host_bytes);
    html! {
        tr.win[is_winner].base[is_baseline && !is_winner] {
            td.n { @match rank { Some(rank) => (rank), None => "–" } }
            td {
                span.w { (words::cut(&row.task_id, 100)) @if is_winner { " " span.tag { "winner" } } }
                (assignments(row))
            }
            td.w.light.spare { (row.method) }
            @for metric in metrics { td.n { (words::score(row.select.as_ref(), *metric)) } }
            @if has_test { @for metric in metrics { td.n { (words::score(row.test.as_ref(), *metric)) } } }
            td.n.light { @if row.iterations > 0 { (words::count(row.iterations)) } @else { span.se { "–" } } }
            td.n.light { @if row.seconds > 0.0 { (words::time(row.seconds)) } @else { span.se { "–" } } }
            td.n.light { @match row.samples_per_second { Some(speed) => (words::count(speed.max(0.0).round() as u64)), None => span.se { "–" } } }
            td.n.light { @if memory > 0 { (words::bytes(memory)) } @else { span.se { "–" } } }
            td.w.light { (state(row.state)) }
        }
    }
}

/// The searched values of a task, below its name.
fn assignments(row: &Row) -> Markup {
    let values: Vec<(&String, &Value)> = row.searched.iter().filter(|(key, _)| *key != "method").collect();
    html! {
        @if !values.is_empty() {
            div.assigned { @for (key, value) in values.into_iter().take(MOST_SEARCHED) { span { (assignment(key, value)) } " " } }
        }
    }
}

fn assignment(key: &str, value: &Value) -> String {
    let value = match (value.as_str(), value.as_f64()) {
        (Some(word), _) => word.to_string(),
        // As many digits as tell tasks apart; all of them are in results.json.
        (None, Some(number)) if value.is_f64() => digits(number),
        _ => value.to_string(),
    };
    words::cut(&format!("{key}={value}"), 60)
}

fn digits(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-3..1e4).contains(&size) {
        format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{number:.2e}")
    }
}

fn state(state: TaskState) -> Markup {
    html! {
        @match state {
            TaskState::Succeeded => "done",
            TaskState::Failed => span.bad { "failed" },
            other => span.doubt { (other) },
        }
    }
}

/// What is not shown, in a sentence.
fn rest(others: &[&Row]) -> String {
    let parts = TaskState::ALL.into_iter().filter_map(|state| {
        let count = others.iter().filter(|row| row.state == state).count();
        (count > 0).then(|| format!("{} {state}", words::count(count as u64)))
    });
    let parts: Vec<String> = parts.collect();
    let losses = others.iter().filter_map(|row| row.select).map(|score| score.loss).filter(|loss| loss.is_finite());
    let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), loss| (a.min(loss), b.max(loss)));
    let range = if low <= high { format!("; select loss from {low:.4} to {high:.4}") } else { String::new() };
    format!(
        "And {} more tasks: {}{range}. All of them are in results.json.",
        words::count(others.len() as u64),
        parts.join(", ")
    )
}

/// Why tasks failed: each cause once, the commonest first.
fn causes(tasks: &[Row]) -> Markup {
    let mut causes: Vec<(String, Vec<&str>)> = vec![];
    let failed = tasks.iter().filter(|row| row.state == TaskState::Failed);
    let mut places = std::collections::HashMap::new();
    for row in failed {
        let cause = words::cut(row.cause.as_deref().unwrap_or("unknown cause"), LONGEST);
        let place = *places.entry(cause.clone()).or_insert_with(|| {
            causes.push((cause, vec![]));
            causes.len() - 1
        });
        causes[place].1.push(&row.task_id);
    }
    causes.sort_by_key(|(_, tasks)| std::cmp::Reverse(tasks.len()));
    html! {
        @if !causes.is_empty() {
            h3 { "Why tasks failed" }
            ul.notes {
                @for (cause, tasks) in causes.iter().take(MOST_CAUSES) {
                    li {
                        @if let [task] = tasks.as_slice() { (words::cut(task, 100)) } @else { (words::count(tasks.len() as u64)) " tasks, " (words::cut(tasks[0], 100)) " among them" }
                        ": " (cause)
                    }
                }
                @if causes.len() > MOST_CAUSES { li { "and " (causes.len() - MOST_CAUSES) " other causes" } }
            }
        }
    }
}
