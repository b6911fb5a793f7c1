//! Reads the keys of one table: each getter states what the key takes, and what does not fit becomes a fault with its place.
//!
//! Getters return `None` both for a key that is absent and for one that is at fault; the caller goes on with a default, and the
//! collected faults decide in the end. So one pass finds all faults.

use std::ops::{Bound, RangeBounds, RangeInclusive};

use super::fault::{Faults, Place, Problem, nearest};
use super::node::{Node, Value};

/// Largest count that makes sense for epochs, batches and so on; products of a few of them stay within 64 bits.
pub(super) const LARGEST_COUNT: i64 = 1_000_000;

#[cfg(test)]
thread_local! {
    /// Paths of the keys that were asked for on this thread.
    pub(super) static ASKED: std::cell::RefCell<std::collections::BTreeSet<String>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

/// A key of a section with its value.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) key: String,
    /// Where the key begins.
    pub(super) place: Option<Place>,
    /// Path of the key in the document.
    pub(super) path: String,
    pub(super) node: &'a Node,
}

/// A table under reading.
pub(super) struct Section<'a> {
    pub(super) path: String,
    place: Option<Place>,
    fields: Vec<Field<'a>>,
    asked: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    /// A section over `fields`, for those that do not stand in one table of the document.
    pub(super) fn of_fields(path: &str, place: Option<Place>, fields: Vec<Field<'a>>, faults: &'a Faults) -> Self {
        Self { path: path.to_string(), place, fields, asked: Vec::new(), faults }
    }

    /// The section of a table; a node that is none is a fault and reads as an empty table.
    pub(super) fn of_node(path: &str, node: &'a Node, faults: &'a Faults) -> Self {
        let fields = match &node.value {
            Value::Table(entries) => entries
                .iter()
                .map(|entry| Field {
                    key: entry.key.clone(),
                    place: entry.place,
                    path: if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) },
                    node: &entry.node,
                })
                .collect(),
            _ => {
                faults.add(node.place, path, wrong("a table", node));
                Vec::new()
            }
        };
        Self::of_fields(path, node.place, fields, faults)
    }

    /// The fields, in the order of the file.
    pub(super) fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    /// The field `key`, which from now on counts as known.
    pub(super) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(self.path_of(key)));
        self.fields.iter().find(|field| field.key == key).cloned()
    }

    /// The table `key`; an empty one if it is absent.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        match self.field(key) {
            Some(field) => Section::of_node(&field.path, field.node, self.faults),
            None => Section::of_fields(&self.path_of(key), self.place, Vec::new(), self.faults),
        }
    }

    /// Path of a key in this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a fault about a field's value.
    pub(super) fn fault(&self, field: &Field<'_>, problem: Problem) {
        self.faults.add(field.node.place, &field.path, problem);
    }

    /// Adds a fault about an item within a field's value.
    pub(super) fn fault_at(&self, place: Option<Place>, path: &str, problem: Problem) {
        self.faults.add(place, path, problem);
    }

    /// Adds a fault for a required key that is absent.
    pub(super) fn missing(&self, key: &str, expected: &str) {
        self.faults.add(self.place, &self.path_of(key), Problem::Missing(expected.to_string()));
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let field = self.field(key)?;
        match field.node.value {
            Value::Boolean(value) => Some(value),
            _ => self.refuse(&field, "true or false"),
        }
    }

    /// A whole number within `range`.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let field = self.field(key)?;
        match field.node.value {
            Value::Integer(value) if range.contains(&value) => Some(value),
            _ => self.refuse(&field, &integer_words(&range)),
        }
    }

    /// A whole number from 1 to [`LARGEST_COUNT`].
    pub(super) fn count(&mut self, key: &'static str) -> Option<usize> {
        self.integer(key, 1..=LARGEST_COUNT).map(|value| value as usize)
    }

    /// A finite number within `range`.
    pub(super) fn number(&mut self, key: &'static str, range: impl RangeBounds<f64>) -> Option<f64> {
        let field = self.field(key)?;
        let value = match field.node.value {
            Value::Float(value) => Some(value),
            Value::Integer(value) => Some(value as f64),
            _ => None,
        };
        match value {
            Some(value) if value.is_finite() && range.contains(&value) => Some(value),
            _ => self.refuse(&field, &number_words(&range)),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, key: &'static str, what: &str) -> Option<String> {
        let field = self.field(key)?;
        match &field.node.value {
            Value::Text(value) if !value.is_empty() => Some(value.clone()),
            _ => self.refuse(&field, what),
        }
    }

    /// A list of at least one text that is not empty; one text stands for a list of one.
    pub(super) fn texts(&mut self, key: &'static str, what: &str) -> Option<Vec<String>> {
        let field = self.field(key)?;
        let mut texts = Vec::new();
        match &field.node.value {
            Value::Text(value) if !value.is_empty() => texts.push(value.clone()),
            Value::List(items) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    match &item.value {
                        Value::Text(value) if !value.is_empty() => texts.push(value.clone()),
                        _ => self.faults.add(item.place, &format!("{}[{i}]", field.path), wrong(what, item)),
                    }
                }
            }
            _ => return self.refuse(&field, &format!("{what}, or a non-empty list of them")),
        }
        (!texts.is_empty()).then_some(texts)
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let field = self.field(key)?;
        let Value::Text(text) = &field.node.value else {
            return self.refuse(&field, &words_words(words.iter().map(|(word, _)| *word)));
        };
        let known = words.iter().find(|(word, _)| word == text);
        if known.is_none() {
            let all = || words.iter().map(|(word, _)| *word);
            let problem = Problem::Value {
                expected: words_words(all()),
                found: field.node.found(),
                nearest: nearest(text, all()).map(str::to_string),
            };
            self.fault(&field, problem);
        }
        known.map(|(_, value)| *value)
    }

    /// Ends the reading: keys that nobody asked for are faults.
    pub(super) fn finish(self) {
        for field in &self.fields {
            if !self.asked.contains(&field.key.as_str()) {
                let nearest = nearest(&field.key, self.asked.iter().copied()).unwrap_or_default().to_string();
                self.faults.add(field.place, &field.path, Problem::UnknownKey { nearest });
            }
        }
    }

    /// Adds the fault that `field` is not `expected`.
    pub(super) fn refuse<T>(&self, field: &Field<'_>, expected: &str) -> Option<T> {
        self.fault(field, wrong(expected, field.node));
        None
    }
}

/// A value that is not what is expected.
pub(super) fn wrong(expected: &str, found: &Node) -> Problem {
    Problem::Value { expected: expected.to_string(), found: found.found(), nearest: None }
}

fn integer_words(range: &RangeInclusive<i64>) -> String {
    match (*range.start(), *range.end()) {
        (low, i64::MAX) => format!("a whole number of at least {low}"),
        (low, high) => format!("a whole number from {low} to {high}"),
    }
}

fn number_words(range: &impl RangeBounds<f64>) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => Some(format!("at least {low}")),
        Bound::Excluded(low) => Some(format!("above {low}")),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(format!("at most {high}")),
        Bound::Excluded(high) => Some(format!("below {high}")),
        Bound::Unbounded => None,
    };
    let bounds: Vec<String> = low.into_iter().chain(high).collect();
    format!("a finite number {}", bounds.join(" and ")).trim_end().to_string()
}

fn words_words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))
}
