//! Tokens on disk: one file a source and tokenizer, mapped into memory.
//!
//! An entry `<key>.tokens` is the tokens of all texts, one after the other (u32), where each text ends (u64) and where
//! its second part begins (u32), a description, its length (u64), the blake3 of all before, and a magic. Numbers are
//! little-endian. It is written aside and renamed. Two processes that want one entry both write it, the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::tokenizer::Encoded;
use crate::data::DataError;

const MAGIC: &[u8; 8] = b"mehltok1";
const TRAILER: usize = 8 + 32 + 8;
const ENDING: &str = "tokens";

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its key.
    pub key: String,
    /// Number of texts.
    pub texts: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Texts that lost tokens.
    pub truncated: usize,
}

/// An entry in use.
#[derive(Debug)]
pub struct Entry {
    /// What it holds.
    pub description: Description,
    map: Mmap,
}

impl Entry {
    fn open(path: &Path, key: &str) -> Option<Self> {
        let file = File::open(path).ok()?;
        let entry = Self::of(&file).ok()?.filter(|entry| entry.description.key == key)?;
        // What was used last is removed last.
        drop(file.set_modified(SystemTime::now()));
        Some(entry)
    }

    /// `None` if it is not whole.
    fn of(file: &File) -> io::Result<Option<Self>> {
        // SAFETY: entries are never written to once they have their name; a file that somebody truncates meanwhile ends the process, as
        // any mapped file does.
        let map = unsafe { Mmap::map(file) }?;
        let Some(start) = map.len().checked_sub(TRAILER) else { return Ok(None) };
        let (content, trailer) = map.split_at(start);
        let (length, rest) = trailer.split_at(8);
        let (hash, magic) = rest.split_at(32);
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if magic != MAGIC
            || blake3::hash(content) != hash.try_into().map_or(blake3::hash(b""), blake3::Hash::from_bytes)
        {
            return Ok(None);
        }
        let Some(at) = usize::try_from(length).ok().and_then(|length| content.len().checked_sub(length)) else {
            return Ok(None);
        };
        let Ok(description) = serde_json::from_slice::<Description>(&content[at..]) else { return Ok(None) };
        let bytes = description.tokens.checked_mul(4).zip(description.texts.checked_mul(12));
        let whole = bytes.and_then(|(tokens, texts)| tokens.checked_add(texts));
        Ok((whole == Some(at)).then_some(Self { description, map }))
    }

    /// Where a text's tokens are.
    fn range(&self, text: usize) -> (usize, usize) {
        let ends = self.description.tokens * 4;
        let end = |text: usize| {
            let bytes = self.map[ends + 8 * text..][..8].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes) as usize
        };
        (if text == 0 { 0 } else { end(text - 1) }, end(text))
    }

    /// Number of tokens of a text.
    pub fn length(&self, text: usize) -> usize {
        let (start, end) = self.range(text);
        end - start
    }

    /// Tokens of a text.
    pub fn tokens(&self, text: usize) -> impl Iterator<Item = i64> + '_ {
        let (start, end) = self.range(text);
        self.map[4 * start..4 * end]
            .chunks_exact(4)
            .map(|id| i64::from(u32::from_le_bytes(id.try_into().unwrap_or_default())))
    }

    /// blake3 of the tokens of a text.
    pub fn hash(&self, text: usize) -> blake3::Hash {
        let (start, end) = self.range(text);
        blake3::hash(&self.map[4 * start..4 * end])
    }

    /// Where its second part begins.
    pub fn second(&self, text: usize) -> usize {
        let at = self.description.tokens * 4 + self.description.texts * 8 + 4 * text;
        u32::from_le_bytes(self.map[at..at + 4].try_into().unwrap_or_default()) as usize
    }
}

/// A folder of entries.
#[derive(Debug, Clone)]
pub struct TokenCache {
    /// Where they are; `None` for a user without a place for caches: files without a name in the folder for temporary ones.
    pub folder: Option<PathBuf>,
    /// Most bytes of all entries together, but for the one in use.
    pub bound: u64,
}

impl TokenCache {
    /// The entry of a key, if it is there and whole.
    pub(super) fn find(&self, key: &str) -> Option<Entry> {
        Entry::open(&self.folder.as_ref()?.join(format!("{key}.{ENDING}")), key)
    }

    /// Begins a new entry.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn begin(&self, key: &str) -> Result<Writer<'_>, DataError> {
        let folder = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        let refused = |source| DataError::Io { file: folder.display().to_string(), source };
        fs::create_dir_all(&folder).map_err(refused)?;
        let file = tempfile::Builder::new().suffix(".partial").tempfile_in(&folder).map_err(refused)?;
        let description = Description { key: key.to_string(), texts: 0, tokens: 0, truncated: 0 };
        Ok(Writer {
            cache: self,
            folder,
            description,
            hasher: blake3::Hasher::new(),
            file: BufWriter::with_capacity(1 << 20, file),
            ends: Vec::new(),
            seconds: Vec::new(),
        })
    }

    /// Removes entries, longest unused first, until the others are within the bound.
    fn make_room(&self, folder: &Path, kept: &Path) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == ENDING) && path != kept)
            .filter_map(|path| {
                let metadata = path.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), path))
            })
            .collect();
        entries.sort_unstable();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in entries {
            if total <= self.bound {
                break;
            }
            // Who has it mapped keeps it.
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// A new entry.
pub(super) struct Writer<'a> {
    cache: &'a TokenCache,
    folder: PathBuf,
    description: Description,
    hasher: blake3::Hasher,
    file: BufWriter<NamedTempFile>,
    ends: Vec<u64>,
    seconds: Vec<u32>,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.hasher.update(bytes);
        let file = || self.folder.display().to_string();
        self.file.write_all(bytes).map_err(|source| DataError::Io { file: file(), source })
    }

    /// Adds the next text.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn add(&mut self, text: &Encoded) -> Result<(), DataError> {
        let bytes: Vec<u8> = text.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.write(&bytes)?;
        self.description.tokens += text.ids.len();
        self.description.texts += 1;
        self.description.truncated += usize::from(text.is_truncated);
        self.ends.push(self.description.tokens as u64);
        self.seconds.push(text.second as u32);
        Ok(())
    }

    /// Completes it.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn finish(mut self) -> Result<Entry, DataError> {
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let seconds: Vec<u8> = self.seconds.iter().flat_map(|second| second.to_le_bytes()).collect();
        let description = serde_json::to_vec(&self.description).unwrap_or_default();
        for bytes in [&ends, &seconds, &description] {
            self.write(bytes)?;
        }
        let hash = self.hasher.finalize();
        self.write(&[&(description.len() as u64).to_le_bytes()[..], hash.as_bytes(), MAGIC].concat())?;
        let folder = self.folder;
        let refused = |source| DataError::Io { file: folder.display().to_string(), source };
        let file = self.file.into_inner().map_err(|error| refused(error.into_error()))?;
        file.as_file().sync_all().map_err(refused)?;
        let file = match &self.cache.folder {
            None => file.into_file(),
            Some(_) => {
                let target = folder.join(format!("{}.{ENDING}", self.description.key));
                let file = file.persist(&target).map_err(|error| refused(error.error))?;
                mehl_soup::files::sync_folder(&folder).map_err(refused)?;
                self.cache.make_room(&folder, &target);
                file
            }
        };
        let damaged = || refused(io::Error::other("what was written to the cache of tokens is not there"));
        Entry::of(&file).map_err(refused)?.ok_or_else(damaged)
    }
}
