//! Files of a run folder that have a version of their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runner::pool::HistoryPoint;
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;

/// `sweep.json`: which specification a folder belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepFile {
    /// Version of the identity.
    pub version: u32,
    /// The specification's identity.
    pub identity: String,
    /// The sweep's name.
    pub name: String,
}

impl SweepFile {
    /// That of a specification.
    pub fn of(spec: &Spec) -> Self {
        Self { version: Spec::IDENTITY, identity: spec.identity(), name: spec.name.clone() }
    }

    /// Whether a specification is the one that the folder belongs to.
    pub fn is_of(&self, spec: &Spec) -> bool {
        spec.identity_of_version(self.version).is_some_and(|identity| identity == self.identity)
    }
}

/// `spec.json`: what was asked for, for whoever reads the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecFile {
    /// Version of this format.
    pub version: u32,
    /// The specification.
    pub spec: Spec,
}

impl SpecFile {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
}

/// `tasks/<id>/history.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryFile {
    /// Version of this format.
    pub version: u32,
    /// Iterations of the last attempt, thinned out to a bounded number.
    pub points: Vec<HistoryPoint>,
}

impl HistoryFile {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
}

/// `opened.json`: tasks that a search has added to its open sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenedFile {
    /// Version of this format.
    pub version: u32,
    /// The tasks, by their places in the sweep; the scores task has place 0.
    pub tasks: BTreeMap<usize, Task>,
}

impl OpenedFile {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
}
