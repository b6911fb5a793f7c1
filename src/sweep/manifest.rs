//! What the scores task of a sweep found out: which ingredients and data there are, and how good each ingredient is.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::objective::Objective;
use super::score::SplitScore;
use super::spec::Family;

/// The manifest of a sweep. Tasks run only on a zoo and data that still hash to this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format; 1 or 2. By it the inputs, and checkpoints of the sweep's tasks, are recognised.
    #[serde(deserialize_with = "known_version")]
    pub version: u32,
    /// Resolved family.
    pub family: Family,
    /// What computes logits from tensors, besides the family: the configuration's fields, or the TorchScript file's hash.
    pub architecture: serde_json::Value,
    /// What coefficients are learned for. Not written for classification.
    #[serde(default, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
    /// The ingredients, in order.
    pub ingredients: Vec<IngredientEntry>,
    /// The model that they were fine-tuned from, where it is a row of soups; without a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<IngredientEntry>,
    /// The data files, by split.
    pub data: Vec<DataEntry>,
    /// Things a person should know about this zoo and data: shared rows, a select split that was set aside, and so on.
    pub notes: Vec<String>,
}

fn known_version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let found = u32::deserialize(from)?;
    if Manifest::VERSIONS.contains(&found) {
        return Ok(found);
    }
    let known = Manifest::VERSIONS.map(|version| version.to_string()).join(" and ");
    Err(serde::de::Error::custom(format!("manifest has version {found}, this program reads {known}")))
}

/// One ingredient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngredientEntry {
    /// Short name, unique in the zoo.
    pub name: String,
    /// Absolute path of the file or folder.
    pub path: PathBuf,
    /// Content hash (blake3, hexadecimal) over names, dtypes, shapes and bytes of all tensors.
    pub hash: String,
    /// Score on select, once known.
    pub select: Option<SplitScore>,
}

/// One data split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataEntry {
    /// `learn`, `select` or `test`.
    pub split: String,
    /// Absolute path.
    pub path: PathBuf,
    /// Content hash (blake3, hexadecimal) of the file.
    pub hash: String,
    /// Samples in the split.
    pub samples: usize,
}

impl Manifest {
    /// Version that this program writes. It reads version 1 too, in which `architecture` is a text.
    pub const VERSION: u32 = 2;
    /// Version that a pool's workers write: during a rolling upgrade those of the last release read it too.
    pub const VERSION_OF_POOLS: u32 = 1;
    /// Versions that it reads.
    pub const VERSIONS: [u32; 2] = [1, 2];
}
