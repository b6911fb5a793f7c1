//! The winner's model, as a folder that loads where the ingredients came from.

use super::reporter::Reporter;
use super::run_folder::{FolderError, RunFolder};
use crate::coefficients::{CoefficientsError, CoefficientsFile, MaterializeError, Options, materialize};
use crate::sweep::results::{SweepResults, winner};
use crate::zoo::HashCache;

/// Why the winner's model is not there.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file of the run folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The winner's coefficients are damaged.
    #[error("{path}: {source}")]
    Coefficients {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: CoefficientsError,
    },
    /// The model cannot be written.
    #[error("writing {path}: {source}")]
    Materialize {
        /// The folder.
        path: String,
        /// Why.
        source: MaterializeError,
    },
}

/// Writes the winner to `best/`, unless it is there already. Does nothing if no task succeeded.
///
/// # Errors
/// If the model cannot be written; an older `best/` is then left as it was.
pub fn publish_best(
    folder: &RunFolder,
    results: &SweepResults,
    cache: Option<&HashCache>,
    reporter: &dyn Reporter,
) -> Result<(), PublishError> {
    let Some(row) = winner(results) else { return Ok(()) };
    let path = folder.coefficients_path(&row.task_id);
    let Some(bytes) = folder.read(&path)? else { return Ok(()) };
    let best = folder.best();
    if folder.read(&best.join("coefficients.safetensors"))?.as_deref() == Some(bytes.as_slice()) {
        return Ok(());
    }
    let file = CoefficientsFile::from_bytes(&bytes)
        .map_err(|source| PublishError::Coefficients { path: path.display().to_string(), source })?;
    reporter.note(&format!("writing the model of task {} to {}", row.task_id, best.display()));
    let comparisons = results.comparisons.clone();
    let options =
        Options { out: best.clone(), dtype: None, max_shard_bytes: None, zoo: None, overwrite: true, comparisons };
    materialize(&file, &options, cache, &mut |_, _| {})
        .map(|_| ())
        .map_err(|source| PublishError::Materialize { path: best.display().to_string(), source })
}
