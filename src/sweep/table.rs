//! A sweep's results as a table for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::manifest::SplitScore;
use super::results::{Row, SweepResults, winner};
use super::spec::Metric;
use crate::sweep::task::Origin;
use crate::task::TaskState;

const HEADER: [&str; 10] = [
    "rank",
    "task",
    "method",
    "searched",
    "select\nloss",
    "select\nacc. %",
    "test\nloss",
    "test\nacc. %",
    "seconds",
    "state",
];

/// The columns of numbers, which stand at the right.
const NUMBERS: [usize; 6] = [0, 4, 5, 6, 7, 8];

/// The columns that never wrap: names are for copying, and the rest is short.
const WHOLE: [usize; 5] = [0, 1, 2, 8, 9];

/// Narrowest a column gets that may wrap: room for `±0.0100` and the space behind it.
const NARROWEST: u16 = 8;

/// All tasks, best first by select, and what came of them in plain words. `width` is that of the terminal, in columns: cells wrap to fit it, as far
/// as about 90 columns, below which no cell would be legible.
/// Figures after `±` are standard errors over samples.
pub fn render(results: &SweepResults, width: u16) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(HEADER);
    let mut rank = 0;
    for row in &results.tasks {
        let succeeded = row.state == TaskState::Succeeded;
        rank += usize::from(succeeded);
        table.add_row(cells(row, if succeeded { rank.to_string() } else { "-".into() }));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if NUMBERS.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_constraint(if WHOLE.contains(&index) {
            ColumnConstraint::ContentWidth
        } else {
            ColumnConstraint::LowerBoundary(Width::Fixed(NARROWEST))
        });
    }
    let metric = match results.metric {
        Metric::Loss => "loss",
        Metric::Accuracy => "accuracy",
    };
    let mut text = format!("{table}\n* baseline; ranked by select {metric}; ± standard error\n");
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

fn cells(row: &Row, rank: String) -> Vec<String> {
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
    vec![
        rank,
        format!("{}{baseline}", row.task_id),
        row.method.to_string(),
        searched.join(" "),
        row.select.as_ref().map(loss).unwrap_or_default(),
        row.select.as_ref().map(accuracy).unwrap_or_default(),
        row.test.as_ref().map(|test| format!("{:.4}", test.loss)).unwrap_or_default(),
        row.test.as_ref().map(accuracy).unwrap_or_default(),
        format!("{:.1}", row.seconds),
        state.to_string(),
    ]
}

fn loss(score: &SplitScore) -> String {
    // No space after the sign: a narrow column wraps before it.
    format!("{:.4} ±{:.4}", score.loss, score.loss_standard_error)
}

fn accuracy(score: &SplitScore) -> String {
    format!("{:.2} ±{:.2}", 100.0 * score.accuracy, 100.0 * score.accuracy_standard_error)
}

/// Whether the winner is better than the best ingredient, by how much, and what test says.
fn verdict(results: &SweepResults) -> String {
    let Some(winner) = winner(results) else { return "no task succeeded, so there is no winner\n".into() };
    let name = results.best_ingredient().map_or("name unknown", |ingredient| ingredient.name.as_str());
    let best = results.baselines.best.as_ref();
    let to_beat = best.map(|best| best.scores.select).or(results.best_ingredient().and_then(|i| i.select));
    let (Some(select), Some(to_beat)) = (winner.select, to_beat) else {
        return format!("winner: {}; the best ingredient has no score to compare with\n", winner.task_id);
    };
    if winner.better_than_best_ingredient != Some(true) {
        return format!(
            "no soup is better than the best ingredient ({name}) on select: {}; the winner is {}\n",
            standing(&to_beat),
            winner.task_id
        );
    }
    let mut text = format!(
        "winner: {} is better than the best ingredient ({name}) on select: {}\n",
        winner.task_id,
        difference(&select, &to_beat)
    );
    if let Some((test, best)) = winner.test.zip(best.and_then(|best| best.scores.test)) {
        let word = match results.metric.compare(&test, &best) {
            std::cmp::Ordering::Less => "is better too",
            std::cmp::Ordering::Equal => "is not better, but equal",
            std::cmp::Ordering::Greater => "is not better",
        };
        let _ = writeln!(text, "on test, which was not used for any choice, it {word}: {}", difference(&test, &best));
    }
    text
}

fn standing(score: &SplitScore) -> String {
    format!("loss {}, accuracy {} %", loss(score), accuracy(score))
}

/// How far `a` is from `b`. The standard errors are those of either score: on the same samples the difference itself varies less.
fn difference(a: &SplitScore, b: &SplitScore) -> String {
    let way = |difference: f64, digits: usize, unit: &str| {
        let amount = format!("{:.digits$}", difference.abs());
        match difference {
            d if d < 0.0 => format!("{amount}{unit} lower"),
            d if d > 0.0 => format!("{amount}{unit} higher"),
            _ => "equal".to_string(),
        }
    };
    format!(
        "loss {} against {} ({}), accuracy {} % against {} % ({})",
        loss(a),
        loss(b),
        way(a.loss - b.loss, 4, ""),
        accuracy(a),
        accuracy(b),
        way(100.0 * (a.accuracy - b.accuracy), 2, " points"),
    )
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
        assert_eq!(
            line(&text, "winner"),
            "winner: 0001-mehl+ is better than the best ingredient (dog) on select: loss 0.4000 ±0.0100 against 0.5000 ±0.0100 \
             (0.1000 lower), accuracy 82.00 ±2.00 % against 80.00 ±2.00 % (2.00 points higher)"
        );
        assert!(line(&text, "on test").contains("it is better too: loss 0.5000"));
        assert!(text.contains("0003-mehl+ failed: loss is NaN") && text.contains("note: select is a part of learn"));
    }

    #[test]
    fn it_is_said_plainly_when_nothing_beats_the_best_ingredient() {
        let text = render(&results("loss", &[("best", 0.5, 0.8), ("0001-mehl+", 0.6, 0.9)]), 200);
        assert!(text.contains("no soup is better than the best ingredient (dog) on select"), "{text}");
        assert!(!text.contains("winner: 0001"));
        assert!(render(&results("loss", &[]), 200).contains("no task succeeded"));
    }

    #[test]
    fn a_narrow_terminal_wraps_the_table() {
        let text = render(&results("loss", &[("best", 0.5, 0.8)]), 100);
        let table = text.split("\n* baseline").next().unwrap();
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }
}
