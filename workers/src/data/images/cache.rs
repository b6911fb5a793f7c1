//! Decoded images on disk: one file a split and transform, mapped into memory, so that they take page cache and not memory of the process.
//!
//! An entry `<key>.pixels` is the values of all images, `[N, channels, height, width]`, then a description of them, then the description's length
//! and hash. It is made as `<key>.partial` and renamed. Whoever makes or uses an entry holds a lock on the file, exclusive or shared, which ends
//! with the process however that ends: so what is locked is in use, and a `.partial` that is not is a leftover.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mehl_soup::files::free_bytes;
use memmap2::Mmap;
use rustix::fs::{FallocateFlags, FlockOperation};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"mehlpix1";
/// Length and hash of the description, and the magic.
const TRAILER: u64 = 8 + 32 + 8;
/// Largest description that is read.
const LONGEST_DESCRIPTION: u64 = 1 << 30;
/// What must stay free on the disk.
const MARGIN: u64 = 256 << 20;
const ENTRY: &str = "pixels";
const PARTIAL: &str = "partial";
/// Between two tries for what another process makes.
const WAIT: Duration = Duration::from_millis(200);

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Key of the entry.
    pub key: String,
    /// N, channels, height, width.
    pub shape: [usize; 4],
    /// Images that could not be decoded, ascending, and why. Their values are zero.
    pub skipped: Skipped,
}

impl Description {
    /// Bytes of the values.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64))
    }
}

/// An entry in use.
#[derive(Debug)]
pub struct Entry {
    /// What it holds.
    pub description: Description,
    map: Mmap,
    /// Holds the lock.
    _file: File,
}

impl Entry {
    /// The values of all images.
    pub fn values(&self) -> &[u8] {
        &self.map[..self.description.bytes() as usize]
    }
}

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct ImageCache {
    /// Where they are; `None` for a user without a place for caches: nothing is kept, values lie in temporary files without a name.
    pub folder: Option<PathBuf>,
    /// Most bytes of all entries together.
    pub bound: u64,
}

/// Why an entry could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Of the file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// The disk is too full.
    #[error("{}: expected {needed} free bytes for decoded images, found {found} (set MEHL_SOUP_CACHE_DIR to another folder)", path.display())]
    Full {
        /// The folder.
        path: PathBuf,
        /// Bytes of the entry and a margin.
        needed: u64,
        /// Free bytes.
        found: u64,
    },
}

/// Writes all values of a new entry, and says which images are skipped and why.
pub type Fill<'a, E> = dyn FnMut(&Slot<'_>) -> Result<Skipped, E> + 'a;

/// Images without values, and why.
pub type Skipped = Vec<(usize, String)>;

/// Where a new entry's values are written.
pub struct Slot<'a> {
    file: &'a File,
    row: u64,
}

impl Slot<'_> {
    /// Writes one image's values. May be called from many threads at once.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, index: usize, values: &[u8]) -> io::Result<()> {
        self.file.write_all_at(values, index as u64 * self.row)
    }
}

impl ImageCache {
    /// The entry of a key, made by `fill` if there is none. `fill` writes all values and says which images are skipped; what it fails with is passed on.
    /// Meanwhile other processes that want the same entry wait for it; `waiting` is called once if that is this one.
    ///
    /// # Errors
    /// Of the file system, or of `fill`.
    pub fn get<E: From<CacheError>>(
        &self,
        key: &str,
        shape: [usize; 4],
        waiting: &mut dyn FnMut(),
        fill: &mut Fill<'_, E>,
    ) -> Result<Entry, E> {
        let mut description = Description { key: key.to_string(), shape, skipped: vec![] };
        let Some(folder) = &self.folder else {
            return self.unnamed(&std::env::temp_dir(), description, fill);
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let target = folder.join(format!("{key}.{ENTRY}"));
        let mut said = false;
        let (partial, file) = loop {
            if let Some(entry) = open(&target, key, shape) {
                return Ok(entry);
            }
            let partial = folder.join(format!("{key}.{PARTIAL}"));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&partial)
                .map_err(at(&partial))?;
            if lock(&file, FlockOperation::NonBlockingLockExclusive) && is_at(&file, &partial) {
                // Whoever held it may have finished since the entry was looked for.
                match open(&target, key, shape) {
                    Some(entry) => {
                        let _ = fs::remove_file(&partial);
                        return Ok(entry);
                    }
                    None => break (partial, file),
                }
            }
            if !std::mem::replace(&mut said, true) {
                waiting();
            }
            std::thread::sleep(WAIT);
        };
        if !self.make_room(folder, description.bytes()) {
            let _ = fs::remove_file(&partial);
            return self.unnamed(folder, description, fill);
        }
        let filled = self.fill(folder, &file, &mut description, fill);
        if let Err(error) = filled {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        file.sync_all().map_err(at(&partial))?;
        fs::rename(&partial, &target).map_err(at(&target))?;
        mehl_soup::files::sync_folder(folder).map_err(at(folder))?;
        lock(&file, FlockOperation::LockShared);
        Ok(map(file, description).map_err(at(&target))?)
    }

    /// An entry that ends with this process.
    fn unnamed<E: From<CacheError>>(
        &self,
        folder: &Path,
        mut description: Description,
        fill: &mut Fill<'_, E>,
    ) -> Result<Entry, E> {
        let file = tempfile::tempfile_in(folder).map_err(at(folder))?;
        self.fill(folder, &file, &mut description, fill)?;
        Ok(map(file, description).map_err(at(folder))?)
    }

    /// Writes an entry's whole content.
    fn fill<E: From<CacheError>>(
        &self,
        folder: &Path,
        file: &File,
        description: &mut Description,
        fill: &mut Fill<'_, E>,
    ) -> Result<(), E> {
        let bytes = description.bytes();
        let needed = bytes.saturating_add(MARGIN);
        // What a killed process left of this very entry counts as free.
        file.set_len(0).map_err(at(folder))?;
        let found = free_bytes(folder).map_err(at(folder))?;
        if found < needed {
            return Err(CacheError::Full { path: folder.to_path_buf(), needed, found }.into());
        }
        // Reserved at once, so that a disk that fills up meanwhile fails here and not in the middle; where it cannot be reserved, writing will tell.
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes.max(1)) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(at(folder)(error.into()).into()),
        }
        let [n, channels, height, width] = description.shape;
        let row = if n == 0 { 0 } else { (channels * height * width) as u64 };
        description.skipped = fill(&Slot { file, row })?;
        description.skipped.sort_unstable();
        let text = serde_json::to_vec(&description).expect("plain data serializes");
        let trailer =
            [text.as_slice(), &(text.len() as u64).to_le_bytes(), blake3::hash(&text).as_bytes(), MAGIC].concat();
        file.write_all_at(&trailer, bytes).map_err(at(folder))?;
        file.set_len(bytes + trailer.len() as u64).map_err(at(folder))?;
        Ok(())
    }

    /// Removes leftovers, and entries that are not in use, longest unused first, until `bytes` more fit. Whether they do.
    fn make_room(&self, folder: &Path, bytes: u64) -> bool {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            match path.extension().and_then(|ending| ending.to_str()) {
                Some(PARTIAL) => {
                    remove_unused(&path);
                }
                Some(ENTRY) => {
                    entries.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
                }
                _ => {}
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|entry| entry.1).sum();
        for (_, length, path) in entries {
            if total.saturating_add(bytes) <= self.bound {
                break;
            }
            if remove_unused(&path) {
                total -= length;
            }
        }
        total.saturating_add(bytes) <= self.bound
    }
}

/// The entry at `path`, locked against removal; `None` if there is none or it is not whole, and then it is removed unless it is in use.
fn open(path: &Path, key: &str, shape: [usize; 4]) -> Option<Entry> {
    let file = File::open(path).ok()?;
    if !lock(&file, FlockOperation::NonBlockingLockShared) || !is_at(&file, path) {
        return None;
    }
    let Some(description) = describe(&file).filter(|found| found.key == key && found.shape == shape) else {
        drop(file);
        remove_unused(path);
        return None;
    };
    // What was used last is removed last. If the time cannot be set, the order is worse and nothing else.
    let _ = file.set_modified(SystemTime::now());
    map(file, description).ok()
}

/// Reads the description at the end; `None` if length, hash or content are not those of a whole entry.
fn describe(file: &File) -> Option<Description> {
    let length = file.metadata().ok()?.len();
    let mut trailer = [0; TRAILER as usize];
    file.read_exact_at(&mut trailer, length.checked_sub(TRAILER)?).ok()?;
    let (head, magic) = trailer.split_at(40);
    let (text_length, hash) = head.split_at(8);
    let text_length = u64::from_le_bytes(text_length.try_into().ok()?);
    if magic != MAGIC || text_length > LONGEST_DESCRIPTION {
        return None;
    }
    let start = length.checked_sub(TRAILER)?.checked_sub(text_length)?;
    let mut text = vec![0; text_length as usize];
    file.read_exact_at(&mut text, start).ok()?;
    if blake3::hash(&text).as_bytes() != hash {
        return None;
    }
    let description: Description = serde_json::from_slice(&text).ok()?;
    (description.bytes() == start).then_some(description)
}

fn map(file: File, description: Description) -> io::Result<Entry> {
    // SAFETY: the map is read-only; the file is ours, was checked to be long enough, and nobody shortens an entry: it is only ever removed, which
    // leaves the map as it is.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Entry { description, map, _file: file })
}

/// Removes a file that nobody holds a lock on. Whether it did.
fn remove_unused(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    lock(&file, FlockOperation::NonBlockingLockExclusive) && is_at(&file, path) && fs::remove_file(path).is_ok()
}

fn lock(file: &File, operation: FlockOperation) -> bool {
    rustix::fs::flock(file, operation).is_ok()
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::Io { path: path.clone(), source }
}
