//! The three splits: learn (coefficients), select (choices), test (reported only).

use std::collections::HashSet;

use mehl_soup::sweep::manifest::DataEntry;
use mehl_soup::sweep::spec::DataSpec;
use tch::Kind;

use super::tensor_file::{self, Loaded};
use super::{DataError, Split};
use crate::rng::permutation;

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
}

impl Data {
    /// Reads the splits of a specification; float inputs become `kind`.
    ///
    /// Without `data.select`, a part of learn (`select_fraction`, at least one sample) is set aside by a permutation seeded with `seed`.
    ///
    /// # Errors
    /// If a file is at fault, the splits' shapes differ, or learn is too small to be cut.
    pub fn load(spec: &DataSpec, seed: u64, kind: Kind) -> Result<Self, DataError> {
        let read = |path| tensor_file::load(path, &spec.inputs, &spec.labels);
        let learn = read(&spec.learn)?;
        let select = spec.select.as_deref().map(read).transpose()?;
        let test = spec.test.as_deref().map(read).transpose()?;
        for (other, path) in [(&select, &spec.select), (&test, &spec.test)] {
            if let (Some(other), Some(path)) = (other, path) {
                same_shapes(&learn.split, &other.split, spec, &path.display().to_string())?;
            }
        }
        let mut notes = Vec::new();
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
                    notes.push(format!("{names} share {shared} samples: scores on the latter are too good"));
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
                            "expected at least 2 samples to set select aside, found {n} with select_fraction {}",
                            spec.select_fraction
                        ),
                    });
                }
                let order = permutation(seed, "select", &[], n);
                let (mut select, mut rest) = (order[..aside].to_vec(), order[aside..].to_vec());
                select.sort_unstable();
                rest.sort_unstable();
                notes.push(format!("no select split given: {aside} of {n} learn samples were set aside for it"));
                // Which rows were set aside follows from the hash of the file, the seed and the count.
                let hash = |part: &str| format!("{}:{part}:{seed}:{aside}", learn.hash);
                entries.push(entry("learn", &spec.learn, &hash("learn"), n - aside));
                entries.push(entry("select", &spec.learn, &hash("select"), aside));
                (learn.split.subset(&rest)?, learn.split.subset(&select)?)
            }
        };
        if let (Some(test), Some(path)) = (&test, &spec.test) {
            entries.push(entry("test", path, &test.hash, test.split.samples()));
        }
        Ok(Self {
            learn: learn_split.into_kind(kind)?,
            select: select_split.into_kind(kind)?,
            test: test.map(|t| t.split.into_kind(kind)).transpose()?,
            entries,
            notes,
        })
    }

    /// Checks all labels against the number of classes.
    ///
    /// # Errors
    /// Naming the split's file, the largest label and the number of classes.
    pub fn check_labels(&self, name: &str, classes: i64) -> Result<(), DataError> {
        let splits = [Some(&self.learn), Some(&self.select), self.test.as_ref()];
        for (split, entry) in splits.into_iter().flatten().zip(&self.entries) {
            let largest = split.labels.f_max()?.f_int64_value(&[])?;
            if largest >= classes {
                return Err(DataError::Content {
                    file: entry.path.display().to_string(),
                    what: format!("tensor `{name}`: expected classes 0 to {}, found {largest}", classes - 1),
                });
            }
        }
        Ok(())
    }

    /// Checks a sample's shapes against what the model takes.
    ///
    /// # Errors
    /// Naming the file, the input, expected and found shape or dtype.
    pub fn check_shapes(&self, spec: &DataSpec, expected: &[Vec<i64>]) -> Result<(), DataError> {
        let fault = |what: String| DataError::Content { file: spec.learn.display().to_string(), what };
        if expected.len() != self.learn.inputs.len() {
            return Err(fault(format!(
                "expected {} inputs as the model takes, found {} in data.inputs",
                expected.len(),
                spec.inputs.len()
            )));
        }
        for ((name, tensor), shape) in spec.inputs.iter().zip(&self.learn.inputs).zip(expected) {
            // Of one sample: part of the file's rows may have been set aside for select.
            let found = &tensor.size()[1..];
            if found != &shape[..] {
                return Err(fault(format!(
                    "tensor `{name}`: expected {shape:?} a sample as the model takes, found {found:?}"
                )));
            }
            if !tensor.is_floating_point() {
                return Err(fault(format!(
                    "tensor `{name}`: expected floating point values, found {:?}",
                    tensor.kind()
                )));
            }
        }
        Ok(())
    }
}

fn same_shapes(learn: &Split, other: &Split, spec: &DataSpec, file: &str) -> Result<(), DataError> {
    for ((name, a), b) in spec.inputs.iter().zip(&learn.inputs).zip(&other.inputs) {
        if a.size()[1..] != b.size()[1..] || a.kind() != b.kind() {
            return Err(DataError::Content {
                file: file.to_string(),
                what: format!(
                    "tensor `{name}`: expected {:?} {:?} a sample as in {}, found {:?} {:?}",
                    a.kind(),
                    &a.size()[1..],
                    spec.learn.display(),
                    b.kind(),
                    &b.size()[1..]
                ),
            });
        }
    }
    Ok(())
}

fn shared_rows(a: &Loaded, b: &Loaded) -> usize {
    let known: HashSet<_> = a.rows.iter().collect();
    b.rows.iter().filter(|row| known.contains(row)).count()
}
