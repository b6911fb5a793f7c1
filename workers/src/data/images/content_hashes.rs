//! Hashes of encoded images, remembered between runs for files that have not changed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use blake3::Hash;
use mehl_soup::files::write_atomic;
use mehl_soup::source::{self, Head, Identity, Version};
use serde::{Deserialize, Serialize};

use super::sources::{Listing, Place};
use crate::data::DataError;

/// A file's state as it is remembered.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Stamp {
    /// Device, inode, length, and when content and inode were changed.
    Inode(u64, u64, u64, (i64, i64), (i64, i64)),
    /// Length and the source's word for the version.
    Tag(u64, String),
}

impl From<&Identity> for Stamp {
    fn from(identity: &Identity) -> Self {
        match &identity.version {
            Version::Inode { device, inode, modified, changed } => {
                Self::Inode(*device, *inode, identity.size, *modified, *changed)
            }
            Version::Tag(tag) => Self::Tag(identity.size, tag.clone()),
        }
    }
}

/// State of a file; `None` if it is none.
fn state_of(path: &Path) -> Option<Identity> {
    match source::of(path).head(path) {
        Ok(Head::File(identity)) => Some(identity),
        _ => None,
    }
}

/// What is remembered of a source: each file's state, and the hashes (hexadecimal) of the images in it (one, or one a row).
#[derive(Default, Serialize, Deserialize)]
struct Memory {
    files: HashMap<PathBuf, (Stamp, Vec<String>)>,
}

impl Memory {
    /// Whatever is wrong with the file, nothing is remembered then.
    fn read(path: &Path) -> Self {
        let found = fs::read(path).ok().and_then(|bytes| {
            let (digest, json) = bytes.split_at_checked(blake3::OUT_LEN)?;
            (blake3::hash(json).as_bytes() == digest).then(|| serde_json::from_slice(json).ok())?
        });
        found.unwrap_or_default()
    }

    fn write(&self, path: &Path) {
        let Ok(json) = serde_json::to_vec(self) else { return };
        let bytes = [blake3::hash(&json).as_bytes(), json.as_slice()].concat();
        // What cannot be written costs time, not correctness.
        let _ = fs::create_dir_all(mehl_soup::files::parent_of(path)).and_then(|()| write_atomic(path, &bytes));
    }
}

/// The hash of each sample's encoded bytes, or why they cannot be read.
pub type ContentHashes = Vec<Result<Hash, String>>;

/// Hashes all samples of a listing. Files that are in the state they were hashed in are not read; `memory` is the folder where that is kept.
///
/// # Errors
/// If a Parquet file is malformed.
pub fn of(
    listing: &Listing,
    memory: Option<&Path>,
    pause: &mut dyn FnMut(usize) -> bool,
) -> Result<ContentHashes, DataError> {
    let absolute = source::of(&listing.path).absolute(&listing.path).unwrap_or_else(|_| listing.path.clone());
    let key = blake3::hash(absolute.as_os_str().as_encoded_bytes()).to_hex();
    let file = memory.map(|folder| folder.join(format!("{key}.hashes")));
    let known = file.as_deref().map(Memory::read).unwrap_or_default();

    // Samples by the file that they are in, with the file's state before it is read.
    let mut by_file: Vec<(&Path, Option<Identity>, Vec<usize>)> = Vec::new();
    for (i, sample) in listing.samples.iter().enumerate() {
        let path: &Path = match &sample.place {
            Place::File(path) => path,
            Place::Row { file, .. } => &listing.parquet[*file].path,
        };
        match by_file.last_mut() {
            Some((last, _, samples)) if *last == path => samples.push(i),
            _ => by_file.push((path, state_of(path), vec![i])),
        }
    }
    let mut hashes: Vec<Option<Result<Hash, String>>> = vec![None; listing.samples.len()];
    for (path, state, samples) in &by_file {
        if let (Some(state), Some((then, remembered))) = (state, known.files.get(*path))
            && Stamp::from(state) == *then
            && remembered.len() == samples.len()
        {
            for (&i, hash) in samples.iter().zip(remembered) {
                hashes[i] = Hash::from_hex(hash).ok().map(Ok);
            }
        }
    }
    let missing: Vec<usize> = (0..hashes.len()).filter(|&i| hashes[i].is_none()).collect();
    let fresh = Mutex::new(Vec::with_capacity(missing.len()));
    listing.for_each(
        &missing,
        &|i, bytes| {
            let hash = bytes.map(blake3::hash);
            // No thread panics while it holds the lock.
            fresh.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, hash));
        },
        pause,
    )?;
    for (i, hash) in fresh.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        hashes[i] = Some(hash);
    }
    let hashes: ContentHashes =
        hashes.into_iter().map(|hash| hash.unwrap_or_else(|| Err("it was not read".to_string()))).collect();
    if let Some(file) = file.filter(|_| !missing.is_empty()) {
        remember(&by_file, &hashes).write(&file);
    }
    Ok(hashes)
}

/// Files that are as they were before they were hashed, and were not changed so lately that a change could hide in the clock's resolution.
fn remember(by_file: &[(&Path, Option<Identity>, Vec<usize>)], hashes: &ContentHashes) -> Memory {
    let mut memory = Memory::default();
    for (path, state, samples) in by_file {
        let settled = state.as_ref().filter(|state| state.is_settled() && state_of(path).as_ref() == Some(*state));
        let hashes: Option<Vec<String>> =
            samples.iter().map(|&i| hashes[i].as_ref().ok().map(|hash| hash.to_hex().to_string())).collect();
        if let (Some(state), Some(hashes)) = (settled, hashes) {
            memory.files.insert(path.to_path_buf(), (state.into(), hashes));
        }
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_remembered_as_they_always_were() {
        let text = r#"{"files":{"/a.png":[[1,2,3,[4,5],[6,7]],["ab"]],"s3:/b.png":[[3,"v1"],[]]}}"#;
        let memory: Memory = serde_json::from_str(text).unwrap();
        let version = Version::Inode { device: 1, inode: 2, modified: (4, 5), changed: (6, 7) };
        assert_eq!(memory.files[Path::new("/a.png")].0, Stamp::from(&Identity { size: 3, version }));
        let tagged = Identity { size: 3, version: Version::Tag("v1".to_string()) };
        assert_eq!(memory.files[Path::new("s3:/b.png")].0, Stamp::from(&tagged));
        let same: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&memory).unwrap(), same);
    }
}
