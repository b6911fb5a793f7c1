//! Texts that belong together: InfoNCE over the candidates of a batch.

use std::collections::HashMap;

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::objective::{Facts, PAIRS};
use mehl_soup::sweep::spec::DataSpec;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::chance::{self, Guess};
use super::{FixedBatches, Gradients, Measured, Objective, Step, checks, through_parts};
use crate::data::{Batch, Data, Split};
use crate::families::{Forward, Model, State};

/// The least norm that an embedding is divided by, as in `torch.nn.functional.normalize`.
const LEAST_NORM: f64 = 1e-12;

/// Each sample has an anchor, a positive, and any number of hard negatives. Outputs are their
/// embeddings `[texts * N, d]`: row `t * N + i` is text t of sample i. Candidates are the positives
/// of all samples, then their first negatives, and so on. The loss of an anchor is the
/// cross-entropy of `scale * cos(anchor, candidate)` against its own positive, as in
/// sentence-transformers (`MultipleNegativesRankingLoss` with its defaults,
/// `losses/multiple_negatives_ranking.py`). An anchor is right if no candidate is nearer than its
/// positive.
///
/// There are no targets. A unit is a batch: the losses within it depend on each other.
#[derive(Debug, Clone, Copy)]
pub struct Pairs {
    /// Factor on cosines.
    pub scale: f64,
    /// The batches that splits are scored in.
    pub batches: FixedBatches,
}

impl Pairs {
    /// Similarities of each anchor and each candidate, `[N, (texts - 1) * N]`, and which candidate
    /// is right, `[N]`.
    fn similarities(&self, embeddings: &Tensor, texts: usize) -> Result<(Tensor, Tensor), TchError> {
        let (rows, _) = embeddings.size2()?;
        let n = rows / texts as i64;
        let norms = embeddings.f_norm_scalaropt_dim(2, &[1i64][..], true)?.f_clamp_min(LEAST_NORM)?;
        let unit = embeddings.f_div(&norms)?;
        let (anchors, candidates) = (unit.f_narrow(0, 0, n)?, unit.f_narrow(0, n, rows - n)?);
        let similarities = anchors.f_matmul(&candidates.f_tr()?)?.f_mul_scalar(self.scale)?;
        Ok((similarities, Tensor::f_arange(n, (Kind::Int64, embeddings.device()))?))
    }

    /// Loss of each anchor, `[N]`.
    fn losses(&self, embeddings: &Tensor, texts: usize) -> Result<Tensor, TchError> {
        let (similarities, right) = self.similarities(embeddings, texts)?;
        similarities.f_cross_entropy_loss::<Tensor>(&right, None, Reduction::None, -100, 0.0)
    }

    /// Samples of the split's batches that share a text with another sample of their batch, and
    /// samples in batches.
    fn repeated(&self, split: &Split) -> Result<(usize, usize), TchError> {
        let (texts, hashes) = (split.texts(), split.text_hashes()?);
        let (mut repeated, mut all) = (0, 0);
        for batch in self.batches.of(split.samples()) {
            let of = |sample: usize| &hashes[sample * texts..(sample + 1) * texts];
            let mut holders: HashMap<blake3::Hash, usize> = HashMap::new();
            for &sample in &batch {
                let distinct: std::collections::HashSet<_> = of(sample).iter().collect();
                distinct.into_iter().for_each(|hash| *holders.entry(*hash).or_default() += 1);
            }
            repeated += batch.iter().filter(|&&sample| of(sample).iter().any(|hash| holders[hash] > 1)).count();
            all += batch.len();
        }
        Ok((repeated, all))
    }
}

impl Objective for Pairs {
    fn facts(&self) -> &'static Facts {
        &PAIRS
    }

    fn gradients(&self, model: &dyn Model, batch: &Batch, step: &mut Step<'_>) -> Result<Gradients, TchError> {
        let loss_of = |state: &State| batch.mean(&self.losses(&state.hidden, batch.texts)?);
        through_parts(model, &batch.inputs, step, &loss_of)
    }

    fn measure(&self, model: &dyn Model, batch: &Batch, how: Forward) -> Result<Measured, TchError> {
        let (similarities, right) = self.similarities(&model.outputs(&batch.inputs, how)?, batch.texts)?;
        let losses = similarities.f_cross_entropy_loss::<Tensor>(&right, None, Reduction::None, -100, 0.0)?;
        let hits = similarities.f_argmax(-1, false)?.f_eq_tensor(&right)?;
        let mean = |values: &Tensor| values.f_to_kind(Kind::Double)?.f_mean_dim(&[0i64][..], true, Kind::Double);
        Ok(Measured { losses: mean(&losses)?, metrics: vec![mean(&hits)?], columns: vec![] })
    }

    fn fixed_batches(&self) -> Option<FixedBatches> {
        Some(self.batches)
    }

    /// Never asked: pairs have no targets.
    fn read_targets(&self, _: Tensor) -> Result<Tensor, String> {
        Err("expected no targets for objective `pairs`".to_string())
    }

    fn check(&self, model: &dyn Model, data: &Data, spec: &DataSpec, device: Device) -> Result<(), EngineError> {
        checks::no_images(data, self.facts())?;
        for (split, path) in data.each_split() {
            let fault = |what: String| Err(EngineError::Input(format!("{}: {what}", path.display())));
            if split.texts() < 2 {
                return fault(format!(
                    "expected two or more texts a sample for objective `pairs`, found {}",
                    split.texts()
                ));
            }
            if split.samples() < 2 {
                return fault("expected two or more pairs: the loss compares a pair with others, found 1".to_string());
            }
        }
        let (samples, shape) = checks::outputs(model, data, spec, device)?;
        let rows = samples * data.learn.texts() as i64;
        match shape[..] {
            [found, _] if found == rows => Ok(()),
            _ => Err(EngineError::Input(format!(
                "{}: expected embeddings [{rows}, d] of the model for {samples} samples of {} texts, found {shape:?}",
                spec.learn.display(),
                data.learn.texts()
            ))),
        }
    }

    fn notes(&self, data: &Data) -> Result<Vec<String>, TchError> {
        let mut notes = vec![];
        for ((split, _), name) in data.each_split().zip(["learn", "select", "test"]) {
            let (repeated, all) = self.repeated(split)?;
            let (batches, left) = (self.batches.of(split.samples()).len(), split.samples() - all);
            let rest = if left > 0 { format!("; {left} pairs are left out") } else { String::new() };
            let size = all / batches.max(1);
            notes.push(format!("{name} is scored in {batches} batches of {size} pairs (soup.batch){rest}"));
            if batches == 1 {
                notes.push(format!("{name} is one batch, so its standard errors are not known"));
            }
            if repeated > 0 {
                notes.push(format!(
                    "{repeated} of {all} {name} pairs have a text that another pair of their batch has too: a right \
                     candidate counts as wrong there"
                ));
            }
        }
        Ok(notes)
    }

    /// Guesses any candidate of a batch.
    fn check_chance(&self, manifest: &Manifest, select: &Split) -> Result<(), EngineError> {
        let samples = self.batches.of(select.samples()).first().map_or(0, Vec::len);
        let candidates = (samples * select.texts().saturating_sub(1)).max(1) as f64;
        let guesses = [(Metric::LOSS, candidates.ln()), (Metric::of(PAIRS.metrics[0]), 1.0 / candidates)];
        let how = format!("guessing one of {candidates} candidates");
        chance::check(manifest, &Guess { how: &how, values: &guesses }, self.facts())
    }
}
