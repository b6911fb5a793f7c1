//! Files that the operator names in the configuration: secrets and authorities.
//!
//! They are a type of their own, because they are no inputs of a specification. A
//! [confined](crate::untrusted::confine) process still reads them, and no specification can name
//! them: paths of specifications are opened by [`untrusted::open`] alone,
//! which refuses these files.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::untrusted;

/// A file that the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorFile(PathBuf);

impl OperatorFile {
    /// The file at `path`, which comes from the configuration and from nowhere else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The content of the file: it must be a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// If it is another kind of file, is larger, or the file system says no.
    pub fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        untrusted::read_whole(untrusted::open_regular(&self.0)?, limit)
    }

    /// Device and inode of the file as it is now: Kubernetes replaces mounted secrets by moving a
    /// link. `None` if there is no such file.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        self.0.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }
}

impl fmt::Display for OperatorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
