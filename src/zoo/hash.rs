//! Content hashes: what a result depends on, whatever the files are called.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::element::all_finite;
use super::error::ZooError;
use super::ingredient::Ingredient;
use crate::files::write_atomically;

/// Names the cache's folder instead of the user's own.
pub const CACHE_VARIABLE: &str = "MEHL_SOUP_CACHE_DIR";

/// Hashes of one ingredient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngredientHashes {
    /// Over names, dtypes, shapes and contents of all tensors; blake3, hexadecimal.
    pub total: String,
    /// Content of each tensor; blake3, hexadecimal.
    pub tensors: BTreeMap<String, String>,
}

/// Hashes of a zoo, in the order of its ingredients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooHashes {
    /// One an ingredient.
    pub ingredients: Vec<IngredientHashes>,
}

/// A folder of hashes of files that have not changed, outside of what the user owns.
#[derive(Debug, Clone)]
pub struct HashCache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// The first tensor, by name, that holds NaN or infinity.
    not_finite: Option<String>,
    hashes: IngredientHashes,
}

impl HashCache {
    /// In a folder, which is made when something is first kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// In `MEHL_SOUP_CACHE_DIR`, or the user's cache folder; `None` if there is neither.
    pub fn default_folder() -> Option<Self> {
        let root = match std::env::var_os(CACHE_VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            None => etcetera::choose_base_strategy().ok()?.cache_dir().join("mehl-soup"),
        };
        Some(Self::new(root.join("hashes")))
    }

    fn path(&self, ingredient: &Ingredient) -> Option<PathBuf> {
        let mut key = blake3::Hasher::new();
        for shard in ingredient.shards() {
            key.update(identity(shard.path())?.as_bytes());
        }
        Some(self.folder.join(format!("{}.json", key.finalize().to_hex())))
    }

    /// A damaged or unreadable entry is as good as none.
    fn get(&self, ingredient: &Ingredient) -> Option<Entry> {
        serde_json::from_slice(&fs::read(self.path(ingredient)?).ok()?).ok()
    }

    /// Keeping is a favour to the next run; that it failed is no reason to stop this one.
    fn put(&self, ingredient: &Ingredient, entry: &Entry) {
        let Some(path) = self.path(ingredient) else { return };
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| write_atomically(&path, &serde_json::to_vec(entry).unwrap_or_default()));
        drop(written);
    }
}

/// What tells a file that has not changed: path, length, time of change, and its number in the file system.
fn identity(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    #[cfg(unix)]
    let (inode, changed) = {
        use std::os::unix::fs::MetadataExt;
        (meta.ino(), (meta.ctime(), meta.ctime_nsec()))
    };
    #[cfg(not(unix))]
    let (inode, changed) = (0, (0, 0));
    Some(format!("{}\0{}\0{modified}\0{inode}\0{changed:?}\0", path.display(), meta.len()))
}

pub(super) fn hash(
    ingredients: &[Ingredient],
    cache: Option<&HashCache>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ZooHashes, ZooError> {
    let size = |ingredient: &Ingredient| -> u64 {
        ingredient.tensor_names().filter_map(|name| ingredient.bytes(name).ok()).map(|b| b.len() as u64).sum()
    };
    let total: u64 = ingredients.iter().map(size).sum();
    let mut done = 0;
    let mut hashes = Vec::new();
    for ingredient in ingredients {
        let entry = match cache.and_then(|cache| cache.get(ingredient)) {
            Some(entry) => {
                done += size(ingredient);
                entry
            }
            None => {
                let entry = read(ingredient, &mut |bytes| progress(done + bytes, total))?;
                done += size(ingredient);
                if let Some(cache) = cache {
                    cache.put(ingredient, &entry);
                }
                entry
            }
        };
        if let Some(tensor) = entry.not_finite {
            return Err(ZooError::NotFinite { path: ingredient.path().display().to_string(), tensor });
        }
        progress(done, total);
        hashes.push(entry.hashes);
    }
    Ok(ZooHashes { ingredients: hashes })
}

fn read(ingredient: &Ingredient, progress: &mut dyn FnMut(u64)) -> Result<Entry, ZooError> {
    let mut total = blake3::Hasher::new();
    let mut tensors = BTreeMap::new();
    let mut not_finite = None;
    let mut done = 0;
    for name in ingredient.tensor_names() {
        let Some(info) = ingredient.info(name) else { continue };
        let bytes = ingredient.bytes(name)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_rayon(bytes);
        if not_finite.is_none() && !all_finite(info.dtype, bytes) {
            not_finite = Some(name.to_string());
        }
        let hash = hasher.finalize().to_hex().to_string();
        total.update(format!("{name}\0{:?}\0{:?}\0{hash}\0", info.dtype, info.shape).as_bytes());
        tensors.insert(name.to_string(), hash);
        done += bytes.len() as u64;
        progress(done);
    }
    Ok(Entry { not_finite, hashes: IngredientHashes { total: total.finalize().to_hex().to_string(), tensors } })
}
