//! An open file of a source.

use std::fmt::Debug;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use super::Identity;

/// What will be read of a file. A source may do something about it, such as reading ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The file from its beginning to its end.
    Sequential,
    /// The whole file, soon.
    WillNeed,
}

/// An open file. Any number of threads may read it at once.
pub trait Blob: Debug + Send + Sync {
    /// Where the file is, links followed: two paths that lead to one file have one name.
    fn name(&self) -> &Path;

    /// State of the file when it was opened.
    fn identity(&self) -> &Identity;

    /// State now of the file that has this [name](Self::name).
    ///
    /// # Errors
    /// If nothing is there, or the source refuses.
    fn now(&self) -> io::Result<Identity>;

    /// Fills `out` with the bytes from byte `start` on. They are those that the file has now,
    /// unless the source can give those that it had when it was opened.
    ///
    /// # Errors
    /// Kind `UnexpectedEof` if the file ends before that. [`Changed`] if the source knows that the
    /// file is another.
    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()>;

    /// Says what will be read. Returns at once or soon. A source may do nothing.
    fn hint(&self, _hint: Hint) {}
}

/// A file that is no longer what it was when it was opened, and how. A source wraps it in an
/// [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Changed(pub String);

/// How a file changed, if that is why a read of it failed. The read was within the size that it had
/// when opened.
pub fn change_told_by(error: &io::Error) -> Option<String> {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Some("it was truncated".to_string());
    }
    error.get_ref().and_then(|inner| inner.downcast_ref::<Changed>()).map(ToString::to_string)
}

/// Reads a blob from a place on, for parsers that want a [`Read`]. It ends where the file ended
/// when it was opened.
#[derive(Debug, Clone)]
pub struct BlobReader {
    blob: Arc<dyn Blob>,
    at: u64,
}

impl BlobReader {
    /// From byte `at` on.
    pub fn new(blob: Arc<dyn Blob>, at: u64) -> Self {
        Self { blob, at }
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.identity().size.saturating_sub(self.at);
        let count = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        self.blob.read_exact_at(&mut out[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.blob.identity().size, by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
