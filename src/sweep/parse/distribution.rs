//! The values of one searched field: a bare list, or a table with one of `choice`, `uniform`, `log_uniform`, `int`, `log_int`, and besides
//! how far they are apart (`step`) and the methods that they are for (`when`).

use super::fault::{Faults, Problem};
use super::node::{Node, Value};
use super::section::{Field, Section, wrong};
use crate::sweep::spec::{Distribution, MethodName};

const DISTRIBUTIONS: &str =
    "a list of values, or a table with one of `choice`, `uniform`, `log_uniform`, `int`, `log_int`";

/// Most steps of a range.
const MOST_STEPS: f64 = 1e9;

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
    let kinds = ["choice", "uniform", "log_uniform", "int", "log_int"];
    let given: Vec<_> = kinds.into_iter().filter_map(|kind| section.field(kind).map(|inner| (kind, inner))).collect();
    let (step, when) = (section.field("step"), section.field("when"));
    let known = given.len() + usize::from(step.is_some()) + usize::from(when.is_some());
    let unknown = section.fields().len() > known;
    section.finish();
    // Before the values, so that faults of both are told.
    let when = when.map(|when| methods(field, &when, faults));
    let (distribution, samples) = match given.as_slice() {
        [(kind, inner)] => values(kind, inner, faults)?,
        // The unknown key was told already.
        [] if unknown => return None,
        [] => {
            faults.add(field.node.place, &field.path, wrong(DISTRIBUTIONS, field.node));
            return None;
        }
        several => {
            let found = several.iter().map(|(kind, _)| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
            let problem = Problem::Value { expected: DISTRIBUTIONS.into(), found, nearest: None };
            faults.add(field.node.place, &field.path, problem);
            return None;
        }
    };
    let distribution = match step {
        Some(step) => stepped(distribution, &step, faults)?,
        None => distribution,
    };
    match when {
        Some(methods) => Some((Distribution::When(methods?, Box::new(distribution)), samples)),
        None => Some((distribution, samples)),
    }
}

fn values(kind: &str, inner: &Field<'_>, faults: &Faults) -> Option<(Distribution, Vec<Sample>)> {
    let above = |is_above: bool, ends: &str, found: String| {
        if !is_above {
            let problem = Problem::Value {
                expected: format!("both ends {ends}, because the range is logarithmic"),
                found,
                nearest: None,
            };
            faults.add(inner.node.place, &inner.path, problem);
        }
        is_above.then_some(())
    };
    match kind {
        "choice" => choice(inner, faults),
        "int" | "log_int" => {
            let (low, high) = pair(inner, whole, "whole numbers", faults)?;
            let ends = samples(inner, Node::clone);
            if !in_order(inner, low <= high, faults) {
                return None;
            }
            if kind == "int" {
                return Some((Distribution::Int(low, high), ends));
            }
            above(low >= 1, "at least 1", low.to_string())?;
            Some((Distribution::LogInt(low, high), ends))
        }
        _ => {
            let (low, high) = pair(inner, finite, "finite numbers", faults)?;
            if !in_order(inner, low < high, faults) {
                return None;
            }
            // Values in between are fractions, so a field of whole numbers must refuse even whole ends.
            let ends = samples(inner, |node| Node {
                place: node.place,
                value: finite(node).map_or(Value::Null, Value::Float),
            });
            if kind == "uniform" {
                return Some((Distribution::Uniform(low, high), ends));
            }
            above(low > 0.0, "above 0", low.to_string())?;
            Some((Distribution::LogUniform(low, high), ends))
        }
    }
}

/// A range whose values are `step` apart, from the low end on.
fn stepped(of: Distribution, step: &Field<'_>, faults: &Faults) -> Option<Distribution> {
    let refuse = |problem| {
        faults.add(step.node.place, &step.path, problem);
        None
    };
    match of {
        Distribution::Int(low, high) => {
            let limit = high.saturating_sub(low).max(1);
            match whole(step.node) {
                Some(step) if (1..=limit).contains(&step) => Some(Distribution::StepInt(low, high, step)),
                _ => refuse(wrong(&format!("a whole number from 1 to {limit} (the length of the range)"), step.node)),
            }
        }
        Distribution::Uniform(low, high) | Distribution::LogUniform(low, high) => {
            let length = high - low;
            let fits = |step: &f64| *step > 0.0 && *step <= length && length / step <= MOST_STEPS;
            let Some(value) = finite(step.node).filter(fits) else {
                let expected = format!(
                    "a number above 0, at most the length of the range ({length:?}), and at least \
                     a billionth of it"
                );
                return refuse(wrong(&expected, step.node));
            };
            Some(match of {
                Distribution::Uniform(..) => Distribution::StepUniform(low, high, value),
                _ => Distribution::StepLogUniform(low, high, value),
            })
        }
        _ => refuse(Problem::Conflict("can only be used with `uniform`, `log_uniform` and `int`".into())),
    }
}

/// The methods that `when` names: `{ method = "mehl" }`, or a list of them.
fn methods(field: &Field<'_>, when: &Field<'_>, faults: &Faults) -> Option<Vec<MethodName>> {
    if field.key == "method" {
        faults.add(when.place, &when.path, Problem::Conflict("the method cannot depend on itself".into()));
        return None;
    }
    let mut section = Section::of_node(&when.path, when.node, faults);
    let given = section.field("method");
    let names = section.texts("method", "a method");
    if given.is_none() && section.fields().is_empty() && matches!(when.node.value, Value::Table(_)) {
        section.missing("method", "a method or a list of methods");
    }
    section.finish();
    let (given, names) = given.zip(names)?;
    let mut methods = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let Some(method) = MethodName::ALL.into_iter().find(|method| method.as_str() == name) else {
            // By the reader of words, in whose words a wrong method is told elsewhere.
            let item = items(&given).get(i).unwrap_or(given.node);
            let path = if items(&given).is_empty() { given.path.clone() } else { format!("{}[{i}]", given.path) };
            let one = Field { key: "method".into(), place: given.place, path, node: item };
            let words = MethodName::ALL.map(|method| (method.as_str(), method));
            Section::of_fields("", None, vec![one], faults).word("method", &words);
            return None;
        };
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    Some(methods)
}

fn choice(field: &Field<'_>, faults: &Faults) -> Option<(Distribution, Vec<Sample>)> {
    match &field.node.value {
        Value::List(items) if !items.is_empty() => {
            let values = items.iter().filter_map(Node::to_json).collect();
            Some((Distribution::Choice(values), samples(field, Node::clone)))
        }
        _ => {
            faults.add(field.node.place, &field.path, wrong("a non-empty list of values", field.node));
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
