//! Batches of cached tokens.

use std::sync::Arc;

use tch::{Device, TchError, Tensor};

use super::cache::Entry;
use crate::families::ModelInputs;

/// Name of the tokens.
pub(crate) const IDS: &str = "input_ids";
/// Name of the mask of what is a sample's own.
pub(crate) const MASK: &str = "attention_mask";
/// Name of what tells the two texts of a pair apart.
pub(crate) const TYPES: &str = "token_type_ids";

/// Lengths of batches are multiples of this, as far as the model takes so many tokens.
const STEP: usize = 16;

/// Samples of a split as tokens in a mapped file. A sample has one text, or several that are encoded each for itself.
pub struct StoredTokens {
    entry: Arc<Entry>,
    /// Samples of the entry that are in the split, in its order.
    rows: Vec<usize>,
    /// Texts of a sample.
    texts: usize,
    /// Names of the inputs that batches have.
    names: Vec<String>,
    /// What stands behind the end of a text.
    pad: i64,
    /// Most tokens that the model takes, where it says so.
    positions: Option<usize>,
}

impl StoredTokens {
    /// Samples of an entry whose texts follow one another.
    pub(super) fn new(
        entry: Arc<Entry>,
        rows: Vec<usize>,
        texts: usize,
        names: Vec<String>,
        pad: i64,
        positions: Option<usize>,
    ) -> Self {
        Self { entry, rows, texts, names, pad, positions }
    }

    /// N.
    pub fn samples(&self) -> usize {
        self.rows.len()
    }

    /// Texts of a sample.
    pub fn texts(&self) -> usize {
        self.texts
    }

    /// Names of the inputs of batches.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tokens of the longest text.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(|&row| self.longest_of(row)).max().unwrap_or(0)
    }

    /// Length of a batch whose longest text has so many tokens.
    fn padded(&self, longest: usize) -> usize {
        let padded = longest.next_multiple_of(STEP);
        self.positions.map_or(padded, |positions| padded.min(positions.max(longest)))
    }

    fn longest_of(&self, row: usize) -> usize {
        (0..self.texts).map(|text| self.entry.length(row * self.texts + text)).max().unwrap_or(0)
    }

    /// Bytes of the tokens.
    pub fn bytes(&self) -> u64 {
        let of =
            |row: usize| (0..self.texts).map(|text| 4 * self.entry.length(row * self.texts + text) as u64).sum::<u64>();
        self.rows.iter().map(|&row| of(row)).sum()
    }

    /// blake3 of the tokens of each text, sample by sample.
    pub fn text_hashes(&self) -> Vec<blake3::Hash> {
        let texts = self.rows.iter().flat_map(|&row| (0..self.texts).map(move |text| row * self.texts + text));
        texts.map(|text| self.entry.hash(text)).collect()
    }

    /// The samples at `indices`, without copying them.
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            entry: Arc::clone(&self.entry),
            rows: indices.iter().map(|&i| self.rows[i]).collect(),
            texts: self.texts,
            names: self.names.clone(),
            pad: self.pad,
            positions: self.positions,
        }
    }

    /// Inputs of the samples at `indices`, each `[texts * n, T]`, i64, of which row `t * n + i` is text t of sample i, and
    /// their lengths. T is the longest of them, rounded up to a multiple of 16: batches of few shapes reuse each other's
    /// memory, and libtorch keeps kernels for each shape. With a `length`, as if each were that long: texts are repeated or cut.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn batch(
        &self,
        indices: impl Iterator<Item = usize> + Clone,
        length: Option<usize>,
        device: Device,
    ) -> Result<ModelInputs, TchError> {
        let texts: Vec<usize> = (0..self.texts)
            .flat_map(|text| indices.clone().map(move |i| (i, text)))
            .map(|(i, text)| self.rows[i] * self.texts + text)
            .collect();
        let lengths: Vec<usize> = texts.iter().map(|&text| length.unwrap_or_else(|| self.entry.length(text))).collect();
        let n = texts.len();
        let longest = self.padded(lengths.iter().copied().max().unwrap_or(0));
        let tensor = |fill: &dyn Fn(usize, &mut [i64])| {
            let mut values = vec![0_i64; n * longest];
            for (row, out) in values.chunks_exact_mut(longest.max(1)).enumerate() {
                fill(row, out);
            }
            Tensor::f_from_slice(&values)?.f_view([n as i64, longest as i64])?.f_to_device(device)
        };
        let ids = |row: usize, out: &mut [i64]| {
            out.fill(self.pad);
            let own = self.entry.tokens(texts[row]).collect::<Vec<_>>();
            for (out, id) in out[..lengths[row]].iter_mut().zip(own.iter().cycle()) {
                *out = *id;
            }
        };
        let mask = |row: usize, out: &mut [i64]| out[..lengths[row]].fill(1);
        let types = |row: usize, out: &mut [i64]| {
            let second = self.entry.second(texts[row]).min(lengths[row]);
            out[second..lengths[row]].fill(1);
        };
        let named = self.names.iter().map(|name| {
            let values = match name.as_str() {
                MASK => tensor(&mask),
                TYPES => tensor(&types),
                _ => tensor(&ids),
            };
            Ok((name.clone(), values?))
        });
        let named = named.collect::<Result<Vec<_>, TchError>>()?;
        let lengths: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
        Ok(ModelInputs::new(named).with_lengths(Tensor::f_from_slice(&lengths)?.f_to_device(device)?))
    }
}
