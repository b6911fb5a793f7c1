//! Hugging Face model folders: which files belong to one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ZooError;
use super::header::NameMap;
use crate::source::{self, FileSource};
use crate::untrusted::{LARGEST_INDEX, MOST_SHARDS, without_mark};

/// Weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Where the tensors of a sharded model are.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Ending of a shard index's name.
const INDEX_ENDING: &str = ".safetensors.index.json";
/// Endings of pickles, which can run code.
const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
/// File of an adapter's configuration, as PEFT writes it.
const ADAPTER: &str = "adapter_config.json";

/// Where the weights of a model folder are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weights {
    /// The safetensors file, or the index of several.
    pub file: PathBuf,
    /// Whether it is an index.
    pub is_index: bool,
    /// What was chosen where another choice is there, for people.
    pub note: Option<String>,
}

/// Why a folder is no ingredient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoWeights {
    /// It is no model of ours: a glob may pass it over.
    Other(String),
    /// It may be several models: nobody but the user knows.
    Ambiguous(String),
}

/// Finds the weights of a folder: `model.safetensors`, else its index, else the only safetensors file or index that is there.
///
/// # Errors
/// If there are none, or several that could be meant.
pub(crate) fn find_weights(folder: &Path) -> Result<Weights, NoWeights> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    let files = source::of(folder);
    // What has the name is meant, whatever it is: opening it says what is wrong with it.
    if files.has(&single) {
        let note = files.has(&index).then(|| {
            format!(
                "assumed: `{SINGLE}` contains the weights of {}, as in transformers; `{INDEX}` is ignored",
                folder.display()
            )
        });
        return Ok(Weights { file: single, is_index: false, note });
    }
    if files.has(&index) {
        return Ok(Weights { file: index, is_index: true, note: None });
    }
    let names =
        file_names(files, folder).map_err(|error| NoWeights::Other(format!("cannot list the folder: {error}")))?;
    if names.iter().any(|name| name == ADAPTER) {
        let why = format!("an adapter (`{ADAPTER}`), not a model: merge it into its base model first");
        return Err(NoWeights::Other(why));
    }
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).cloned().collect::<Vec<_>>();
    let (indices, files) = (ending(INDEX_ENDING), ending(".safetensors"));
    let note = |name: &str| {
        Some(format!(
            "assumed: `{name}` contains the weights of {}, because it is the only such file",
            folder.display()
        ))
    };
    match (&indices[..], &files[..]) {
        ([only], _) => Ok(Weights { file: folder.join(only), is_index: true, note: note(only) }),
        ([], [only]) if !is_shard(only) => Ok(Weights { file: folder.join(only), is_index: false, note: note(only) }),
        ([], []) => {
            let pickles: Vec<&String> = names.iter().filter(|name| is_pickle(name)).collect();
            Err(NoWeights::Other(match pickles.first() {
                Some(pickle) => format!(
                    "its weights are a pickle (`{pickle}`). Pickles can run code and are never opened: convert it with `python -m mehl_soup convert`"
                ),
                None if names.is_empty() => format!("the folder is empty, expected weights in `{SINGLE}`"),
                None => format!("no weights found, expected `{SINGLE}` or another `.safetensors` file"),
            }))
        }
        ([], several) if several.iter().all(|name| is_shard(name)) => Err(NoWeights::Ambiguous(format!(
            "expected the index of its shards (`{INDEX}`), found only {}",
            listed(several)
        ))),
        _ => Err(NoWeights::Ambiguous(format!(
            "expected the weights of one model, found {}: give the file instead of the folder",
            listed(if indices.is_empty() { &files } else { &indices })
        ))),
    }
}

/// Whether there is a file. What leads out of the places where this process may look counts as one, whether it exists or not: opening it
/// says why it is refused, and nothing else is told of it.
fn is_there(files: &dyn FileSource, path: &Path) -> bool {
    files.check(path).is_err() || files.is_file(path)
}

/// Whether a file is, by its name, a pickle.
pub(super) fn is_pickle(name: &str) -> bool {
    PICKLES.iter().any(|ending| name.ends_with(ending))
}

/// Names of the regular files of a folder, without hidden ones, sorted.
fn file_names(files: &dyn FileSource, folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in files.list(folder)? {
        // Weights under names that are not UTF-8 are nobody's.
        let Some(name) = entry.file_name().and_then(OsStr::to_str) else { continue };
        if !name.starts_with('.') && is_there(files, &entry) {
            names.push(name.to_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a name is that of one of several shards: `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").unwrap_or(name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    stem.rsplit_once("-of-")
        .and_then(|(before, count)| Some((before.rsplit_once('-')?.1, count)))
        .is_some_and(|(at, count)| is_number(at) && is_number(count))
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A shard index's two columns.
#[derive(Debug)]
pub(crate) struct ShardIndex {
    /// Shard file names and their resolved paths, by name.
    pub shards: BTreeMap<String, PathBuf>,
    /// Tensor to shard file name.
    pub tensors: BTreeMap<String, String>,
}

/// Reads an index. Every shard must be a plain file name in the index's folder itself.
pub(crate) fn read_index(index: &Path) -> Result<ShardIndex, ZooError> {
    let (index, folder) = (index.to_path_buf(), crate::files::parent_of(index));
    let files = source::of(folder);
    let text = files.read(&index, LARGEST_INDEX).map_err(ZooError::io(&index))?;
    let tensors = parse_index(&text).map_err(|reason| ZooError::Malformed { file: index.clone(), reason })?;
    let mut shards = BTreeMap::new();
    for shard in tensors.values().collect::<BTreeSet<_>>() {
        let path = files
            .own_file(folder, shard)
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
    let Index { weight_map } =
        serde_json::from_slice(without_mark(text)).map_err(|e| format!("not a shard index: {e}"))?;
    let tensors: BTreeMap<String, String> = weight_map.0.into_iter().collect();
    let shards = tensors.values().collect::<BTreeSet<_>>().len();
    if shards > MOST_SHARDS {
        return Err(format!("expected at most {MOST_SHARDS} files, found {shards}"));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[&str]) -> Result<(String, bool, bool), NoWeights> {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(root.path().join(file), "").unwrap();
        }
        let weights = find_weights(root.path())?;
        let name = weights.file.file_name().unwrap().to_str().unwrap().to_string();
        Ok((name, weights.is_index, weights.note.is_some()))
    }

    #[test]
    fn weights_are_found_under_their_names_and_under_others_if_there_is_only_one() {
        for (files, name, is_index, is_noted) in [
            (&["model.safetensors", "other.safetensors"][..], "model.safetensors", false, false),
            (&["model.safetensors", "model.safetensors.index.json"], "model.safetensors", false, true),
            (
                &["model.safetensors.index.json", "model-00001-of-00001.safetensors"],
                "model.safetensors.index.json",
                true,
                false,
            ),
            (
                &["open_clip_model.safetensors", "config.json", "pytorch_model.bin"],
                "open_clip_model.safetensors",
                false,
                true,
            ),
            (
                &["x.safetensors.index.json", "x-1-of-2.safetensors", "x-2-of-2.safetensors"],
                "x.safetensors.index.json",
                true,
                true,
            ),
        ] {
            assert_eq!(found(files), Ok((name.to_string(), is_index, is_noted)), "{files:?}");
        }
    }

    #[test]
    fn folders_without_weights_say_what_they_are() {
        for (files, said) in [
            (&["adapter_config.json", "adapter_model.safetensors"][..], "an adapter"),
            (&["config.json", "pytorch_model.bin"], "a pickle (`pytorch_model.bin`)"),
            (&["trainer_state.json"], "no weights found"),
            (&[], "the folder is empty"),
        ] {
            let Err(NoWeights::Other(why)) = found(files) else { panic!("{files:?}") };
            assert!(why.contains(said), "{why}");
        }
        for (files, said) in [
            (&["a.safetensors", "b.safetensors"][..], "`a.safetensors`, `b.safetensors`: give the file"),
            (&["x-00001-of-00002.safetensors"], "expected the index of its shards"),
            (&["a.safetensors.index.json", "b.safetensors.index.json"], "`a.safetensors.index.json`, `b"),
        ] {
            let Err(NoWeights::Ambiguous(why)) = found(files) else { panic!("{files:?}") };
            assert!(why.contains(said), "{why}");
        }
    }
}
