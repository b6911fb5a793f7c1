//! JSONL: one JSON object a line.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use mehl_soup::source::{self, BlobReader};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::columns::Chosen;
use super::rows::{Cell, LONGEST_ROW, Row, Take, Wanted, content};
use crate::data::DataError;

/// Longest list of a value.
const LONGEST_LIST: usize = 1 << 16;

/// As [`super::rows::for_each`], of one file. Columns are told by the first line; empty lines are passed over.
pub(super) fn for_each(path: &Path, wanted: &Wanted<'_>, take: &mut Take<'_>) -> Result<Chosen, DataError> {
    let io = |source| DataError::Io { file: path.display().to_string(), source };
    let file = source::of(path).open(path).map_err(io)?;
    let mut reader = BufReader::with_capacity(1 << 16, BlobReader::new(file, 0));
    let mut chosen: Option<Chosen> = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        let Some(is_whole) = next_line(&mut reader, &mut line).map_err(io)? else { break };
        let text = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if is_whole && text.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("line {number}");
        if chosen.is_none() {
            if !is_whole {
                return Err(content(path, format!("{place}: {}", too_long())));
            }
            let keys = parsed(text, Keys).map_err(|why| content(path, format!("{place}: {why}")))?;
            let found = Chosen::among(&keys, wanted).map_err(|why| content(path, format!("{place}: {why}")))?;
            chosen = Some(found);
        }
        let Some(chosen) = &chosen else { continue };
        let cells = if is_whole { parsed(text, Cells(chosen)) } else { Err(too_long()) };
        take(chosen, Row { number, cells })?;
    }
    chosen.ok_or_else(|| content(path, "expected a JSON object in each line, found no line".to_string()))
}

fn too_long() -> String {
    format!("expected at most {} MiB, found more", LONGEST_ROW >> 20)
}

/// Reads a line without its end, at most the longest that is allowed; `None` at the end of the file, `false` for a longer one, whose
/// rest is passed over.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
    line.clear();
    let limit = LONGEST_ROW as u64 + 1;
    if reader.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() <= LONGEST_ROW {
        return Ok(Some(true));
    }
    line.clear();
    loop {
        let buffer = reader.fill_buf()?;
        let (used, is_end) = match buffer.iter().position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(used);
        if is_end {
            return Ok(Some(false));
        }
    }
}

fn parsed<'a, S: DeserializeSeed<'a>>(text: &'a [u8], seed: S) -> Result<S::Value, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = seed.deserialize(&mut json).map_err(|error| described(&error))?;
    json.end().map_err(|error| described(&error))?;
    Ok(value)
}

fn described(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Its line is that within the line of the file.
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.classify() {
        serde_json::error::Category::Data => what.to_string(),
        _ => format!("expected a JSON object: {what} at column {}", error.column()),
    }
}

/// The keys of an object.
struct Keys;

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
            keys.push(key);
        }
        Ok(keys)
    }
}

/// The values of the chosen columns.
struct Cells<'a>(&'a Chosen);

impl<'de> DeserializeSeed<'de> for Cells<'_> {
    type Value = Vec<Cell>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Cells<'_> {
    type Value = Vec<Cell>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let names: Vec<&str> = self.0.names().collect();
        let mut cells: Vec<Option<Cell>> = vec![None; names.len()];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let Some(at) = names.iter().position(|name| *name == key) else {
                if self.0.absent.contains(&key.as_ref()) {
                    return Err(serde::de::Error::custom(format!(
                        "expected no `{key}`, as the first line has none, found one (set data.text.columns)"
                    )));
                }
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if cells[at].is_some() {
                return Err(serde::de::Error::custom(format!("expected `{key}` once, found it twice")));
            }
            cells[at] = Some(map.next_value_seed(OneCell)?);
        }
        Ok(cells.into_iter().map(|cell| cell.unwrap_or(Cell::Missing)).collect())
    }
}

struct OneCell;

impl<'de> DeserializeSeed<'de> for OneCell {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneCell {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Cell, E> {
        Ok(Cell::Other("true or false"))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or(Cell::Real(value as f64), Cell::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Cell, E> {
        Ok(Cell::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cell, A::Error> {
        let mut cells = Vec::new();
        while let Some(cell) = seq.next_element_seed(OneCell)? {
            if cells.len() == LONGEST_LIST {
                return Err(serde::de::Error::custom(format!("expected a list of at most {LONGEST_LIST} values")));
            }
            cells.push(cell);
        }
        Ok(Cell::List(cells))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an object"))
    }
}
