//! CSV and TSV with a header.

use std::cell::Cell as Shared;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use mehl_soup::source::{self, BlobReader};

use super::columns::Chosen;
use super::rows::{Cell, LONGEST_ROW, Row, Take, Wanted, content};
use crate::data::DataError;

/// A reader that gives at most so many bytes until more are allowed: a quote that is never closed must not be read into memory.
struct Bounded<R> {
    inner: R,
    left: Rc<Shared<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!(
                "expected rows of at most {} MiB, found a longer one (a quote that is not closed?)",
                LONGEST_ROW >> 20
            )));
        }
        let most = out.len().min(left);
        let count = self.inner.read(&mut out[..most])?;
        self.left.set(left - count);
        Ok(count)
    }
}

/// As [`super::rows::for_each`], of one file.
pub(super) fn for_each(
    path: &Path,
    delimiter: u8,
    wanted: &Wanted<'_>,
    take: &mut Take<'_>,
) -> Result<Chosen, DataError> {
    let io = |source| DataError::Io { file: path.display().to_string(), source };
    let file = source::of(path).open(path).map_err(io)?;
    let left = Rc::new(Shared::new(LONGEST_ROW));
    let text = BufReader::new(Bounded { inner: BlobReader::new(file, 0), left: Rc::clone(&left) });
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let refused = |error: csv::Error| content(path, described(&error));
    let header: Vec<String> =
        reader.headers().map_err(refused)?.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
    if header.iter().all(String::is_empty) {
        return Err(content(path, "expected a header with the names of columns, found none".to_string()));
    }
    let chosen = Chosen::among(&header, wanted).map_err(|why| content(path, why))?;
    let places: Vec<usize> =
        chosen.names().filter_map(|name| header.iter().position(|column| column == name)).collect();
    let mut record = csv::StringRecord::new();
    for number in 1_u64.. {
        left.set(LONGEST_ROW);
        let place = format!("row {number}");
        let cells = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => Ok(places.iter().map(|&at| cell(&record[at])).collect()),
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths { .. } | csv::ErrorKind::Utf8 { .. } => Err(described(&error)),
                _ => return Err(content(path, format!("{place}: {}", described(&error)))),
            },
        };
        take(&chosen, Row { number, cells })?;
    }
    Ok(chosen)
}

/// A field: a text always, as a table does not say more.
fn cell(field: &str) -> Cell {
    if field.is_empty() { Cell::Missing } else { Cell::Text(field.to_string()) }
}

fn described(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("expected {expected_len} columns as in the header, found {len}")
        }
        csv::ErrorKind::Utf8 { .. } => "expected text in UTF-8, found other bytes".to_string(),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => format!("cannot be read as a table: {error}"),
    }
}
