//! Where images come from: a folder of class folders, a CSV, Parquet files.

mod csv;
mod find;
mod folder;
mod parquet;
mod parquet_file;

use std::path::{Path, PathBuf};

use mehl_soup::source::{self, Head};
use mehl_soup::zoo::nfc;
use rayon::prelude::*;

use crate::data::DataError;

pub use self::find::Source;
pub(in crate::data) use self::parquet_file::ParquetFile;

/// Largest encoded image that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// Files between two looks at the clock.
const FILES_A_TURN: usize = 512;
const ENDINGS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];
/// Images too, which nothing here decodes: to pass them over would leave a part of the data out.
const UNREAD: [&str; 17] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "tga", "exr", "hdr", "ico", "psd", "svg",
    "dds",
];

/// What files hold: told by a folder's contents, or by a file's ending; a file of another ending is taken for tensors.
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
    /// Texts, a JSON object a line.
    Jsonl,
    /// Texts in a table with tabs.
    Tsv,
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
        /// What the names are as numbers, in a column of a table that holds whole numbers only: they may be outputs.
        numbers: Option<Vec<i64>>,
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
    /// Whether images that cannot be read are left out.
    pub skip_unreadable: bool,
}

impl Listing {
    /// Lists what is in a source of images.
    ///
    /// # Errors
    /// If it cannot be read, holds no image, or a row is at fault.
    pub fn open(source: &Source, columns: &Columns<'_>) -> Result<Self, DataError> {
        let place = source.files.first().unwrap_or(&source.path);
        let listing = match source.kind {
            SourceKind::Csv => csv::list(place, columns)?,
            SourceKind::Parquet => parquet::list(&source.path, &source.files, columns)?,
            SourceKind::Jsonl | SourceKind::Tsv => {
                return Err(DataError::Content {
                    file: source.path.display().to_string(),
                    what: "expected images, as the model takes, found a file of texts".to_string(),
                });
            }
            SourceKind::Folder | SourceKind::Tensors => folder::list(place, columns.skip_unreadable)?,
        };
        if listing.samples.is_empty() {
            return Err(DataError::Content {
                file: source.path.display().to_string(),
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
    let files = source::of(path);
    match files.head(path).map_err(refused)? {
        Head::File(found) if found.size > LARGEST_FILE => {
            Err(format!("expected at most {LARGEST_FILE} bytes, found {}", found.size))
        }
        Head::File(_) => files.read(path, LARGEST_FILE).map_err(refused),
        Head::Folder | Head::Other => Err("expected a regular file".to_string()),
    }
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_image(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

fn is_unread_image(path: &Path) -> bool {
    UNREAD.contains(&ending(path).as_str())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let file = path.display().to_string();
    move |source| DataError::Io { file: file.clone(), source }
}

/// Labels by name from one name a sample, and names that no sample has; in Unicode NFC.
fn by_name(of: Vec<String>, also: impl IntoIterator<Item = String>) -> Labels {
    let of: Vec<String> = of.iter().map(|name| nfc(name)).collect();
    let mut names: Vec<String> = of.iter().cloned().chain(also.into_iter().map(|name| nfc(&name))).collect();
    names.sort_unstable();
    names.dedup();
    let index = |name: String| names.binary_search(&name).expect("every name is among all names");
    let of = of.into_iter().map(index).collect();
    Labels::Names { names, of, numbers: None }
}

/// Labels from a table's column of texts, which may be numbers.
pub(in crate::data) fn by_text(of: Vec<String>) -> Labels {
    let mut labels = by_name(of, []);
    if let Labels::Names { names, numbers, .. } = &mut labels {
        *numbers = names.iter().map(|name| whole_number(name)).collect();
    }
    labels
}

/// A whole number, which may be written as a float: `10.0` is 10.
fn whole_number(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    part.bytes().all(|digit| digit == b'0').then(|| whole.parse().ok()).flatten()
}
