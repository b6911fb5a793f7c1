//! A sweep's results as CSV (RFC 4180), one line a task, best first by select.

use std::collections::BTreeSet;

use super::metric::Metric;
use super::results::{Row, SweepResults};

/// Before the scores, of which there is a column `SPLIT_METRIC` for each split and metric.
const FIRST: [&str; 4] = ["task_id", "method", "origin", "state"];
const SPLITS: [&str; 3] = ["select", "test", "learn"];
/// After the scores.
const LAST: [&str; 7] = [
    "better_than_best_ingredient",
    "iterations",
    "seconds",
    "samples_per_second",
    "peak_host_bytes",
    "attempts",
    "cause",
];

/// The table with its header. Searched fields have a column each, `searched.NAME`.
pub fn to_csv(results: &SweepResults) -> String {
    let searched: BTreeSet<&str> =
        results.tasks.iter().flat_map(|row| row.searched.keys().map(String::as_str)).collect();
    let names = searched.iter().map(|name| format!("searched.{name}"));
    let metrics = results.metrics();
    let scores = SPLITS.iter().flat_map(|split| metrics.iter().map(move |metric| format!("{split}_{metric}")));
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut text = line(words(&FIRST).into_iter().chain(scores).chain(words(&LAST)).chain(names));
    for row in &results.tasks {
        let values = searched.iter().map(|name| match row.searched.get(*name) {
            None => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        });
        text.push_str(&line(cells(row, &metrics).into_iter().chain(values)));
    }
    text
}

fn cells(row: &Row, metrics: &[Metric]) -> Vec<String> {
    let origin = serde_json::to_value(row.origin).ok().and_then(|word| word.as_str().map(str::to_string));
    let first = [row.task_id.clone(), row.method.to_string(), origin.unwrap_or_default(), row.state.to_string()];
    let scores = [row.select, row.test, row.learn].into_iter().flat_map(|score| {
        let value = move |metric: &Metric| score?.get(*metric).map(|estimate| estimate.value.to_string());
        metrics.iter().map(move |metric| value(metric).unwrap_or_default())
    });
    let last = [
        row.better_than_best_ingredient.map(|better| better.to_string()).unwrap_or_default(),
        row.iterations.to_string(),
        row.seconds.to_string(),
        row.samples_per_second.map(|rate| rate.to_string()).unwrap_or_default(),
        row.peak_host_bytes.to_string(),
        row.attempts.to_string(),
        row.cause.clone().unwrap_or_default(),
    ];
    first.into_iter().chain(scores).chain(last).collect()
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = cells.map(quoted).collect();
    format!("{}\n", quoted.join(","))
}

/// Quoted where it has to be. A text that a spreadsheet would take for a formula begins with a quote mark, which those pass over.
fn quoted(cell: String) -> String {
    let is_number = cell.parse::<f64>().is_ok();
    let cell = if !is_number && cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        for (cell, written) in [
            ("plain", "plain"),
            ("mehl+", "mehl+"),
            ("-0.5", "-0.5"),
            ("a,b", "\"a,b\""),
            ("say \"no\"\n", "\"say \"\"no\"\"\n\""),
            ("=cmd()", "'=cmd()"),
            ("", ""),
        ] {
            assert_eq!(quoted(cell.to_string()), written);
        }
    }
}
