//! Content hashes remembered between runs, outside of what the user owns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::hash::IngredientHashes;
use super::ingredient::Ingredient;
use super::shard::Shard;
use crate::files::write_atomic;

/// Names the folder that holds caches, instead of the system's place for them.
const FOLDER_VARIABLE: &str = "MEHL_SOUP_CACHE_DIR";
/// Raised when hashes or what was checked along with them change.
const VERSION: u32 = 1;

/// A folder with one small file an ingredient. Whatever is wrong with it, hashes are computed anew and nothing fails.
#[derive(Debug, Clone)]
pub struct HashCache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    version: u32,
    total: String,
    tensors: BTreeMap<String, String>,
}

impl HashCache {
    /// In this folder, made when it is first needed.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// `$MEHL_SOUP_CACHE_DIR/hashes`, else `mehl-soup/hashes` in the user's cache folder; `None` for a user without one.
    pub fn from_environment() -> Option<Self> {
        let root = match std::env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => etcetera::choose_base_strategy().ok()?.cache_dir().join("mehl-soup"),
        };
        Some(Self::at(root.join("hashes")))
    }

    /// Folder of all caches of this environment, if a file can be made in it. Makes the folder if it is missing.
    ///
    /// # Errors
    /// A text that names the folder, what is wrong, and the variable that moves it.
    pub fn writable_root(&self) -> Result<PathBuf, String> {
        let root = crate::files::parent_of(&self.folder).to_path_buf();
        match is_writable(&root) {
            Ok(()) => Ok(root),
            Err(error) => {
                let shown = root.display();
                Err(format!(
                    "cannot write to the cache folder {shown}: {error} (set {FOLDER_VARIABLE} to another folder)"
                ))
            }
        }
    }

    /// Whether the environment names the folder, so that somebody counts on it.
    pub fn is_named() -> bool {
        std::env::var_os(FOLDER_VARIABLE).is_some_and(|value| !value.is_empty())
    }

    /// Another folder of the same cache: `$MEHL_SOUP_CACHE_DIR/<name>` for that of the environment.
    pub fn beside(&self, name: &str) -> PathBuf {
        crate::files::parent_of(&self.folder).join(name)
    }

    /// Hashes of an ingredient whose files are in the state they were hashed in.
    pub(super) fn load(&self, ingredient: &Ingredient) -> Option<IngredientHashes> {
        let text = std::fs::read(self.entry(ingredient)).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        let complete =
            entry.tensors.keys().map(String::as_str).eq(ingredient.tensor_names().map(|n| ingredient.disk_name(n)));
        let hashes = IngredientHashes::new(ingredient, entry.tensors);
        // The total covers all the others, so a damaged entry does not agree with its own.
        (entry.version == VERSION && complete && hashes.total == entry.total).then_some(hashes)
    }

    /// Remembers hashes, unless the files changed meanwhile or so recently that a change could hide in the clock's resolution.
    pub(super) fn store(&self, ingredient: &Ingredient, hashes: &IngredientHashes) {
        if !ingredient.shards().iter().all(Shard::is_settled) {
            return;
        }
        let entry = Entry { version: VERSION, total: hashes.total.clone(), tensors: hashes.tensors.clone() };
        let text = serde_json::to_vec(&entry).expect("strings serialize");
        // A cache that cannot be written costs time, not correctness.
        let _ = std::fs::create_dir_all(&self.folder).and_then(|()| write_atomic(&self.entry(ingredient), &text));
    }

    fn entry(&self, ingredient: &Ingredient) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for shard in ingredient.shards() {
            shard.add_to_key(&mut hasher);
        }
        self.folder.join(format!("{}.json", hasher.finalize().to_hex()))
    }
}

/// Makes the folder if it is missing, and a file in it that goes away at once.
///
/// # Errors
/// Of the file system.
pub fn is_writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    fn entry_files(cache: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(cache).map_or(Vec::new(), |dir| dir.map(|e| e.unwrap().path()).collect())
    }

    /// Root may write everywhere, so the folder is one that nobody can make.
    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let root = tempfile::tempdir().unwrap();
        let cache = HashCache::at(root.path().join("made/hashes"));
        assert_eq!(cache.writable_root().unwrap(), root.path().join("made"));
        assert_eq!(entry_files(&root.path().join("made")), Vec::<PathBuf>::new(), "nothing is left behind");
        std::fs::write(root.path().join("file"), "").unwrap();
        let refused = HashCache::at(root.path().join("file/hashes")).writable_root().unwrap_err();
        let folder = root.path().join("file").display().to_string();
        assert!(refused.contains(&folder) && refused.contains(FOLDER_VARIABLE), "{refused}");
    }

    /// One test, because it has to wait until the file's time stamp counts as settled.
    #[test]
    fn entries_are_used_only_when_whole_and_of_unchanged_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.safetensors");
        write_file(&path, &[f32s("a", &[2], &[1.0, 2.0])]);
        let folder = root.path().join("cache");
        let cache = HashCache::at(folder.clone());
        let open = || Ingredient::open(&path).unwrap();
        let hash = |cache| super::super::hash_ingredient(&open(), cache, &mut |_| {}).unwrap();

        let truth = hash(Some(&cache));
        assert!(entry_files(&folder).is_empty(), "a file changed just now was remembered");
        std::thread::sleep(Duration::from_millis(2100));
        assert_eq!(hash(Some(&cache)), truth);
        let [entry] = entry_files(&folder).try_into().unwrap();
        assert_eq!(cache.load(&open()).as_ref(), Some(&truth));

        let text = std::fs::read_to_string(&entry).unwrap();
        let other = if text.contains("0\"") {
            text.replace("0\"", "1\"")
        } else {
            text.replacen(truth.tensors["a"].as_str(), "00", 1)
        };
        for damaged in ["", "{}", &text[..text.len() / 2], &other, &text.replace("\"a\"", "\"b\"")] {
            std::fs::write(&entry, damaged).unwrap();
            assert!(cache.load(&open()).is_none(), "{damaged}");
            assert_eq!(hash(Some(&cache)), truth);
        }

        // Same size, time set back: the inode's own time tells.
        let modified = path.metadata().unwrap().modified().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(hash(Some(&cache)), truth);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_fault() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.safetensors");
        write_file(&path, &[f32s("a", &[2], &[1.0, 2.0])]);
        let cache = HashCache::at(path.join("below-a-file"));
        let ingredient = Ingredient::open(&path).unwrap();
        cache.store(&ingredient, &super::super::hash_ingredient(&ingredient, Some(&cache), &mut |_| {}).unwrap());
        assert!(cache.load(&ingredient).is_none());
    }
}
