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
use crate::sweep::asha::epochs;
use crate::sweep::spec::{Asha, Distribution, MethodName, Overrides, SearchSpec, SoupSpec, Strategy};

/// Most tasks of a sweep.
const MOST_TASKS: i64 = 100_000;
/// Largest `search.eta`.
const LARGEST_ETA: i64 = 1000;

/// What searched values are put into.
pub(super) struct Base<'a> {
    /// The fields of `[soup]` as they are in the file.
    pub(super) soup: Vec<Field<'a>>,
    /// The sweep's seed.
    pub(super) seed: u64,
    /// What `[soup]` says, defaults included.
    pub(super) resolved: SoupSpec,
}

/// Reads `[search]`.
pub(super) fn search<'a>(mut section: Section<'a>, base: &'a Base<'a>, faults: &'a Faults) -> SearchSpec {
    let words = [("grid", Strategy::Grid), ("random", Strategy::Random), ("asha", Strategy::Asha)];
    let strategy = section.word("strategy", &words);
    // A strategy that is itself at fault says nothing about the rest.
    let known = section.field("strategy").is_none() || strategy.is_some();
    let strategy = strategy.unwrap_or(Strategy::Grid);
    let tasks = section.integer("tasks", 1..=MOST_TASKS);
    match (section.field("tasks"), strategy) {
        (None, Strategy::Random | Strategy::Asha) => {
            let name = if strategy == Strategy::Asha { "asha" } else { "random" };
            section.missing("tasks", &format!("a number from 1 to {MOST_TASKS} (required with strategy `{name}`)"))
        }
        (Some(field), Strategy::Grid) if known => {
            let why = "can only be used with strategies `random` and `asha`; the number of tasks of a grid follows from its values";
            section.fault(&field, Problem::Conflict(why.into()));
        }
        _ => {}
    }
    let eta = section.integer("eta", 2..=LARGEST_ETA);
    let grace = section.count("grace");
    for key in ["eta", "grace"] {
        if let Some(field) = section.field(key)
            && known
            && strategy != Strategy::Asha
        {
            section.fault(&field, Problem::Conflict("can only be used with strategy `asha`".into()));
        }
    }
    let asha = Asha { eta: eta.map_or(Asha::ETA, |eta| eta as usize), grace: grace.unwrap_or(Asha::GRACE) };
    let spec = SearchSpec {
        strategy,
        tasks: tasks.map_or(0, |tasks| tasks as usize),
        asha: (strategy == Strategy::Asha).then_some(asha),
        points: points(&mut section, base, faults),
        space: space(&mut section, base, known.then_some(strategy), faults),
        max_seconds: section
            .number("max_seconds", (std::ops::Bound::Excluded(0.0), std::ops::Bound::Included(LONGEST_SECONDS))),
        greedy_baseline: section.boolean("greedy_baseline").unwrap_or(false),
    };
    if strategy == Strategy::Grid
        && let Some(field) = section.field("space")
    {
        let size = crate::sweep::space::grid_size(&spec.space, base.resolved.method);
        if size > MOST_TASKS as u128 {
            let expected = format!("a grid of at most {MOST_TASKS} tasks");
            section.fault(&field, Problem::Value { expected, found: format!("one of {size}"), nearest: None });
        }
    }
    if strategy == Strategy::Asha
        && spec.points.is_empty()
        && let Some(field) = section.field("strategy")
    {
        let longest = longest(&spec.space, base);
        if longest <= asha.grace as u64 {
            let why = format!(
                "no task of this search reaches a rung: the first rung is at {} epochs, the \
                 longest task has {longest} \
                 (outer epochs for `mehl`, inner ones for `hl` and `learned`)",
                asha.grace
            );
            section.fault(&field, Problem::Conflict(why));
        }
    }
    section.finish();
    spec
}

/// At least the epochs of the longest task, as rungs count them.
fn longest(space: &[(String, Distribution)], base: &Base<'_>) -> u64 {
    let searched = |key: &str| space.iter().find(|(of, _)| of == key).map(|(_, distribution)| distribution.values());
    let most = |key: &str, base: usize| match searched(key) {
        Some(Distribution::Int(_, high) | Distribution::LogInt(_, high) | Distribution::StepInt(_, high, _)) => {
            base.max(*high as usize)
        }
        Some(Distribution::Choice(values)) => {
            values.iter().filter_map(serde_json::Value::as_u64).fold(base, |most, value| most.max(value as usize))
        }
        _ => base,
    };
    let (inner, outer) =
        (most("inner_epochs", base.resolved.inner_epochs), most("outer_epochs", base.resolved.outer_epochs));
    methods(space, base).into_iter().filter_map(|method| epochs(method, inner, outer)).max().unwrap_or(0)
}

/// The methods that tasks of a space can have.
fn methods(space: &[(String, Distribution)], base: &Base<'_>) -> Vec<MethodName> {
    match space.iter().find(|(key, _)| key == "method") {
        Some((_, Distribution::Choice(names))) => {
            names.iter().filter_map(|name| serde_json::from_value(name.clone()).ok()).collect()
        }
        _ => vec![base.resolved.method],
    }
}

/// Every method that a task of the search can have, where `[soup]` has this one.
pub(super) fn methods_of(search: &SearchSpec, base: MethodName) -> Vec<MethodName> {
    let read = |name: &serde_json::Value| serde_json::from_value(name.clone()).ok();
    let searched = match search.space.iter().find(|(key, _)| key == "method") {
        Some((_, Distribution::Choice(names))) => names.iter().filter_map(read).collect(),
        _ => vec![base],
    };
    let points = search.points.iter().filter_map(|point| point.get("method").and_then(read));
    searched.into_iter().chain(points).collect()
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
                faults.add(field.place, &field.path, Problem::Conflict(format!("`{}` appears twice", field.key)));
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
    contradiction: &Contradiction,
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
        // A point that names only the method leaves what `[soup]` says to the methods that it suits.
        let contradiction = Contradiction::of_keys(fields.iter().map(|f| f.key.as_str()));
        check(base, fields, &contradiction, &path, faults);
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
            let expected = "`choice`, `int` or a range with a `step` (a grid needs a finite list of \
                 values)"
                .to_string();
            let problem = Problem::Value { expected, found: found.into(), nearest: None };
            faults.add(field.node.place, &field.path, problem);
        }
        let contradiction = match method_is_searched {
            true => Contradiction::Tolerated,
            false => Contradiction::of_keys(std::iter::once(field.key.as_str())),
        };
        for (path, node) in &samples {
            let value = Field { key: field.key.clone(), place: field.place, path: path.clone(), node };
            check(base, vec![value], &contradiction, path, faults);
        }
        space.push((field.key.clone(), distribution));
    }
    unreachable(&space, &fields, base, faults);
    space
}

/// Adds a fault for each field that depends on methods none of which the search has.
fn unreachable(space: &[(String, Distribution)], fields: &[Field<'_>], base: &Base<'_>, faults: &Faults) {
    if fields.iter().any(|field| field.key == "method") && !space.iter().any(|(key, _)| key == "method") {
        // It is at fault itself, and nothing is known.
        return;
    }
    let methods = methods(space, base);
    for (key, distribution) in space {
        if let Some(field) = fields.iter().find(|field| field.key == *key)
            && !methods.is_empty()
            && !methods.iter().any(|method| distribution.applies_to(*method))
        {
            let problem = Problem::Conflict("no task of this search uses a method that is listed in `when`".into());
            faults.add(field.node.place, &field.path, problem);
        }
    }
}

/// Whether the space has the method.
pub(super) fn searches_method(search: &Section<'_>) -> bool {
    let space = search.fields().iter().find(|field| field.key == "space");
    space.is_some_and(|field| match &field.node.value {
        Value::Table(entries) => entries.iter().any(|entry| entry.key == "method"),
        _ => false,
    })
}
