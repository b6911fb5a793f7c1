//! Files of this machine.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{Pattern, glob_with};
use rustix::fs::Advice;

use super::walk::{OPTIONS, is_wild};
use super::{Blob, FileSource, GlobError, Head, Hint, Identity, Version, is_plain_name};
use crate::untrusted;

/// The file system. A [confined](untrusted::confine) process reads below its roots only.
#[derive(Debug)]
pub(super) struct Local;

impl FileSource for Local {
    fn check(&self, path: &Path) -> io::Result<()> {
        untrusted::check_place(path)
    }

    fn head(&self, path: &Path) -> io::Result<Head> {
        let metadata = path.metadata()?;
        Ok(match metadata.file_type() {
            kind if kind.is_file() => Head::File(identity(&metadata)),
            kind if kind.is_dir() => Head::Folder,
            _ => Head::Other,
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Blob>> {
        // First: nothing is told of what is outside, not even whether it exists.
        untrusted::check_place(path)?;
        let name = path.canonicalize()?;
        let file = untrusted::open(&name)?;
        let identity = identity(&file.metadata()?);
        Ok(Arc::new(LocalBlob { name, file, identity }))
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        untrusted::read(path, limit)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn has(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    /// A link belongs to a folder only where it leads into the folder itself or, as in the Hugging
    /// Face cache (`<repo>/snapshots/<revision>`), to the `<repo>/blobs` that hold its files.
    fn own_file(&self, folder: &Path, name: &str) -> io::Result<Option<PathBuf>> {
        if !is_plain_name(name) {
            return Ok(None);
        }
        let folder = folder.canonicalize()?;
        let path = folder.join(name);
        let resolved = path.canonicalize()?;
        // A model's own folders (`1_Pooling`) are one level deeper.
        let snapshots = folder.ancestors().skip(1).take(2).find(|p| p.file_name().is_some_and(|n| n == "snapshots"));
        let blobs = snapshots.and_then(Path::parent).map(|repo| repo.join("blobs"));
        let inside = resolved.parent() == Some(&folder) || (blobs.is_some() && resolved.parent() == blobs.as_deref());
        Ok((inside && resolved.is_file()).then_some(path))
    }

    fn glob(&self, pattern: &str, base: &Path) -> Result<Vec<PathBuf>, GlobError> {
        check_links(pattern, base)?;
        let found = entries(pattern, base)?;
        // A wildcard may have met a link.
        found.iter().try_for_each(|entry| check_entry(entry))?;
        Ok(found)
    }
}

fn check_entry(path: &Path) -> Result<(), GlobError> {
    untrusted::check_place(path).map_err(|source| GlobError::Io { path: path.to_path_buf(), source })
}

/// Refuses a pattern one of whose wildcards leads through a link out of the places where this
/// process may look. Without this, a pattern that goes on behind the link would be answered
/// differently for names that exist there and for others.
fn check_links(pattern: &str, base: &Path) -> Result<(), GlobError> {
    let ends = pattern.match_indices('/').map(|(at, _)| at).chain([pattern.len()]);
    for prefix in ends.map(|at| &pattern[..at]).filter(|prefix| is_wild(prefix)) {
        for entry in entries(prefix, base)? {
            check_entry(&entry)?;
        }
    }
    Ok(())
}

fn entries(pattern: &str, base: &Path) -> Result<Vec<PathBuf>, GlobError> {
    let invalid = |reason: &str| GlobError::Pattern(reason.to_string());
    let rooted = if Path::new(pattern).is_absolute() {
        pattern.to_string()
    } else {
        // Only the pattern has wildcards, not the folder that it starts from.
        let base = base.to_str().ok_or_else(|| invalid("the path of its folder is not UTF-8"))?;
        format!("{}/{pattern}", Pattern::escape(base).trim_end_matches('/'))
    };
    let matches = glob_with(&rooted, OPTIONS).map_err(|fault| invalid(fault.msg))?;
    let entry = |entry: Result<PathBuf, glob::GlobError>| {
        entry.map_err(|fault| GlobError::Io { path: fault.path().to_path_buf(), source: fault.into() })
    };
    matches.map(entry).collect()
}

fn identity(metadata: &Metadata) -> Identity {
    let version = Version::Inode {
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    Identity { size: metadata.len(), version }
}

/// It is read, not mapped: a file that another program shortens then gives an error, where a map
/// would end the process.
#[derive(Debug)]
struct LocalBlob {
    name: PathBuf,
    file: File,
    identity: Identity,
}

impl Blob for LocalBlob {
    fn name(&self) -> &Path {
        &self.name
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn now(&self) -> io::Result<Identity> {
        Ok(identity(&self.name.metadata()?))
    }

    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        self.file.read_exact_at(out, start)
    }

    fn hint(&self, hint: Hint) {
        let advice = match hint {
            Hint::Sequential => Advice::Sequential,
            Hint::WillNeed => Advice::WillNeed,
        };
        // Without it reading is only slower.
        let _ = rustix::fs::fadvise(&self.file, 0, None, advice);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_folders_own_files_are_its_own() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(root.path().join("outside"), "").unwrap();
        fs::write(folder.join("plain"), "").unwrap();
        symlink("../outside", folder.join("link")).unwrap();
        symlink("plain", folder.join("inner")).unwrap();
        let own = |name: &str| Local.own_file(&folder, name).unwrap().is_some();
        assert!(own("plain"));
        assert!(own("inner"));
        for name in ["link", "sub", "../outside", "sub/../plain", "./plain", "..", ".", "", "plain/"] {
            assert!(!own(name), "{name}");
        }
        assert!(!own(root.path().join("outside").to_str().unwrap()));
        assert!(Local.own_file(&folder, "absent").is_err());
    }

    #[test]
    fn a_snapshot_of_the_hugging_face_cache_is_followed_to_its_blobs() {
        let root = tempfile::tempdir().unwrap();
        let snapshot = root.path().join("models--a--b/snapshots/0123");
        let blobs = root.path().join("models--a--b/blobs");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("abcd"), "").unwrap();
        symlink("../../blobs/abcd", snapshot.join("config.json")).unwrap();
        assert!(Local.own_file(&snapshot, "config.json").unwrap().is_some());
        fs::create_dir(snapshot.join("1_Pooling")).unwrap();
        symlink("../../../blobs/abcd", snapshot.join("1_Pooling/config.json")).unwrap();
        assert!(Local.own_file(&snapshot.join("1_Pooling"), "config.json").unwrap().is_some());
    }
}
