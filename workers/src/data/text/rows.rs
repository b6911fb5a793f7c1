//! Rows of a source of texts, whatever its format.

use std::path::{Path, PathBuf};

use mehl_soup::sweep::spec::DataSpec;

use super::columns::Chosen;
use super::{delimited, jsonl, parquet};
use crate::data::DataError;
use crate::data::images::sources::{Source, SourceKind};

/// Longest row that is read, in bytes.
pub(super) const LONGEST_ROW: usize = 16 << 20;

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Nothing is there.
    Missing,
    /// A text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Another number.
    Real(f64),
    /// Several values.
    List(Vec<Cell>),
    /// Something else, in words.
    Other(&'static str),
}

impl Cell {
    /// What it is, in words.
    pub(super) fn described(&self) -> &'static str {
        match self {
            Self::Missing => "nothing",
            Self::Text(_) => "a text",
            Self::Whole(_) => "a whole number",
            Self::Real(_) => "a number",
            Self::List(_) => "a list",
            Self::Other(what) => what,
        }
    }
}

/// One row: the values of the wanted columns, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its number in its file, from 1: the line of JSONL, the row of a table.
    pub number: u64,
    /// Its values, or what is wrong with it.
    pub cells: Result<Vec<Cell>, String>,
}

/// Which columns are wanted.
pub(super) struct Wanted<'a> {
    /// As the specification says.
    pub spec: &'a DataSpec,
    /// Whether samples have labels.
    pub is_labelled: bool,
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the source's file.
    pub file: u32,
    /// Its number in the file.
    pub number: u64,
}

/// Takes a row; what it fails with ends the reading.
pub(super) type Take<'a> = dyn FnMut(&Chosen, Row) -> Result<(), DataError> + 'a;

/// Takes the values of a row, or what is wrong with it, and its place.
pub(super) type Each<'a> = dyn FnMut(&Chosen, Place, Result<Vec<Cell>, String>) -> Result<(), DataError> + 'a;

/// A row, for people: `x.jsonl: line 3`.
pub(super) fn named(source: &Source, place: Place) -> String {
    let file = source.files.get(place.file as usize).unwrap_or(&source.path);
    let unit = if source.kind == SourceKind::Jsonl { "line" } else { "row" };
    format!("{}: {unit} {}", file.display(), place.number)
}

/// Reads all rows of a source, in their order, one at a time. Answers which columns were taken.
///
/// # Errors
/// If a file cannot be read, has no such columns, or is no file of its format; what `take` fails with.
pub(super) fn for_each(source: &Source, wanted: &Wanted<'_>, each: &mut Each<'_>) -> Result<Chosen, DataError> {
    let mut chosen: Option<(PathBuf, Chosen)> = None;
    for (index, file) in source.files.iter().enumerate() {
        let take: &mut Take<'_> =
            &mut |chosen, row| each(chosen, Place { file: index as u32, number: row.number }, row.cells);
        let found = match source.kind {
            SourceKind::Jsonl => jsonl::for_each(file, wanted, take)?,
            SourceKind::Csv => delimited::for_each(file, b',', wanted, take)?,
            SourceKind::Tsv => delimited::for_each(file, b'\t', wanted, take)?,
            SourceKind::Parquet => parquet::for_each(file, wanted, take)?,
            SourceKind::Folder | SourceKind::Tensors => {
                return Err(content(file, "expected texts in JSONL, CSV, TSV or Parquet".to_string()));
            }
        };
        match &chosen {
            None => chosen = Some((file.clone(), found)),
            Some((first, before)) if *before != found => {
                let what = format!("expected columns {before} as in {}, found {found}", first.display());
                return Err(content(file, what));
            }
            Some(_) => {}
        }
    }
    chosen.map(|(_, chosen)| chosen).ok_or_else(|| content(&source.path, "expected texts, found no file".to_string()))
}

/// A fault of a file's content.
pub(super) fn content(file: &Path, what: String) -> DataError {
    DataError::Content { file: file.display().to_string(), what }
}
