//! Reading a table of the specification: every key is asked for once, every fault is collected.

use super::node::{Node, Place, Value};

/// One fault of a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// Key path: `soup.learning_rate`.
    pub key: String,
    /// Expected and found.
    pub what: String,
}

/// All faults found so far.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Adds one.
    pub fn add(&mut self, place: Place, key: impl Into<String>, what: impl Into<String>) {
        self.0.push(Fault { place, key: key.into(), what: what.into() });
    }
}

/// The nearest of some words, if one is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A table being read.
pub struct Section<'a> {
    path: String,
    place: Place,
    fields: &'a [(String, Place, Node)],
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Begins a table; `None` counts as an empty one.
    pub fn new(path: &str, node: Option<&'a Node>, faults: &mut Faults) -> Self {
        let (place, fields): (Place, &[_]) = match node.map(|node| (node.place, &node.value)) {
            Some((place, Value::Table(fields))) => (place, fields),
            Some((place, _)) => {
                faults.add(place, path, "expected a table");
                (place, &[])
            }
            None => (Place::default(), &[]),
        };
        for (i, (key, place, _)) in fields.iter().enumerate() {
            if fields[..i].iter().any(|(earlier, _, _)| earlier == key) {
                faults.add(*place, join(path, key), "is given twice");
            }
        }
        Self { path: path.to_string(), place, fields, known: vec![] }
    }

    /// Where the table stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The path of a key.
    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// A value, if it is given.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.fields.iter().find(|(name, _, _)| name == key).map(|(_, _, node)| node)
    }

    fn wrong(&self, node: &Node, key: &str, expected: &str, faults: &mut Faults) {
        faults.add(node.place, self.key(key), format!("expected {expected}, found {}", node.shown()));
    }

    /// Text.
    pub fn text(&mut self, key: &'static str, faults: &mut Faults) -> Option<&'a str> {
        let node = self.get(key)?;
        match &node.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => {
                self.wrong(node, key, "text", faults);
                None
            }
        }
    }

    /// One text or a list of texts.
    pub fn texts(&mut self, key: &'static str, faults: &mut Faults) -> Option<Vec<String>> {
        let node = self.get(key)?;
        let items = match &node.value {
            Value::Text(text) => vec![text.clone()],
            Value::List(items) => items
                .iter()
                .filter_map(|item| match &item.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => {
                        self.wrong(item, key, "text", faults);
                        None
                    }
                })
                .collect(),
            _ => {
                self.wrong(node, key, "a list of texts", faults);
                return None;
            }
        };
        if items.is_empty() {
            self.wrong(node, key, "at least one", faults);
            return None;
        }
        Some(items)
    }

    /// A number that fulfils `valid`, which `expected` says in words.
    pub fn number(
        &mut self,
        key: &'static str,
        valid: impl Fn(f64) -> bool,
        expected: &str,
        faults: &mut Faults,
    ) -> Option<f64> {
        let node = self.get(key)?;
        let number = match node.value {
            Value::Int(whole) => whole as f64,
            Value::Float(number) => number,
            _ => f64::NAN,
        };
        if number.is_finite() && valid(number) {
            return Some(number);
        }
        self.wrong(node, key, expected, faults);
        None
    }

    /// A whole number of at least `least`.
    pub fn whole(&mut self, key: &'static str, least: u64, faults: &mut Faults) -> Option<u64> {
        let node = self.get(key)?;
        match node.value {
            Value::Int(whole) if u64::try_from(whole).is_ok_and(|whole| whole >= least) => Some(whole as u64),
            _ => {
                self.wrong(node, key, &format!("a whole number of at least {least}"), faults);
                None
            }
        }
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str, faults: &mut Faults) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.wrong(node, key, "true or false", faults);
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)], faults: &mut Faults) -> Option<T> {
        let node = self.get(key)?;
        let Value::Text(text) = &node.value else {
            self.wrong(node, key, "a word", faults);
            return None;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = nearest(text, list.iter().copied()).map(|word| format!("; did you mean `{word}`?"));
        let what = format!("expected one of {}, found `{text}`{}", list.join(", "), hint.unwrap_or_default());
        faults.add(node.place, self.key(key), what);
        None
    }

    /// Says that a key must be given.
    pub fn missing(&self, key: &str, faults: &mut Faults) {
        faults.add(self.place, self.key(key), "is missing");
    }

    /// Ends the table: all keys that were not asked for are faults.
    pub fn finish(self, faults: &mut Faults) {
        for (key, place, _) in self.fields {
            if !self.known.contains(&key.as_str()) {
                let hint = nearest(key, self.known.iter().copied()).map_or_else(
                    || format!("known keys are {}", self.known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                faults.add(*place, self.key(key), format!("is not known; {hint}"));
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}
