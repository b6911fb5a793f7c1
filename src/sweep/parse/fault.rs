//! What can be wrong with a specification, and where.

use std::cell::RefCell;
use std::fmt;

/// A place in a text; both counts begin at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A specification that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", lines(.file, .faults))]
pub struct SpecError {
    /// The file, as it was named by the caller.
    pub file: String,
    /// The faults, in the order of the file; never empty.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Where it is; `None` if the fault has no place in a text (a file that cannot be read, a stored override).
    pub place: Option<Place>,
    /// Path of the key, such as `search.points[1].batch`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// The file cannot be read, or is not text.
    Unreadable(String),
    /// The text is not TOML, YAML or JSON.
    Syntax(String),
    /// A key that has no meaning here.
    UnknownKey {
        /// The nearest one that has.
        nearest: String,
    },
    /// A required key is missing; holds what it should be.
    Missing(String),
    /// A value that is not what the key takes.
    Value {
        /// What it takes.
        expected: String,
        /// What there is.
        found: String,
        /// The nearest word that it takes, for words.
        nearest: Option<String>,
    },
    /// Two values contradict each other.
    Conflict(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) | Self::Syntax(why) | Self::Conflict(why) => f.write_str(why),
            Self::UnknownKey { nearest } => write!(f, "unknown key; did you mean `{nearest}`?"),
            Self::Missing(expected) => write!(f, "missing, expected {expected}"),
            Self::Value { expected, found, nearest } => {
                write!(f, "expected {expected}, found {found}")?;
                match nearest {
                    Some(word) => write!(f, "; did you mean `{word}`?"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Faults that are told; the rest is counted.
const LINES: usize = 50;
/// Longest key that is told whole, in characters.
const LONGEST_KEY: usize = 200;

/// One line a fault: `file:line:column: key: problem`.
fn lines(file: &str, faults: &[Fault]) -> String {
    let line = |fault: &Fault| {
        let place = fault.place.map(|p| format!(":{}:{}", p.line, p.column)).unwrap_or_default();
        let key = match fault.key.char_indices().nth(LONGEST_KEY) {
            _ if fault.key.is_empty() => String::new(),
            None => format!("{}: ", fault.key),
            Some((end, _)) => format!("{}...: ", &fault.key[..end]),
        };
        format!("{file}{place}: {key}{}", fault.problem)
    };
    let mut told: Vec<String> = faults.iter().take(LINES).map(line).collect();
    if faults.len() > LINES {
        told.push(format!("{file}: {} more errors", faults.len() - LINES));
    }
    told.join("\n")
}

/// Collects faults while a document is read, so that all of them can be told at once.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, place: Option<Place>, key: &str, problem: Problem) {
        self.0.borrow_mut().push(Fault { place, key: key.to_string(), problem });
    }

    /// Takes over those faults of `other` whose key begins with `prefix`.
    pub(super) fn adopt(&self, other: Faults, prefix: &str) {
        self.0.borrow_mut().extend(other.0.into_inner().into_iter().filter(|f| f.key.starts_with(prefix)));
    }

    /// `Ok` if there are none.
    pub(super) fn into_result(self, file: &str) -> Result<(), SpecError> {
        if self.0.borrow().is_empty() { Ok(()) } else { Err(self.into_error(file)) }
    }

    /// The faults, in the order of the file.
    pub(super) fn into_error(self, file: &str) -> SpecError {
        let mut faults = self.0.into_inner();
        faults.sort_by_key(|fault| fault.place);
        SpecError { file: file.to_string(), faults }
    }
}

/// The candidate most like `word`, of whose beginning only so much is looked at: the comparison takes the product of both lengths.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 100;
    let word = word.char_indices().nth(LONGEST).map_or(word, |(end, _)| &word[..end]);
    let likeness = |candidate: &str| {
        // Edits first; the common beginning decides among equals (`inner` is nearer to `inner_epochs` than to `init`).
        strsim::normalized_damerau_levenshtein(word, candidate) + strsim::jaro_winkler(word, candidate)
    };
    candidates.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_fault_with_place_key_expected_and_found() {
        let faults = Faults::default();
        faults.add(
            Some(Place { line: 9, column: 2 }),
            "soup.batch",
            Problem::Value { expected: "a number".into(), found: "`x`".into(), nearest: None },
        );
        faults.add(None, "", Problem::Unreadable("not there".into()));
        let text = faults.into_result("a.toml").unwrap_err().to_string();
        assert_eq!(text, "a.toml: not there\na.toml:9:2: soup.batch: expected a number, found `x`");
    }

    #[test]
    fn the_nearest_word() {
        assert_eq!(nearest("mehl++", ["best", "mehl", "mehl+"]), Some("mehl+"));
        assert_eq!(nearest("inner", ["init", "inner_epochs", "batch"]), Some("inner_epochs"));
        assert_eq!(nearest("lr", []), None);
    }
}
