//! The table of a sweep, for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::manifest::SplitScore;
use super::results::{Row, SweepResults, winner};
use super::spec::Metric;
use crate::task::{Origin, TaskState};

/// All tasks, best first by select, and in plain words whether the winner is better than the best ingredient.
///
/// `width` is that of the terminal; `None` lets lines be as long as they need.
pub fn render(results: &SweepResults, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    if let Some(width) = width {
        table.set_width(width);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    let has_test = results.tasks.iter().any(|row| row.test.is_some());
    let mut header = vec!["", "task", "searched", "select loss", "select accuracy"];
    if has_test {
        header.extend(["test loss", "test accuracy"]);
    }
    header.extend(["iterations", "seconds"]);
    table.set_header(header);
    for (rank, row) in results.tasks.iter().enumerate() {
        let mut cells = vec![
            if row.select.is_some() { (rank + 1).to_string() } else { String::new() },
            if row.origin == Origin::Baseline { format!("{} (baseline)", row.task_id) } else { row.task_id.clone() },
            searched(row),
        ];
        let splits = if has_test { vec![row.select, row.test] } else { vec![row.select] };
        for score in splits {
            cells.push(score.map_or_else(String::new, |s| format!("{:.4} ± {:.4}", s.loss, s.loss_standard_error)));
            cells.push(score.map_or_else(String::new, |s| accuracy(&s)));
        }
        if let Some(cause) = &row.cause {
            cells[3] = format!("failed: {cause}");
        } else if row.state != TaskState::Succeeded {
            cells[3] = "not finished".to_string();
        }
        cells.push(row.iterations.to_string());
        cells.push(format!("{:.1}", row.seconds));
        table.add_row(cells);
    }
    for column in [0, 3, 4, 5, 6, 7, 8] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    for line in verdict(results).iter().chain(&results.notes) {
        text.push('\n');
        text.push_str(line);
    }
    text
}

fn searched(row: &Row) -> String {
    let shown: Vec<String> = row
        .searched
        .iter()
        .filter(|(key, _)| *key != "method")
        .map(|(key, value)| match value.as_f64() {
            Some(number) if value.is_f64() => format!("{key}={number:.3e}"),
            _ => format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_string)),
        })
        .collect();
    shown.join(" ")
}

fn accuracy(score: &SplitScore) -> String {
    format!("{:.2} ± {:.2} %", 100.0 * score.accuracy, 100.0 * score.accuracy_standard_error)
}

/// Whether the winner is better than the best ingredient: what select says, by which it was chosen, and then what test says.
fn verdict(results: &SweepResults) -> Vec<String> {
    let Some(row) = winner(results) else { return vec!["no task succeeded".to_string()] };
    let metric = match results.metric {
        Metric::Loss => "loss",
        Metric::Accuracy => "accuracy",
    };
    let mut lines = vec![format!(
        "Ranked by select {metric}; ± is one standard error over samples. Test is only reported, nothing was chosen by it."
    )];
    let Some(best) = row.baselines.get("best") else { return lines };
    match (row.better_than_best_ingredient, row.select) {
        (Some(true), Some(select)) => lines.push(format!(
            "The winner, {}, is better than the best ingredient by select: loss {:.4} against {:.4}, accuracy {} against {}.",
            row.task_id,
            select.loss,
            best.select.loss,
            accuracy(&select),
            accuracy(&best.select)
        )),
        _ => lines.push("No soup is better than the best ingredient by select; the winner is that ingredient or its equal.".to_string()),
    }
    if let (Some(test), Some(best)) = (row.test, best.test) {
        let word = if test.loss < best.loss { "better" } else { "not better" };
        lines.push(format!(
            "On test it is {word} by loss, {:.4} against {:.4} (standard errors {:.4} and {:.4}), with accuracy {} against {}.",
            test.loss,
            best.loss,
            test.loss_standard_error,
            best.loss_standard_error,
            accuracy(&test),
            accuracy(&best)
        ));
    }
    lines
}
