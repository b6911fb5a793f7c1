//! `[search]`: the space, the points and how tasks are drawn.
//!
//! Searched values are checked by the reader of `[soup]` itself, with the value in its place.

use super::compute::LONGEST_SECONDS;
use super::distribution;
use super::fault::{Faults, Problem, nearest};
use super::inputs;
use super::node::Value;
use super::section::{Field, Section};
use super::soup::{self, Contradiction, KEYS, TOP};
use crate::sweep::spec::{Distribution, MethodName, Overrides, SearchSpec, Strategy};

/// Most tasks of a sweep.
const MOST_TASKS: i64 = 100_000;

/// What searched values are put into.
pub(super) struct Base<'a> {
    /// The fields of `[soup]` as they are in the file.
    pub(super) soup: Vec<Field<'a>>,
    /// The sweep's seed.
    pub(super) seed: u64,
    /// The method of tasks unless it is searched.
    pub(super) method: MethodName,
}

/// Reads `[search]`.
pub(super) fn search<'a>(mut section: Section<'a>, base: &'a Base<'a>, faults: &'a Faults) -> SearchSpec {
    let words = [("grid", Strategy::Grid), ("random", Strategy::Random)];
    let strategy = section.word("strategy", &words);
    // A strategy that is itself at fault says nothing about the rest.
    let known = section.field("strategy").is_none() || strategy.is_some();
    let strategy = strategy.unwrap_or(Strategy::Grid);
    let tasks = section.integer("tasks", 1..=MOST_TASKS);
    match (section.field("tasks"), strategy) {
        (None, Strategy::Random) => {
            section.missing("tasks", &format!("a number from 1 to {MOST_TASKS}, with strategy `random`"))
        }
        (Some(field), Strategy::Grid) if known => {
            section.fault(
                &field,
                Problem::Conflict("is for strategy `random` only, a grid has as many tasks as it spans".into()),
            );
        }
        _ => {}
    }
    let spec = SearchSpec {
        strategy,
        tasks: tasks.map_or(0, |tasks| tasks as usize),
        points: points(&mut section, base, faults),
        space: space(&mut section, base, known.then_some(strategy), faults),
        max_seconds: section
            .number("max_seconds", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(LONGEST_SECONDS))),
        greedy_baseline: section.boolean("greedy_baseline").unwrap_or(false),
    };
    if strategy == Strategy::Grid
        && let Some(field) = section.field("space")
    {
        let size = crate::sweep::space::grid_size(&spec.space, base.method);
        if size > MOST_TASKS as u128 {
            let expected = format!("a grid of at most {MOST_TASKS} tasks");
            section.fault(&field, Problem::Value { expected, found: format!("one of {size}"), nearest: None });
        }
    }
    section.finish();
    spec
}

/// The fields of an overriding table, `zoo = { top = .. }` being another way to write `"zoo.top" = ..`.
fn flattened<'a>(section: &Section<'a>, faults: &'a Faults) -> Vec<Field<'a>> {
    let mut flat: Vec<Field<'a>> = Vec::new();
    for field in section.fields() {
        let fields = if field.key == "zoo" {
            let zoo = Section::of_node(&field.path, field.node, faults);
            zoo.fields().iter().map(|f| Field { key: format!("zoo.{}", f.key), ..f.clone() }).collect()
        } else {
            vec![field.clone()]
        };
        for field in fields {
            if !KEYS.contains(&field.key.as_str()) && field.key != TOP {
                let nearest = nearest(&field.key, KEYS.into_iter().chain([TOP])).unwrap_or_default().to_string();
                faults.add(field.place, &field.path, Problem::UnknownKey { nearest });
            } else if flat.iter().any(|other| other.key == field.key) {
                faults.add(field.place, &field.path, Problem::Conflict(format!("`{}` is given twice", field.key)));
            } else {
                flat.push(field);
            }
        }
    }
    flat
}

/// Adds the faults of `overrides` (each a known key) to `faults`: those that the reader of `[soup]` finds with the values in their place.
/// `prefix` begins the paths of the overrides and of nothing else.
fn check<'b>(
    base: &'b Base<'b>,
    overrides: Vec<Field<'b>>,
    contradiction: Contradiction,
    prefix: &str,
    faults: &Faults,
) {
    let scratch = Faults::default();
    let (top, soup): (Vec<_>, Vec<_>) = overrides.into_iter().partition(|field| field.key == TOP);
    let top = top.into_iter().map(|field| Field { key: "top".into(), ..field }).collect();
    inputs::top(&mut Section::of_fields("zoo", None, top, &scratch));
    let mut fields: Vec<Field<'_>> =
        base.soup.iter().filter(|field| soup.iter().all(|other| other.key != field.key)).cloned().collect();
    fields.extend(soup);
    soup::read(&mut Section::of_fields("soup", None, fields, &scratch), base.seed, contradiction);
    faults.adopt(scratch, prefix);
}

fn points<'a>(section: &mut Section<'a>, base: &'a Base<'a>, faults: &'a Faults) -> Vec<Overrides> {
    let Some(field) = section.field("points") else { return Vec::new() };
    let Value::List(items) = &field.node.value else {
        return section.refuse(&field, "a list of tables").unwrap_or_default();
    };
    let mut points = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{}[{i}]", field.path);
        let fields = flattened(&Section::of_node(&path, item, faults), faults);
        points.push(fields.iter().filter_map(|f| Some((f.key.clone(), f.node.to_json()?))).collect());
        // A point that names only the method leaves the `layer_groups` of `[soup]` to the methods that it suits.
        let contradiction = contradiction(fields.iter().any(|f| f.key == "layer_groups"));
        check(base, fields, contradiction, &path, faults);
    }
    points
}

fn space<'a>(
    section: &mut Section<'a>,
    base: &Base<'a>,
    strategy: Option<Strategy>,
    faults: &'a Faults,
) -> Vec<(String, Distribution)> {
    let fields = flattened(&section.section("space"), faults);
    let method_is_searched = fields.iter().any(|field| field.key == "method");
    let mut space = Vec::new();
    for field in &fields {
        let Some((distribution, samples)) = distribution::read(field, faults) else { continue };
        let continuous = match distribution.values() {
            Distribution::Uniform(..) => Some("`uniform`"),
            Distribution::LogUniform(..) => Some("`log_uniform`"),
            Distribution::LogInt(..) => Some("`log_int`"),
            _ => None,
        };
        if let Some(found) = continuous
            && strategy == Some(Strategy::Grid)
        {
            let expected = "`choice`, `int` or a range with a `step`, of which a grid can be made".to_string();
            let problem = Problem::Value { expected, found: found.into(), nearest: None };
            faults.add(field.node.place, &field.path, problem);
        }
        let contradiction = contradiction(field.key == "layer_groups" && !method_is_searched);
        for (path, node) in &samples {
            let value = Field { key: field.key.clone(), place: field.place, path: path.clone(), node };
            check(base, vec![value], contradiction, path, faults);
        }
        space.push((field.key.clone(), distribution));
    }
    unreachable(&space, &fields, base, faults);
    space
}

/// Adds a fault for each field that depends on methods none of which the search has.
fn unreachable(space: &[(String, Distribution)], fields: &[Field<'_>], base: &Base<'_>, faults: &Faults) {
    let searched = fields.iter().any(|field| field.key == "method");
    let methods: Vec<MethodName> = match space.iter().find(|(key, _)| key == "method") {
        Some((_, Distribution::Choice(names))) => {
            names.iter().filter_map(|name| serde_json::from_value(name.clone()).ok()).collect()
        }
        // It is at fault itself, and nothing is known.
        _ if searched => return,
        _ => vec![base.method],
    };
    for (key, distribution) in space {
        if let Some(field) = fields.iter().find(|field| field.key == *key)
            && !methods.is_empty()
            && !methods.iter().any(|method| distribution.applies_to(*method))
        {
            let problem = Problem::Conflict("no task of this search has a method that `when` names".into());
            faults.add(field.node.place, &field.path, problem);
        }
    }
}

fn contradiction(is_fault: bool) -> Contradiction {
    if is_fault { Contradiction::Fault } else { Contradiction::Tolerated }
}

/// Whether the space has the method.
pub(super) fn searches_method(search: &Section<'_>) -> bool {
    let space = search.fields().iter().find(|field| field.key == "space");
    space.is_some_and(|field| match &field.node.value {
        Value::Table(entries) => entries.iter().any(|entry| entry.key == "method"),
        _ => false,
    })
}
