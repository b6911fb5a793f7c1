//! How far the sweep is, who won, and what that gains.

use maud::{Markup, html};

use super::words;
use crate::report::data::{Report, Standing, standing as stands};
use crate::report::plots::spread;
use crate::report::verdict::headline;
use crate::sweep::metric::Metric;
use crate::sweep::paired::{Comparison, SPLITS, Verdict};
use crate::sweep::results::SweepResults;
use crate::sweep::score::SplitScore;
use crate::sweep::task::Origin;
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
    let seconds: f64 = results.tasks.iter().map(|row| row.seconds).filter(|s| s.is_finite()).sum();
    html! {
        section {
            h2 { "Summary" }
            p.headline { (words::cut(&headline(results), 400)) }
            dl.tiles {
                @if let Some(winner) = report.winner() {
                    div { dt { "Winner, by select " (results.metric) } dd { (words::cut(&winner.task_id, 100)) } }
                    @if let Some(test) = &winner.test { (tiles("Test", test)) }
                    @else if let Some(select) = &winner.select { (tiles("Select", select)) }
                }
                div { dt { "Ingredients" } dd { (words::count(results.ingredients.len() as u64)) } }
                div { dt { "Tasks" } dd { (words::count(results.tasks.len() as u64)) } }
                div { dt { "Compute time" } dd { (words::time(seconds)) } }
            }
            (comparisons(results))
            @if let Some(detail) = report.winner().and_then(|winner| report.detail(&winner.task_id))
                && let Some(soup) = &detail.soup && soup.coefficients.single_ingredient().is_none() {
                p.hint { "Coefficients of the winner: " (spread(soup)) "." }
            }
            @if let Some(scores) = scores { div.wide { (scores) } }
        }
    }
}

/// Loss and metrics of the winner.
fn tiles(split: &str, score: &SplitScore) -> Markup {
    html! {
        @for (metric, estimate) in score.all() {
            @let shown = metric.facts().shown;
            div {
                dt { (split) " " (metric) }
                dd {
                    (words::number(shown.factor * estimate.value, shown.digits)) (shown.unit) " "
                    small { "± " (words::number(shown.factor * estimate.standard_error, shown.digits)) }
                }
            }
        }
    }
}

/// The winner against the baselines and the runner-up.
fn comparisons(results: &SweepResults) -> Markup {
    let all = &results.comparisons;
    let split = SPLITS.into_iter().find(|split| all.iter().any(|one| one.split == *split));
    let on_split: Vec<&Comparison> = all.iter().filter(|one| Some(one.split.as_str()) == split).collect();
    let mut others: Vec<&str> = on_split.iter().map(|one| one.other.as_str()).collect();
    others.dedup();
    let metrics = results.metrics();
    let of =
        |other: &str, metric: Metric| on_split.iter().copied().find(|one| one.other == other && one.metric == metric);
    let unpaired = on_split.iter().any(|one| !one.paired);
    html! {
        @if let Some(split) = split {
            h3 { "The winner against others, on " (split) }
            div.scroll { table {
                thead { tr {
                    th { "against" } th { "by " (results.metric) " the winner is" }
                    @for metric in &metrics { th.n { (metric.facts().shown.heading) ", difference" } }
                } }
                tbody { @for other in &others { tr {
                    td.w { (title(results, other)) }
                    td.w { @if let Some(one) = of(other, results.metric) { (verdict(results, one)) } }
                    @for metric in &metrics { td.n { @if let Some(one) = of(other, *metric) { (words::difference(one)) } } }
                } } }
            } }
            p.hint {
                "Differences are the winner's value less the other's; ± is one standard error. Better and worse mean more than two standard errors."
                @if unpaired { " For some of these, values of single " (results.unit().plural()) " are not kept. Their standard errors are those of independent scores, which are usually larger." }
                @else { " Both models were scored on the same " (results.unit().plural()) ", which are compared one by one." }
                @if split != "test" { " The winner was chosen on select, so its scores there are too good. Only a test split can confirm them." }
            }
        }
    }
}

fn title(results: &SweepResults, id: &str) -> String {
    match results.tasks.iter().find(|row| row.task_id == id) {
        Some(row) if row.origin == Origin::Baseline => row.method.facts().title.to_string(),
        _ => format!("runner-up, {}", words::cut(id, 100)),
    }
}

fn verdict(results: &SweepResults, comparison: &Comparison) -> Markup {
    let words = comparison.words(results.unit().plural());
    html! {
        @match comparison.verdict {
            Verdict::Better => span.good { (words) },
            Verdict::CannotBeTold => span.doubt { (words) },
            Verdict::Worse => span.bad { (words) },
        }
    }
}
