//! Where the files of zoos and data sets lie. Nothing else opens them.
//!
//! | file | holds |
//! |---|---|
//! | `blob` | an open file: ranged reads, and whether it changed |
//! | `identity` | the state of a file, told without reading it |
//! | `local` | files of this machine, the default source |
//! | `walk` | patterns, for a source that can only list folders |
//!
//! A path tells its source. The first part of the path is the scheme: `memory:/zoo/a` lies in the
//! source that is [mounted](mount) as `memory`. Every other path is a file of this machine.
//!
//! `docs/add-a-source.md` shows how to add a source.

mod blob;
mod identity;
mod local;
mod walk;

use std::fmt::Debug;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

pub use blob::{Blob, BlobReader, Changed, Hint, change_told_by};
pub use identity::{Identity, State, Version};
use local::Local;

use crate::untrusted;

/// What is at a path, links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// A file that can be read, and its state.
    File(Identity),
    /// A folder.
    Folder,
    /// A pipe, a socket or a device. It is never opened.
    Other,
}

/// Why a pattern gives no paths.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// It is not a valid pattern.
    #[error("{0}")]
    Pattern(String),
    /// The source refuses a path that the pattern leads to.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the source says.
        source: io::Error,
    },
}

/// A place that holds files: the file system, a store of objects, memory.
///
/// Four methods are required. The others follow from them; a source replaces those that it can do
/// better. Paths are whole: they begin with the scheme that the source is mounted as.
///
/// All errors are those of the source. Kind `NotFound` means that nothing is there, and
/// `InvalidInput` that something is there that is no file.
pub trait FileSource: Debug + Send + Sync {
    /// Whether this process may look at a path, or at a pattern up to its first wildcard.
    ///
    /// A [confined](untrusted::confine) worker runs specifications of others. The source decides
    /// what those may reach.
    ///
    /// # Errors
    /// If it may not.
    fn check(&self, path: &Path) -> io::Result<()>;

    /// What is at a path, without reading its contents.
    ///
    /// # Errors
    /// If nothing is there, or the source refuses.
    fn head(&self, path: &Path) -> io::Result<Head>;

    /// Paths of all entries of a folder, hidden ones too, in any order.
    ///
    /// # Errors
    /// If it is no folder, or the source refuses.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Opens a file.
    ///
    /// # Errors
    /// If nothing is there, it is no file, [`check`](Self::check) refuses it, or the source does.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn Blob>>;

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`open`](Self::open). Kind `FileTooLarge` if it has more than `limit` bytes; none is kept
    /// then.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let blob = self.open(path)?;
        let size = blob.identity().size;
        if size > limit {
            return Err(untrusted::too_large(limit, size));
        }
        let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        blob.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// The path in a form that means the same in any working folder.
    ///
    /// # Errors
    /// If the working folder is needed and cannot be told.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    /// The one path of what two paths may lead to: links followed, without `.` and `..`.
    ///
    /// # Errors
    /// If nothing is there.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let plain = untrusted::lexical(path);
        self.head(&plain)?;
        Ok(plain)
    }

    /// Whether an entry has this name, even if it is a link that leads nowhere.
    fn has(&self, path: &Path) -> bool {
        self.head(path).is_ok()
    }

    /// Whether a path leads to a file.
    fn is_file(&self, path: &Path) -> bool {
        matches!(self.head(path), Ok(Head::File(_)))
    }

    /// Whether a path leads to a folder.
    fn is_folder(&self, path: &Path) -> bool {
        matches!(self.head(path), Ok(Head::Folder))
    }

    /// The path of `folder/name` if it is a file that belongs to the folder: its name is plain, and
    /// no link leads out of the folder. `None` otherwise.
    ///
    /// # Errors
    /// If nothing is there, or the source refuses.
    fn own_file(&self, folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
        if !is_plain_name(name) {
            return Ok(None);
        }
        let path = folder.join(name);
        Ok(matches!(self.head(&path)?, Head::File(_)).then_some(path))
    }

    /// Paths that a glob matches, sorted, all of them where this process may look. Relative patterns
    /// start from `base`. No wildcard matches a hidden entry.
    ///
    /// # Errors
    /// If the pattern is invalid, or the source refuses a path that it leads to.
    fn glob(&self, pattern: &str, base: &Path) -> Result<Vec<PathBuf>, GlobError> {
        walk::glob(self, &join(base, Path::new(pattern)))
    }
}

/// Why a source cannot be mounted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MountError {
    /// A scheme is a word of ASCII letters, digits, `-` and `+`.
    #[error("`{0}`: expected letters, digits, `-` and `+`")]
    Scheme(String),
    /// The scheme has a source.
    #[error("`{0}` is mounted already")]
    Taken(String),
}

/// The sources besides the files of this machine, by scheme.
static MOUNTED: RwLock<Vec<(String, &'static dyn FileSource)>> = RwLock::new(Vec::new());

/// Adds a source to this process, for good. From now on paths that begin with `SCHEME:` lie in it.
///
/// It is the process's own and not a parameter, as [confinement](untrusted::confine) is: the path
/// alone tells the source, wherever it comes from.
///
/// # Errors
/// If the scheme is no word, or has a source.
pub fn mount(scheme: &str, source: impl FileSource + 'static) -> Result<(), MountError> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'+';
    if scheme.is_empty() || !scheme.bytes().all(is_word) {
        return Err(MountError::Scheme(scheme.to_string()));
    }
    let mut mounted = MOUNTED.write().unwrap_or_else(PoisonError::into_inner);
    if mounted.iter().any(|(other, _)| other == scheme) {
        return Err(MountError::Taken(scheme.to_string()));
    }
    mounted.push((scheme.to_string(), Box::leak(Box::new(source))));
    Ok(())
}

/// The source that a path lies in.
pub fn of(path: &Path) -> &'static dyn FileSource {
    mounted(path).unwrap_or(&Local)
}

/// The source whose scheme a path begins with.
fn mounted(path: &Path) -> Option<&'static dyn FileSource> {
    let Some(Component::Normal(first)) = path.components().next() else { return None };
    let scheme = first.as_encoded_bytes().strip_suffix(b":")?;
    let mounted = MOUNTED.read().unwrap_or_else(PoisonError::into_inner);
    mounted.iter().find(|(known, _)| known.as_bytes() == scheme).map(|(_, source)| *source)
}

/// Whether a path means the same wherever it is seen from: it names a source, or is absolute on
/// this machine.
pub fn is_absolute(path: &Path) -> bool {
    path.is_absolute() || mounted(path).is_some()
}

/// `path` as seen from `base`: joined to it, unless it [is absolute](is_absolute).
pub fn join(base: &Path, path: &Path) -> PathBuf {
    if is_absolute(path) { path.to_path_buf() } else { base.join(path) }
}

/// Whether joining `name` to a folder gives an entry of that folder itself.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses everything, and says so.
    #[derive(Debug)]
    struct Closed;

    impl FileSource for Closed {
        fn check(&self, _: &Path) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn head(&self, _: &Path) -> io::Result<Head> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }

        fn open(&self, _: &Path) -> io::Result<Arc<dyn Blob>> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    #[test]
    fn the_scheme_of_a_path_tells_its_source() {
        mount("closed", Closed).unwrap();
        assert_eq!(mount("closed", Closed), Err(MountError::Taken("closed".into())));
        for scheme in ["", "a:", "a/b", "a b"] {
            assert_eq!(mount(scheme, Closed), Err(MountError::Scheme(scheme.into())));
        }
        let is_closed = |path: &str| format!("{:?}", of(Path::new(path))) == "Closed";
        for path in ["closed:/zoo", "closed://zoo/a", "closed:zoo"] {
            // The last has its scheme and name in one part, as a file of this machine may.
            assert_eq!(is_closed(path), path != "closed:zoo", "{path}");
        }
        for path in ["/closed:/zoo", "./closed:/zoo", "closed/zoo", "open:/zoo", ""] {
            assert!(!is_closed(path), "{path}");
        }
        let base = Path::new("/base");
        assert_eq!(join(base, Path::new("zoo/*")), Path::new("/base/zoo/*"));
        assert_eq!(join(base, Path::new("/zoo")), Path::new("/zoo"));
        assert_eq!(join(base, Path::new("closed:/zoo")), Path::new("closed:/zoo"));
        assert_eq!(join(Path::new("closed:/zoo"), Path::new("a")), Path::new("closed:/zoo/a"));
    }
}
