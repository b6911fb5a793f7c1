//! Writing files and folders so that no reader ever sees half of one: everything is built under a temporary name beside
//! its target, flushed to the disk, and renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

/// Begins the names of files that are being written.
const TEMPORARY_FILE: &str = ".tmp-";

/// Writes `bytes` to `path`: temporary file beside it, fsync, rename, fsync of the folder. An existing file is replaced.
///
/// # Errors
/// Of the file system; then `path` is as it was before.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent_of(path);
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_FILE)
        // Temporary files are private by default; this one becomes the file itself, so the umask decides.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Removes the temporary files that killed processes left of [`write_atomic`] in a folder that nobody else writes to now.
///
/// # Errors
/// Of the file system.
pub fn remove_temporary_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_FILE.as_bytes());
        if is_ours && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Flushes a folder's entries to the disk: without it a rename may be lost with the power.
///
/// # Errors
/// Of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Bytes that a user without privileges can still write to the file system that holds `path`.
///
/// # Errors
/// If `path` does not exist.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The folder that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A folder in the making, `.<name>.tmp-<pid>` beside its target. Dropped without [`commit`](Self::commit), it is removed.
#[derive(Debug)]
pub struct NewFolder {
    temporary: PathBuf,
    target: PathBuf,
    /// Holds a lock that ends with the process, however it ends: how a later process knows a leftover from work in progress.
    _lock: File,
}

impl NewFolder {
    /// Begins a folder that will be `target`; missing parents are made. Leftovers of killed processes for the same target are removed.
    ///
    /// # Errors
    /// Of the file system, or if `target` has no name of its own (`/`, `..`).
    pub fn begin(target: &Path) -> io::Result<Self> {
        let parent = parent_of(target);
        fs::create_dir_all(parent)?;
        Self::remove_leftovers(target)?;
        let mut own = Self::prefix(target)?;
        own.push(std::process::id().to_string());
        let temporary = parent.join(own);
        fs::create_dir(&temporary)?;
        let lock = File::open(&temporary)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { temporary, target: target.to_path_buf(), _lock: lock })
    }

    /// Removes what killed processes left beside `target`, a folder in the making or the old one that it replaced.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn remove_leftovers(target: &Path) -> io::Result<()> {
        let prefix = Self::prefix(target)?;
        for entry in fs::read_dir(parent_of(target))? {
            let entry = entry?;
            let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
            if !is_ours || !entry.file_type()?.is_dir() {
                continue;
            }
            let Ok(folder) = File::open(entry.path()) else { continue };
            if rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn prefix(target: &Path) -> io::Result<OsString> {
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end with a folder name"))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".tmp-");
        Ok(prefix)
    }

    /// Where to write until [`commit`](Self::commit).
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Renames the folder to its target. An existing target is exchanged with it in one step (where the file system can;
    /// elsewhere by two renames) and removed last. Files must have been fsync'd by whoever wrote them.
    ///
    /// # Errors
    /// Of the file system; then the target is as it was before.
    pub fn commit(self) -> io::Result<()> {
        sync_folder(&self.temporary)?;
        // Replaces a missing or empty folder.
        match fs::rename(&self.temporary, &self.target) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                self.exchange()?;
            }
            Err(e) => return Err(e),
        }
        // Dropping removes what is now under the temporary name: nothing, or the old folder.
        sync_folder(parent_of(&self.target))
    }

    fn exchange(&self) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.temporary, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                let mut old = self.temporary.clone().into_os_string();
                old.push("-old");
                let old = PathBuf::from(old);
                fs::rename(&self.target, &old)?;
                if let Err(e) = fs::rename(&self.temporary, &self.target) {
                    fs::rename(&old, &self.target)?;
                    return Err(e);
                }
                fs::rename(&old, &self.temporary)
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a later process for the same target removes what is left.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn temporary_files_of_the_dead_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".tmp-abc", ".lock", "tmp-file"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join(".tmp-folder")).unwrap();
        remove_temporary_files(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".lock", ".tmp-folder", "tmp-file"]);
    }

    #[test]
    fn a_file_that_cannot_be_renamed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomic(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_folder_appears_whole_replaces_the_old_one_and_vanishes_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep").join("model");
        for content in ["one", "two"] {
            let new = NewFolder::begin(&target).unwrap();
            fs::write(new.path().join(content), content).unwrap();
            new.commit().unwrap();
            assert_eq!(names(&target), [content]);
            assert_eq!(names(target.parent().unwrap()), ["model"]);
        }
        let dropped = NewFolder::begin(&target).unwrap();
        fs::write(dropped.path().join("three"), "three").unwrap();
        drop(dropped);
        assert_eq!(names(&target), ["two"]);
        assert_eq!(names(target.parent().unwrap()), ["model"]);
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_work_in_progress_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (dead, alive) = (folder.path().join(".model.tmp-1"), folder.path().join(".model.tmp-2"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&alive).unwrap();
        let lock = File::open(&alive).unwrap();
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let new = NewFolder::begin(&folder.path().join("model")).unwrap();
        assert!(!dead.exists());
        assert!(alive.exists());
        drop(new);
    }
}
