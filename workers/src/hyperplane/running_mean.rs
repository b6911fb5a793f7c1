//! The mean of some ingredients, with which one more is tried or taken in at a time.

use mehl_soup::zoo::{Element, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::kernels::{self, Float};
use super::read::{check_members, scratch};
use super::span::{MixedTensors, SpanError};
use super::tensors::{by_kind, copy_from_slice, slice, slice_mut};

/// The mean of some ingredients' mixed tensors: `M_n = M_(n-1) + (theta_n - M_(n-1)) / n`, from `M_0 = 0`.
///
/// Each ingredient's file is read once. The bits depend on the ingredients and their order alone. In f32 it differs from
/// the exact mean of n ingredients by rounding: elementwise by at most `(n + 8) 2^-24` of the largest `|theta|` of the
/// tensor (shown by a property test).
pub struct RunningMean {
    kind: Kind,
    /// n.
    count: usize,
    /// Flat, one for each mixed tensor.
    values: Vec<Tensor>,
}

impl RunningMean {
    /// Of `members`, in this order, on any device, in the dtype `kind`.
    ///
    /// # Errors
    /// If an ingredient cannot be read or memory cannot be had.
    pub fn new(
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SpanError> {
        let zeros = |&n: &usize| Tensor::f_zeros([n as i64], (kind, device));
        let mut mean = Self { kind, count: 0, values: mixed.sizes.iter().map(zeros).collect::<Result<_, _>>()? };
        let scratch = scratch(mixed, kind)?.f_to_device(device)?;
        for &k in members {
            for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
                let with = scratch.f_narrow(1, 0, n as i64)?;
                mean.write_tensor(zoo, k, (i, name), &with)?;
                mean.values[i].f_copy_(&with.f_view([-1])?)?;
            }
            mean.count += 1;
        }
        check_members(zoo, members)?;
        Ok(mean)
    }

    /// Writes the mean with ingredient `k` as one more to `leaves`, one for each mixed tensor.
    ///
    /// # Errors
    /// If the ingredient cannot be read.
    pub fn write_with(&self, zoo: &Zoo, k: usize, mixed: &MixedTensors, leaves: &[Tensor]) -> Result<(), SpanError> {
        for (i, (name, leaf)) in mixed.names.iter().zip(leaves).enumerate() {
            self.write_tensor(zoo, k, (i, name), leaf)?;
        }
        Ok(check_members(zoo, &[k])?)
    }

    /// Becomes the mean that [`write_with`](Self::write_with) wrote to `leaves`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn take(&mut self, leaves: &[Tensor]) -> Result<(), TchError> {
        for (own, leaf) in self.values.iter_mut().zip(leaves) {
            own.f_copy_(&leaf.f_detach()?.f_view([-1])?)?;
        }
        self.count += 1;
        Ok(())
    }

    fn write_tensor(&self, zoo: &Zoo, k: usize, (i, name): (usize, &str), target: &Tensor) -> Result<(), SpanError> {
        by_kind!(self.kind, read(zoo, k, name, target))?;
        let (mean, count) = (&self.values[i], self.count + 1);
        if target.device() == Device::Cpu {
            by_kind!(self.kind, blend(target, mean, count));
            return Ok(());
        }
        Ok(blend_by_libtorch(target, mean, count)?)
    }
}

/// Reads one tensor of an ingredient to a target on any device.
fn read<T: Float + Element + tch::kind::Element>(
    zoo: &Zoo,
    k: usize,
    name: &str,
    target: &Tensor,
) -> Result<(), SpanError> {
    if target.device() == Device::Cpu {
        return Ok(zoo.read_row(k, name, slice_mut::<T>(target))?);
    }
    let mut host = vec![T::default(); target.numel()];
    zoo.read_row(k, name, &mut host)?;
    Ok(copy_from_slice(target, &host)?)
}

fn blend<T: Float>(target: &Tensor, mean: &Tensor, count: usize) {
    kernels::blend(slice_mut::<T>(target), slice::<T>(mean), count);
}

/// [`kernels::blend`] on any device.
fn blend_by_libtorch(target: &Tensor, mean: &Tensor, count: usize) -> Result<(), TchError> {
    let mut flat = target.f_detach()?.f_view([-1])?;
    let _same = flat.f_sub_(mean)?.f_div_scalar_(count as f64)?.f_add_(mean)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtorch_gives_the_same_bits_on_the_host() {
        let options = (Kind::Float, Device::Cpu);
        let (values, mean) = (Tensor::randn([7, 11], options), Tensor::randn([77], options));
        let [own, theirs] = [(); 2].map(|()| values.copy());
        blend::<f32>(&own, &mean, 3);
        blend_by_libtorch(&theirs, &mean, 3).unwrap();
        assert_eq!(slice::<f32>(&own), slice::<f32>(&theirs));
        assert_ne!(slice::<f32>(&own), slice::<f32>(&values));
    }
}
