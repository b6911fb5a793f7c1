//! `[search]`: strategy, points, space. Every value is checked by the reader of the field it stands for.

use std::collections::BTreeMap;

use super::node::{Node, Place, Value};
use super::section::{Fault, Faults, Section, nearest};
use super::soup;
use crate::sweep::spec::{Distribution, Overrides, SearchSpec, Strategy};

/// Tasks that one sweep may have.
pub const MOST_TASKS: u64 = 100_000;

/// The key that is not one of `[soup]`.
pub const TOP: &str = "zoo.top";

/// Reads `[search]`; `given` are the fields of `[soup]` that searched values replace.
pub fn read(node: Option<&Node>, given: &Overrides, faults: &mut Faults) -> SearchSpec {
    let mut section = Section::new("search", node, faults);
    let check = Check { given };
    let points = match section.get("points").map(|node| (node, &node.value)) {
        None => vec![],
        Some((_, Value::List(items))) => items.iter().map(|item| check.point(item, faults)).collect(),
        Some((node, _)) => {
            faults.add(node.place, "search.points", format!("expected a list of tables, found {}", node.shown()));
            vec![]
        }
    };
    let mut space = Vec::new();
    if let Some(node) = section.get("space") {
        for (key, place, value) in fields(node, "search.space", faults) {
            if check.known(&key, "search.space", place, faults)
                && let Some(distribution) = check.distribution(&key, value, faults)
            {
                space.push((key, distribution));
            }
        }
    }
    let words = [("grid", Strategy::Grid), ("random", Strategy::Random)];
    let strategy = section.word("strategy", &words, faults).unwrap_or(Strategy::Grid);
    let tasks_place = section.get("tasks").map(|node| node.place);
    let tasks = section.whole("tasks", 1, faults);
    match (strategy, tasks, tasks_place) {
        (Strategy::Random, None, None) => section.missing("tasks", faults),
        (Strategy::Random, Some(n), Some(place)) if n > MOST_TASKS => {
            faults.add(place, "search.tasks", format!("expected at most {MOST_TASKS}, found {n}"));
        }
        (Strategy::Random, _, _) if space.is_empty() && faults.0.is_empty() => section.missing("space", faults),
        (Strategy::Grid, Some(_), Some(place)) => {
            faults.add(
                place,
                "search.tasks",
                "expected nothing with strategy `grid`, whose space says how many there are",
            );
        }
        _ => {}
    }
    if strategy == Strategy::Grid {
        check_grid(&space, section.place(), faults);
    }
    let search = SearchSpec {
        strategy,
        tasks: tasks.unwrap_or(0).min(MOST_TASKS) as usize,
        points,
        space,
        max_seconds: section.number("max_seconds", |v| v > 0.0, "a number above 0", faults),
        greedy_baseline: section.flag("greedy_baseline", faults).unwrap_or(false),
    };
    section.finish(faults);
    search
}

fn check_grid(space: &[(String, Distribution)], place: Place, faults: &mut Faults) {
    let mut product: u128 = 1;
    for (key, distribution) in space {
        let count = match distribution {
            Distribution::Choice(values) => values.len() as u128,
            Distribution::Int(low, high) => (high - low + 1) as u128,
            _ => {
                let what = "expected a choice or an int with strategy `grid`; use strategy `random` for a range";
                faults.add(place, format!("search.space.{key}"), what);
                1
            }
        };
        product = product.saturating_mul(count);
    }
    if product > u128::from(MOST_TASKS) {
        faults.add(place, "search.space", format!("expected a grid of at most {MOST_TASKS} tasks, found {product}"));
    }
}

/// The entries of a table, `zoo = { top = .. }` flattened.
fn fields<'a>(node: &'a Node, path: &str, faults: &mut Faults) -> Vec<(String, Place, &'a Node)> {
    let Value::Table(table) = &node.value else {
        faults.add(node.place, path, format!("expected a table, found {}", node.shown()));
        return vec![];
    };
    let mut flat = Vec::new();
    for (key, place, value) in table {
        match &value.value {
            Value::Table(inner) if key == "zoo" => {
                flat.extend(inner.iter().map(|(key, place, value)| (format!("zoo.{key}"), *place, value)));
            }
            _ => flat.push((key.clone(), *place, value)),
        }
    }
    flat
}

struct Check<'a> {
    given: &'a Overrides,
}

impl Check<'_> {
    fn known(&self, key: &str, path: &str, place: Place, faults: &mut Faults) -> bool {
        let all = || soup::FIELDS.iter().copied().chain([TOP]);
        if all().any(|known| known == key) {
            return true;
        }
        let hint = nearest(key, all()).map_or_else(
            || "fields of [soup] and zoo.top can be searched".to_string(),
            |near| format!("did you mean `{near}`?"),
        );
        faults.add(place, format!("{path}.{key}"), format!("is not known; {hint}"));
        false
    }

    /// Checks one value as the field's own reader would.
    fn value(&self, key: &str, path: &str, node: &Node, faults: &mut Faults) {
        let mut own = Faults::default();
        if key == TOP {
            let fields = [("top".to_string(), node.place, node.clone())];
            let table = Node { value: Value::Table(fields.to_vec()), place: node.place };
            Section::new("zoo", Some(&table), &mut own).whole("top", 1, &mut own);
        } else {
            let overrides = BTreeMap::from([(key.to_string(), node.to_json())]);
            soup::read(Some(&soup::with_overrides(self.given, &overrides)), 0, true, &mut own);
            // Faults of what is given are told where it is given.
            own.0.retain(|fault| fault.key == format!("soup.{key}"));
        }
        faults.0.extend(own.0.into_iter().map(|fault| Fault {
            place: node.place,
            key: format!("{path}.{key}"),
            ..fault
        }));
    }

    fn point(&self, node: &Node, faults: &mut Faults) -> Overrides {
        let mut point = Overrides::new();
        for (key, place, value) in fields(node, "search.points", faults) {
            if self.known(&key, "search.points", place, faults) {
                self.value(&key, "search.points", value, faults);
                point.insert(key, value.to_json());
            }
        }
        point
    }

    fn distribution(&self, key: &str, node: &Node, faults: &mut Faults) -> Option<Distribution> {
        let path = "search.space";
        let full = format!("{path}.{key}");
        let (kind, items) = match &node.value {
            Value::List(items) => ("choice", items),
            Value::Table(table) => match table.as_slice() {
                [(kind, place, Node { value: Value::List(items), .. })] => {
                    const KINDS: [&str; 4] = ["choice", "uniform", "log_uniform", "int"];
                    let Some(known) = KINDS.iter().find(|known| *known == kind) else {
                        let hint = nearest(kind, KINDS).map(|near| format!("; did you mean `{near}`?"));
                        let what =
                            format!("expected one of {}, found `{kind}`{}", KINDS.join(", "), hint.unwrap_or_default());
                        faults.add(*place, full, what);
                        return None;
                    };
                    (*known, items)
                }
                _ => {
                    faults.add(node.place, full, "expected one of choice, uniform, log_uniform, int, with a list");
                    return None;
                }
            },
            _ => {
                faults.add(node.place, full, format!("expected a list or a distribution, found {}", node.shown()));
                return None;
            }
        };
        for item in items {
            self.value(key, path, item, faults);
        }
        if kind == "choice" {
            if items.is_empty() {
                faults.add(node.place, full, "expected at least one value, found none");
            }
            return Some(Distribution::Choice(items.iter().map(Node::to_json).collect()));
        }
        let numbers: Vec<f64> = items
            .iter()
            .filter_map(|item| match item.value {
                Value::Int(whole) => Some(whole as f64),
                Value::Float(number) => Some(number),
                _ => None,
            })
            .collect();
        let (&[low, high], 2) = (numbers.as_slice(), items.len()) else {
            faults.add(node.place, full, format!("expected two numbers, found {} values", items.len()));
            return None;
        };
        if low > high || !low.is_finite() || !high.is_finite() {
            faults.add(node.place, full, format!("expected [low, high], found [{low}, {high}]"));
            return None;
        }
        match kind {
            "uniform" => Some(Distribution::Uniform(low, high)),
            "log_uniform" if low > 0.0 => Some(Distribution::LogUniform(low, high)),
            "int" if low.fract() == 0.0 && high.fract() == 0.0 => Some(Distribution::Int(low as i64, high as i64)),
            "int" => {
                faults.add(node.place, full, format!("expected whole numbers, found [{low}, {high}]"));
                None
            }
            _ => {
                faults.add(node.place, full, format!("expected numbers above 0, found [{low}, {high}]"));
                None
            }
        }
    }
}
