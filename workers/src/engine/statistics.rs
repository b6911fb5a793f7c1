//! Running statistics of batch normalisation for a soup (means and variances): computed anew from its weights, never mixed.
//!
//! A mix of the ingredients' statistics would describe layers that no data ever went through, and coefficients below 0 can make its
//! variances negative. So before each score of a soup, a fixed part of learn goes through the model with the batch's statistics, and their
//! mean over batches is kept: the cumulative average of PyTorch's `momentum=None`.

use std::collections::BTreeMap;

use mehl_soup::coefficients::{Statistic, Statistics};
use mehl_soup::runner::engine::EngineError;
use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, Tensor};

use super::errors::{span_error, torch_error};
use crate::data::Split;
use crate::families::{Model, Pass, Precision};
use crate::hyperplane::write_soup;
use crate::rng::permutation;

/// Most samples of learn that statistics are computed on: their error falls with the root of it, and it is paid at each score.
const SAMPLES: usize = 2048;
/// Samples a batch. Not that of scoring, which may differ between two attempts of one task.
const BATCH: usize = 128;

/// Writes tensors of ingredient `k` as they are.
pub fn write_tensors(zoo: &Zoo, k: usize, tensors: &BTreeMap<String, Tensor>) -> Result<(), EngineError> {
    let mut one_hot = vec![0.0; zoo.rows()];
    one_hot[k] = 1.0;
    tensors.iter().try_for_each(|(name, tensor)| write_soup(zoo, name, &one_hot, tensor)).map_err(span_error)
}

/// Computes the model's running statistics for the weights that it now holds. Nothing is done for models without.
///
/// # Errors
/// [`EngineError::Numerics`] if one is not finite: the weights are then beyond use.
pub fn collect(
    model: &dyn Model,
    learn: &Split,
    seed: u64,
    device: Device,
    precision: Precision,
) -> Result<(), EngineError> {
    let Some(statistics) = model.statistics() else { return Ok(()) };
    let all_finite = tch::no_grad(|| {
        for tensor in statistics.values() {
            // Whatever was there, an infinity too, must not stay as a part of 0.
            let _ = tensor.shallow_clone().f_zero_()?;
        }
        for (seen, indices) in batches(seed, learn.samples()).iter().enumerate() {
            let batch = learn.batch(indices, device)?;
            let _outputs = model.outputs(&batch.inputs, Pass::Collect { seen }.with(precision))?;
        }
        let mut all = true;
        for tensor in statistics.values() {
            all &= tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1;
        }
        Ok(all)
    });
    if all_finite.map_err(torch_error)? {
        Ok(())
    } else {
        Err(EngineError::Numerics("running statistics of batch normalisation are not finite for this soup".to_string()))
    }
}

/// Which samples of learn are in which batch. A last batch that is not full would count as much as the others: it is left out unless it is the only one.
fn batches(seed: u64, samples: usize) -> Vec<Vec<usize>> {
    let order = permutation(seed, "statistics", &[], samples);
    let taken = &order[..samples.min(SAMPLES)];
    taken.chunks(BATCH).filter(|chunk| chunk.len() == BATCH || taken.len() < BATCH).map(<[usize]>::to_vec).collect()
}

/// What the model now holds, in f32.
pub fn read(model: &dyn Model) -> Result<Statistics, EngineError> {
    let mut statistics = Statistics::new();
    for (name, tensor) in model.statistics().into_iter().flatten() {
        let flat = tensor.f_to_device(Device::Cpu).and_then(|t| t.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1]));
        let flat = flat.map_err(torch_error)?;
        let shape = tensor.size().iter().map(|&d| d as usize).collect();
        statistics.insert(name.clone(), Statistic { shape, values: Vec::<f32>::try_from(flat).map_err(torch_error)? });
    }
    Ok(statistics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_full_distinct_and_bounded() {
        assert_eq!(batches(1, 5).concat().len(), 5);
        assert_eq!(batches(1, 300).iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, BATCH]);
        let mut all = batches(1, 100_000).concat();
        assert_eq!(all.len(), SAMPLES);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), SAMPLES);
        assert_ne!(batches(1, 300), batches(2, 300));
    }
}
