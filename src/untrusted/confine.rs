//! Confinement of a process that works on others' specifications: which folders it reads from, and which programs it runs.
//!
//! It is the process's own and set once, not a parameter: a parameter through every function that opens a file would be forgotten in one of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// What specifications of others may make this process read and run.
#[derive(Debug, Clone)]
pub struct Confinement {
    roots: Vec<PathBuf>,
    modules: BTreeSet<String>,
}

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
        })
    }

    fn holds(&self, real: &Path) -> bool {
        self.roots.iter().any(|root| real.starts_with(root))
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
    let real = plain.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    match real {
        Some(real) if confinement.holds(&real) => Ok(()),
        _ => Err(confinement.outside(&path)),
    }
}

/// Whether an opened file may be read: by where it really is, so that a link that changed meanwhile leads nowhere.
pub(super) fn check_file(path: &Path, file: &File) -> io::Result<()> {
    let Some(confinement) = CONFINEMENT.get() else { return Ok(()) };
    let real = real_path(path, file)?;
    if confinement.holds(&real) { Ok(()) } else { Err(confinement.outside(path)) }
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
