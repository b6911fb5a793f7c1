//! Content hashes of ingredients (blake3), and the check for values that are not finite in the same pass.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Zoo;
use super::element::first_not_finite;
use super::error::ZooError;
use super::hash_cache::HashCache;
use super::ingredient::{Ingredient, TensorInfo};

/// Bytes that are hashed and then checked while they are still in the processor's cache; a multiple of every element's size.
const BLOCK: usize = 1 << 18;
/// Bytes between two calls of `progress`.
const BATCH: usize = 256 << 20;

/// Content hashes of a zoo, in the order of its ingredients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooHashes {
    /// One entry an ingredient.
    pub ingredients: Vec<IngredientHashes>,
    /// The base's, if there is one.
    pub base: Option<IngredientHashes>,
}

/// Content hashes of one ingredient: blake3, hexadecimal. All its float tensors (F32, F16, BF16, F64) are finite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngredientHashes {
    /// Over name on disk, dtype, shape and hash of all tensors, sorted by name: the same however they are split in files.
    pub total: String,
    /// Over each tensor's bytes, by its name on disk.
    pub tensors: BTreeMap<String, String>,
}

impl IngredientHashes {
    pub(super) fn new(ingredient: &Ingredient, tensors: BTreeMap<String, String>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (name, info) in ingredient.tensors() {
            let name = ingredient.disk_name(name);
            let hash = tensors.get(name.as_ref()).map_or("", String::as_str);
            // JSON keeps the parts apart whatever is in a name.
            let line = serde_json::json!([name, info.dtype.to_string(), info.shape, hash]);
            hasher.update(line.to_string().as_bytes());
            hasher.update(b"\n");
        }
        Self { total: hasher.finalize().to_hex().to_string(), tensors }
    }
}

impl ZooHashes {
    /// Hash of a tensor's bytes in the base; `None` if there is none, or it lacks that tensor.
    ///
    /// # Panics
    /// If the hashes are not of this zoo.
    pub(super) fn of_base(&self, zoo: &Zoo, name: &str) -> Option<&str> {
        let (hashes, base) = (self.base.as_ref()?, zoo.base()?);
        (!zoo.base_lacks(name)).then(|| hashes.tensors[base.disk_name(name).as_ref()].as_str())
    }

    /// Hash of a tensor's bytes in the ingredient `k`, by the name that the zoo knows it by.
    ///
    /// # Panics
    /// If the hashes are not of this zoo.
    pub(super) fn of_tensor(&self, zoo: &Zoo, k: usize, name: &str) -> &str {
        &self.ingredients[k].tensors[zoo.ingredients()[k].disk_name(name).as_ref()]
    }
}

/// Hashes of one ingredient, from `cache` if its files are unchanged. `advance` hears of bytes as they are done.
pub(crate) fn hash_ingredient(
    ingredient: &Ingredient,
    cache: Option<&HashCache>,
    advance: &mut dyn FnMut(u64),
) -> Result<IngredientHashes, ZooError> {
    if let Some(known) = cache.and_then(|cache| cache.load(ingredient)) {
        advance(ingredient.total_bytes());
        ingredient.remember_hash(&known.total);
        return Ok(known);
    }
    let hashes = hash_contents(ingredient, advance)?;
    ingredient.remember_hash(&hashes.total);
    // Of a file that is being written the hash is of no state that it ever had.
    ingredient.check_unchanged()?;
    if let Some(cache) = cache {
        cache.store(ingredient, &hashes);
    }
    Ok(hashes)
}

/// Reads everything.
pub(super) fn hash_contents(
    ingredient: &Ingredient,
    advance: &mut dyn FnMut(u64),
) -> Result<IngredientHashes, ZooError> {
    let mut ordered: Vec<(&str, &TensorInfo)> = ingredient.tensors().collect();
    ordered.sort_by_key(|(_, info)| info.position());
    let mut hashes = BTreeMap::new();
    let mut rest = ordered.as_slice();
    while !rest.is_empty() {
        // Until the batch is full; at least one.
        let mut bytes = 0;
        let fits = |(_, info): &&(&str, &TensorInfo)| {
            let fits = bytes < BATCH;
            bytes += info.bytes();
            fits
        };
        let count = rest.iter().take_while(fits).count();
        let (batch, later) = rest.split_at(count);
        rest = later;
        let done: Vec<Result<String, ZooError>> =
            batch.par_iter().map(|(name, info)| hash_tensor(ingredient, name, info)).collect();
        for ((name, info), hash) in batch.iter().zip(done) {
            hashes.insert(ingredient.disk_name(name).into_owned(), hash?);
            advance(info.bytes() as u64);
        }
    }
    Ok(IngredientHashes::new(ingredient, hashes))
}

fn hash_tensor(ingredient: &Ingredient, name: &str, info: &TensorInfo) -> Result<String, ZooError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; info.bytes().min(BLOCK)];
    for (i, start) in (0..info.bytes()).step_by(BLOCK).enumerate() {
        let block = &mut buffer[..(info.bytes() - start).min(BLOCK)];
        ingredient.read_to_hash(name, start, block)?;
        hasher.update_rayon(block);
        if let Some((at, value)) = first_not_finite(info.dtype, block) {
            let element = i * (BLOCK * 8 / info.dtype.bitsize()) + at;
            return Err(ZooError::NotFinite {
                file: ingredient.file_of(name).to_path_buf(),
                tensor: name.to_string(),
                element,
                value,
            });
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::Zoo;
    use crate::zoo::testing::{bytes, f32s, write_file, write_sharded};
    use safetensors::Dtype;

    fn hash(path: &std::path::Path) -> Result<IngredientHashes, ZooError> {
        Ok(Zoo::open(&[path.to_path_buf()])?.hash(None, &mut |_, _| {})?.ingredients.remove(0))
    }

    #[test]
    fn hashes_are_of_contents_and_not_of_files() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (f32s("a", &[2], &[1.0, 2.0]), f32s("b", &[2], &[3.0, 4.0]));
        write_file(&root.path().join("x.safetensors"), &[a.clone(), b.clone()]);
        write_sharded(&root.path().join("y"), &[vec![b.clone()], vec![a.clone()]]);
        let one = hash(&root.path().join("x.safetensors")).unwrap();
        assert_eq!(one, hash(&root.path().join("y")).unwrap());
        assert_eq!(one.tensors["a"], blake3::hash(&a.data).to_hex().to_string());

        let changed = [
            vec![a.clone(), f32s("c", &[2], &[3.0, 4.0])],
            vec![a.clone(), f32s("b", &[1, 2], &[3.0, 4.0])],
            vec![a.clone(), f32s("b", &[2], &[3.0, 4.5])],
            vec![a.clone(), bytes("b", Dtype::I32, &[2], b.data.clone())],
        ];
        for (i, tensors) in changed.iter().enumerate() {
            write_file(&root.path().join("z.safetensors"), tensors);
            assert_ne!(one.total, hash(&root.path().join("z.safetensors")).unwrap().total, "change {i}");
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_named_by_file_tensor_and_element() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.safetensors");
        // Beyond the first block, so that the block's own offset counts.
        let mut values = vec![0.5f32; BLOCK / 4 + 10];
        values[BLOCK / 4 + 7] = f32::NEG_INFINITY;
        write_file(&path, &[f32s("ok", &[1], &[1.0]), f32s("bad", &[values.len()], &values)]);
        let error = hash(&path).unwrap_err();
        let ZooError::NotFinite { file, tensor, element, value } = error else { panic!("{error}") };
        assert_eq!((file, tensor.as_str(), element, value), (path, "bad", BLOCK / 4 + 7, f64::NEG_INFINITY));
    }

    #[test]
    fn progress_ends_at_the_total() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.safetensors");
        write_file(&path, &[f32s("a", &[3], &[1.0; 3]), f32s("b", &[5], &[1.0; 5])]);
        let mut seen = Vec::new();
        Zoo::open(&[path]).unwrap().hash(None, &mut |done, total| seen.push((done, total))).unwrap();
        assert_eq!(seen.last(), Some(&(32, 32)));
    }
}
