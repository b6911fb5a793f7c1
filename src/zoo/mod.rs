//! Ingredients: what a zoo is made of, checked before anything is computed.
//!
//! Their files are opened by [`source`](crate::source) alone.
//!
//! | file | holds |
//! |---|---|
//! | `resolve` | patterns to paths |
//! | `header`, `shard` | a safetensors header, an open file |
//! | `tensor_file` | any one safetensors file |
//! | `folder`, `ingredient` | a Hugging Face folder's rules, one model's weights |
//! | `element` | float dtypes on disk and in memory |
//! | `base` | the model that ingredients were fine-tuned from, as a row of its own |
//! | `align`, `mismatch` | one naming for ingredients, and how they differ |
//! | `hash`, `hash_cache` | content hashes, and where they are remembered |
//! | `layout`, `layer_groups` | which tensors are mixed, and which share a coefficient |
//! | `family` | which family a model is of |
//! | `problem` | what ingredients were trained for, and the objective that follows |
//! | `class_map`, `meaning` | what outputs mean, and that it is the same in all ingredients |
//! | `distances` | how far ingredients are from their mean, and which stand out |
//! | `inspect` | the report of all that, faults included |

mod align;
mod base;
mod class_map;
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
mod meaning;
mod mismatch;
mod problem;
mod resolve;
mod shard;
mod tensor_file;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use class_map::{ClassMap, ClassMapFault, nfc};
pub use distances::{Distance, Distances, IngredientDistances, distances};
pub(crate) use element::encode;
pub use element::{Element, is_mixable};
pub use error::ZooError;
pub use family::{FamilyUnknown, RESNETS, detect};
pub(crate) use folder::{INDEX, SINGLE, parse_index};
pub(crate) use hash::hash_ingredient;
pub use hash::{IngredientHashes, ZooHashes};
pub use hash_cache::{HashCache, is_writable};
pub(crate) use header::parse_header;
pub(crate) use ingredient::CHUNK;
pub use ingredient::{Ingredient, TensorInfo, bytes_read};
pub use inspect::{
    Contents, Depth, Inspection, InspectionEntry, ModelCheck, NotFinite, TensorContents, inspect, render,
};
pub use layer_groups::LayerGroups;
pub use layout::{Layout, LayoutTensor, TensorClass};
pub use meaning::{ConfigFault, config_faults};
pub use mismatch::{Difference, Mismatch, Mismatches};
pub use problem::{Problem, ResolvedObjective, resolve_objective};
pub use resolve::{Found, PassedOver, glob_paths};
pub use shard::Shard;
pub use tensor_file::TensorFile;

/// The K ingredients of a sweep, K >= 1: same tensor names and shapes in all of them, dtypes that are the same or all floating point,
/// unique short names.
#[derive(Debug)]
pub struct Zoo {
    ingredients: Vec<Ingredient>,
    reference: usize,
    base: Option<Ingredient>,
}

impl Zoo {
    /// The ingredients that `patterns` name, and what they name besides. Relative patterns start from `base`.
    ///
    /// A pattern is a glob, or the path of something that exists. Hidden entries match only a pattern with that dot.
    /// What a glob matches besides ingredients is passed over, and told.
    ///
    /// # Errors
    /// If a pattern is invalid or matches nothing, a plain path is no ingredient, a folder could be several, or none is left.
    pub fn find(patterns: &[String], base: &Path) -> Result<Found, ZooError> {
        resolve::resolve(patterns, base)
    }

    /// Opens all ingredients, in this order, and compares each with what most are like. Reads headers only.
    ///
    /// # Errors
    /// If there are none, one cannot be opened, one is given twice, or they differ: all differences in one error.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ZooError> {
        Self::of(paths.iter().map(|path| Ingredient::open(path)).collect::<Result<_, _>>()?)
    }

    /// Like [`open`](Self::open), of ingredients already open.
    pub(crate) fn of(mut ingredients: Vec<Ingredient>) -> Result<Self, ZooError> {
        if ingredients.is_empty() {
            return Err(ZooError::Empty);
        }
        align::align(&mut ingredients);
        let reference = align::reference(&ingredients);
        let like = &ingredients[reference];
        let list: Vec<Mismatch> = ingredients.iter().flat_map(|other| mismatch::compare(like, other)).collect();
        if !list.is_empty() {
            return Err(ZooError::Mismatch(Mismatches { reference: like.path().to_path_buf(), list }));
        }
        let names = short_names(&ingredients.iter().map(Ingredient::path).collect::<Vec<_>>())?;
        for (ingredient, name) in ingredients.iter_mut().zip(names) {
            ingredient.rename(name);
        }
        Ok(Self { ingredients, reference, base: None })
    }

    /// The ingredient that a soup is written like: in its files, with its names and configuration.
    pub fn reference(&self) -> &Ingredient {
        &self.ingredients[self.reference]
    }

    /// Leaves out ingredients whose contents an earlier one has too. The names of those that are equal, of which the first stays.
    ///
    /// # Panics
    /// If the hashes are not of this zoo.
    pub fn without_duplicates(mut self, mut hashes: ZooHashes) -> (Self, ZooHashes, Vec<Vec<String>>) {
        assert_eq!(self.len(), hashes.ingredients.len(), "hashes are of this zoo");
        let mut groups: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
        for (k, ingredient) in self.ingredients.iter().enumerate() {
            let contents = ingredient
                .tensors()
                .map(|(name, info)| format!("{} {}", info.dtype, hashes.of_tensor(&self, k, name)))
                .collect();
            match groups.iter_mut().find(|(other, _)| *other == contents) {
                Some((_, members)) => members.push(k),
                None => groups.push((contents, vec![k])),
            }
        }
        let named = |members: &Vec<usize>| members.iter().map(|&k| self.ingredients[k].name().to_string()).collect();
        let equal = groups.iter().map(|(_, members)| members).filter(|members| members.len() > 1).map(named).collect();
        let kept: Vec<usize> = groups.iter().map(|(_, members)| members[0]).collect();
        let is_kept = |(k, _): &(usize, _)| kept.contains(k);
        hashes.ingredients = hashes.ingredients.into_iter().enumerate().filter(is_kept).map(|(_, own)| own).collect();
        let is_kept = |(k, _): &(usize, _)| kept.contains(k);
        self.ingredients = self.ingredients.into_iter().enumerate().filter(is_kept).map(|(_, own)| own).collect();
        self.reference = align::reference(&self.ingredients);
        (self, hashes, equal)
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
        let total = self.ingredients.iter().chain(&self.base).map(Ingredient::total_bytes).sum();
        let mut done = 0;
        let mut advance = |bytes| {
            done += bytes;
            progress(done, total);
        };
        let hashes = self.ingredients.iter().map(|i| hash_ingredient(i, cache, &mut advance));
        let ingredients = hashes.collect::<Result<_, _>>()?;
        Ok(ZooHashes { ingredients, base: self.hash_base(cache, &mut advance)? })
    }

    /// That no ingredient's files have changed since they were opened: see [`Ingredient::check_unchanged`].
    ///
    /// # Errors
    /// [`ZooError::Changed`] with the first file that did.
    pub fn check_unchanged(&self) -> Result<(), ZooError> {
        self.ingredients.iter().chain(&self.base).try_for_each(Ingredient::check_unchanged)
    }
}

/// That ingredients are in several floating point dtypes, if they are: which of them in which.
pub fn mixed_dtypes(ingredients: &[Ingredient]) -> Option<String> {
    let mut by_dtypes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for ingredient in ingredients {
        let dtypes: BTreeSet<String> =
            ingredient.tensors().filter(|(_, i)| is_mixable(i.dtype)).map(|(_, i)| i.dtype.to_string()).collect();
        let names = dtypes.into_iter().collect::<Vec<_>>().join("/");
        by_dtypes.entry(names).or_default().push(ingredient.name());
    }
    if by_dtypes.len() < 2 {
        return None;
    }
    let named = |(dtype, names): (&String, &Vec<&str>)| match names[..] {
        [only] => format!("{only} in {dtype}"),
        [first, ..] => format!("{} ({first}, ...) in {dtype}", names.len()),
        [] => String::new(),
    };
    let told: Vec<String> = by_dtypes.iter().map(named).collect();
    Some(format!(
        "ingredients have different dtypes: {}. They are mixed in f32 or wider, and each tensor is written in its most common dtype",
        told.join(", ")
    ))
}

/// Digits of a revision that a short name shows, as many as git's own.
const REVISION: usize = 7;

/// Model and revision of a snapshot in the Hugging Face cache, `models--ORG--NAME/snapshots/REVISION`, or of a file in it.
fn snapshot_name(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| *part == "snapshots")?;
    let model = parts.get(at.checked_sub(1)?)?.strip_prefix("models--")?.replace("--", "/");
    let revision = parts.get(at + 1)?;
    let short = revision.get(..REVISION).unwrap_or(revision);
    let rest: String = parts[at + 2..].iter().map(|part| format!("/{part}")).collect();
    Some(format!("{model}@{short}{rest}"))
}

/// The last component of each path, or model and revision of a snapshot in the Hugging Face cache; where those are equal, as many parents
/// with it as it takes.
fn short_names(paths: &[&Path]) -> Result<Vec<String>, ZooError> {
    let snapshots: Option<Vec<String>> = paths.iter().map(|path| snapshot_name(path)).collect();
    if let Some(names) = snapshots
        && names.iter().collect::<BTreeSet<_>>().len() == names.len()
    {
        return Ok(names);
    }
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

    #[test]
    fn snapshots_of_the_hugging_face_cache_are_named_by_model_and_revision() {
        let of = |model: &str, revision: &str| format!("/hub/models--{model}/snapshots/{revision}");
        let (a, b) = (of("me--run1", "0123456789abcdef"), of("me--run2", "0123456789abcdef"));
        assert_eq!(names(&[&a, &b]).unwrap(), ["me/run1@0123456", "me/run2@0123456"]);
        let file = format!("{a}/model.safetensors");
        assert_eq!(names(&[&file]).unwrap(), ["me/run1@0123456/model.safetensors"]);
        // With others beside them, or too alike, by path as any.
        assert_eq!(names(&[&a, "/z/b"]).unwrap(), ["0123456789abcdef", "b"]);
    }

    #[test]
    fn equal_contents_count_once_whatever_their_names_begin_with() {
        use testing::{f32s, write_file};
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, prefix: &str, value: f32| {
            let path = root.path().join(name);
            write_file(
                &path,
                &[f32s(&format!("{prefix}a"), &[1], &[value]), f32s(&format!("{prefix}b"), &[1], &[2.0])],
            );
            path
        };
        let paths =
            [write("x.safetensors", "", 1.0), write("y.safetensors", "module.", 1.0), write("z.safetensors", "", 3.0)];
        let zoo = Zoo::open(&paths).unwrap();
        let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
        let (zoo, hashes, equal) = zoo.without_duplicates(hashes);
        let left: Vec<&str> = zoo.ingredients().iter().map(Ingredient::name).collect();
        assert_eq!((left, hashes.ingredients.len()), (vec!["x.safetensors", "z.safetensors"], 2));
        assert_eq!(equal, [["x.safetensors", "y.safetensors"]]);
        assert!(Layout::new(&zoo, &hashes).is_ok());
    }
}
