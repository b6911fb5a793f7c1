//! Files in memory, as a second source beside those of the machine: nobody else needs it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mehl_soup::source::{Blob, Changed, FileSource, Head, Identity, Version, mount};

/// Files by path. Each write of a file gives it another version.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    files: Arc<Mutex<BTreeMap<PathBuf, Entry>>>,
    writes: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Entry {
    version: u64,
    content: Arc<Vec<u8>>,
}

impl Entry {
    fn identity(&self) -> Identity {
        Identity { size: self.content.len() as u64, version: Version::Tag(format!("v{}", self.version)) }
    }
}

impl Memory {
    /// Empty, and the source of paths that begin with `SCHEME:`.
    pub fn mounted(scheme: &str) -> Self {
        let memory = Self::default();
        mount(scheme, memory.clone()).unwrap();
        memory
    }

    pub fn write(&self, path: &Path, content: &[u8]) {
        let version = self.writes.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { version, content: Arc::new(content.to_vec()) };
        self.files.lock().unwrap().insert(path.to_path_buf(), entry);
    }

    pub fn remove(&self, path: &Path) {
        self.files.lock().unwrap().remove(path).unwrap();
    }

    /// Takes over all files below a folder of this machine.
    pub fn copy_of(&self, from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { self.copy_of(&path, &to) } else { self.write(&to, &fs::read(&path).unwrap()) }
        }
    }

    /// Bytes that were read of all files so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        self.files.lock().unwrap().get(&plain(path)).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn below(&self, folder: &Path) -> Vec<PathBuf> {
        self.files.lock().unwrap().keys().filter(|path| path.starts_with(plain(folder))).cloned().collect()
    }
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

impl FileSource for Memory {
    fn check(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn head(&self, path: &Path) -> io::Result<Head> {
        match self.entry(path) {
            Ok(entry) => Ok(Head::File(entry.identity())),
            Err(_) if !self.below(path).is_empty() => Ok(Head::Folder),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match self.head(folder)? {
            Head::Folder => {}
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
        let depth = folder.components().count();
        let child = |path: &PathBuf| path.components().take(depth + 1).collect::<PathBuf>();
        let mut children: Vec<PathBuf> = self.below(folder).iter().map(child).collect();
        children.dedup();
        Ok(children)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Blob>> {
        if self.head(path)? == Head::Folder {
            let what = "expected a regular file, found a folder";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let entry = self.entry(path)?;
        let identity = entry.identity();
        Ok(Arc::new(MemoryBlob { memory: self.clone(), name: path.to_path_buf(), entry, identity }))
    }
}

/// A version of a file. It is not read once there is another: a store of objects would refuse that
/// too.
#[derive(Debug)]
struct MemoryBlob {
    memory: Memory,
    name: PathBuf,
    entry: Entry,
    identity: Identity,
}

impl Blob for MemoryBlob {
    fn name(&self) -> &Path {
        &self.name
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn now(&self) -> io::Result<Identity> {
        Ok(self.memory.entry(&self.name)?.identity())
    }

    fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        if self.now()? != self.identity {
            return Err(io::Error::other(Changed("another version is there".to_string())));
        }
        let start = usize::try_from(start).map_err(io::Error::other)?;
        let part = start.checked_add(out.len()).and_then(|end| self.entry.content.get(start..end));
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.memory.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
