//! A sweep's results as a table for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::metric::Metric;
use super::paired::{Comparison, Verdict};
use super::results::{Row, SweepResults, winner};
use super::score::SplitScore;
use super::spec::MethodName;
use crate::sweep::task::Origin;
use crate::task::TaskState;

/// A column: its head, whether it holds numbers, which stand at the right, and whether it never wraps: names are
/// for copying, and other such columns are short.
struct Column {
    head: String,
    is_number: bool,
    is_whole: bool,
}

fn columns(metrics: &[Metric]) -> Vec<Column> {
    let column = |head: &str, is_number, is_whole| Column { head: head.to_string(), is_number, is_whole };
    let mut columns = vec![
        column("rank", true, true),
        column("task", false, true),
        column("method", false, true),
        column("searched", false, false),
    ];
    for split in ["select", "test"] {
        let heads = metrics.iter().map(|metric| format!("{split}\n{}", metric.facts().shown.heading));
        columns.extend(heads.map(|head| column(&head, true, false)));
    }
    columns.extend([column("seconds", true, true), column("state", false, true)]);
    columns
}

/// Narrowest a column gets that may wrap: room for `±0.0100` and the space behind it.
const NARROWEST: u16 = 8;

/// All tasks, best first by select, and what came of them in plain words. `width` is that of the terminal, in columns: cells wrap to fit it, as far
/// as about 90 columns, below which no cell would be legible.
/// Figures after `±` are standard errors over samples.
pub fn render(results: &SweepResults, width: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let metrics = results.metrics();
    let columns = columns(&metrics);
    table.set_header(columns.iter().map(|column| column.head.as_str()));
    let mut rank = 0;
    for row in &results.tasks {
        let succeeded = row.state == TaskState::Succeeded;
        rank += usize::from(succeeded);
        table.add_row(cells(row, if succeeded { rank.to_string() } else { "-".into() }, &metrics));
    }
    for (column, Column { is_number, is_whole, .. }) in table.column_iter_mut().zip(&columns) {
        column.set_padding((0, 1));
        if *is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_constraint(if *is_whole {
            ColumnConstraint::ContentWidth
        } else {
            ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST))
        });
    }
    let mut text = format!("{table}\n* baseline; ranked by select {}; ± standard error\n", results.metric);
    for row in &results.tasks {
        if let Some(cause) = &row.cause {
            let _ = writeln!(text, "{} failed: {cause}", row.task_id);
        }
    }
    for note in &results.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text + &verdict(results)
}

fn cells(row: &Row, rank: String, metrics: &[Metric]) -> Vec<String> {
    let baseline = if row.origin == Origin::Baseline { " *" } else { "" };
    let searched: Vec<String> = row
        .searched
        .iter()
        // The method has a column of its own.
        .filter(|(key, _)| *key != "method")
        .map(|(key, value)| match value.as_str() {
            Some(word) => format!("{key}={word}"),
            None => format!("{key}={value}"),
        })
        .collect();
    let state = match row.state {
        TaskState::Succeeded => "done",
        other => other.as_str(),
    };
    let values = |score: Option<&SplitScore>| -> Vec<String> {
        let value = |metric: &Metric| score?.get(*metric).map(|estimate| metric.shown(estimate));
        metrics.iter().map(|metric| value(metric).unwrap_or_default()).collect()
    };
    let mut cells = vec![rank, format!("{}{baseline}", row.task_id), row.method.to_string(), searched.join(" ")];
    cells.extend(values(row.select.as_ref()));
    cells.extend(values(row.test.as_ref()));
    cells.extend([format!("{:.1}", row.seconds), state.to_string()]);
    cells
}

/// Who won, and how it compares with the baselines and the runner-up.
fn verdict(results: &SweepResults) -> String {
    let Some(winner) = winner(results) else { return "no task succeeded, so there is no winner\n".into() };
    let best = results.best_ingredient().map_or("name unknown", |ingredient| ingredient.name.as_str());
    let mut text = match winner.select.and_then(|select| select.get(results.metric)) {
        Some(value) => {
            let metric = results.metric;
            format!("winner: {}, by select {metric}: {}\n", winner.task_id, metric.shown(value))
        }
        None => format!("winner: {}\n", winner.task_id),
    };
    if winner.better_than_best_ingredient == Some(false) {
        let _ = writeln!(text, "no soup is better than the best ingredient ({best}) on select");
    }
    let shown = results.shown_comparisons();
    if let Some(first) = shown.first() {
        let chose = if first.split == "test" { "not used for any choice" } else { "on which the winner was chosen" };
        let units = results.unit().plural();
        let _ = writeln!(text, "on {} ({} {units}, {chose}), {} against", first.split, first.units, winner.task_id);
    }
    for comparison in shown {
        let _ = writeln!(text, "  {}", line(results, comparison, best));
    }
    text
}

fn line(results: &SweepResults, comparison: &Comparison, best: &str) -> String {
    let other = results.tasks.iter().find(|row| row.task_id == comparison.other);
    let name = match other {
        Some(row) if row.origin == Origin::Baseline && row.method == MethodName::Best => {
            format!("best ingredient ({best})")
        }
        Some(row) if row.origin == Origin::Baseline => comparison.other.clone(),
        _ => format!("runner-up {}", comparison.other),
    };
    let doubt = match comparison.paired {
        false if comparison.verdict == Verdict::CannotBeTold => "; the error is that of independent samples",
        _ => "",
    };
    format!("{name}: {}: {}{doubt}", comparison.words(results.unit().plural()), comparison.amount())
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    fn line<'a>(text: &'a str, beginning: &str) -> &'a str {
        text.lines()
            .find(|line| line.trim_start_matches(['│', ' ']).starts_with(beginning))
            .unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_winner_is_compared_with_the_best_ingredient() {
        let text = render(&results("loss", &[("best", 0.5, 0.8), ("0001-mehl+", 0.4, 0.82)]), 200);
        let row = line(&text, "1 ");
        for part in ["0001-mehl+", "batch=1", "0.4000 ±0.0100", "82.00 ±2.00", "0.5000", "9.0", "done"] {
            assert!(row.contains(part), "{part} in {row}");
        }
        assert!(line(&text, "2 ").contains("best *"));
        assert_eq!(line(&text, "winner"), "winner: 0001-mehl+, by select loss: 0.4000 ±0.0100");
        assert_eq!(line(&text, "on test"), "on test (50 samples, not used for any choice), 0001-mehl+ against");
        assert_eq!(line(&text, "best ingredient").trim(), "best ingredient (dog): better: loss 0.1000 ±0.0141 lower");
        assert!(text.contains("0003-mehl+ failed: loss is NaN") && text.contains("note: select is a part of learn"));
    }

    #[test]
    fn doubt_is_said() {
        let text = render(&results("loss", &[("best", 0.5, 0.8), ("0001-mehl+", 0.49, 0.82)]), 200);
        assert_eq!(
            line(&text, "best ingredient").trim(),
            "best ingredient (dog): cannot be told (about 400 samples would tell): loss 0.0100 ±0.0141 lower; \
             the error is that of independent samples"
        );
    }

    #[test]
    fn it_is_said_plainly_when_nothing_beats_the_best_ingredient() {
        let text = render(&results("loss", &[("best", 0.5, 0.8), ("0001-mehl+", 0.6, 0.9)]), 200);
        assert!(text.contains("no soup is better than the best ingredient (dog) on select"), "{text}");
        assert!(line(&text, "winner").starts_with("winner: best, by select loss"));
        assert!(line(&text, "runner-up").contains("runner-up 0001-mehl+: better: loss 0.1000"), "{text}");
        assert!(render(&results("loss", &[]), 200).contains("no task succeeded"));
    }

    #[test]
    fn a_narrow_terminal_wraps_the_table() {
        let text = render(&results("loss", &[("best", 0.5, 0.8)]), 100);
        let table = text.split("\n* baseline").next().unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }
}
