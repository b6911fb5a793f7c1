//! What can be wrong with a zoo.

use std::path::PathBuf;

use safetensors::Dtype;

use super::mismatch::Mismatches;

/// Why a zoo or one of its ingredients cannot be used. All but [`ZooError::Io`] are faults of the input: trying again changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    /// No ingredients at all.
    #[error("the zoo is empty: no ingredient was given or found")]
    Empty,
    /// A pattern is not a valid glob.
    #[error("`{pattern}` is not a valid pattern: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What the glob parser says.
        reason: String,
    },
    /// A pattern, or a plain path, found nothing.
    #[error(
        "`{pattern}` matches nothing{}",
        if std::path::Path::new(pattern).is_absolute() {
            " (relative patterns in a specification start at its folder)".to_string()
        } else {
            format!(" under {}", base.display())
        }
    )]
    NoMatch {
        /// As given.
        pattern: String,
        /// Folder that relative patterns start from.
        base: PathBuf,
    },
    /// Neither a `.safetensors` file nor a model folder.
    #[error("{}: {reason}", path.display())]
    NotAnIngredient {
        /// The entry.
        path: PathBuf,
        /// What was expected and what is there.
        reason: String,
    },
    /// The same ingredient was given twice.
    #[error("{}: given twice", path.display())]
    Repeated {
        /// The ingredient.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A file is damaged or not what its name says.
    #[error("{}: {reason}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file is no longer what it was when it was opened: its contents cannot be trusted any more.
    #[error("zoo changed: {}: {reason} while it was in use", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
        /// How it is seen.
        reason: String,
    },
    /// A shard index names a file that is not in its folder.
    #[error("{}: shard `{shard}` is not a file in this folder", index.display())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The entry.
        shard: String,
    },
    /// Ingredients differ in names, shapes, dtypes or in contents that must be equal.
    #[error("{0}")]
    Mismatch(Mismatches),
    /// A float tensor holds NaN or an infinity.
    #[error("{}: tensor `{tensor}`: expected finite values, found {value} at element {element}", file.display())]
    NotFinite {
        /// File that holds the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Flat index of the first such element.
        element: usize,
        /// What is there.
        value: f64,
    },
    /// A base that is of another architecture than the ingredients.
    #[error(
        "{}: zoo.base: expected the model that the ingredients were fine-tuned from, found one that has {shared} % of their values \
         under the same names and in the same shapes (compared with {})",
        path.display(),
        reference.display()
    )]
    OtherModel {
        /// The base.
        path: PathBuf,
        /// The ingredient that it was compared with.
        reference: PathBuf,
        /// Percent of the ingredient's values that the base has too.
        shared: usize,
    },
    /// A tensor is asked for that the ingredient does not have.
    #[error("{}: tensor `{tensor}` is missing", file.display())]
    NoTensor {
        /// File or folder of the ingredient.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor cannot be read as numbers.
    #[error("{}: tensor `{tensor}`: expected dtype F32, F16, BF16 or F64, found {found}", file.display())]
    WrongDtype {
        /// File that holds the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        found: Dtype,
    },
    /// A buffer does not have the tensor's number of elements.
    #[error("{}: tensor `{tensor}`: expected a buffer of {expected} elements, found {found}", file.display())]
    WrongLength {
        /// File that holds the tensor.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Elements of the tensor.
        expected: usize,
        /// Elements of the buffer.
        found: usize,
    },
}

impl ZooError {
    /// To be used in `map_err`: names the path of an I/O error.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
