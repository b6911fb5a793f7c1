//! What can be wrong with a configuration, and where it came from.

use std::fmt;

use super::sources::Origin;

/// Faults that are told; the rest is counted.
const LINES: usize = 50;

/// One fault. Values of secrets are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `redis.timeout_seconds`; empty for a layer as a whole.
    pub key: String,
    /// Where its value came from; `None` where there is no value.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (Some(origin), "") => write!(f, "{origin}: {}", self.problem),
            (Some(origin), key) => write!(f, "{key} ({origin}): {}", self.problem),
            (None, key) => write!(f, "{key}: {}", self.problem),
        }
    }
}

/// A configuration that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct ConfigError(pub Vec<Fault>);

impl ConfigError {
    /// With one fault.
    pub(super) fn one(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

fn lines(faults: &[Fault]) -> String {
    let mut told: Vec<_> = faults.iter().take(LINES).map(|fault| format!("configuration: {fault}")).collect();
    if faults.len() > LINES {
        told.push(format!("configuration: {} more errors", faults.len() - LINES));
    }
    told.join("\n")
}
