//! Where images come from: a folder of class folders, a CSV, Parquet files.

mod csv;
mod folder;
mod parquet;

use std::io::Read;
use std::path::{Path, PathBuf};

use mehl_soup::untrusted;
use rayon::prelude::*;

use crate::data::DataError;

/// Largest encoded image that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// Files between two looks at the clock.
const FILES_A_TURN: usize = 512;
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// What a path holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A safetensors file.
    Tensors,
    /// A folder of class folders.
    Folder,
    /// A CSV of paths and labels.
    Csv,
    /// A Parquet file, or a folder of them.
    Parquet,
}

impl SourceKind {
    /// Tells it by the path: folders by what is in them, files by their ending; a file of another ending is taken for tensors.
    ///
    /// # Errors
    /// If the path does not exist or cannot be read.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        untrusted::check_place(path).map_err(io(path))?;
        let metadata = path.metadata().map_err(io(path))?;
        if metadata.is_dir() {
            return Ok(if parquet::files(path)?.is_empty() { Self::Folder } else { Self::Parquet });
        }
        Ok(match ending(path).as_str() {
            "csv" => Self::Csv,
            "parquet" => Self::Parquet,
            _ => Self::Tensors,
        })
    }
}

/// One image.
#[derive(Debug, Clone)]
pub struct Sample {
    /// For people: the file, or the Parquet file and row.
    pub name: String,
    /// Where its bytes are.
    pub place: Place,
}

/// Where an image's bytes are.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a file of its own.
    File(PathBuf),
    /// In a row of a Parquet file of [`Listing::parquet`].
    Row {
        /// Index of the file.
        file: usize,
        /// Row group.
        group: usize,
        /// Row within it.
        row: usize,
    },
}

/// The classes of a listing's samples, one each.
#[derive(Debug, Clone)]
pub enum Labels {
    /// By name.
    Names {
        /// All names, sorted; class folders without an image among them.
        names: Vec<String>,
        /// Index in `names`, one a sample.
        of: Vec<usize>,
    },
    /// By index.
    Indices {
        /// One a sample, not negative.
        of: Vec<i64>,
        /// Names of the indices, where the file has them.
        names: Option<Vec<String>>,
    },
}

/// Takes a sample and its encoded bytes, or why there are none; on any thread.
pub type Work<'a> = dyn Fn(usize, Result<&[u8], String>) + Sync + 'a;

/// All images of a split, before any was opened.
#[derive(Debug)]
pub struct Listing {
    /// The source, as it was named.
    pub path: PathBuf,
    /// At least one, in the order of the split: a folder's by class and path, others' as they stand.
    pub samples: Vec<Sample>,
    /// Their classes.
    pub labels: Labels,
    /// Parquet files that samples are in, with the column of the image.
    pub parquet: Vec<parquet::Table>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Names of columns, where they are stated.
pub struct Columns<'a> {
    /// Of the image.
    pub image: Option<&'a str>,
    /// Of the label.
    pub label: Option<&'a str>,
}

impl Listing {
    /// Lists what is in a source of images.
    ///
    /// # Errors
    /// If it cannot be read, holds no image, or a row is at fault.
    pub fn open(kind: SourceKind, path: &Path, columns: &Columns<'_>) -> Result<Self, DataError> {
        let listing = match kind {
            SourceKind::Csv => csv::list(path, columns)?,
            SourceKind::Parquet => parquet::list(path, columns)?,
            SourceKind::Folder | SourceKind::Tensors => folder::list(path)?,
        };
        if listing.samples.is_empty() {
            return Err(DataError::Content {
                file: path.display().to_string(),
                what: "expected images, found none".to_string(),
            });
        }
        Ok(listing)
    }

    /// Calls `work` with each sample of `which` (ascending) and its bytes, or why they cannot be read, on all threads of rayon's pool; in between,
    /// `pause` on this thread with the number done. Stops early where `pause` says so.
    ///
    /// # Errors
    /// If a Parquet file is malformed.
    pub fn for_each(
        &self,
        which: &[usize],
        work: &Work<'_>,
        pause: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(), DataError> {
        if self.parquet.is_empty() {
            for (turn, part) in which.chunks(FILES_A_TURN).enumerate() {
                part.par_iter().for_each(|&i| {
                    if let Place::File(path) = &self.samples[i].place {
                        match read(path) {
                            Ok(bytes) => work(i, Ok(&bytes)),
                            Err(why) => work(i, Err(why)),
                        }
                    }
                });
                if !pause(turn * FILES_A_TURN + part.len()) {
                    break;
                }
            }
            return Ok(());
        }
        parquet::for_each(self, which, work, pause)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let refused = |error: std::io::Error| format!("cannot be read: {error}");
    // Before opening: to open a pipe would wait for its writer.
    let metadata = path.metadata().map_err(refused)?;
    if !metadata.is_file() {
        return Err("expected a regular file".to_string());
    }
    if metadata.len() > LARGEST_FILE {
        return Err(format!("expected at most {LARGEST_FILE} bytes, found {}", metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    untrusted::open(path).and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut bytes)).map_err(refused)?;
    Ok(bytes)
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn is_image(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let file = path.display().to_string();
    move |source| DataError::Io { file: file.clone(), source }
}

/// Labels by name from one name a sample, and names that no sample has.
fn by_name(of: Vec<String>, also: impl IntoIterator<Item = String>) -> Labels {
    let mut names: Vec<String> = of.iter().cloned().chain(also).collect();
    names.sort_unstable();
    names.dedup();
    let index = |name: String| names.binary_search(&name).expect("every name is among all names");
    let of = of.into_iter().map(index).collect();
    Labels::Names { names, of }
}
