//! Parquet files with columns of texts.

use std::path::Path;

use mehl_soup::source;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::columns::Chosen;
use super::rows::{Cell, Row, Take, Wanted, content};
use crate::data::DataError;
use crate::data::images::sources::ParquetFile;

/// As [`super::rows::for_each`], of one file.
pub(super) fn for_each(path: &Path, wanted: &Wanted<'_>, take: &mut Take<'_>) -> Result<Chosen, DataError> {
    let io = |source| DataError::Io { file: path.display().to_string(), source };
    let refused = |error: ParquetError| content(path, format!("is no Parquet file that can be read: {error}"));
    let file = source::of(path).open(path).map_err(io)?;
    let reader = SerializedFileReader::new(ParquetFile(file)).map_err(refused)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let columns: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_string()).collect();
    let chosen = Chosen::among(&columns, wanted).map_err(|why| content(path, why))?;
    let names: Vec<&str> = chosen.names().collect();
    let kept = schema.get_fields().iter().filter(|field| names.contains(&field.name())).cloned().collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(kept).build().map_err(refused)?;
    for (index, row) in reader.get_row_iter(Some(projection)).map_err(refused)?.enumerate() {
        let row = row.map_err(refused)?;
        let mut cells = vec![Cell::Missing; names.len()];
        for (name, field) in row.get_column_iter() {
            if let Some(at) = names.iter().position(|wanted| wanted == name) {
                cells[at] = cell(field);
            }
        }
        take(&chosen, Row { number: index as u64 + 1, cells: Ok(cells) })?;
    }
    Ok(chosen)
}

fn cell(field: &Field) -> Cell {
    match field {
        Field::Null => Cell::Missing,
        Field::Bool(_) => Cell::Other("true or false"),
        Field::Byte(value) => Cell::Whole((*value).into()),
        Field::Short(value) => Cell::Whole((*value).into()),
        Field::Int(value) => Cell::Whole((*value).into()),
        Field::Long(value) => Cell::Whole(*value),
        Field::UByte(value) => Cell::Whole((*value).into()),
        Field::UShort(value) => Cell::Whole((*value).into()),
        Field::UInt(value) => Cell::Whole((*value).into()),
        Field::ULong(value) => i64::try_from(*value).map_or(Cell::Real(*value as f64), Cell::Whole),
        Field::Float(value) => Cell::Real((*value).into()),
        Field::Double(value) => Cell::Real(*value),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::ListInternal(list) => Cell::List(list.elements().iter().map(cell).collect()),
        Field::Bytes(_) => Cell::Other("bytes"),
        _ => Cell::Other("a value of another type"),
    }
}
