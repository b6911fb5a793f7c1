//! How far the sweep is, who won, and what that gains.

use maud::{Markup, html};

use super::words;
use crate::report::data::{Report, Standing, standing as stands};
use crate::report::plots::spread;
use crate::report::verdict::{Gain, Verdict, gains, headline};
use crate::sweep::spec::Metric;
use crate::task::TaskState;

/// Notes that are shown, and letters of each.
const MOST_NOTES: usize = 20;
const LONGEST: usize = 600;

/// What a reader must know before the numbers: that there is nothing, that more will come, that all failed; and notes.
pub fn standing(report: &Report) -> Markup {
    let results = &report.results;
    let failed = results.tasks.iter().filter(|row| row.state == TaskState::Failed).count();
    let faults = report.details.iter().flat_map(|detail| &detail.faults);
    let notes: Vec<&String> = results.notes.iter().chain(faults).collect();
    html! {
        @match stands(results) {
            Standing::Empty => div.banner.bad { p { strong { "This sweep has no tasks yet." } " Information about the sweep is below." } },
            Standing::Unfinished { ended, all } => div.banner { p {
                strong { "This sweep is not finished." } " " (words::count(ended as u64)) " of " (words::count(all as u64))
                " tasks have ended" (states(report)) ". The results below can still change."
            } },
            Standing::Fruitless => div.banner.bad { p { strong { "No task of this sweep has succeeded" } (states(report)) "." } },
            Standing::Finished => @if failed > 0 {
                div.banner { p { strong { (words::count(failed as u64)) @if failed == 1 { " task" } @else { " tasks" } " failed." } " The causes are listed below the leaderboard." } }
            },
        }
        @if !notes.is_empty() {
            div.banner {
                ul.notes {
                    @for note in notes.iter().take(MOST_NOTES) { li { (words::cut(note, LONGEST)) } }
                    @if notes.len() > MOST_NOTES { li { "and " (notes.len() - MOST_NOTES) " more notes" } }
                }
            }
        }
    }
}

/// How many tasks are in each state, in brackets.
fn states(report: &Report) -> String {
    let count = |state: TaskState| report.results.tasks.iter().filter(|row| row.state == state).count();
    let parts = TaskState::ALL.into_iter().map(|state| (state, count(state))).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = parts.map(|(state, count)| format!("{} {state}", words::count(count as u64))).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// The winner and what it gains.
pub fn summary(report: &Report, scores: Option<Markup>) -> Markup {
    let results = &report.results;
    let gains = gains(results);
    let seconds: f64 = results.tasks.iter().map(|row| row.seconds).filter(|s| s.is_finite()).sum();
    let metric = match results.metric {
        Metric::Loss => "loss",
        Metric::Accuracy => "accuracy",
    };
    html! {
        section {
            h2 { "Summary" }
            p.headline { (words::cut(&headline(results), 400)) }
            dl.tiles {
                @if let Some(winner) = report.winner() {
                    div { dt { "Winner, by select " (metric) } dd { (words::cut(&winner.task_id, 100)) } }
                    @if let Some(test) = &winner.test {
                        div { dt { "Test loss" } dd { (words::number(test.loss, 4)) " " small { "± " (words::number(test.loss_standard_error, 4)) } } }
                        div { dt { "Test accuracy" } dd { (format!("{:.2}", 100.0 * test.accuracy)) " % " small { "± " (format!("{:.2}", 100.0 * test.accuracy_standard_error)) } } }
                    } @else if let Some(select) = &winner.select {
                        div { dt { "Select loss" } dd { (words::number(select.loss, 4)) " " small { "± " (words::number(select.loss_standard_error, 4)) } } }
                        div { dt { "Select accuracy" } dd { (format!("{:.2}", 100.0 * select.accuracy)) " % " small { "± " (format!("{:.2}", 100.0 * select.accuracy_standard_error)) } } }
                    }
                }
                div { dt { "Ingredients" } dd { (words::count(results.ingredients.len() as u64)) } }
                div { dt { "Tasks" } dd { (words::count(results.tasks.len() as u64)) } }
                div { dt { "Compute time" } dd { (words::time(seconds)) } }
            }
            @if !gains.is_empty() { (table(&gains)) }
            @if let Some(detail) = report.winner().and_then(|winner| report.detail(&winner.task_id))
                && let Some(soup) = &detail.soup && soup.coefficients.single_ingredient().is_none() {
                p.hint { "Coefficients of the winner: " (spread(soup)) "." }
            }
            @if let Some(scores) = scores { div.wide { (scores) } }
        }
    }
}

fn table(gains: &[Gain]) -> Markup {
    let on_test = gains.iter().all(|gain| gain.on_test);
    html! {
        h3 { "Improvement of the winner" @if on_test { ", on test" } }
        div.scroll { table {
            thead { tr { th { "over" } th { "better?" } th.n { "loss reduction" } th.n { "accuracy gain (points)" } @if !on_test { th { "on" } } } }
            tbody { @for gain in gains {
                tr {
                    td.w { (gain.over.facts().title) }
                    td.w { (verdict(gain.verdict)) }
                    td.n { (words::difference(gain.loss, 1.0, 4)) }
                    td.n { (words::difference(gain.accuracy, 100.0, 2)) }
                    @if !on_test { td { @if gain.on_test { "test" } @else { "select" } } }
                }
            } }
        } }
        p.hint {
            "± is one standard error. The standard error of a difference assumes different samples for the two models. On the same samples it is usually \
             smaller, so these verdicts are cautious. \"Yes\" means more than two standard errors."
            @if !on_test { " The winner was chosen on select, so its scores there are too good. Only a test split can confirm them." }
        }
    }
}

fn verdict(verdict: Verdict) -> Markup {
    html! {
        @match verdict {
            Verdict::Real => span.good { "yes, better" },
            Verdict::Unclear => span.doubt { "cannot be told" },
            Verdict::Worse => span.bad { "no, worse" },
        }
    }
}
