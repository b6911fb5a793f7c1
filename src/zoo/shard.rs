//! One mapped safetensors file.

use std::fs::{File, Metadata as FileMetadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};
use safetensors::tensor::{Metadata, TensorInfo};

use super::error::ZooError;

/// One safetensors file of an ingredient, mapped into memory.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    /// Where tensor data begins in the file.
    data: usize,
    tensors: Vec<String>,
    stamp: FileStamp,
}

/// What tells a file's state without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp {
    pub canonical: PathBuf,
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// Like `modified`, of the inode: unlike that it cannot be set back.
    pub changed: (i64, i64),
}

impl FileStamp {
    fn new(canonical: PathBuf, metadata: &FileMetadata) -> Self {
        Self {
            canonical,
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file is still in that state.
    pub fn still_holds(&self) -> bool {
        self.canonical.metadata().is_ok_and(|now| Self::new(self.canonical.clone(), &now) == *self)
    }
}

impl Shard {
    /// Maps `path` and checks its header: sizes, offsets without gap or overlap, shapes that fit them, no byte too many or too few.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<(String, TensorInfo)>), ZooError> {
        let canonical = path.canonicalize().map_err(ZooError::io(path))?;
        // Before opening: to open a pipe would wait for its writer.
        if !canonical.metadata().map_err(ZooError::io(path))?.is_file() {
            return Err(ZooError::NotAnIngredient { path: path.into(), reason: "expected a regular file".into() });
        }
        let file = File::open(&canonical).map_err(ZooError::io(path))?;
        let stamp = FileStamp::new(canonical, &file.metadata().map_err(ZooError::io(path))?);
        // SAFETY: the map is read-only and private to this process; nobody may shorten a file of the zoo while it is in
        // use (documented for users). A changed byte is noticed by content hashes, never trusted as an offset: headers
        // are parsed once, into owned memory.
        let map = unsafe { Mmap::map(&file) }.map_err(ZooError::io(path))?;
        // A hint; without it reading is only slower.
        let _ = map.advise(Advice::Sequential);

        let malformed = |reason: String| ZooError::Malformed { file: path.to_path_buf(), reason };
        let (data, header) = parse_header(&map).map_err(malformed)?;
        let tensors = header.offset_keys();
        let infos = tensors
            .iter()
            .map(|name| (name.clone(), header.info(name).expect("a name of the same header").clone()))
            .collect();
        Ok((Self { path: path.to_path_buf(), map, data, tensors, stamp }, infos))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in it, in the order in which they lie in the file.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.map[self.data..]
    }

    pub(crate) fn stamp(&self) -> &FileStamp {
        &self.stamp
    }
}

/// Start of the data, and the header. Lengths are compared here, not by the safetensors crate, whose sum of a hostile
/// header's offsets can overflow; everything within the header is checked there.
pub(crate) fn parse_header(file: &[u8]) -> Result<(usize, Metadata), String> {
    let length = file.len();
    let Some((prefix, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("not a safetensors file: expected at least 8 bytes, found {length}"));
    };
    let stated = u64::from_le_bytes(*prefix);
    let header = usize::try_from(stated).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
        format!(
            "not a safetensors file, or truncated: expected a header of {stated} bytes, found {} in all",
            rest.len()
        )
    })?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("not a safetensors file, or damaged: {e}"))?;
    let data = 8 + header.len();
    if metadata.data_len() != length - data {
        let (expected, found) = (metadata.data_len(), length - data);
        return Err(format!("truncated or damaged: expected {expected} bytes of tensors, found {found}"));
    }
    Ok((data, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn entry(name: &str, shape: &str, from: u64, to: u64) -> String {
        format!(r#""{name}":{{"dtype":"U8","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    }

    #[test]
    fn hostile_headers_are_refused() {
        let good = file(&format!("{{{}}}", entry("a", "[2,2]", 0, 4)), 4);
        assert!(parse_header(&good).is_ok());
        for length in 0..good.len() {
            assert!(parse_header(&good[..length]).is_err(), "{length} bytes");
        }
        let one = |e: String, data| file(&format!("{{{e}}}"), data);
        let bad = [
            ("too long", one(entry("a", "[4]", 0, 4), 5)),
            ("shape does not fit", one(entry("a", "[3]", 0, 4), 4)),
            ("backwards", one(entry("a", "[0]", 4, 0), 4)),
            ("gap", one(entry("a", "[2]", 2, 4), 4)),
            ("overlap", one(format!("{},{}", entry("a", "[3]", 0, 3), entry("b", "[3]", 1, 4)), 4)),
            ("twice", one(format!("{},{}", entry("a", "[2]", 0, 2), entry("a", "[2]", 2, 4)), 4)),
            ("shape overflows", one(entry("a", "[4294967296,4294967296,16]", 0, 4), 4)),
            ("unknown dtype", file(r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]}}"#, 1)),
            ("not an object", file("[]", 0)),
            ("header longer than memory", u64::MAX.to_le_bytes().to_vec()),
        ];
        for (what, bytes) in bad {
            assert!(parse_header(&bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn offsets_whose_sum_wraps_around_are_refused() {
        // Nine tensors that end just below 2^64: with the header's own length the sum would come round to the file's.
        let part = (1u64 << 61) - 1;
        let mut entries: Vec<String> =
            (0..8).map(|i| entry(&format!("t{i}"), &format!("[{part}]"), i * part, (i + 1) * part)).collect();
        entries.push(entry("t8", "[7]", 8 * part, 8 * part + 7));
        assert!(parse_header(&file(&format!("{{{}}}", entries.join(",")), 0)).is_err());
    }
}
