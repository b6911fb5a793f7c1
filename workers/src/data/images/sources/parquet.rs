//! Parquet files with encoded images in them, as Hugging Face exports data sets: a column `image` of `{bytes, path}` (or plain bytes) and a
//! column `label` of whole numbers, whose names are in the file's metadata.

use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::zoo::nfc;
use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;

use super::parquet_file::ParquetFile;
use super::{Columns, Labels, Listing, Place, Sample, Work, by_text, ending, io, is_hidden};
use crate::data::DataError;

const IMAGES: [&str; 3] = ["image", "img", "inputs"];
const LABELS: [&str; 3] = ["label", "labels", "class"];
const LABEL_TYPES: [Type; 5] = [Type::INT32, Type::INT64, Type::FLOAT, Type::DOUBLE, Type::BYTE_ARRAY];
/// Images in memory at once, encoded.
const ROWS_A_TURN: usize = 128;

/// A Parquet file.
#[derive(Debug)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// The leaf column that holds encoded images.
    column: usize,
}

/// The Parquet files of a folder that holds nothing else but hidden files and texts about it; empty if it holds anything more.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    let files = source::of(folder);
    for path in files.list(folder).map_err(io(folder))? {
        let hidden = is_hidden(&path);
        match ending(&path).as_str() {
            "parquet" if files.is_file(&path) => found.push(path),
            _ if hidden || (files.is_file(&path) && matches!(ending(&path).as_str(), "md" | "json" | "txt")) => {}
            _ => return Ok(vec![]),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Lists the rows of files, in their order; `path` names all of them.
pub(super) fn list(path: &Path, files: &[PathBuf], columns: &Columns<'_>) -> Result<Listing, DataError> {
    let (mut samples, mut parquet) = (Vec::new(), Vec::new());
    let mut labels = Found::default();
    let mut class_names: Option<Vec<String>> = None;
    for (index, file) in files.iter().enumerate() {
        let refused = |error: ParquetError| malformed(file, &error);
        let reader = open(file)?;
        let image = image_column(&reader, columns.image, file)?;
        let label = leaf(&reader, columns.label, &LABELS, &LABEL_TYPES)
            .map_err(|what| content(file, format!("label: {what}")))?;
        let names = feature_names(&reader, label);
        if index > 0 && names != class_names {
            return Err(content(
                file,
                "expected the same class names as in the first file, found different \
                 ones"
                    .to_string(),
            ));
        }
        class_names = names;
        for group in 0..reader.num_row_groups() {
            let rows = reader.get_row_group(group).map_err(refused)?;
            let column = rows.get_column_reader(label).map_err(refused)?;
            let count = read_labels(column, &mut labels, file, group)?;
            samples.extend((0..count).map(|row| Sample {
                name: format!("{}, row group {group}, row {row}", file.display()),
                place: Place::Row { file: index, group, row },
            }));
        }
        parquet.push(Table { path: file.clone(), column: image });
    }
    let labels = match labels {
        Found { numbers, names } if names.is_empty() => Labels::Indices { of: numbers, names: class_names },
        Found { numbers, names } if numbers.is_empty() => by_text(names),
        _ => {
            return Err(content(path, "expected labels of one type in all files, found numbers and texts".to_string()));
        }
    };
    Ok(Listing { path: path.to_path_buf(), samples, labels, parquet, notes: vec![] })
}

/// As [`Listing::for_each`].
pub(super) fn for_each(
    listing: &Listing,
    which: &[usize],
    work: &Work<'_>,
    pause: &mut dyn FnMut(usize) -> bool,
) -> Result<(), DataError> {
    let place = |i: usize| match listing.samples[i].place {
        Place::Row { file, group, row } => (file, group, row),
        Place::File(_) => (0, 0, 0),
    };
    let mut done = 0;
    for wanted in which.chunk_by(|&a, &b| (place(a).0, place(a).1) == (place(b).0, place(b).1)) {
        let (file, group, _) = place(wanted[0]);
        let table = &listing.parquet[file];
        let refused = |error: ParquetError| malformed(&table.path, &error);
        let reader = open(&table.path)?;
        let rows = reader.get_row_group(group).map_err(refused)?;
        let ColumnReader::ByteArrayColumnReader(mut column) = rows.get_column_reader(table.column).map_err(refused)?
        else {
            return Err(content(&table.path, "expected a column of bytes".to_string()));
        };
        let full = reader.metadata().file_metadata().schema_descr().column(table.column).max_def_level();
        let mut wanted = wanted;
        let mut first = 0;
        while !wanted.is_empty() {
            let (mut values, mut levels) = (Vec::<ByteArray>::new(), Vec::<i16>::new());
            let (records, _, _) =
                column.read_records(ROWS_A_TURN, Some(&mut levels), None, &mut values).map_err(refused)?;
            if records == 0 {
                return Err(content(&table.path, format!("row group {group}: expected more rows than {first}")));
            }
            // Without nulls there are no levels.
            let mut next = values.iter();
            let images: Vec<Option<&ByteArray>> = match full {
                0 => values.iter().map(Some).collect(),
                _ => levels.iter().map(|&level| if level == full { next.next() } else { None }).collect(),
            };
            let here = wanted.partition_point(|&i| place(i).2 < first + records);
            wanted[..here].par_iter().for_each(|&i| match images.get(place(i).2 - first).copied().flatten() {
                Some(bytes) => work(i, Ok(bytes.data())),
                None => work(
                    i,
                    Err("expected the bytes of an image, found none (paths to images are not followed)".to_string()),
                ),
            });
            wanted = &wanted[here..];
            first += records;
            done += here;
            if !pause(done) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Labels of either type, as they come.
#[derive(Default)]
struct Found {
    numbers: Vec<i64>,
    names: Vec<String>,
}

/// Adds a row group's labels; how many there are.
fn read_labels(column: ColumnReader, labels: &mut Found, file: &Path, group: usize) -> Result<usize, DataError> {
    let refused = |error: ParquetError| malformed(file, &error);
    let fault = |what: String| content(file, format!("row group {group}: {what}"));
    let mut levels = Vec::<i16>::new();
    let before = labels.numbers.len() + labels.names.len();
    let records = match column {
        ColumnReader::Int32ColumnReader(mut column) => {
            let mut values = Vec::new();
            let (records, ..) =
                column.read_records(usize::MAX, Some(&mut levels), None, &mut values).map_err(refused)?;
            labels.numbers.extend(values.into_iter().map(i64::from));
            records
        }
        ColumnReader::Int64ColumnReader(mut column) => {
            column.read_records(usize::MAX, Some(&mut levels), None, &mut labels.numbers).map_err(refused)?.0
        }
        ColumnReader::ByteArrayColumnReader(mut column) => {
            let mut values = Vec::new();
            let (records, ..) =
                column.read_records(usize::MAX, Some(&mut levels), None, &mut values).map_err(refused)?;
            for value in values {
                let text = value.as_utf8().map_err(|_| fault("expected labels in UTF-8".to_string()))?;
                labels.names.push(text.to_string());
            }
            records
        }
        ColumnReader::FloatColumnReader(mut column) => {
            let mut values = Vec::new();
            let (records, ..) =
                column.read_records(usize::MAX, Some(&mut levels), None, &mut values).map_err(refused)?;
            add_floats(labels, values.into_iter().map(f64::from)).map_err(fault)?;
            records
        }
        ColumnReader::DoubleColumnReader(mut column) => {
            let mut values = Vec::new();
            let (records, ..) =
                column.read_records(usize::MAX, Some(&mut levels), None, &mut values).map_err(refused)?;
            add_floats(labels, values.into_iter()).map_err(fault)?;
            records
        }
        _ => return Err(fault("expected labels of whole numbers or texts".to_string())),
    };
    let found = labels.numbers.len() + labels.names.len() - before;
    if found != records {
        return Err(fault(format!("expected a label in each of {records} rows, found {found}")));
    }
    if let Some(negative) = labels.numbers.iter().rev().take(found).find(|&&label| label < 0) {
        return Err(fault(format!("expected classes from 0, found {negative}")));
    }
    Ok(records)
}

/// Adds labels that are whole numbers as floats: pandas makes floats of a column with gaps.
fn add_floats(labels: &mut Found, values: impl Iterator<Item = f64>) -> Result<(), String> {
    for value in values {
        if value.fract() != 0.0 || value.abs() >= 2f64.powi(53) {
            return Err(format!("expected labels of whole numbers or texts, found {value}"));
        }
        labels.numbers.push(value as i64);
    }
    Ok(())
}

fn open(path: &Path) -> Result<SerializedFileReader<ParquetFile>, DataError> {
    let blob = source::of(path).open(path).map_err(io(path))?;
    SerializedFileReader::new(ParquetFile(blob)).map_err(|error| malformed(path, &error))
}

fn malformed(path: &Path, error: &ParquetError) -> DataError {
    content(path, format!("cannot read the Parquet file: {error}"))
}

fn content(path: &Path, what: String) -> DataError {
    DataError::Content { file: path.display().to_string(), what }
}

/// The leaf that holds encoded images: `name.bytes`, or `name` itself.
fn image_column(
    reader: &SerializedFileReader<ParquetFile>,
    stated: Option<&str>,
    path: &Path,
) -> Result<usize, DataError> {
    leaf(reader, stated, &IMAGES, &[Type::BYTE_ARRAY]).map_err(|what| content(path, format!("image: {what}")))
}

/// The first leaf column of a name (or its `bytes`) that has one of the types and no repetition.
fn leaf(
    reader: &SerializedFileReader<ParquetFile>,
    stated: Option<&str>,
    usual: &[&str],
    types: &[Type],
) -> Result<usize, String> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let wanted: Vec<&str> = stated.map_or_else(|| usual.to_vec(), |name| vec![name]);
    let path_of = |i: usize| schema.column(i).path().string();
    let found = wanted.iter().find_map(|name| {
        (0..schema.num_columns()).find(|&i| path_of(i) == *name || path_of(i) == format!("{name}.bytes"))
    });
    let Some(index) = found else {
        let all: Vec<String> = (0..schema.num_columns()).map(path_of).collect();
        return Err(format!("expected a column named {}, found only {}", wanted.join(" or "), all.join(", ")));
    };
    let column = schema.column(index);
    if column.max_rep_level() > 0 || !types.contains(&column.physical_type()) {
        return Err(format!(
            "column `{}`: expected single values of {types:?}, found {}{:?}",
            path_of(index),
            if column.max_rep_level() > 0 { "lists of " } else { "" },
            column.physical_type()
        ));
    }
    Ok(index)
}

/// Names of a `ClassLabel` column, from the metadata that Hugging Face's `datasets` writes.
fn feature_names(reader: &SerializedFileReader<ParquetFile>, label: usize) -> Option<Vec<String>> {
    let metadata = reader.metadata().file_metadata();
    let entry = metadata.key_value_metadata()?.iter().find(|entry| entry.key == "huggingface")?;
    let json: serde_json::Value = serde_json::from_str(entry.value.as_deref()?).ok()?;
    let column = metadata.schema_descr().column(label);
    let names = json.get("info")?.get("features")?.get(column.path().string())?.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(nfc)).collect()
}
