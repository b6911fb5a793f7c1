//! What there is to know about a zoo, faults included: the report of `mehl-soup inspect`.
//!
//! Headers are always read; contents only where asked for, by hashing or by distances. `table` shows the report to people.

mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::align::{align, reference};
use super::distances::{Distances, distances};
use super::error::ZooError;
use super::family::detect;
use super::hash::{IngredientHashes, ZooHashes, hash_ingredient};
use super::hash_cache::HashCache;
use super::ingredient::Ingredient;
use super::layout::{Layout, TensorClass};
use super::meaning::{ConfigFault, config_faults};
use super::mismatch::{Mismatch, compare};
use super::resolve::{Found, PassedOver};
use super::{Zoo, mixed_dtypes, short_names};
use crate::sweep::spec::{Family, Grouping};

pub use table::render;

/// The report. Its JSON form is an interface: fields are added, never renamed, while [`Inspection::VERSION`] stays.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// [`Inspection::VERSION`].
    pub version: u32,
    /// Model family of the reference, by its configuration and names; `None` if they do not tell.
    pub family: Option<Family>,
    /// Why the family is not known. No fault of the zoo: a specification can name the family, or bring its own module.
    pub family_fault: Option<String>,
    /// In the order given.
    pub ingredients: Vec<InspectionEntry>,
    /// What patterns matched besides, and why it is no ingredient.
    pub passed_over: Vec<PassedOver>,
    /// Short name of the ingredient that others are compared with, which most are like; `None` if none could be opened.
    pub reference: Option<String>,
    /// Every difference from the reference. Contents are compared only where they were read.
    pub mismatches: Vec<Mismatch>,
    /// What speaks against a mix of these models by their configurations.
    pub config_faults: Vec<ConfigFault>,
    /// Why the model cannot be computed; `None` if it can, or was not looked at.
    pub model_fault: Option<String>,
    /// Why a run would refuse what its specification names; `None` if it would not, or was not looked at.
    pub data_fault: Option<String>,
    /// Whether it was looked at if the model can be computed.
    pub is_model_checked: bool,
    /// What is assumed and not read, and what else a person should know.
    pub notes: Vec<String>,
    /// What contents tell; `None` unless they were read.
    pub contents: Option<Contents>,
    /// Distances from the mean; `None` unless asked for, and where there are none: then `distances_fault` says why.
    pub distances: Option<Distances>,
    /// Why there are no distances although they were asked for.
    pub distances_fault: Option<String>,
}

/// One ingredient of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectionEntry {
    /// Short name, unique in the zoo.
    pub name: String,
    /// File or folder.
    pub path: PathBuf,
    /// Why it cannot be opened or read, or `None`. Numbers of what cannot be opened are zero.
    pub fault: Option<String>,
    /// Number of weights files.
    pub files: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Elements by dtype.
    pub dtypes: BTreeMap<String, u64>,
    /// Content hash (blake3, hexadecimal); `None` unless contents were read and all float values are finite.
    pub hash: Option<String>,
}

/// What hashes tell.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Contents {
    /// Names of ingredients with the same contents, two or more a group.
    pub equal: Vec<Vec<String>>,
    /// The first value that is not finite, of each ingredient that has one.
    pub not_finite: Vec<NotFinite>,
    /// What becomes of tensors; `None` where ingredients differ, cannot be read or are not finite.
    pub tensors: Option<TensorContents>,
}

/// Tensors by what their contents make of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TensorContents {
    /// Float tensors that are summed.
    pub mixed: usize,
    /// Float tensors that are equal in all ingredients.
    pub frozen: Vec<String>,
    /// Tensors that are one parameter with an earlier one, and which.
    pub tied: BTreeMap<String, String>,
    /// Running statistics that differ: a soup's are computed anew.
    pub statistics: Vec<String>,
    /// Tensors of a dtype that is copied.
    pub copied: Vec<String>,
}

/// A value that is not finite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotFinite {
    /// Short name of the ingredient.
    pub ingredient: String,
    /// The tensor.
    pub tensor: String,
    /// Flat index.
    pub element: usize,
    /// `NaN`, `inf` or `-inf`: JSON has no numbers for them.
    pub value: String,
}

/// What is read besides headers.
pub struct Depth<'a> {
    /// Contents are hashed, with this cache.
    pub hash: Option<Option<&'a HashCache>>,
    /// Distances, by these groups.
    pub distances: Option<Grouping>,
    /// The family that the specification names.
    pub family: Option<Family>,
    /// Whether the specification names the classes.
    pub classes_stated: bool,
    /// Tries whether the model can be computed.
    pub model: Option<ModelCheck<'a>>,
}

/// Tries whether a run can compute a zoo's model: what it assumes of it, or why it cannot.
pub type ModelCheck<'a> = &'a dyn Fn(&Zoo) -> Result<Vec<String>, String>;

/// Opens each ingredient, compares it with what most are like, and reads what `depth` asks for. Faults become part of the report.
/// `progress` hears what is being done and (bytes done, bytes in all).
pub fn inspect(found: &Found, depth: &Depth<'_>, progress: &mut dyn FnMut(&'static str, u64, u64)) -> Inspection {
    let paths = &found.paths;
    let names = short_names(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())
        .unwrap_or_else(|_| paths.iter().map(|path| path.display().to_string()).collect());
    let mut report = Inspection {
        version: Inspection::VERSION,
        family: None,
        family_fault: None,
        ingredients: Vec::new(),
        passed_over: found.passed_over.clone(),
        reference: None,
        mismatches: Vec::new(),
        config_faults: Vec::new(),
        model_fault: None,
        data_fault: None,
        is_model_checked: false,
        notes: Vec::new(),
        contents: None,
        distances: None,
        distances_fault: None,
    };
    // Places in the report of what could be opened.
    let (mut places, mut opened): (Vec<usize>, Vec<Ingredient>) = (Vec::new(), Vec::new());
    for (i, (path, name)) in paths.iter().zip(names).enumerate() {
        let mut entry = InspectionEntry::new(name, path);
        match Ingredient::open(path) {
            Err(error) => entry.fault = Some(error.to_string()),
            Ok(ingredient) => {
                entry.describe(&ingredient);
                places.push(i);
                opened.push(ingredient);
            }
        }
        report.ingredients.push(entry);
    }
    report.compare(&mut opened, &places, depth);
    let hashes =
        depth.hash.map(|cache| report.hash(&opened, &places, cache, &mut |done, all| progress("hashing", done, all)));
    // Unsound by its headers, or named twice: nothing that compares contents tensor by tensor can be said.
    let of_all = opened.len() == paths.len();
    let zoo = Zoo::of(opened).ok().filter(|_| of_all);
    if let (Some(zoo), Some(check), Some(_)) = (&zoo, depth.model, report.family) {
        report.is_model_checked = true;
        match check(zoo) {
            Ok(assumed) => report.notes.extend(assumed),
            Err(fault) => report.model_fault = Some(fault),
        }
    }
    if let (Some(zoo), Some(Some(hashes))) = (&zoo, &hashes) {
        report.add_tensors(zoo, hashes);
    }
    if let Some(grouping) = depth.distances {
        match zoo.map(|zoo| distances(&zoo, grouping, &mut |done, all| progress("distances", done, all))) {
            Some(Ok(found)) => report.distances = Some(found),
            Some(Err(error)) => report.distances_fault = Some(error.to_string()),
            None => {
                report.distances_fault = Some(
                    "some ingredients have faults or differences, so there is no mean to measure from".to_string(),
                );
            }
        }
    }
    report
}

impl InspectionEntry {
    fn new(name: String, path: &Path) -> Self {
        Self {
            name,
            path: path.to_path_buf(),
            fault: None,
            files: 0,
            tensors: 0,
            parameters: 0,
            bytes: 0,
            dtypes: BTreeMap::new(),
            hash: None,
        }
    }

    fn describe(&mut self, ingredient: &Ingredient) {
        for (_, info) in ingredient.tensors() {
            self.tensors += 1;
            self.parameters += info.numel() as u64;
            *self.dtypes.entry(info.dtype.to_string()).or_default() += info.numel() as u64;
        }
        self.bytes = ingredient.total_bytes();
        self.files = ingredient.shards().len();
    }
}

impl Inspection {
    /// Of the JSON form.
    pub const VERSION: u32 = 1;

    /// Whether all ingredients can be opened, agree, and are, as far as was looked at, finite and computable.
    pub fn is_sound(&self) -> bool {
        !self.ingredients.is_empty()
            && self.mismatches.is_empty()
            && self.config_faults.is_empty()
            && self.model_fault.is_none()
            && self.data_fault.is_none()
            && self.ingredients.iter().all(|i| i.fault.is_none())
            && self.contents.as_ref().is_none_or(|contents| contents.not_finite.is_empty())
            && self.distances_fault.is_none()
    }

    /// Compares headers and configurations of what was opened, and finds the family.
    fn compare(&mut self, opened: &mut [Ingredient], places: &[usize], depth: &Depth<'_>) {
        align(opened);
        let reference = reference(opened);
        let Some(like) = opened.get(reference) else { return };
        self.reference = Some(self.ingredients[places[reference]].name.clone());
        match depth.family.map_or_else(|| detect(like), Ok) {
            Ok(family) => self.family = Some(family),
            Err(unknown) => self.family_fault = Some(unknown.what),
        }
        self.mismatches = opened.iter().flat_map(|other| compare(like, other)).collect();
        self.config_faults = config_faults(opened, depth.classes_stated);
        self.notes = opened.iter().flat_map(|ingredient| ingredient.notes().iter().cloned()).collect();
        self.notes.extend(mixed_dtypes(opened));
    }

    /// Hashes what was opened; gives the hashes if there are some of all.
    fn hash(
        &mut self,
        opened: &[Ingredient],
        places: &[usize],
        cache: Option<&HashCache>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Option<ZooHashes> {
        let total = opened.iter().map(Ingredient::total_bytes).sum();
        let mut contents = Contents::default();
        let mut hashes: Vec<IngredientHashes> = Vec::new();
        let mut same: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut done = 0;
        for (i, ingredient) in places.iter().zip(opened) {
            let entry = &mut self.ingredients[*i];
            let begun = done;
            let found = hash_ingredient(ingredient, cache, &mut |bytes| {
                done += bytes;
                progress(done, total);
            });
            // One that is not finite is left where that is found.
            done = begun + ingredient.total_bytes();
            match found {
                Ok(found) => {
                    entry.hash = Some(found.total.clone());
                    same.entry(found.total.clone()).or_default().push(entry.name.clone());
                    hashes.push(found);
                }
                Err(ZooError::NotFinite { tensor, element, value, .. }) => {
                    let (ingredient, value) = (entry.name.clone(), value.to_string());
                    contents.not_finite.push(NotFinite { ingredient, tensor, element, value });
                }
                Err(error) => entry.fault = Some(error.to_string()),
            }
        }
        contents.equal = same.into_values().filter(|names| names.len() > 1).collect();
        contents.equal.sort();
        self.contents = Some(contents);
        (hashes.len() == self.ingredients.len()).then_some(ZooHashes { ingredients: hashes, base: None })
    }

    fn add_tensors(&mut self, zoo: &Zoo, hashes: &ZooHashes) {
        let layout = match Layout::new(zoo, hashes) {
            Ok(layout) => layout,
            Err(ZooError::Mismatch(differing)) => return self.mismatches.extend(differing.list),
            // It has no other error for a zoo that is not empty.
            Err(_) => return,
        };
        let of = |class| {
            let tensors = layout.tensors.iter().filter(move |tensor| tensor.class == class);
            tensors.map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
        };
        let tensors = TensorContents {
            mixed: layout.mixed().count(),
            frozen: of(TensorClass::Frozen),
            tied: layout.tensors.iter().filter_map(|t| Some((t.name.clone(), t.tied_to.clone()?))).collect(),
            statistics: of(TensorClass::Statistic),
            copied: of(TensorClass::Copied),
        };
        self.contents.get_or_insert_default().tensors = Some(tensors);
    }
}
