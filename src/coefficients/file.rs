//! The coefficients file: what a soup is stored as.
//!
//! One safetensors blob: tensor `A`, F64, shape `[K, L]`; the soup's running statistics, if its model has any, as `buffers.<name on disk>`, F32;
//! everything else as JSON in the blob's metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use super::Coefficients;
use super::statistics::{PREFIX, Statistic, Statistics};
use crate::sweep::manifest::DataEntry;
use crate::sweep::objective::ObjectiveName;
use crate::sweep::outcome::Scores;
use crate::zoo::parse_header;

const META_KEY: &str = "mehl_soup_coefficients";
const TENSOR: &str = "A";
/// Largest distance of a column's sum from 1, relative to the sum of its magnitudes: far above the rounding of any number of folds, far below a coefficient.
const SUM_TOLERANCE: f64 = 1e-6;

/// A soup, as coefficients: what `materialize` needs besides the ingredients themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct CoefficientsFile {
    /// `A`, `[K, L]`, finite, columns sum to 1.
    pub coefficients: Coefficients,
    /// Running means and variances of the soup's batch normalisation, by name on disk; empty for models without.
    pub statistics: Statistics,
    /// Where it comes from and what it is for.
    pub about: About,
}

/// Everything in a coefficients file but `A`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Version of the format: [`About::VERSION`].
    pub version: u32,
    /// Name and version of the program that wrote it.
    pub program: String,
    /// Name of the sweep.
    pub sweep: String,
    /// Task within the sweep.
    pub task_id: String,
    /// Soup method, as in specifications.
    pub method: String,
    /// The task's hyperparameters.
    pub hyperparameters: serde_json::Value,
    /// Seed of model batches and data order.
    pub seed: u64,
    /// Model family, as in specifications.
    pub family: String,
    /// The K ingredients, in the order of the rows of `A`; and after them the base, if there is one.
    pub ingredients: Vec<IngredientRef>,
    /// Whether the last of `ingredients` is the model that the others were fine-tuned from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_base: bool,
    /// Names of the L layer groups, in the order of the columns of `A`.
    pub groups: Vec<String>,
    /// Every mixed tensor and the index of its layer group. All other tensors are copied.
    pub tensors: BTreeMap<String, usize>,
    /// What coefficients were learned for. Not written for classification.
    #[serde(default, skip_serializing_if = "ObjectiveName::is_default")]
    pub objective: ObjectiveName,
    /// Scores of the exact soup.
    pub scores: Option<Scores>,
    /// Things a person should know about this soup.
    pub notes: Vec<String>,
    /// The data splits.
    pub data: Vec<DataEntry>,
    /// Whether the soup is better than the best ingredient on select.
    pub better_than_best_ingredient: Option<bool>,
}

impl About {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
}

/// One ingredient, as a coefficients file remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngredientRef {
    /// Short name.
    pub name: String,
    /// Absolute path it was read from.
    pub path: PathBuf,
    /// Content hash (blake3, hexadecimal).
    pub hash: String,
}

/// Why bytes are not a coefficients file.
#[derive(Debug, thiserror::Error)]
pub enum CoefficientsError {
    /// Something else.
    #[error("not a coefficients file: {0}")]
    Foreign(String),
    /// Written by another version of the format.
    #[error("coefficients file has version {found}, this program reads version {}", About::VERSION)]
    Version {
        /// The file's version.
        found: u32,
    },
    /// It was one, and is not whole.
    #[error("coefficients file is damaged: {0}")]
    Damaged(String),
    /// Whole, but it contradicts itself.
    #[error("coefficients file is invalid: {0}")]
    Invalid(String),
}

#[derive(Serialize, Deserialize)]
struct Meta<A> {
    /// blake3 over the bytes of `A` and of all statistics, sorted by name; hexadecimal.
    digest: String,
    about: A,
}

impl CoefficientsFile {
    /// The file's content. The same value gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let data: Vec<u8> = self.coefficients.values().iter().flat_map(|v| v.to_le_bytes()).collect();
        let statistics: Vec<(String, &Statistic, Vec<u8>)> =
            self.statistics.iter().map(|(name, s)| (format!("{PREFIX}{name}"), s, s.to_bytes())).collect();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&data);
        for (_, _, bytes) in &statistics {
            hasher.update(bytes);
        }
        let meta = Meta { digest: hasher.finalize().to_hex().to_string(), about: &self.about };
        let json = serde_json::to_string(&meta).expect("plain data serializes");
        let shape = vec![self.coefficients.ingredients(), self.coefficients.groups()];
        let view = TensorView::new(Dtype::F64, shape, &data).expect("length is that of the shape");
        let mut views = vec![(TENSOR, view)];
        views.extend(statistics.iter().map(|(name, statistic, bytes)| (name.as_str(), statistic.view(bytes))));
        safetensors::serialize(views, Some(HashMap::from([(META_KEY.to_string(), json)])))
            .expect("well-formed tensors serialize")
    }

    /// Reads a file's content and checks all of it: nothing in the result is out of range.
    ///
    /// # Errors
    /// If it is something else, of another version, damaged, or contradicts itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CoefficientsError> {
        use CoefficientsError::{Damaged, Foreign, Invalid, Version};
        let (start, metadata) = parse_header(bytes).map_err(Foreign)?;
        let json = metadata.metadata().as_ref().and_then(|m| m.get(META_KEY));
        let json = json.ok_or_else(|| Foreign(format!("metadata `{META_KEY}` is missing")))?;
        // The version first: the rest of another version may not parse.
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        let Meta { about: OnlyVersion { version }, .. } =
            serde_json::from_str(json).map_err(|e| Damaged(e.to_string()))?;
        if version != About::VERSION {
            return Err(Version { found: version });
        }
        let Meta { digest, about }: Meta<About> = serde_json::from_str(json).map_err(|e| Damaged(e.to_string()))?;

        let data = &bytes[start..];
        // Written widest elements first, then by name: the data lies in the order in which it was digested.
        if blake3::hash(data).to_hex().as_str() != digest {
            return Err(Damaged("the contents do not match their digest".into()));
        }
        let tensors: BTreeMap<String, &TensorInfo> = metadata.tensors().into_iter().collect();
        let info = tensors.get(TENSOR).ok_or_else(|| Invalid(format!("expected a tensor `{TENSOR}`, found none")))?;
        let mut statistics = Statistics::new();
        for (name, info) in tensors.iter().filter(|(name, _)| *name != TENSOR) {
            let own = name
                .strip_prefix(PREFIX)
                .ok_or_else(|| Invalid(format!("expected `{TENSOR}` and `{PREFIX}` tensors, found `{name}`")))?;
            statistics.insert(own.to_string(), Statistic::read(own, info, data).map_err(Invalid)?);
        }
        let expected = [about.ingredients.len(), about.groups.len()];
        if info.dtype != Dtype::F64 || info.shape != expected {
            let (dtype, shape) = (info.dtype, &info.shape);
            return Err(Invalid(format!("tensor `{TENSOR}`: expected F64 {expected:?}, found {dtype} {shape:?}")));
        }
        let (begin, end) = info.data_offsets;
        let values = data[begin..end].as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect();
        let coefficients =
            Coefficients::from_values(expected[0], expected[1], values).expect("length is that of the shape");
        let file = Self { coefficients, statistics, about };
        file.check().map_err(Invalid)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let Self { coefficients, about, .. } = self;
        if about.ingredients.is_empty() || about.groups.is_empty() {
            return Err("expected at least one ingredient and one layer group".into());
        }
        for (l, group) in about.groups.iter().enumerate() {
            let column = coefficients.column(l);
            if let Some(bad) = column.iter().find(|value| !value.is_finite()) {
                return Err(format!("layer group `{group}`: expected finite coefficients, found {bad}"));
            }
            let sum: f64 = column.iter().sum();
            let magnitude: f64 = column.iter().map(|value| value.abs()).sum();
            // Magnitudes near the largest f64 add up to infinity, of which no tolerance is a part.
            let sums_to_one = magnitude.is_finite() && (sum - 1.0).abs() <= SUM_TOLERANCE * magnitude.max(1.0);
            if !sums_to_one {
                return Err(format!("layer group `{group}`: expected coefficients with sum 1, found sum {sum}"));
            }
        }
        match about.tensors.iter().find(|(_, group)| **group >= about.groups.len()) {
            None => Ok(()),
            Some((name, group)) => {
                Err(format!("tensor `{name}`: expected a layer group below {}, found {group}", about.groups.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coefficients::testing::about;

    fn example() -> CoefficientsFile {
        CoefficientsFile {
            coefficients: Coefficients::from_values(2, 2, vec![0.1, 1.5, 0.9, -0.5]).unwrap(),
            statistics: Statistics::new(),
            about: about(&["a", "b"], &["g", "h"], &[("w", 0), ("v", 1)]),
        }
    }

    fn with_statistics(variance: f32) -> CoefficientsFile {
        let of = |values: &[f32]| Statistic { shape: vec![values.len()], values: values.to_vec() };
        let statistics = Statistics::from([
            ("bn.running_var".into(), of(&[variance])),
            ("bn.running_mean".into(), of(&[-2.0, 0.5])),
        ]);
        CoefficientsFile { statistics, ..example() }
    }

    #[test]
    fn statistics_come_back_and_are_digested() {
        let file = with_statistics(0.25);
        let bytes = file.to_bytes();
        assert_eq!(CoefficientsFile::from_bytes(&bytes).unwrap(), file);
        for position in bytes.len() - 12..bytes.len() {
            let mut bad = bytes.clone();
            bad[position] ^= 1;
            assert!(matches!(CoefficientsFile::from_bytes(&bad), Err(CoefficientsError::Damaged(_))), "{position}");
        }
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let error = CoefficientsFile::from_bytes(&with_statistics(bad).to_bytes()).unwrap_err();
            assert!(matches!(error, CoefficientsError::Invalid(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn a_file_comes_back_and_has_one_spelling() {
        let file = example();
        let bytes = file.to_bytes();
        assert_eq!(CoefficientsFile::from_bytes(&bytes).unwrap(), file);
        assert_eq!(CoefficientsFile::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn every_truncation_and_a_flipped_bit_of_a_is_refused() {
        let bytes = example().to_bytes();
        for length in 0..bytes.len() {
            assert!(CoefficientsFile::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
        for position in bytes.len() - 32..bytes.len() {
            let mut bad = bytes.clone();
            bad[position] ^= 1;
            assert!(matches!(CoefficientsFile::from_bytes(&bad), Err(CoefficientsError::Damaged(_))), "{position}");
        }
    }

    #[test]
    fn another_version_and_other_files_are_named() {
        let mut file = example();
        file.about.version = 7;
        let read = |bytes: &[u8]| CoefficientsFile::from_bytes(bytes).unwrap_err();
        assert!(matches!(read(&file.to_bytes()), CoefficientsError::Version { found: 7 }));
        let view = TensorView::new(Dtype::U8, vec![1], &[0]).unwrap();
        let other = safetensors::serialize([(TENSOR, view)], None).unwrap();
        assert!(matches!(read(&other), CoefficientsError::Foreign(_)));
        assert!(matches!(read(b"PK"), CoefficientsError::Foreign(_)));
    }

    #[test]
    fn contradictions_are_refused() {
        type Change = fn(&mut CoefficientsFile);
        let changes: [(&str, Change); 7] = [
            ("group out of range", |f| *f.about.tensors.get_mut("w").unwrap() = 2),
            ("a group too many", |f| f.about.groups.push("i".into())),
            ("an ingredient too few", |f| drop(f.about.ingredients.pop())),
            ("not finite", |f| f.coefficients = Coefficients::from_values(2, 2, vec![f64::NAN, 1., 1., 0.]).unwrap()),
            ("infinities", |f| {
                f.coefficients = Coefficients::from_values(2, 2, vec![f64::INFINITY, 1., -1., 0.]).unwrap();
            }),
            ("a sum of infinity", |f| {
                f.coefficients = Coefficients::from_values(2, 2, vec![f64::MAX, 1., f64::MAX, 0.]).unwrap();
            }),
            ("sum", |f| f.coefficients = Coefficients::from_values(2, 2, vec![0.5, 1., 0.6, 0.]).unwrap()),
        ];
        for (what, change) in changes {
            let mut file = example();
            change(&mut file);
            let error = CoefficientsFile::from_bytes(&file.to_bytes()).unwrap_err();
            assert!(matches!(error, CoefficientsError::Invalid(_)), "{what}: {error}");
        }
    }
}
