//! The coefficients file: a soup in a few kilobytes.
//!
//! One safetensors blob with the tensor `A` (f64, `[K, L]`) and everything that is needed to make a model of it again as JSON in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Coefficients;
use crate::runner::engine::Scores;
use crate::sweep::manifest::DataEntry;

const META_KEY: &str = "mehl_soup_coefficients";

/// A soup.
#[derive(Debug, Clone, PartialEq)]
pub struct CoefficientsFile {
    /// `A`.
    pub coefficients: Coefficients,
    /// What its rows and columns are, and where it comes from.
    pub about: About,
}

/// What a coefficients file says besides `A`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Version of the format.
    pub version: u32,
    /// Program and version that wrote it.
    pub program: String,
    /// Name of the sweep.
    pub sweep: String,
    /// Task within it.
    pub task_id: String,
    /// Method.
    pub method: String,
    /// All hyperparameters of the task.
    pub hyperparameters: serde_json::Value,
    /// Seed of the task.
    pub seed: u64,
    /// Model family.
    pub family: String,
    /// Rows of `A`.
    pub ingredients: Vec<IngredientRef>,
    /// Columns of `A`.
    pub groups: Vec<String>,
    /// Column of every mixed tensor; all others are equal in all ingredients.
    pub tensors: BTreeMap<String, usize>,
    /// Scores of the exact soup.
    pub scores: Option<Scores>,
    /// The splits.
    pub data: Vec<DataEntry>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Whether the soup is better, by select, than the best ingredient.
    pub better_than_best_ingredient: Option<bool>,
}

impl About {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
}

/// An ingredient that `A` has a row for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngredientRef {
    /// Short name.
    pub name: String,
    /// Where it was.
    pub path: PathBuf,
    /// Its content.
    pub hash: String,
}

/// Why a blob is not a coefficients file.
#[derive(Debug, thiserror::Error)]
pub enum CoefficientsError {
    /// Not such a file, or damaged.
    #[error("not a coefficients file, or damaged: {0}")]
    Damaged(String),
    /// Of another version.
    #[error("coefficients file has version {found}, this program reads version {}", About::VERSION)]
    Version {
        /// The file's version.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Meta {
    #[serde(flatten)]
    about: About,
    /// blake3 of `A`'s bytes.
    digest: String,
}

impl CoefficientsFile {
    /// The blob.
    pub fn to_bytes(&self) -> Vec<u8> {
        let data: Vec<u8> = self.coefficients.values().iter().flat_map(|v| v.to_le_bytes()).collect();
        let meta = Meta { about: self.about.clone(), digest: blake3::hash(&data).to_hex().to_string() };
        let json = serde_json::to_string(&meta).expect("plain data serializes");
        let shape = vec![self.coefficients.ingredients(), self.coefficients.groups()];
        let view = TensorView::new(Dtype::F64, shape, &data).expect("length is that of the shape");
        safetensors::serialize([("A", view)], Some(HashMap::from([(META_KEY.to_string(), json)])))
            .expect("one well-formed tensor serializes")
    }

    /// Reads a blob, which nobody need have written in good faith.
    ///
    /// # Errors
    /// If it is damaged, of another version, or its parts disagree.
    pub fn from_bytes(blob: &[u8]) -> Result<Self, CoefficientsError> {
        let damaged = |what: String| CoefficientsError::Damaged(what);
        let (_, header) = SafeTensors::read_metadata(blob).map_err(|e| damaged(e.to_string()))?;
        let json = header.metadata().as_ref().and_then(|m| m.get(META_KEY));
        let json = json.ok_or_else(|| damaged("it has no coefficients metadata".to_string()))?;
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version = serde_json::from_str(json).map_err(|e| damaged(e.to_string()))?;
        if version.version != About::VERSION {
            return Err(CoefficientsError::Version { found: version.version });
        }
        let Meta { about, digest } = serde_json::from_str(json).map_err(|e| damaged(e.to_string()))?;
        let tensors = SafeTensors::deserialize(blob).map_err(|e| damaged(e.to_string()))?;
        let view = tensors.tensor("A").map_err(|_| damaged("tensor `A` is missing".to_string()))?;
        let expected = [about.ingredients.len(), about.groups.len()];
        if view.dtype() != Dtype::F64 || view.shape() != expected {
            return Err(damaged(format!(
                "tensor `A`: expected F64 {expected:?}, found {:?} {:?}",
                view.dtype(),
                view.shape()
            )));
        }
        if blake3::hash(view.data()).to_hex().as_str() != digest {
            return Err(damaged("tensor `A` does not match its digest".to_string()));
        }
        let values: Vec<f64> = view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(damaged("tensor `A` holds NaN or infinity".to_string()));
        }
        if let Some((tensor, group)) = about.tensors.iter().find(|(_, group)| **group >= about.groups.len()) {
            return Err(damaged(format!(
                "tensor `{tensor}`: expected a group below {}, found {group}",
                about.groups.len()
            )));
        }
        let coefficients = Coefficients::from_values(expected[0], expected[1], values)
            .ok_or_else(|| damaged("tensor `A` has another shape than stated".to_string()))?;
        Ok(Self { coefficients, about })
    }
}
