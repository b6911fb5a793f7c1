//! One open safetensors file.

use std::fs::{File, Metadata as FileMetadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Advice;
use safetensors::tensor::TensorInfo;

use super::error::ZooError;
use super::header;
use crate::untrusted;

/// Bytes that are read and hashed at a time.
const HASH_BLOCK: usize = 1 << 20;

/// One safetensors file of an ingredient, open for reading.
///
/// It is read, not mapped: a file that another program shortens then gives an error, where a map would end the process.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    /// Where tensor data begins in the file.
    data: u64,
    tensors: Vec<String>,
    stamp: Mutex<FileStamp>,
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

/// A file beside its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileState {
    /// As it was.
    Same,
    /// Only the inode's own time differs: a new link or mode, or a write whose time was set back. The contents tell.
    Touched(FileStamp),
    /// Another file or other contents, in words.
    Changed(String),
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

    /// The file's state now.
    pub fn state(&self) -> FileState {
        let now = match self.canonical.metadata() {
            Ok(metadata) => Self::new(self.canonical.clone(), &metadata),
            Err(e) => return FileState::Changed(e.to_string()),
        };
        if now == *self {
            FileState::Same
        } else if (now.device, now.inode) != (self.device, self.inode) {
            FileState::Changed("it was replaced by another file".into())
        } else if now.bytes != self.bytes {
            FileState::Changed(format!("expected {} bytes, found {}", self.bytes, now.bytes))
        } else if now.modified != self.modified {
            FileState::Changed("it was modified".into())
        } else {
            FileState::Touched(now)
        }
    }
}

impl Shard {
    /// Opens `path` and checks its header: sizes, offsets without gap or overlap, shapes that fit them, no byte too many or too few.
    ///
    /// # Errors
    /// If it is no regular file, cannot be read, or is malformed.
    pub fn open(path: &Path) -> Result<Self, ZooError> {
        Ok(Self::open_with_header(path)?.0)
    }

    pub(super) fn open_with_header(path: &Path) -> Result<(Self, Vec<(String, TensorInfo)>), ZooError> {
        let canonical = path.canonicalize().map_err(ZooError::io(path))?;
        let file = untrusted::open(&canonical).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => ZooError::NotAnIngredient { path: path.into(), reason: e.to_string() },
            _ => ZooError::io(path)(e),
        })?;
        let stamp = FileStamp::new(canonical, &file.metadata().map_err(ZooError::io(path))?);
        // A hint; without it reading is only slower.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);

        let malformed = |reason: String| ZooError::Malformed { file: path.to_path_buf(), reason };
        let mut beginning = [0; header::BEGINNING];
        let count = file.read_at(&mut beginning, 0).map_err(ZooError::io(path))?;
        if let Some(kind) = header::other_kind(&beginning[..count]) {
            return Err(malformed(format!("not a safetensors file but {kind}")));
        }
        let mut prefix = [0; header::PREFIX];
        if stamp.bytes < prefix.len() as u64 {
            return Err(malformed(header::too_short(stamp.bytes)));
        }
        file.read_exact_at(&mut prefix, 0).map_err(ZooError::io(path))?;
        let mut json = vec![0; header::length(prefix, stamp.bytes).map_err(malformed)?];
        file.read_exact_at(&mut json, prefix.len() as u64).map_err(ZooError::io(path))?;
        let data = (prefix.len() + json.len()) as u64;
        let header = header::parse(&json, stamp.bytes - data).map_err(malformed)?;
        let tensors = header.offset_keys();
        let infos = tensors
            .iter()
            .map(|name| (name.clone(), header.info(name).expect("a name of the same header").clone()))
            .collect();
        Ok((Self { path: path.to_path_buf(), file, data, tensors, stamp: Mutex::new(stamp) }, infos))
    }

    /// Asks the system to read the whole file into its cache, as far as it is not there. Answers at once or soon, whatever the disk does.
    pub(super) fn read_ahead(&self) {
        // A hint, as above.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::WillNeed);
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in it, in the order in which they lie in the file.
    pub fn tensors(&self) -> &[String] {
        &self.tensors
    }

    /// Fills `out` with the data from byte `start` on.
    pub(super) fn read_at(&self, start: usize, out: &mut [u8]) -> Result<(), ZooError> {
        self.read_from_file(self.data + start as u64, out)
    }

    fn read_from_file(&self, at: u64, out: &mut [u8]) -> Result<(), ZooError> {
        self.file.read_exact_at(out, at).map_err(|e| match e.kind() {
            // The header fits the file's size when it was opened.
            io::ErrorKind::UnexpectedEof => self.changed("it was truncated".into()),
            _ => ZooError::io(&self.path)(e),
        })
    }

    /// blake3 of the whole file, header too, as long as it was when it was opened; hexadecimal.
    pub(super) fn hash_file(&self) -> Result<String, ZooError> {
        let bytes = self.stamp().bytes;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_BLOCK];
        let mut at = 0;
        while at < bytes {
            let block = &mut buffer[..usize::try_from(bytes - at).map_or(HASH_BLOCK, |left| left.min(HASH_BLOCK))];
            self.read_from_file(at, block)?;
            hasher.update_rayon(block);
            at += block.len() as u64;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    pub(super) fn changed(&self, reason: String) -> ZooError {
        ZooError::Changed { file: self.path.clone(), reason }
    }

    pub(crate) fn stamp(&self) -> FileStamp {
        self.stamp.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After the contents were found to be the same.
    pub(super) fn renew_stamp(&self, stamp: FileStamp) {
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
    }
}
