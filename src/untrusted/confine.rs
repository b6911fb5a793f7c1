//! Confinement of a process that works on others' specifications: which folders it reads from, and which programs it runs.
//!
//! It is the process's own and set once, not a parameter: a parameter through every function that opens a file would be forgotten in one of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::operator_file::OperatorFile;

/// What specifications of others may make this process read and run.
#[derive(Debug, Clone)]
pub struct Confinement {
    roots: Vec<PathBuf>,
    modules: BTreeSet<String>,
    /// Files of the operator. They are refused wherever they lie, under whatever name.
    hidden: Vec<OperatorFile>,
}

const KERNEL_TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

static CONFINEMENT: OnceLock<Confinement> = OnceLock::new();

impl Confinement {
    /// Files below `roots` (links followed) may be read; TorchScript modules whose blake3 (hexadecimal) is in `modules` may be run.
    ///
    /// # Errors
    /// If a root is no folder.
    pub fn new(roots: &[PathBuf], modules: impl IntoIterator<Item = String>) -> io::Result<Self> {
        let real = |root: &PathBuf| {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("input root {}: {e}", root.display()));
            let real = root.canonicalize().map_err(named)?;
            if real.is_dir() { Ok(real) } else { Err(named(io::ErrorKind::NotADirectory.into())) }
        };
        Ok(Self {
            roots: roots.iter().map(real).collect::<io::Result<_>>()?,
            modules: modules.into_iter().map(|hash| hash.to_ascii_lowercase()).collect(),
            hidden: Vec::new(),
        })
    }

    /// Specifications cannot name these files, even below a root.
    #[must_use]
    pub fn hiding(mut self, files: impl IntoIterator<Item = OperatorFile>) -> Self {
        self.hidden.extend(files);
        self
    }

    fn holds(&self, real: &Path) -> bool {
        // The kernel's own trees hold this process's environment and memory. A root above them,
        // such as `/`, does not open them.
        let is_open = |root: &PathBuf| {
            real.starts_with(root) && KERNEL_TREES.iter().all(|tree| !real.starts_with(tree) || root.starts_with(tree))
        };
        self.roots.iter().any(is_open)
    }

    /// Whether an open file is one of the operator's, by its identity in the file system: links
    /// and other names do not matter.
    fn hides(&self, file: &File) -> io::Result<bool> {
        if self.hidden.is_empty() {
            return Ok(false);
        }
        let metadata = file.metadata()?;
        let found = (metadata.dev(), metadata.ino());
        Ok(self.hidden.iter().any(|hidden| hidden.identity() == Some(found)))
    }

    fn outside(&self, path: &Path) -> io::Error {
        let roots: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
        let what =
            format!("{} is outside of what this worker reads (input roots: {})", path.display(), roots.join(", "));
        io::Error::new(io::ErrorKind::PermissionDenied, what)
    }
}

/// Confines this process, for good.
///
/// # Errors
/// If it is confined already.
pub fn confine(confinement: Confinement) -> Result<(), Confinement> {
    CONFINEMENT.set(confinement)
}

/// Whether a path, or a pattern up to its first wildcard, is where this process may look. A process that is not confined may look anywhere.
///
/// # Errors
/// If it is outside of all roots, after links; what does not exist counts by the folder that it would be in.
pub fn check_place(path: &Path) -> io::Result<()> {
    let Some(confinement) = CONFINEMENT.get() else { return Ok(()) };
    let path = std::path::absolute(path)?;
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            // Beyond a wildcard it could lead anywhere.
            Component::ParentDir => return Err(confinement.outside(&path)),
            Component::Normal(name)
                if name.to_string_lossy().contains(['*', '?', '[']) && !plain.join(name).exists() =>
            {
                break;
            }
            other => plain.push(other),
        }
    }
    let after = path.strip_prefix(&plain).unwrap_or(Path::new(""));
    if after.components().any(|component| component == Component::ParentDir) {
        return Err(confinement.outside(&path));
    }
    match real_place(&plain) {
        Some(real) if confinement.holds(&real) => Ok(()),
        _ => Err(confinement.outside(&path)),
    }
}

/// Where a path leads, after links. A path that does not exist leads to the place where it would
/// be: also behind a link that leads nowhere, so that the answer for a place outside is the same
/// whether something exists there or not.
fn real_place(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_path_buf();
    // As many links as Linux follows.
    for _ in 0..40 {
        if let Ok(real) = path.canonicalize() {
            return Some(real);
        }
        // The longest part that exists. It is a link that leads nowhere, or the rest is missing.
        let existing = path.ancestors().find(|part| part.symlink_metadata().is_ok())?;
        let rest = path.strip_prefix(existing).ok()?;
        let Ok(target) = existing.read_link() else {
            return existing.canonicalize().ok().map(|real| real.join(rest));
        };
        let folder = existing.parent()?.canonicalize().ok()?;
        path = lexical(&folder.join(target).join(rest));
    }
    None
}

/// A path without `.` and `..`.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Whether an opened file may be read: by where it really is, so that a link that changed meanwhile leads nowhere.
pub(super) fn check_file(path: &Path, file: &File) -> io::Result<()> {
    let Some(confinement) = CONFINEMENT.get() else { return Ok(()) };
    let real = real_path(path, file)?;
    if !confinement.holds(&real) {
        return Err(confinement.outside(path));
    }
    if confinement.hides(file)? {
        let what = format!("{} is a file of the worker's operator, not an input", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn real_path(_: &Path, file: &File) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn real_path(path: &Path, _: &File) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Whether a TorchScript module may be run: it can read and write files when it does. `hash` is the blake3 of its file, in hexadecimal.
///
/// # Errors
/// If this process is confined and the module is not on its list.
pub fn check_module(path: &Path, hash: &str) -> io::Result<()> {
    match CONFINEMENT.get() {
        Some(confinement) if !confinement.modules.contains(hash) => {
            let what = format!(
                "{}: this worker runs no TorchScript module that is not on its list (worker.torchscript_allow); its blake3 is {hash}",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
        }
        _ => Ok(()),
    }
}
