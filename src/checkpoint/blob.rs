//! The bytes of a checkpoint: one safetensors blob. Arrays are tensors (f64 little-endian), everything else is JSON in its metadata.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::record::{BestSoFar, Build, Checkpoint, Current, EpochRecord, FinishedBatch, GreedyState, SCHEMA, Totals};
use crate::coefficients::Coefficients;
use crate::sweep::score::SplitScore;
use crate::sweep::spec::ComputeDtype;
use crate::zoo::parse_header;

const META_KEY: &str = "mehl_soup_checkpoint";
/// blake3 over everything else, so that a torn or altered blob is found out.
const DIGEST_KEY: &str = "mehl_soup_digest";

/// Why a blob is not a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not a safetensors blob, or damaged.
    #[error("not a checkpoint, or damaged: {0}")]
    Damaged(String),
    /// Written by another version of the format.
    #[error("checkpoint has schema {found}, this program reads schema {SCHEMA}")]
    Schema {
        /// The blob's version.
        found: u32,
    },
}

/// Everything but the arrays.
#[derive(Serialize, Deserialize)]
struct Meta {
    schema: u32,
    identity: String,
    build: Build,
    shape: (usize, usize),
    finished: Vec<Vec<usize>>,
    current: Option<CurrentMeta>,
    greedy: Option<GreedyState>,
    select: Option<SplitScore>,
    model_batch: usize,
    #[serde(default)]
    cuts: Vec<(usize, usize)>,
    /// Checkpoints from before there was a choice are in f32.
    #[serde(default)]
    dtype: ComputeDtype,
    totals: Totals,
    history: Vec<EpochRecord>,
    exact: bool,
}

#[derive(Serialize, Deserialize)]
struct CurrentMeta {
    members: Vec<usize>,
    step: usize,
    inner_epoch: usize,
    iteration: usize,
    epoch_loss: (f64, usize),
    best: Option<SplitScore>,
    since_best: usize,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_averaged: bool,
}

impl Checkpoint {
    /// The blob.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut arrays: Vec<(String, &[f64])> = vec![("A".into(), self.coefficients.values())];
        for (i, batch) in self.finished.iter().enumerate() {
            arrays.push((format!("finished.{i}.x"), &batch.x));
        }
        if let Some(current) = &self.current {
            arrays.push(("current.parameters".into(), &current.parameters));
            arrays.push(("current.first_moments".into(), &current.first_moments));
            arrays.push(("current.second_moments".into(), &current.second_moments));
            arrays.push(("current.norms".into(), &current.norms));
            if !current.average.is_empty() {
                arrays.push(("current.average".into(), &current.average));
            }
            if let Some(best) = &current.best {
                arrays.push(("current.best".into(), &best.parameters));
            }
        }
        let bytes: Vec<(String, Vec<u8>)> = arrays
            .into_iter()
            .map(|(name, values)| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let meta = Meta {
            schema: SCHEMA,
            identity: self.identity.clone(),
            build: self.build.clone(),
            shape: (self.coefficients.ingredients(), self.coefficients.groups()),
            finished: self.finished.iter().map(|b| b.members.clone()).collect(),
            current: self.current.as_ref().map(|c| CurrentMeta {
                members: c.members.clone(),
                step: c.step,
                inner_epoch: c.inner_epoch,
                iteration: c.iteration,
                epoch_loss: c.epoch_loss,
                best: c.best.as_ref().map(|b| b.select),
                since_best: c.since_best,
                is_averaged: !c.average.is_empty(),
            }),
            greedy: self.greedy.clone(),
            select: self.select,
            model_batch: self.model_batch,
            cuts: self.cuts.clone(),
            dtype: self.dtype,
            totals: self.totals,
            history: self.history.clone(),
            exact: self.exact,
        };
        let json = serde_json::to_string(&meta).expect("plain data serializes");
        let views = bytes.iter().map(|(name, data)| {
            let view = TensorView::new(Dtype::F64, vec![data.len() / 8], data).expect("length is that of the shape");
            (name.as_str(), view)
        });
        let digest = digest(&json, bytes.iter().map(|(name, data)| (name.as_str(), data.as_slice())));
        let metadata = HashMap::from([(META_KEY.to_string(), json), (DIGEST_KEY.to_string(), digest)]);
        safetensors::serialize(views, Some(metadata)).expect("well-formed tensors serialize")
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// If it is damaged (also: its arrays do not hash to what it says) or of another schema.
    pub fn from_bytes(blob: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |what: &str| CheckpointError::Damaged(what.to_string());
        let (_, header) = parse_header(blob).map_err(|e| damaged(&e))?;
        let stated = |key: &str| {
            header.metadata().as_ref().and_then(|m| m.get(key)).ok_or_else(|| damaged("no checkpoint metadata"))
        };
        let json = stated(META_KEY)?;
        // The version first: the rest of another version's metadata may not parse.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_str(json).map_err(|e| damaged(&e.to_string()))?;
        if version.schema != SCHEMA {
            return Err(CheckpointError::Schema { found: version.schema });
        }
        let meta: Meta = serde_json::from_str(json).map_err(|e| damaged(&e.to_string()))?;
        let tensors = SafeTensors::deserialize(blob).map_err(|e| damaged(&e.to_string()))?;
        let array = |name: &str| -> Result<Vec<f64>, CheckpointError> {
            let view = tensors.tensor(name).map_err(|_| damaged(&format!("array `{name}` is missing")))?;
            if view.dtype() != Dtype::F64 {
                return Err(damaged(&format!("array `{name}` is not f64")));
            }
            let chunks = view.data().chunks_exact(8);
            Ok(chunks.map(|c| f64::from_le_bytes(c.try_into().expect("chunks of eight"))).collect())
        };
        let mut names: Vec<String> = vec!["A".into()];
        names.extend((0..meta.finished.len()).map(|i| format!("finished.{i}.x")));
        if let Some(current) = &meta.current {
            for part in ["parameters", "first_moments", "second_moments", "norms"] {
                names.push(format!("current.{part}"));
            }
            if current.is_averaged {
                names.push("current.average".into());
            }
            if current.best.is_some() {
                names.push("current.best".into());
            }
        }
        let mut views = Vec::new();
        for name in &names {
            let view = tensors.tensor(name).map_err(|_| damaged(&format!("array `{name}` is missing")))?;
            views.push((name.as_str(), view));
        }
        if digest(json, views.iter().map(|(name, view)| (*name, view.data()))) != *stated(DIGEST_KEY)? {
            return Err(damaged("content does not match its digest"));
        }
        let (k, l) = meta.shape;
        let coefficients =
            Coefficients::from_values(k, l, array("A")?).ok_or_else(|| damaged("`A` has another shape than stated"))?;
        let mut finished = Vec::new();
        for (i, members) in meta.finished.into_iter().enumerate() {
            let x = array(&format!("finished.{i}.x"))?;
            if x.len() != members.len() * l || members.iter().any(|&m| m >= k) {
                return Err(damaged(&format!("`finished.{i}.x` has another shape than stated")));
            }
            finished.push(FinishedBatch { members, x });
        }
        let current = match meta.current {
            None => None,
            Some(c) => {
                let parameters = array("current.parameters")?;
                let first_moments = array("current.first_moments")?;
                let second_moments = array("current.second_moments")?;
                let best = match c.best {
                    Some(select) => Some(BestSoFar { parameters: array("current.best")?, select }),
                    None => None,
                };
                let norms = array("current.norms")?;
                let average = if c.is_averaged { array("current.average")? } else { Vec::new() };
                // Coordinates with their norms, those of two levels or of one, or logits and an inverse temperature.
                let (b, all) = (c.members.len(), c.members.len() * l);
                let of_directions = [all, b + all, b].contains(&parameters.len()) && norms.len() == all;
                let of_softmax = norms.is_empty() && parameters.len() == all + 1;
                let right_length = [&parameters, &first_moments, &second_moments]
                    .into_iter()
                    .chain(best.as_ref().map(|b| &b.parameters))
                    .chain((!average.is_empty()).then_some(&average))
                    .all(|v| v.len() == parameters.len())
                    && (of_directions || of_softmax);
                if !right_length || c.members.iter().any(|&m| m >= k) {
                    return Err(damaged("arrays of the current model batch disagree in length"));
                }
                Some(Current {
                    members: c.members,
                    parameters,
                    first_moments,
                    second_moments,
                    average,
                    norms,
                    step: c.step,
                    inner_epoch: c.inner_epoch,
                    iteration: c.iteration,
                    epoch_loss: c.epoch_loss,
                    best,
                    since_best: c.since_best,
                })
            }
        };
        Ok(Self {
            identity: meta.identity,
            build: meta.build,
            coefficients,
            finished,
            current,
            greedy: meta.greedy,
            select: meta.select,
            model_batch: meta.model_batch,
            cuts: meta.cuts,
            dtype: meta.dtype,
            totals: meta.totals,
            history: meta.history,
            exact: meta.exact,
        })
    }
}

fn digest<'a>(json: &str, arrays: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(json.len() as u64).to_le_bytes());
    hasher.update(json.as_bytes());
    for (name, data) in arrays {
        hasher.update(name.as_bytes());
        hasher.update(&(data.len() as u64).to_le_bytes());
        hasher.update(data);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::score::testing::score;
    use crate::sweep::spec::LinearLibrary;

    fn example() -> Checkpoint {
        let score = score(0.1, 0.9);
        Checkpoint {
            identity: "abc".into(),
            build: Build {
                libtorch: "2.11.0".into(),
                cpu_capability: "avx2".into(),
                compute_threads: 2,
                device: "cpu".into(),
                linear: LinearLibrary::Onednn,
            },
            coefficients: Coefficients::mean_of(3, 2, &[0, 2]),
            finished: vec![FinishedBatch { members: vec![0, 2], x: vec![1.0 / 3.0, -2.0, 1e-300, f64::MIN_POSITIVE] }],
            current: Some(Current {
                members: vec![1],
                parameters: vec![0.1, 0.2],
                first_moments: vec![0.3, 0.4],
                second_moments: vec![0.5, 0.6],
                average: vec![0.7, 0.8],
                norms: vec![1.0, 2.0],
                step: 3,
                inner_epoch: 1,
                iteration: 2,
                epoch_loss: (0.1 + 0.2, 3),
                best: Some(BestSoFar { parameters: vec![0.0, 0.0], select: score }),
                since_best: 1,
            }),
            greedy: Some(GreedyState { members: vec![2], tried: 2, select: Some(score) }),
            select: Some(score),
            model_batch: 2,
            cuts: vec![(1, 1)],
            dtype: ComputeDtype::Bf16,
            totals: Totals::default(),
            history: vec![EpochRecord { position: (0, 1, 0), learn_loss: 0.7, select: None }],
            exact: true,
        }
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let checkpoint = example();
        assert_eq!(Checkpoint::from_bytes(&checkpoint.to_bytes()).unwrap(), checkpoint);
    }

    #[test]
    fn every_truncation_and_a_flipped_bit_anywhere_is_refused() {
        let blob = example().to_bytes();
        for length in 0..blob.len() {
            assert!(Checkpoint::from_bytes(&blob[..length]).is_err(), "{length} bytes were accepted");
        }
        for position in 0..blob.len() {
            let mut bad = blob.clone();
            bad[position] ^= 1;
            // A bit of the header's padding, or of the order in which it lists its parts, says nothing: then nothing has changed.
            if Checkpoint::from_bytes(&bad).is_ok_and(|read| read == example()) {
                continue;
            }
            assert!(Checkpoint::from_bytes(&bad).is_err(), "flipped bit at {position} was accepted");
        }
    }

    #[test]
    fn another_schema_is_named() {
        let blob = example().to_bytes();
        let text = format!("schema\\\":{SCHEMA}");
        let at = blob.windows(text.len()).position(|w| w == text.as_bytes()).unwrap();
        let mut other = blob;
        other[at + text.len() - 1] = b'9';
        assert!(matches!(Checkpoint::from_bytes(&other), Err(CheckpointError::Schema { found: 9 })));
    }
}
