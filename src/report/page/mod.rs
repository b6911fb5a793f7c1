//! The page: one file of HTML with everything in it.
//!
//! | file | holds |
//! |---|---|
//! | `summary` | how far it is, who won, what that gains |
//! | `tables` | leaderboard, what is not on it, causes of failures |
//! | `provenance` | hashes, seeds, versions, splits, ingredients |
//! | `words` | numbers and names as they are written |
//!
//! All text goes through maud, which escapes it; the only markup that is taken as such are the drawings, whose library escapes theirs.

mod provenance;
mod summary;
mod tables;
mod words;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::data::Report;
use super::plots::{Part, Plot, PlotError, plots, style_sheet};

/// Keeps the browser from fetching or running anything, whatever the page holds.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("style.css");

/// The page of a report.
///
/// # Errors
/// If the plotting library fails.
pub fn render(report: &Report) -> Result<String, PlotError> {
    let plots = plots(report)?;
    let name = words::cut(&report.results.name, 200);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="color-scheme" content="light dark";
                title { (name) " · mehl-soup" }
                style { (PreEscaped(style_sheet())) (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        p.kind { "mehl-soup sweep" }
                        h1 { (name) }
                    }
                    (summary::standing(report))
                    (summary::summary(report, figures(&plots, Part::Scores)))
                    (tables::leaderboard(report))
                    (curves(&plots))
                    (coefficients(&plots))
                    (part(&plots, Part::Shares, "Share of each ingredient",
                        "Mean of an ingredient's coefficients over layer groups; each group counts once. The dark line \
                         shows their range. It is clipped where it goes far beyond the shares. Shares sum to 1."))
                    (part(&plots, Part::Space, "Hyperparameters",
                        "Each dot is a task; lower is better. A hollow dot is a task that was stopped early, with its score at that time. \
                         The axis is logarithmic if the values span more than a factor of twenty."))
                    (part(&plots, Part::Effort, "Memory and throughput",
                        "Last attempt of each task, measured by its worker. Workers on the same machine share its memory and cores."))
                    (provenance::provenance(report))
                    footer { p { "Made by mehl-soup " (env!("CARGO_PKG_VERSION")) ". This file is self-contained; it loads nothing from the network." } }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn figure(plot: &Plot) -> Markup {
    html! { figure role="img" aria-label=(plot.about) { (PreEscaped(plot.inline())) } }
}

fn figures(plots: &[Plot], part: Part) -> Option<Markup> {
    let mut wanted = plots.iter().filter(|plot| plot.part == part).peekable();
    wanted.peek()?;
    Some(html! { @for plot in wanted { (figure(plot)) } })
}

fn part(plots: &[Plot], part: Part, heading: &str, hint: &str) -> Markup {
    html! {
        @if let Some(figures) = figures(plots, part) {
            section { h2 { (heading) } p.hint { (hint) } div.plots { (figures) } }
        }
    }
}

fn curves(plots: &[Plot]) -> Markup {
    part(
        plots,
        Part::Curves,
        "Loss over iterations",
        "The best tasks. The thin line is the loss on each batch of learn; its highest 2 % are clipped. Dots are the loss on all of select. \
         The dashed line is the best ingredient on select. For unfinished tasks, inner epochs are shown.",
    )
}

fn coefficients(plots: &[Plot]) -> Markup {
    let maps = plots.iter().filter(|plot| plot.part == Part::Coefficients);
    let maps: Vec<&Plot> = maps.collect();
    html! {
        @if !maps.is_empty() {
            section.maps {
                h2 { "Coefficients" }
                p.hint {
                    "Coefficient of each ingredient in each layer group: blue is positive, orange is negative, blank is zero. Each column sums to 1. \
                     Coefficients below 0 or above 1 extrapolate beyond the ingredients."
                }
                @for plot in maps {
                    figure role="img" aria-label=(plot.about) {
                        div.scroll { (PreEscaped(plot.inline())) }
                        figcaption { (plot.about) "." }
                    }
                }
            }
        }
    }
}
