//! The values of one searched field: a bare list, or a table with one of `choice`, `uniform`, `log_uniform`, `int`.

use super::fault::{Faults, Problem};
use super::node::{Node, Value};
use super::section::{Field, Section, wrong};
use crate::sweep::spec::Distribution;

const DISTRIBUTIONS: &str = "a list of values, or a table with one of `choice`, `uniform`, `log_uniform`, `int`";

/// A value that the field itself must take, with its path.
pub(super) type Sample = (String, Node);

/// Reads a distribution together with its values, or the two ends of its range; `None` if it is at fault.
/// Whether the field takes the values is for the caller to check.
pub(super) fn read<'a>(field: &Field<'a>, faults: &'a Faults) -> Option<(Distribution, Vec<Sample>)> {
    if let Value::List(_) = field.node.value {
        return choice(field, faults);
    }
    let Value::Table(_) = field.node.value else {
        faults.add(field.node.place, &field.path, wrong(DISTRIBUTIONS, field.node));
        return None;
    };
    let mut section = Section::of_node(&field.path, field.node, faults);
    let kinds = ["choice", "uniform", "log_uniform", "int"];
    let given: Vec<_> = kinds.into_iter().filter_map(|kind| section.field(kind).map(|inner| (kind, inner))).collect();
    let unknown = section.fields().len() > given.len();
    section.finish();
    match given.as_slice() {
        [("choice", inner)] => choice(inner, faults),
        [("int", inner)] => {
            let (low, high) = pair(inner, whole, "whole numbers", faults)?;
            let ends = samples(inner, Node::clone);
            in_order(inner, low <= high, faults).then_some((Distribution::Int(low, high), ends))
        }
        [(kind, inner)] => {
            let (low, high) = pair(inner, finite, "finite numbers", faults)?;
            if !in_order(inner, low < high, faults) {
                return None;
            }
            // Values in between are fractions, so a field of whole numbers must refuse even whole ends.
            let ends = samples(inner, |node| Node {
                place: node.place,
                value: finite(node).map_or(Value::Null, Value::Float),
            });
            if *kind == "uniform" {
                return Some((Distribution::Uniform(low, high), ends));
            }
            if low <= 0.0 {
                let problem = Problem::Value {
                    expected: "ends above 0, for the logarithm".into(),
                    found: format!("{low}"),
                    nearest: None,
                };
                faults.add(inner.node.place, &inner.path, problem);
                return None;
            }
            Some((Distribution::LogUniform(low, high), ends))
        }
        // The unknown key was told already.
        [] if unknown => None,
        [] => {
            faults.add(field.node.place, &field.path, wrong(DISTRIBUTIONS, field.node));
            None
        }
        several => {
            let found = several.iter().map(|(kind, _)| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
            let problem = Problem::Value { expected: DISTRIBUTIONS.into(), found, nearest: None };
            faults.add(field.node.place, &field.path, problem);
            None
        }
    }
}

fn choice(field: &Field<'_>, faults: &Faults) -> Option<(Distribution, Vec<Sample>)> {
    match &field.node.value {
        Value::List(items) if !items.is_empty() => {
            let values = items.iter().filter_map(Node::to_json).collect();
            Some((Distribution::Choice(values), samples(field, Node::clone)))
        }
        _ => {
            faults.add(field.node.place, &field.path, wrong("a list of values that is not empty", field.node));
            None
        }
    }
}

fn items<'a>(field: &Field<'a>) -> &'a [Node] {
    match &field.node.value {
        Value::List(items) => items,
        _ => &[],
    }
}

fn samples(field: &Field<'_>, value: impl Fn(&Node) -> Node) -> Vec<Sample> {
    items(field).iter().enumerate().map(|(i, item)| (format!("{}[{i}]", field.path), value(item))).collect()
}

/// The two ends of a range.
fn pair<T>(field: &Field<'_>, end: impl Fn(&Node) -> Option<T>, what: &str, faults: &Faults) -> Option<(T, T)> {
    let ends = match items(field) {
        [low, high] => end(low).zip(end(high)),
        _ => None,
    };
    if ends.is_none() {
        faults.add(field.node.place, &field.path, wrong(&format!("[low, high], both {what}"), field.node));
    }
    ends
}

fn in_order(field: &Field<'_>, ordered: bool, faults: &Faults) -> bool {
    if !ordered {
        let ends: Vec<String> = items(field).iter().map(Node::found).collect();
        let found = format!("[{}]", ends.join(", "));
        let problem = Problem::Value { expected: "[low, high] with low below high".into(), found, nearest: None };
        faults.add(field.node.place, &field.path, problem);
    }
    ordered
}

fn whole(node: &Node) -> Option<i64> {
    match node.value {
        Value::Integer(value) => Some(value),
        _ => None,
    }
}

fn finite(node: &Node) -> Option<f64> {
    match node.value {
        Value::Integer(value) => Some(value as f64),
        Value::Float(value) if value.is_finite() => Some(value),
        _ => None,
    }
}
