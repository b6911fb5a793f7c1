//! Data: the three splits, their sources (tensor files, images or texts), and batches of them.

mod batch;
pub mod images;
mod split;
mod splits;
mod tensor_file;
pub mod text;

use tch::{TchError, Tensor};

pub use batch::Batch;
pub use split::Split;
pub(crate) use splits::dtype_name;
pub use splits::{Data, Kinds};

/// A split as it is in its source.
pub struct Loaded {
    /// The samples; tensors with dtypes as in the file.
    pub split: Split,
    /// Hash of all that the split is, hexadecimal: blake3 of a tensor file; of the images' contents, classes and transform.
    pub hash: String,
    /// blake3 of each sample's inputs or encoded image, to notice samples that two splits share.
    pub rows: Vec<blake3::Hash>,
}

/// Checks the target tensor of a data file, `[N, ...]` with the file's dtype, and turns it into the objective's targets.
/// An error says what was expected and found.
pub type ReadTargets<'a> = &'a dyn Fn(Tensor) -> Result<Tensor, String>;

/// What is wrong with the data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be opened or read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's message.
        source: std::io::Error,
    },
    /// A file's content is not what is expected.
    #[error("{file}: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong, with the tensor, expected and found.
        what: String,
    },
    /// libtorch refused.
    #[error("data: {0}")]
    Torch(#[from] TchError),
}
