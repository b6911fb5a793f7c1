//! Ingredients on disk: what a zoo is made of, checked before anything is computed.
//!
//! | file | holds |
//! |---|---|
//! | `resolve` | patterns to paths |
//! | `header`, `shard` | a safetensors header, an open file |
//! | `tensor_file` | any one safetensors file |
//! | `folder`, `ingredient` | a Hugging Face folder's rules, one model's weights |
//! | `element` | float dtypes on disk and in memory |
//! | `mismatch` | differences between ingredients |
//! | `hash`, `hash_cache` | content hashes, and where they are remembered |
//! | `layout`, `layer_groups` | which tensors are mixed, and which share a coefficient |
//! | `family` | which family a model is of |
//! | `distances` | how far ingredients are from their mean, and which stand out |
//! | `inspect` | the report of all that, faults included |

mod distances;
mod element;
mod error;
mod family;
mod folder;
mod hash;
mod hash_cache;
pub(crate) mod header;
mod ingredient;
mod inspect;
mod layer_groups;
mod layout;
mod mismatch;
mod resolve;
mod shard;
mod tensor_file;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use distances::{Distance, Distances, IngredientDistances, distances};
pub(crate) use element::encode;
pub use element::{Element, is_mixable};
pub use error::ZooError;
pub use family::{FamilyUnknown, RESNETS, detect};
pub(crate) use folder::{INDEX, SINGLE, is_plain_name, own_file, parse_index};
pub(crate) use hash::hash_ingredient;
pub use hash::{IngredientHashes, ZooHashes};
pub use hash_cache::{HashCache, is_writable};
pub(crate) use header::parse_header;
pub(crate) use ingredient::CHUNK;
pub use ingredient::{Ingredient, TensorInfo, bytes_read};
pub use inspect::{Contents, Depth, Inspection, InspectionEntry, NotFinite, TensorContents, inspect, render};
pub use layer_groups::LayerGroups;
pub use layout::{Layout, LayoutTensor, TensorClass};
pub use mismatch::{Difference, Mismatch, Mismatches};
pub use shard::Shard;
pub use tensor_file::TensorFile;

/// The K ingredients of a sweep, K >= 1: same tensor names, shapes and dtypes in all of them, unique short names.
#[derive(Debug)]
pub struct Zoo {
    ingredients: Vec<Ingredient>,
}

impl Zoo {
    /// Paths of the ingredients that `patterns` name, sorted, each once. Relative patterns start from `base`.
    ///
    /// A pattern is a glob, or the path of something that exists. Hidden entries match only a pattern with that dot.
    /// What a glob matches besides ingredients is passed over.
    ///
    /// # Errors
    /// If a pattern is invalid or matches nothing, a plain path is no ingredient, or none is left.
    pub fn resolve(patterns: &[String], base: &Path) -> Result<Vec<PathBuf>, ZooError> {
        resolve::resolve(patterns, base)
    }

    /// Opens all ingredients, in this order, and compares each with the first. Reads headers only.
    ///
    /// # Errors
    /// If there are none, one cannot be opened, one is given twice, or they differ: all differences in one error.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ZooError> {
        Self::of(paths.iter().map(|path| Ingredient::open(path)).collect::<Result<_, _>>()?)
    }

    /// Like [`open`](Self::open), of ingredients already open.
    pub(crate) fn of(mut ingredients: Vec<Ingredient>) -> Result<Self, ZooError> {
        let first = ingredients.first().ok_or(ZooError::Empty)?;
        let list: Vec<Mismatch> = ingredients[1..].iter().flat_map(|other| mismatch::compare(first, other)).collect();
        if !list.is_empty() {
            return Err(ZooError::Mismatch(Mismatches { first: first.path().to_path_buf(), list }));
        }
        let names = short_names(&ingredients.iter().map(Ingredient::path).collect::<Vec<_>>())?;
        for (ingredient, name) in ingredients.iter_mut().zip(names) {
            ingredient.rename(name);
        }
        Ok(Self { ingredients })
    }

    /// The ingredients, in order.
    pub fn ingredients(&self) -> &[Ingredient] {
        &self.ingredients
    }

    /// K.
    #[allow(clippy::len_without_is_empty, reason = "a zoo is never empty")]
    pub fn len(&self) -> usize {
        self.ingredients.len()
    }

    /// Content hashes of all ingredients, from `cache` where their files are unchanged. Reads everything else once,
    /// and notices values that are not finite in the same pass.
    ///
    /// `progress` hears (bytes done, bytes in all).
    ///
    /// # Errors
    /// [`ZooError::NotFinite`] for the first NaN or infinity of a float tensor.
    pub fn hash(&self, cache: Option<&HashCache>, progress: &mut dyn FnMut(u64, u64)) -> Result<ZooHashes, ZooError> {
        let total = self.ingredients.iter().map(Ingredient::total_bytes).sum();
        let mut done = 0;
        let mut advance = |bytes| {
            done += bytes;
            progress(done, total);
        };
        let hashes = self.ingredients.iter().map(|i| hash_ingredient(i, cache, &mut advance));
        Ok(ZooHashes { ingredients: hashes.collect::<Result<_, _>>()? })
    }

    /// That no ingredient's files have changed since they were opened: see [`Ingredient::check_unchanged`].
    ///
    /// # Errors
    /// [`ZooError::Changed`] with the first file that did.
    pub fn check_unchanged(&self) -> Result<(), ZooError> {
        self.ingredients.iter().try_for_each(Ingredient::check_unchanged)
    }
}

/// The last component of each path; where those are equal, as many parents with it as it takes.
fn short_names(paths: &[&Path]) -> Result<Vec<String>, ZooError> {
    let tail = |path: &Path, depth: usize| {
        let parts: Vec<_> = path.iter().collect();
        parts[parts.len().saturating_sub(depth)..].iter().collect::<PathBuf>().to_string_lossy().into_owned()
    };
    let mut depths = vec![1; paths.len()];
    loop {
        let names: Vec<String> = paths.iter().zip(&depths).map(|(path, &depth)| tail(path, depth)).collect();
        let mut same: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, name) in names.iter().enumerate() {
            same.entry(name).or_default().push(i);
        }
        let clashes: Vec<usize> = same.into_values().filter(|group| group.len() > 1).flatten().collect();
        if clashes.is_empty() {
            return Ok(names);
        }
        for i in clashes {
            depths[i] += 1;
            if depths[i] > paths[i].iter().count() {
                return Err(ZooError::Repeated { path: paths[i].to_path_buf() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Result<Vec<String>, ZooError> {
        short_names(&paths.iter().map(Path::new).collect::<Vec<_>>())
    }

    #[test]
    fn short_names_take_parents_only_where_needed() {
        assert_eq!(names(&["/z/a", "/z/b"]).unwrap(), ["a", "b"]);
        assert_eq!(names(&["/z/a/m", "/z/b/m", "/z/c"]).unwrap(), ["a/m", "b/m", "c"]);
        assert_eq!(names(&["/x/a/m", "/y/a/m"]).unwrap(), ["x/a/m", "y/a/m"]);
        assert!(matches!(names(&["/x/a", "/x/a"]), Err(ZooError::Repeated { .. })));
    }
}
