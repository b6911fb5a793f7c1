//! The report as text for people: what ingredients share is said once, what is odd in full.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};

use super::super::distances::{Distance, Distances, FEWEST, THRESHOLD};
use super::super::mismatch::lines;
use super::{Contents, Inspection, InspectionEntry, TensorContents};

/// Lines of one section; the rest is counted, and whole in JSON.
const LINES: usize = 40;
/// Names in one line; the rest is counted.
const NAMES: usize = 4;

/// The report as a text with tables, `width` characters wide. With `verbose`, differences are told tensor by tensor.
pub fn render(report: &Inspection, width: u16, verbose: bool) -> String {
    let mut text = String::new();
    match (&report.family, &report.family_fault) {
        (Some(family), _) => drop(writeln!(text, "family: {family}")),
        (None, Some(fault)) => drop(writeln!(text, "family: unknown: {fault}")),
        (None, None) => {}
    }
    let bytes: u64 = report.ingredients.iter().map(|entry| entry.bytes).sum();
    let _ = writeln!(text, "{}, {} of tensors\n", count(report.ingredients.len(), "ingredient"), size(bytes));
    let _ = writeln!(text, "{}", summary(report, width));

    let faults = report.ingredients.iter().filter_map(|entry| entry.fault.clone());
    let faults = faults.chain(report.config_faults.iter().map(ToString::to_string));
    let faults = faults.chain(report.model_fault.clone()).chain(report.data_fault.clone());
    section(&mut text, "faults", faults.collect());
    let title = report.reference.as_ref().map(|name| format!("differences from {name}, which most ingredients match"));
    let told = if verbose { differences(report) } else { lines(&report.mismatches) };
    section(&mut text, title.as_deref().unwrap_or("differences"), told);
    if !report.mismatches.is_empty() && !verbose {
        text.push_str("  (--verbose lists every tensor)\n");
    }
    if !report.passed_over.is_empty() {
        let passed_over = report.passed_over.iter().map(|one| format!("{}: {}", one.path.display(), one.reason));
        section(&mut text, "skipped", passed_over.collect());
    }
    if !report.notes.is_empty() {
        section(&mut text, "notes", report.notes.clone());
    }
    if !report.is_model_checked && report.family.is_some() && report.is_sound() {
        text.push_str("\nnot checked: whether the model is supported (needs mehl-soup-worker)\n");
    }
    match &report.contents {
        Some(contents) => add_contents(&mut text, report, contents),
        None => {
            text += "\nnot checked: contents: frozen and tied tensors, equal ingredients, values that \
                     are not finite (--hash)\n"
        }
    }
    if let Some(fault) = &report.distances_fault {
        let _ = writeln!(text, "\nno distances: {fault}");
    }
    if let Some(distances) = &report.distances {
        let _ = writeln!(text, "\n{}", distance_table(report, distances, width));
    }
    text
}

fn section(text: &mut String, title: &str, lines: Vec<String>) {
    if lines.is_empty() {
        let _ = writeln!(text, "\n{title}: none");
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines.iter().take(LINES) {
        let _ = writeln!(text, "  {line}");
    }
    if lines.len() > LINES {
        let _ = writeln!(text, "  and {} more (--format json has all)", lines.len() - LINES);
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// The first names, and how many more there are.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = all.len().saturating_sub(NAMES);
    let mut shown = all.take(NAMES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(shown, " and {more} more");
    }
    shown
}

fn new_table(width: u16, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_width(width).set_header(header);
    table
}

/// One row for all ingredients with the same numbers.
fn summary(report: &Inspection, width: u16) -> Table {
    let mut table = new_table(width, &["ingredients", "", "files", "tensors", "parameters", "bytes each", "dtypes"]);
    let mut alike: Vec<(&InspectionEntry, Vec<&str>)> = Vec::new();
    for entry in &report.ingredients {
        let same = |(other, _): &&mut (&InspectionEntry, Vec<&str>)| {
            let numbers = |e: &InspectionEntry| (e.files, e.tensors, e.parameters, e.bytes, e.fault.is_some());
            numbers(other) == numbers(entry) && other.dtypes == entry.dtypes
        };
        match alike.iter_mut().find(same) {
            Some((_, members)) => members.push(&entry.name),
            None => alike.push((entry, vec![&entry.name])),
        }
    }
    for (entry, members) in alike {
        let dtypes = entry
            .dtypes
            .iter()
            .map(|(dtype, n)| if entry.dtypes.len() == 1 { dtype.clone() } else { format!("{dtype} {n}") });
        table.add_row([
            members.len().to_string(),
            names(members.into_iter().collect::<Vec<_>>().into_iter()),
            entry.files.to_string(),
            entry.tensors.to_string(),
            entry.parameters.to_string(),
            size(entry.bytes),
            if entry.fault.is_some() { "see faults".into() } else { dtypes.collect::<Vec<_>>().join(", ") },
        ]);
    }
    for column in [0, 2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// One line a tensor and difference, with the ingredients that have it.
fn differences(report: &Inspection) -> Vec<String> {
    let by_path: BTreeMap<_, &str> = report.ingredients.iter().map(|e| (&e.path, e.name.as_str())).collect();
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for mismatch in &report.mismatches {
        let what = format!("tensor `{}`: {}", mismatch.tensor, mismatch.difference);
        let name = by_path.get(&mismatch.path).copied().unwrap_or_default();
        let i = *at.entry(what.clone()).or_insert_with(|| {
            lines.push((what, Vec::new()));
            lines.len() - 1
        });
        lines[i].1.push(name);
    }
    lines.into_iter().map(|(what, members)| format!("{what}: {}", names(members.into_iter()))).collect()
}

fn add_contents(text: &mut String, report: &Inspection, contents: &Contents) {
    let not_finite = contents.not_finite.iter().map(|bad| {
        let (ingredient, tensor) = (&bad.ingredient, &bad.tensor);
        format!("{ingredient}: tensor `{tensor}`: {} at element {}; there may be more", bad.value, bad.element)
    });
    section(text, "not finite", not_finite.collect());
    let equal = contents.equal.iter().map(|group| names(group.iter().map(String::as_str)));
    section(text, "ingredients with equal contents", equal.collect());
    let Some(TensorContents { mixed, frozen, tied, statistics, copied }) = &contents.tensors else {
        text.push_str("\nfrozen and tied tensors: unknown, because some ingredients have faults or differences\n");
        return;
    };
    let all = report.ingredients.first().map_or(0, |entry| entry.tensors);
    let _ = writeln!(text, "\n{mixed} of {all} tensors are mixed");
    section(text, "frozen (equal in all ingredients)", frozen.clone());
    section(text, "tied", tied.iter().map(|(name, to)| format!("{name} = {to}")).collect());
    if !statistics.is_empty() {
        section(text, "running statistics that differ (recomputed for a soup)", statistics.clone());
    }
    if !copied.is_empty() {
        section(text, "copied (not a float dtype)", copied.clone());
    }
}

fn distance_table(report: &Inspection, distances: &Distances, width: u16) -> String {
    let mut table = new_table(width, &["ingredient", "distance", "z", "largest group's", "group", "stands out in"]);
    for (entry, of) in report.ingredients.iter().zip(&distances.ingredients) {
        let largest = of.groups.iter().enumerate().max_by(|(_, a), (_, b)| a.relative.total_cmp(&b.relative));
        let outside = of.groups.iter().zip(&distances.groups).filter(|(distance, _)| distance.stands_out());
        let mut marks: Vec<String> = outside.map(|(_, group)| group.clone()).collect();
        marks.truncate(NAMES + 1);
        let more = of.groups.iter().filter(|distance| distance.stands_out()).count() - marks.len();
        if more > 0 {
            marks.push(format!("{more} more"));
        }
        if of.overall.stands_out() {
            marks.insert(0, "ALL".into());
        }
        table.add_row([
            entry.name.clone(),
            number(of.overall.relative),
            z(&of.overall),
            largest.map(|(_, distance)| number(distance.relative)).unwrap_or_default(),
            largest.map(|(i, _)| distances.groups[i].clone()).unwrap_or_default(),
            marks.join(", "),
        ]);
    }
    for column in [1, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let rule = if distances.ingredients.len() < FEWEST {
        format!("outliers are shown for {FEWEST} or more ingredients")
    } else {
        format!(
            "stands out: modified z-score above {THRESHOLD} (Iglewicz and Hoaglin 1993); ALL: over all layer groups"
        )
    };
    format!("distance from the mean, relative to its norm; {rule}\n{table}")
}

fn number(value: f64) -> String {
    if value.is_infinite() { "mean is 0".into() } else { format!("{value:.3e}") }
}

fn z(distance: &Distance) -> String {
    distance.z.map(|z| format!("{z:+.1}")).unwrap_or_default()
}
