//! Where all of it comes from: hashes, seeds, versions, splits, ingredients.

use maud::{Markup, html};

use super::words;
use crate::report::data::Report;
use crate::sweep::spec::Strategy;

/// Ingredients that are listed.
const MOST: usize = 200;

/// The section.
pub fn provenance(report: &Report) -> Markup {
    let results = &report.results;
    html! {
        section {
            h2 { "Provenance" }
            dl.facts {
                @if !results.generated_by.is_empty() { dt { "Computed by" } dd { (words::cut(&results.generated_by, 100)) } }
                @if let Some(family) = &report.family { dt { "Model family" } dd { (words::cut(family, 100)) } }
                dt { "Specification" } dd.hash {
                    @if results.spec_identity.is_empty() { "not known yet" } @else { (words::cut(&results.spec_identity, 100)) }
                }
                dt { "Zoo and data" } dd.hash {
                    @if results.inputs_hash.is_empty() { "not checked yet" } @else { (words::cut(&results.inputs_hash, 100)) }
                }
                (asked(report))
                (exactness(report))
            }
            @if !report.splits.is_empty() {
                h3 { "Data" }
                div.scroll { table {
                    thead { tr { th { "split" } th.n { "samples" } th { "file" } th { "blake3" } } }
                    tbody { @for split in &report.splits { tr {
                        td.w { (words::cut(&split.split, 40)) }
                        td.n { (words::count(split.samples as u64)) }
                        td.long { (words::cut(&split.path.display().to_string(), 300)) }
                        td.hash.w { (short(&split.hash)) }
                    } } }
                } }
            }
            (ingredients(report))
        }
    }
}

/// What the specification says about chance and choice.
fn asked(report: &Report) -> Markup {
    html! {
        @if let Some(spec) = &report.spec {
            dt { "Seed" } dd { (spec.seed) " (search, split of select); " (spec.soup.seed) " (model batches, data order)" }
            dt { "Search" } dd {
                @match spec.search.strategy { Strategy::Grid => "grid", Strategy::Random => "random", Strategy::Asha => "successive halving (ASHA)" }
                @if !spec.search.space.is_empty() {
                    " over "
                    @for (n, (field, _)) in spec.search.space.iter().take(40).enumerate() { @if n > 0 { ", " } (words::cut(field, 60)) }
                }
            }
            dt { "Select" } dd {
                @if spec.data.select.is_some() { "separate data" }
                @else { (format!("{:.0} % of learn", 100.0 * spec.data.select_fraction)) }
            }
        }
    }
}

/// Whether every result is what an uninterrupted run on one build gives, bit for bit.
fn exactness(report: &Report) -> Markup {
    let told = || report.results.tasks.iter().filter_map(|row| row.exact);
    let inexact = told().filter(|exact| !exact).count();
    html! {
        @if told().next().is_some() {
            dt { "Exactness" } dd {
                @if inexact == 0 { "every result is bit-exact for the build that computed it" }
                @else { (words::count(inexact as u64)) " results are reproducible only within tolerance: their attempts ran on different builds or devices, or on a GPU" }
            }
        }
    }
}

fn ingredients(report: &Report) -> Markup {
    let all = &report.results.ingredients;
    let metrics = report.results.metrics();
    html! {
        @if !all.is_empty() {
            details {
                summary { (words::count(all.len() as u64)) " ingredients" }
                div.scroll { table {
                    thead { tr { th { "ingredient" } @for metric in &metrics { th.n { "select " (metric.facts().shown.heading) } } th { "blake3" } } }
                    tbody { @for ingredient in all.iter().take(MOST) { tr {
                        td.w { (words::cut(&ingredient.name, 100)) }
                        @for metric in &metrics { td.n { (words::score(ingredient.select.as_ref(), *metric)) } }
                        td.hash.w { (short(&ingredient.hash)) }
                    } } }
                } }
                @if all.len() > MOST { p.hint { "And " (words::count((all.len() - MOST) as u64)) " more; all of them are in results.json." } }
            }
        }
    }
}

/// The beginning of a hash: enough to tell files apart. The whole of it is in results.json and manifest.json.
fn short(hash: &str) -> String {
    words::cut(hash, 16)
}
