//! What can be wrong with a zoo.

use std::io;

/// A fault of an ingredient, or between ingredients. All of them are the input's: trying again changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    /// A file or folder cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's message.
        source: io::Error,
    },
    /// A pattern matches nothing.
    #[error("zoo.ingredients: `{pattern}` matches no ingredient (looked in {base})")]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// What it is relative to.
        base: String,
    },
    /// No pattern, or an ingredient without tensors.
    #[error("{0}: expected tensors, found none")]
    Empty(String),
    /// A path is neither a weights file nor a folder that holds one.
    #[error("{path}: expected a .safetensors file, or a folder with model.safetensors or model.safetensors.index.json")]
    NotAnIngredient {
        /// The path.
        path: String,
    },
    /// A weights file is malformed.
    #[error("{path}: not a valid safetensors file: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A shard index is malformed, or names something outside its folder.
    #[error("{path}: {what}")]
    ShardIndex {
        /// The index.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor that should be there is not.
    #[error("{path}: tensor `{tensor}` is missing")]
    Missing {
        /// The ingredient.
        path: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor cannot be read as what it should be.
    #[error("{path}: tensor `{tensor}`: {what}")]
    Tensor {
        /// The ingredient.
        path: String,
        /// The tensor.
        tensor: String,
        /// Expected and found.
        what: String,
    },
    /// A float tensor holds NaN or infinity.
    #[error("{path}: tensor `{tensor}` holds NaN or infinity")]
    NotFinite {
        /// The ingredient.
        path: String,
        /// The tensor.
        tensor: String,
    },
    /// Ingredients do not have the same tensors; all differences, one a line.
    #[error("ingredients differ in their tensors:\n{0}")]
    Mismatch(String),
}

impl ZooError {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &std::path::Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.display().to_string(), source }
    }
}
