//! What the scores task of a sweep found out: which ingredients and data there are, and how good each ingredient is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::Family;

/// The manifest of a sweep. Tasks run only on a zoo and data that still hash to this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub version: u32,
    /// Resolved family.
    pub family: Family,
    /// What computes logits from tensors, besides the family: the configuration's fields, or the TorchScript file's hash.
    pub architecture: String,
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

/// Loss and accuracy on one split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitScore {
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Standard error of the loss over samples.
    pub loss_standard_error: f64,
    /// Part of samples classified right, in [0, 1].
    pub accuracy: f64,
    /// Standard error of the accuracy.
    pub accuracy_standard_error: f64,
    /// Samples.
    pub samples: usize,
}

impl Manifest {
    /// Version that this program writes.
    pub const VERSION: u32 = 1;

    /// Hash over everything that a task's result depends on in the zoo and the data: contents, order and family.
    pub fn inputs_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?} {}\n", self.family, self.architecture).as_bytes());
        for ingredient in &self.ingredients {
            hasher.update(format!("{} {}\n", ingredient.name, ingredient.hash).as_bytes());
        }
        if let Some(base) = &self.base {
            hasher.update(format!("base {}\n", base.hash).as_bytes());
        }
        for data in &self.data {
            hasher.update(format!("{} {} {}\n", data.split, data.hash, data.samples).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}
