//! Headers of safetensors files: read without trust, every fault named.

use std::collections::{HashMap, HashSet};
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::untrusted::{LARGEST_HEADER, LONGEST_TENSOR_NAME, MOST_DIMENSIONS, MOST_TENSORS};

/// The key of a header that is no tensor.
const METADATA: &str = "__metadata__";
/// Bytes before the header: its length.
pub(super) const PREFIX: usize = 8;

/// Start of the data and header of a file that is in memory as a whole.
///
/// # Errors
/// As [`parse`] and [`length`].
pub(crate) fn parse_header(file: &[u8]) -> Result<(usize, Metadata), String> {
    if let Some(kind) = other_kind(&file[..file.len().min(BEGINNING)]) {
        return Err(format!("not a safetensors file but {kind}"));
    }
    let Some((prefix, rest)) = file.split_first_chunk::<PREFIX>() else {
        return Err(too_short(file.len() as u64));
    };
    let (header, data) = rest.split_at(length(*prefix, file.len() as u64)?);
    Ok((PREFIX + header.len(), parse(header, data.len() as u64)?))
}

/// What a file is, by its first bytes, that is often found in the place of a safetensors file; and the way out.
pub(super) fn other_kind(beginning: &[u8]) -> Option<&'static str> {
    const PICKLE: &str = "a pickle, as torch.save writes it. Pickles can run code and are never opened: convert it with `python -m mehl_soup convert`";
    const KINDS: [(&[u8], &str); 8] = [
        (b"version https://git-lfs", "a git-lfs pointer instead of the file: fetch it with `git lfs pull`"),
        (b"PK\x03\x04", PICKLE),
        (b"\x80\x02", PICKLE),
        (b"\x80\x03", PICKLE),
        (b"\x80\x04", PICKLE),
        (b"\x89HDF", "an HDF5 file, as Keras writes it: save the model's tensors as safetensors"),
        (b"GGUF", "a GGUF file with quantised weights: use the original model"),
        (b"\x1f\x8b", "a gzip archive: unpack it"),
    ];
    // A length of less than 4 GiB and the JSON after it: two of the beginnings below are lengths too.
    if beginning.get(4..PREFIX + 1).is_some_and(|bytes| bytes == b"\0\0\0\0{") {
        return None;
    }
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| beginning.starts_with(magic)) {
        return Some(kind);
    }
    let text = beginning.trim_ascii_start();
    let is = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    let is_page = is(b"<!doctype") || is(b"<html") || is(b"<?xml");
    is_page.then_some("a web page, probably an error page instead of the file: download it again")
}

/// Bytes that [`other_kind`] looks at.
pub(super) const BEGINNING: usize = 64;

/// What to say of a file without even a length.
pub(super) fn too_short(found: u64) -> String {
    format!("not a safetensors file: expected at least {PREFIX} bytes, found {found}")
}

/// Length of the header, from a file's first bytes and its size.
///
/// # Errors
/// If it is beyond the file or [`LARGEST_HEADER`].
pub(super) fn length(prefix: [u8; PREFIX], file: u64) -> Result<usize, String> {
    let stated = u64::from_le_bytes(prefix);
    let rest = file.saturating_sub(PREFIX as u64);
    if stated > rest {
        return Err(format!(
            "not a safetensors file, or truncated: expected a header of {stated} bytes, found {rest} in all"
        ));
    }
    if stated > LARGEST_HEADER {
        return Err(format!(
            "not a safetensors file: expected a header of at most {LARGEST_HEADER} bytes, found one of {stated}"
        ));
    }
    usize::try_from(stated).map_err(|e| e.to_string())
}

/// Reads a header of a file with so many bytes of data, and checks all of it: names once each, of bounded length and without
/// control characters; shapes that fit their bytes; offsets without gap or overlap from the first byte of data to the last.
///
/// # Errors
/// With the tensor at fault, and what was expected and found.
pub(super) fn parse(header: &[u8], data: u64) -> Result<Metadata, String> {
    let Header { metadata, mut tensors } =
        serde_json::from_slice(header).map_err(|e| format!("not a safetensors file, or damaged: {e}"))?;
    // By name too: empty tensors share their place.
    tensors.sort_by(|(a, x), (b, y)| x.data_offsets.cmp(&y.data_offsets).then_with(|| a.cmp(b)));
    let mut end = 0;
    for (name, info) in &tensors {
        check(info, end, data).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        end = info.data_offsets.1;
    }
    if end as u64 != data {
        return Err(format!("truncated or damaged: expected {end} bytes of tensors, found {data}"));
    }
    Metadata::new(metadata, tensors).map_err(|e| e.to_string())
}

/// One tensor, where the one before it ends at `start`.
fn check(info: &TensorInfo, start: usize, data: u64) -> Result<(), String> {
    let TensorInfo { dtype, shape, data_offsets: (from, to) } = info;
    if *from != start {
        let how = if *from > start { "leaves a gap" } else { "overlaps another tensor" };
        return Err(format!("expected it to begin at byte {start}, found {from}: it {how}"));
    }
    if to < from {
        return Err(format!("expected it to end at byte {from} or later, found {to}"));
    }
    if *to as u64 > data {
        return Err(format!("truncated or damaged: expected it to end at byte {to}, found only {data} bytes of data"));
    }
    if shape.len() > MOST_DIMENSIONS {
        return Err(format!("expected at most {MOST_DIMENSIONS} dimensions, found {}", shape.len()));
    }
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let bits = elements.and_then(|elements| elements.checked_mul(Dtype::bitsize(dtype)));
    let Some(bits) = bits else {
        return Err(format!("shape {shape:?} has too many elements"));
    };
    if bits % 8 != 0 {
        return Err(format!("shape {shape:?} of {dtype}: expected whole bytes, found {bits} bits"));
    }
    let (expected, found) = (bits / 8, to - from);
    if expected != found {
        return Err(format!("expected {expected} bytes for shape {shape:?} of {dtype}, found {found}"));
    }
    Ok(())
}

/// A tensor as a header describes it. The format knows these three keys; the value of any other would be skipped here unread, where the
/// safetensors crate may find fault with it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// A header as it is written. The safetensors crate's own reader keeps the last of several tensors of one name.
struct Header {
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { metadata: None, tensors: Vec::new() };
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            check_name(&name).map_err(A::Error::custom)?;
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("`{name}`: expected once, found twice")));
            }
            if name == METADATA {
                header.metadata = map.next_value()?;
                continue;
            }
            if header.tensors.len() == MOST_TENSORS {
                return Err(A::Error::custom(format!("expected at most {MOST_TENSORS} tensors, found more")));
            }
            // The parser's own message names no tensor.
            let Entry { dtype, shape, data_offsets } =
                map.next_value().map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
            header.tensors.push((name, TensorInfo { dtype, shape, data_offsets }));
        }
        Ok(header)
    }
}

/// Names reach terminals, reports and other programs.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let beginning = || name.chars().take(40).flat_map(char::escape_debug).collect::<String>();
    if name.len() > LONGEST_TENSOR_NAME {
        let found = name.len();
        return Err(format!(
            "`{}...`: expected a name of at most {LONGEST_TENSOR_NAME} bytes, found {found}",
            beginning()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("`{}`: expected a name without control characters", beginning()));
    }
    Ok(())
}

/// A JSON object from names to texts, each name once: the columns of a shard index.
pub(super) struct NameMap(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for NameMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameMapVisitor;
        impl<'de> Visitor<'de> for NameMapVisitor {
            type Value = NameMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NameMap, A::Error> {
                let mut entries = Vec::new();
                let mut seen = HashSet::new();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    check_name(&name).map_err(A::Error::custom)?;
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("tensor `{name}`: expected once, found twice")));
                    }
                    entries.push((name, text));
                }
                Ok(NameMap(entries))
            }
        }
        deserializer.deserialize_map(NameMapVisitor)
    }
}
