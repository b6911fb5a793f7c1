//! Ingredients on disk, and what they have in common.

mod element;
mod error;
mod hash;
mod ingredient;
mod inspect;
mod layer_groups;
mod layout;

use std::path::{Path, PathBuf};

pub(crate) use element::{CHUNK, convert};
pub use element::{Element, is_float};
pub use error::ZooError;
pub use hash::{HashCache, IngredientHashes, ZooHashes};
pub use ingredient::{Ingredient, Shard, TensorInfo};
pub use inspect::{Inspection, inspect};
pub use layer_groups::LayerGroups;
pub use layout::{Layout, LayoutTensor, TensorClass};

/// The K ingredients of a sweep, in order.
#[derive(Debug)]
pub struct Zoo {
    ingredients: Vec<Ingredient>,
}

/// Mismatches that an error lists.
const LISTED: usize = 20;

impl Zoo {
    /// The paths that patterns (globs, or plain paths) stand for, relative to `base`: sorted, each once.
    ///
    /// A glob passes over what is no ingredient; a plain path is taken as it is, so that opening it says what is wrong.
    ///
    /// # Errors
    /// If a pattern matches no ingredient.
    pub fn resolve(patterns: &[String], base: &Path) -> Result<Vec<PathBuf>, ZooError> {
        let mut paths = Vec::new();
        for pattern in patterns {
            let none = || ZooError::NoMatch { pattern: pattern.clone(), base: base.display().to_string() };
            let full = base.join(pattern);
            if full.exists() {
                paths.push(full);
                continue;
            }
            let text = full.to_str().ok_or_else(none)?;
            let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
            let found: Vec<PathBuf> = glob::glob_with(text, options)
                .map_err(|_| none())?
                .filter_map(Result::ok)
                .filter(|path| ingredient::is_candidate(path))
                .collect();
            if found.is_empty() {
                return Err(none());
            }
            paths.extend(found);
        }
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// Opens all ingredients and compares their tensors with the first one's.
    ///
    /// # Errors
    /// If there is none, one cannot be opened, or they differ; all differences are listed.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ZooError> {
        if paths.is_empty() {
            return Err(ZooError::Empty("zoo.ingredients".to_string()));
        }
        let mut ingredients = paths.iter().map(|path| Ingredient::open(path)).collect::<Result<Vec<_>, _>>()?;
        name_uniquely(&mut ingredients);
        let faults: Vec<String> =
            ingredients[1..].iter().flat_map(|other| mismatches(&ingredients[0], other)).collect();
        if !faults.is_empty() {
            let mut lines: Vec<String> = faults.iter().take(LISTED).map(|fault| format!("  {fault}")).collect();
            if faults.len() > LISTED {
                lines.push(format!("  and {} more", faults.len() - LISTED));
            }
            return Err(ZooError::Mismatch(lines.join("\n")));
        }
        Ok(Self { ingredients })
    }

    /// The ingredients, in order.
    pub fn ingredients(&self) -> &[Ingredient] {
        &self.ingredients
    }

    /// K.
    pub fn len(&self) -> usize {
        self.ingredients.len()
    }

    /// Never: a zoo has at least one ingredient.
    pub fn is_empty(&self) -> bool {
        self.ingredients.is_empty()
    }

    /// Content hashes of all ingredients, from the cache where their files have not changed. `progress` is told bytes done and in all.
    ///
    /// # Errors
    /// If a float tensor holds NaN or infinity.
    pub fn hash(&self, cache: Option<&HashCache>, progress: &mut dyn FnMut(u64, u64)) -> Result<ZooHashes, ZooError> {
        hash::hash(&self.ingredients, cache, progress)
    }
}

/// What differs between an ingredient's headers and the first one's, in words.
fn mismatches(first: &Ingredient, other: &Ingredient) -> Vec<String> {
    let path = other.path().display();
    let mut faults = Vec::new();
    for name in first.tensor_names() {
        match (first.info(name), other.info(name)) {
            (Some(expected), Some(found)) if expected.dtype != found.dtype || expected.shape != found.shape => faults
                .push(format!(
                    "{path}: tensor `{name}`: expected {:?} {:?} as in {}, found {:?} {:?}",
                    expected.dtype,
                    expected.shape,
                    first.path().display(),
                    found.dtype,
                    found.shape
                )),
            (Some(_), None) => faults.push(format!(
                "{path}: tensor `{name}`: expected it as in {}, found no such tensor",
                first.path().display()
            )),
            _ => {}
        }
    }
    for name in other.tensor_names().filter(|name| first.info(name).is_none()) {
        faults.push(format!(
            "{path}: tensor `{name}`: expected no such tensor as in {}, found it",
            first.path().display()
        ));
    }
    faults
}

/// Puts as many parent folders before each name as it takes to tell all apart.
fn name_uniquely(ingredients: &mut [Ingredient]) {
    for depth in 1..8 {
        let mut names: Vec<String> = ingredients
            .iter()
            .map(|ingredient| {
                let path = ingredient.path();
                let path = if path.is_dir() { path.to_path_buf() } else { path.with_extension("") };
                let parts: Vec<String> =
                    path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
                parts[parts.len().saturating_sub(depth)..].join("/")
            })
            .collect();
        for (ingredient, name) in ingredients.iter_mut().zip(&names) {
            ingredient.name.clone_from(name);
        }
        names.sort();
        names.dedup();
        if names.len() == ingredients.len() {
            break;
        }
    }
}
