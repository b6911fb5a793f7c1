//! The three splits: learn (coefficients), select (choices), test (reported only).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use mehl_soup::sweep::manifest::DataEntry;
use mehl_soup::sweep::objective::ObjectiveName;
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, Kind, TchError};

use super::images::sources::{Source, SourceKind};
use super::images::{self, ImageInputs, LoadedImages};
use super::text::{self, TextFacts};
use super::{DataError, Loaded, ReadTargets, Split, tensor_file};
use crate::families::{ExpectedInput, InputKind};
use crate::rng::permutation;

/// What splits of each kind need besides the specification.
pub struct Kinds<'a> {
    /// Images.
    pub images: ImageInputs<'a>,
    /// Texts, if the model takes any.
    pub text: Option<TextFacts<'a>>,
}

/// All data of a sweep.
pub struct Data {
    /// Coefficients are learned on this.
    pub learn: Split,
    /// Early stopping, ranking and the winner's choice rest on this.
    pub select: Split,
    /// Only reported.
    pub test: Option<Split>,
    /// Hashes and sizes, in the order learn, select, test.
    pub entries: Vec<DataEntry>,
    /// What a person should know: shared samples, a select split that was set aside.
    pub notes: Vec<String>,
    /// Number of classes of images, where names told it, and who did.
    classes: Option<(usize, String)>,
    /// Dtypes of learn's inputs as they are in their source.
    dtypes: Vec<Kind>,
}

impl Data {
    /// Reads the splits of a specification, tensor files or images; float inputs become `kind`. `note` hears of what takes long.
    ///
    /// Without `data.select`, a part of learn (`select_fraction`, at least one sample) is set aside by a permutation seeded with `seed`.
    ///
    /// # Errors
    /// If a file is at fault, the splits' shapes differ, or learn is too small to be cut.
    pub fn load(
        spec: &DataSpec,
        seed: u64,
        kind: Kind,
        kinds: &Kinds<'_>,
        targets: ReadTargets<'_>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, DataError> {
        let LoadedImages { splits, classes, mut notes } = read(spec, kinds, targets, note)?;
        let mut splits = splits.into_iter();
        let mut next = |path: Option<&PathBuf>| path.and_then(|_| splits.next());
        let learn = next(Some(&spec.learn)).expect("learn is always read");
        let select = next(spec.select.as_ref());
        let test = next(spec.test.as_ref());
        for (other, path) in [(&select, &spec.select), (&test, &spec.test)] {
            if let (Some(other), Some(path)) = (other, path) {
                same_shapes(&learn.split, &other.split, spec, &path.display().to_string())?;
            }
        }
        let entry = |split: &str, path: &std::path::Path, hash: &str, samples| DataEntry {
            split: split.to_string(),
            path: path.to_path_buf(),
            hash: hash.to_string(),
            samples,
        };
        for (a, b, names) in [
            (Some(&learn), select.as_ref(), "learn and select"),
            (Some(&learn), test.as_ref(), "learn and test"),
            (select.as_ref(), test.as_ref(), "select and test"),
        ] {
            if let (Some(a), Some(b)) = (a, b) {
                let shared = shared_rows(a, b);
                if shared > 0 {
                    notes.push(format!("{names} share {shared} samples, so scores on the latter are too good"));
                }
            }
        }
        let mut entries = Vec::new();
        let (learn_split, select_split) = match select {
            Some(select) => {
                let path = spec.select.as_deref().unwrap_or(&spec.learn);
                entries.push(entry("learn", &spec.learn, &learn.hash, learn.split.samples()));
                entries.push(entry("select", path, &select.hash, select.split.samples()));
                (learn.split, select.split)
            }
            None => {
                let n = learn.split.samples();
                let aside = ((n as f64 * spec.select_fraction).round() as usize).max(1);
                if aside >= n {
                    return Err(DataError::Content {
                        file: spec.learn.display().to_string(),
                        what: format!(
                            "expected at least 2 samples to split off select, found {n} with \
                             select_fraction {}",
                            spec.select_fraction
                        ),
                    });
                }
                let order = permutation(seed, "select", &[], n);
                let Aside { mut select, mut rest, copies } = set_aside(&order, &learn.rows, aside);
                if rest.is_empty() {
                    return Err(DataError::Content {
                        file: spec.learn.display().to_string(),
                        what: format!("expected different samples to split off select, found {n} equal ones"),
                    });
                }
                let aside = select.len();
                select.sort_unstable();
                rest.sort_unstable();
                notes.push(format!("no data.select: {aside} of {n} learn samples are used as select"));
                let mut how = String::new();
                if copies > 0 {
                    notes.push(format!(
                        "{copies} learn samples are copies of others (by content); each is in the \
                         same split as its original"
                    ));
                    how = ":copies".to_string();
                }
                // Which rows were set aside follows from the hash of the file, the seed, the count and the rule.
                let hash = |part: &str| format!("{}:{part}:{seed}:{aside}{how}", learn.hash);
                entries.push(entry("learn", &spec.learn, &hash("learn"), n - aside));
                entries.push(entry("select", &spec.learn, &hash("select"), aside));
                (learn.split.subset(&rest)?, learn.split.subset(&select)?)
            }
        };
        if let (Some(test), Some(path)) = (&test, &spec.test) {
            entries.push(entry("test", path, &test.hash, test.split.samples()));
        }
        let dtypes = learn_split.sample_shapes().iter().map(|(dtype, _)| *dtype).collect();
        Ok(Self {
            learn: learn_split.into_kind(kind)?,
            select: select_split.into_kind(kind)?,
            test: test.map(|t| t.split.into_kind(kind)).transpose()?,
            entries,
            notes,
            classes,
            dtypes,
        })
    }

    /// Copies splits to a device, learn first, as long as they fit `budget` bytes, so that no batch crosses the bus.
    ///
    /// # Errors
    /// If memory cannot be had there.
    pub fn keep_on(&mut self, device: Device, mut budget: u64) -> Result<(), TchError> {
        for split in [Some(&mut self.learn), Some(&mut self.select), self.test.as_mut()].into_iter().flatten() {
            if let Some(left) = budget.checked_sub(split.bytes()) {
                split.keep_on(device)?;
                budget = left;
            }
        }
        Ok(())
    }

    /// Length of the longest sample of any split; `None` where all samples have the same.
    pub fn longest(&self) -> Option<usize> {
        [Some(&self.learn), Some(&self.select), self.test.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(Split::longest)
            .max()
    }

    /// That everything `spec` names is there: told before what takes long.
    ///
    /// # Errors
    /// Naming the first path that cannot be looked at, or could be several splits.
    pub fn check_existence(spec: &DataSpec) -> Result<(), DataError> {
        [Some(&spec.learn), spec.select.as_ref(), spec.test.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|path| Source::find(path).map(drop))
    }

    /// The splits, each with its path: learn, select, and test if there is one.
    pub fn each_split(&self) -> impl Iterator<Item = (&Split, &Path)> {
        let splits = [Some(&self.learn), Some(&self.select), self.test.as_ref()];
        splits.into_iter().flatten().zip(self.entries.iter().map(|entry| entry.path.as_path()))
    }

    /// How many classes files of images name where nothing else does, and the source that names them.
    pub fn named_classes(&self) -> Option<(usize, &str)> {
        self.classes.as_ref().map(|(count, source)| (*count, source.as_str()))
    }

    /// Checks a sample's shapes against what the model takes.
    ///
    /// # Errors
    /// Naming the file, the input, expected and found shape or dtype.
    pub fn check_inputs(&self, spec: &DataSpec, expected: &[ExpectedInput]) -> Result<(), DataError> {
        let fault = |what: String| DataError::Content { file: spec.learn.display().to_string(), what };
        let found = self.learn.sample_shapes();
        let given = self.learn.input_names().unwrap_or_else(|| spec.inputs.clone());
        let required = expected.iter().filter(|input| !input.optional).count();
        if !(required..=expected.len()).contains(&found.len()) {
            let count = if required == expected.len() {
                format!("{required}")
            } else {
                format!("{required} to {}", expected.len())
            };
            return Err(fault(format!("expected {count} inputs as required by the model, found {}", found.len())));
        }
        // A single input may have any name.
        let is_single = found.len() == 1;
        let known =
            |name: &String| expected.iter().any(|input| input.name.as_ref().is_none_or(|wanted| wanted == name));
        if let Some(other) = given.iter().find(|name| !is_single && !known(name)) {
            let names: Vec<_> = expected.iter().filter_map(|input| input.name.as_deref()).collect();
            return Err(fault(format!(
                "expected inputs {} as required by the model, found {} (set data.inputs): `{other}` is not one of them",
                names.join(", "),
                given.join(", ")
            )));
        }
        for (i, input) in expected.iter().enumerate() {
            let wanted = input.name.as_ref().filter(|_| !is_single);
            let place = match wanted {
                Some(wanted) => given.iter().position(|name| name == wanted),
                None => Some(i).filter(|i| *i < found.len()),
            };
            let Some(place) = place else {
                if input.optional {
                    continue;
                }
                let names: Vec<_> = expected.iter().filter_map(|input| input.name.as_deref()).collect();
                return Err(fault(format!(
                    "expected inputs {} as required by the model, found {} (set data.inputs)",
                    names.join(", "),
                    given.join(", ")
                )));
            };
            // Of one sample: part of the file's rows may have been set aside for select.
            let (name, (_, found), kind) = (&given[place], &found[place], self.dtypes[place]);
            if !input.takes(found) {
                let hint = if self.learn.images().is_some() { " (set data.image.size)" } else { "" };
                return Err(fault(format!(
                    "tensor `{name}`: expected {input} per sample as required by the model, \
                     found {found:?}{hint}"
                )));
            }
            let is_float = matches!(kind, Kind::Double | Kind::Float | Kind::Half | Kind::BFloat16);
            if is_float != (input.kind == InputKind::Float) {
                return Err(fault(format!(
                    "tensor `{name}`: expected {}, found {}",
                    if is_float { "whole numbers" } else { "floating point values" },
                    dtype_name(kind)
                )));
            }
        }
        Ok(())
    }
}

/// A split of samples in two.
struct Aside {
    select: Vec<usize>,
    rest: Vec<usize>,
    /// Samples that are copies of others.
    copies: usize,
}

/// The first samples of an order until there are `count`, each with all that have its contents: equal samples never lie on both sides.
fn set_aside(order: &[usize], rows: &[blake3::Hash], count: usize) -> Aside {
    let mut aside: HashSet<blake3::Hash> = HashSet::new();
    let mut members: HashMap<blake3::Hash, usize> = HashMap::new();
    rows.iter().for_each(|row| *members.entry(*row).or_default() += 1);
    let mut taken = 0;
    for &i in order {
        if taken >= count {
            break;
        }
        if aside.insert(rows[i]) {
            taken += members[&rows[i]];
        }
    }
    let (select, rest) = order.iter().copied().partition(|&i| aside.contains(&rows[i]));
    Aside { select, rest, copies: rows.len() - members.len() }
}

/// Reads learn, select and test, as far as they are given.
fn read(
    spec: &DataSpec,
    kinds: &Kinds<'_>,
    targets: ReadTargets<'_>,
    note: &mut dyn FnMut(&str),
) -> Result<LoadedImages, DataError> {
    let paths = [Some(&spec.learn), spec.select.as_ref(), spec.test.as_ref()];
    let mut sources = Vec::new();
    for path in paths.into_iter().flatten() {
        sources.push(Source::find(path)?);
    }
    let is_tensors = |source: &Source| source.kind == SourceKind::Tensors;
    if let Some(other) = sources.iter().find(|source| is_tensors(source) != is_tensors(&sources[0])) {
        let kind = match (is_tensors(&sources[0]), &kinds.text) {
            (true, _) => "a tensor file",
            (false, None) => "images",
            (false, Some(_)) => "texts",
        };
        return Err(DataError::Content {
            file: other.path.display().to_string(),
            what: format!("expected {kind} as {} is", spec.learn.display()),
        });
    }
    if is_tensors(&sources[0]) {
        let load = |source: &Source| {
            let file = source.files.first().unwrap_or(&source.path);
            let has_targets = spec.objective != Some(ObjectiveName::Pairs);
            tensor_file::load(file, &spec.inputs, has_targets.then_some((spec.labels.as_str(), targets)))
        };
        let splits = sources.iter().map(load).collect::<Result<_, _>>()?;
        return Ok(LoadedImages { splits, classes: None, notes: vec![] });
    }
    match &kinds.text {
        Some(facts) => text::load(&sources, spec, facts, targets, note),
        None => images::load(&sources, spec, &kinds.images, note),
    }
}

fn same_shapes(learn: &Split, other: &Split, spec: &DataSpec, file: &str) -> Result<(), DataError> {
    // Of samples with lengths of their own, the first dimension is the longest's.
    let is_equal = |a: &(Kind, Vec<i64>), b: &(Kind, Vec<i64>)| match learn.longest() {
        None => a == b,
        Some(_) => a.0 == b.0 && a.1.get(1..) == b.1.get(1..),
    };
    if learn.texts() != other.texts() {
        let (expected, found, learn) = (learn.texts(), other.texts(), spec.learn.display());
        let what = format!("expected {expected} texts a sample as in {learn}, found {found}");
        return Err(DataError::Content { file: file.to_string(), what });
    }
    for ((name, a), b) in spec.inputs.iter().zip(learn.sample_shapes()).zip(other.sample_shapes()) {
        if !is_equal(&a, &b) {
            return Err(DataError::Content {
                file: file.to_string(),
                what: format!(
                    "tensor `{name}`: expected {} {:?} per sample as in {}, found {} {:?}",
                    dtype_name(a.0),
                    a.1,
                    spec.learn.display(),
                    dtype_name(b.0),
                    b.1
                ),
            });
        }
    }
    Ok(())
}

/// A dtype as safetensors files call it.
pub(crate) fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Double => "F64",
        Kind::Float => "F32",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Int64 => "I64",
        Kind::Int => "I32",
        Kind::Int16 => "I16",
        Kind::Int8 => "I8",
        Kind::Uint8 => "U8",
        Kind::Bool => "BOOL",
        _ => "another dtype",
    }
}

fn shared_rows(a: &Loaded, b: &Loaded) -> usize {
    let known: HashSet<_> = a.rows.iter().collect();
    b.rows.iter().filter(|row| known.contains(row)).count()
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::families::Extent;

    /// What `check_inputs` says of inputs of these names, each `[2, 3]`, i64, for a model of texts.
    fn said(inputs: &[&str]) -> String {
        let spec: DataSpec = serde_json::from_value(serde_json::json!({
            "learn": "/learn.safetensors", "select": null, "test": null, "inputs": inputs, "labels": "labels",
            "select_fraction": 0.2, "metric": "accuracy",
        }))
        .unwrap();
        let zeros = |name: &&str| (name.to_string(), Tensor::zeros([2, 3], (Kind::Int64, Device::Cpu)));
        let split =
            || Split::of_tensors(inputs.iter().map(zeros).collect(), Tensor::zeros([2], (Kind::Int64, Device::Cpu)));
        let data = Data {
            learn: split(),
            select: split(),
            test: None,
            entries: vec![],
            notes: vec![],
            classes: None,
            dtypes: vec![Kind::Int64; inputs.len()],
        };
        let input = |name: &str, most, optional| ExpectedInput {
            name: Some(name.to_string()),
            kind: InputKind::Integer,
            dimensions: vec![Extent { least: 1, most }],
            optional,
        };
        let expected = [input("ids", 5, false), input("mask", 5, true), input("types", 2, true)];
        data.check_inputs(&spec, &expected).map_or_else(|error| error.to_string(), |()| "fits".to_string())
    }

    #[test]
    fn optional_inputs_may_be_left_out() {
        for inputs in [&["ids"][..], &["any name"], &["mask"], &["mask", "ids"], &["ids", "mask"]] {
            assert_eq!(said(inputs), "fits", "{inputs:?}");
        }
        for (inputs, says) in [
            (&["mask", "types"][..], "expected inputs ids, mask, types as required by the model, found mask, types"),
            (&["ids", "other"], "`other` is not one of them"),
            (&["ids", "types"], "tensor `types`: expected [1 to 2] per sample"),
            (&["a", "b", "c", "d"], "expected 1 to 3 inputs as required by the model, found 4"),
            (&[], "expected 1 to 3 inputs as required by the model, found 0"),
        ] {
            let said = said(inputs);
            assert!(said.contains(says), "`{says}` in {said}");
        }
    }
}
