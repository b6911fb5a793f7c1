//! Hugging Face model folders: which files belong to one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::error::ZooError;
use super::header::NameMap;
use crate::untrusted::{self, LARGEST_INDEX, MOST_SHARDS};

/// Weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Where the tensors of a sharded model are.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Whether a folder holds weights that can be an ingredient.
pub(crate) fn holds_model(folder: &Path) -> bool {
    folder.join(SINGLE).is_file() || folder.join(INDEX).is_file()
}

/// A shard index's two columns.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    /// Shard file names and their resolved paths, by name.
    pub shards: BTreeMap<String, PathBuf>,
    /// Tensor to shard file name.
    pub tensors: BTreeMap<String, String>,
}

/// Reads [`INDEX`]. Every shard must be a plain file name in the folder itself.
pub(crate) fn read_index(folder: &Path) -> Result<ShardIndex, ZooError> {
    let index = folder.join(INDEX);
    let text = untrusted::read(&index, LARGEST_INDEX).map_err(ZooError::io(&index))?;
    let tensors = parse_index(&text).map_err(|reason| ZooError::Malformed { file: index.clone(), reason })?;
    let mut shards = BTreeMap::new();
    for shard in tensors.values().collect::<BTreeSet<_>>() {
        let path = own_file(folder, shard)
            .map_err(ZooError::io(folder.join(shard)))?
            .ok_or_else(|| ZooError::ShardOutside { index: index.clone(), shard: shard.clone() })?;
        shards.insert(shard.clone(), path);
    }
    Ok(ShardIndex { shards, tensors })
}

/// Tensor to shard file name, of an index's text. Whether the names are of files is not looked at.
///
/// # Errors
/// If it is no index, names a tensor twice, or more than [`MOST_SHARDS`] files.
pub(crate) fn parse_index(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: NameMap,
    }
    let Index { weight_map } = serde_json::from_slice(text).map_err(|e| format!("not a shard index: {e}"))?;
    let tensors: BTreeMap<String, String> = weight_map.0.into_iter().collect();
    let shards = tensors.values().collect::<BTreeSet<_>>().len();
    if shards > MOST_SHARDS {
        return Err(format!("expected at most {MOST_SHARDS} files, found {shards}"));
    }
    Ok(tensors)
}

/// The path of `folder/name` if it is a regular file that belongs to the folder: a plain name, and a link only where it
/// leads into the folder itself or, as in the Hugging Face cache (`<repo>/snapshots/<revision>`), to the `<repo>/blobs`
/// that hold its files. `None` otherwise.
///
/// # Errors
/// Of the file system, a missing file too.
pub(crate) fn own_file(folder: &Path, name: &str) -> std::io::Result<Option<PathBuf>> {
    if !is_plain_name(name) {
        return Ok(None);
    }
    let folder = folder.canonicalize()?;
    let path = folder.join(name);
    let resolved = path.canonicalize()?;
    let snapshots = folder.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|repo| repo.join("blobs"));
    let inside = resolved.parent() == Some(&folder) || (blobs.is_some() && resolved.parent() == blobs.as_deref());
    Ok((inside && resolved.is_file()).then_some(path))
}

/// Whether joining `name` to a folder gives an entry of that folder itself.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
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
        let own = |name: &str| own_file(&folder, name).unwrap().is_some();
        assert!(own("plain"));
        assert!(own("inner"));
        for name in ["link", "sub", "../outside", "sub/../plain", "./plain", "..", ".", "", "plain/"] {
            assert!(!own(name), "{name}");
        }
        assert!(!own(root.path().join("outside").to_str().unwrap()));
        assert!(own_file(&folder, "absent").is_err());
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
        assert!(own_file(&snapshot, "config.json").unwrap().is_some());
    }
}
