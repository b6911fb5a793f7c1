//! A task's name across sweeps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Sweep and task, written `sweep/task`: letters, digits and `+ - . _` in both, at most 100 bytes each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskKey {
    /// The sweep's id.
    pub sweep: String,
    /// The task's id within the sweep.
    pub task: String,
}

/// Not a task's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected SWEEP/TASK of letters, digits and `+ - . _`, found `{0}`")]
pub struct KeyError(String);

impl TaskKey {
    /// Id of the scores task of every sweep, which the others wait for.
    pub const SCORES: &'static str = "scores";

    /// Whether it is a scores task.
    pub fn is_scores(&self) -> bool {
        self.task == Self::SCORES
    }

    /// From its parts.
    ///
    /// # Errors
    /// If a part is empty, too long, or has other characters.
    pub fn new(sweep: &str, task: &str) -> Result<Self, KeyError> {
        if is_id(sweep) && is_id(task) {
            Ok(Self { sweep: sweep.to_string(), task: task.to_string() })
        } else {
            Err(KeyError(format!("{sweep}/{task}").chars().take(240).collect()))
        }
    }
}

/// Whether a text can be the id of a sweep or a task: safe in keys, paths and addresses.
pub fn is_id(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._".contains(&b);
    (1..=100).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.')
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sweep, self.task)
    }
}

impl FromStr for TaskKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (sweep, task) = text.split_once('/').ok_or_else(|| KeyError(text.chars().take(240).collect()))?;
        Self::new(sweep, task)
    }
}

impl TryFrom<String> for TaskKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<TaskKey> for String {
    fn from(key: TaskKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_hold_nothing_that_means_something_elsewhere() {
        let key: TaskKey = "digits-1a2b/0007-mehl+".parse().unwrap();
        assert_eq!((key.sweep.as_str(), key.task.as_str()), ("digits-1a2b", "0007-mehl+"));
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in
            ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a b/c", "a/{b}", "a/b\n", &format!("a/{}", "b".repeat(101))]
        {
            assert!(bad.parse::<TaskKey>().is_err(), "{bad}");
        }
    }
}
