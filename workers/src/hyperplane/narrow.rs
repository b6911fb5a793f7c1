//! Soups and gradients in bf16, computed with in f32: rounded when they are written, widened when they are read, so that no f32 copy of either is made.

use std::ops::Range;

use half::bf16;
use tch::{Kind, Tensor};

use super::kernels::{BLOCK, Float};
use super::tensors::{slice, slice_bf16, slice_bf16_mut, slice_mut};

/// Where a mix goes.
pub enum Sink<'a, T> {
    /// Values as they are computed.
    Own(&'a mut [T]),
    /// Rounded to the nearest bf16, ties to even, as libtorch rounds.
    Bf16(&'a mut [bf16]),
}

impl<'a, T: Float> Sink<'a, T> {
    /// Number of values.
    pub fn count(&self) -> usize {
        match self {
            Self::Own(out) => out.len(),
            Self::Bf16(out) => out.len(),
        }
    }

    /// In pieces of `size` values, the last with what is left.
    pub fn chunks(self, size: usize) -> Vec<Self> {
        match self {
            Self::Own(out) => out.chunks_mut(size).map(Self::Own).collect(),
            Self::Bf16(out) => out.chunks_mut(size).map(Self::Bf16).collect(),
        }
    }

    /// Lets `compute` write all values; where they are to be rounded, by way of `scratch`, where it finds what was left there.
    pub fn write(self, scratch: &mut Vec<T>, compute: impl FnOnce(&mut [T])) {
        match self {
            Self::Own(out) => compute(out),
            Self::Bf16(out) => {
                scratch.resize(out.len(), T::default());
                compute(scratch);
                round(scratch, out);
            }
        }
    }
}

/// Values that are read.
#[derive(Clone, Copy)]
pub enum Source<'a, T> {
    /// As they are.
    Own(&'a [T]),
    /// In bf16.
    Bf16(&'a [bf16]),
}

impl<'a, T: Float> Source<'a, T> {
    /// Number of values.
    pub fn count(&self) -> usize {
        match self {
            Self::Own(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Some of the values, at most `BLOCK`; where they have to be widened, in `wide`.
    pub fn widened<'b>(&self, range: Range<usize>, wide: &'b mut [T; BLOCK]) -> &'b [T]
    where
        'a: 'b,
    {
        match self {
            Self::Own(values) => &values[range],
            Self::Bf16(values) => {
                let wide = &mut wide[..range.len()];
                widen(&values[range], wide);
                wide
            }
        }
    }
}

/// A tensor on the host that a mix is written to, in bf16 or in its own dtype.
pub fn sink<T: Float>(out: &Tensor) -> Sink<'_, T> {
    match out.kind() {
        Kind::BFloat16 => Sink::Bf16(slice_bf16_mut(out)),
        _ => Sink::Own(slice_mut(out)),
    }
}

/// A gradient on the host, in bf16 or in its own dtype.
pub fn source<T: Float>(gradient: &Tensor) -> Source<'_, T> {
    match gradient.kind() {
        Kind::BFloat16 => Source::Bf16(slice_bf16(gradient)),
        _ => Source::Own(slice(gradient)),
    }
}

fn round<T: Float>(values: &[T], out: &mut [bf16]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float>(values: &[T], out: &mut [bf16]) {
            round_plain(values, out);
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(values, out) };
    }
    round_plain(values, out);
}

#[inline(always)]
fn round_plain<T: Float>(values: &[T], out: &mut [bf16]) {
    for (value, out) in values.iter().zip(out) {
        let bits = value.to_f32().to_bits();
        // Without a branch, so that many are done at once: half of the last place that is kept is added, less where that is a tie and would be odd.
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        *out = bf16::from_bits(if is_nan { 0x7fc0 } else { rounded as u16 });
    }
}

fn widen<T: Float>(values: &[bf16], out: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float>(values: &[bf16], out: &mut [T]) {
            widen_plain(values, out);
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(values, out) };
    }
    widen_plain(values, out);
}

#[inline(always)]
fn widen_plain<T: Float>(values: &[bf16], out: &mut [T]) {
    for (value, out) in values.iter().zip(out) {
        *out = T::from_f32(f32::from_bits(u32::from(value.to_bits()) << 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate_and_widening_its_inverse() {
        // Every upper half, with what is below, at and above a tie.
        let values: Vec<f32> = (0..=u16::MAX)
            .flat_map(|upper| {
                [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| f32::from_bits(u32::from(upper) << 16 | lower))
            })
            .collect();
        let mut out = vec![bf16::ZERO; values.len()];
        round(&values, &mut out);
        let mut wide = vec![0f32; values.len()];
        widen(&out, &mut wide);
        for ((value, rounded), wide) in values.iter().zip(&out).zip(wide) {
            if value.is_nan() {
                assert!(rounded.is_nan() && wide.is_nan());
            } else {
                assert_eq!(rounded.to_bits(), bf16::from_f32(*value).to_bits(), "{value}");
                assert_eq!(wide.to_bits(), rounded.to_f32().to_bits(), "{value}");
            }
        }
    }

    #[test]
    fn sinks_and_sources_of_either_kind_hold_what_is_written() {
        let values = [1.0f32, -2.5, 1.001];
        let (mut own, mut narrow) = ([0f32; 3], [bf16::ZERO; 3]);
        for sink in [Sink::Own(&mut own), Sink::Bf16(&mut narrow)] {
            assert_eq!(sink.count(), 3);
            for (chunk, values) in sink.chunks(2).into_iter().zip(values.chunks(2)) {
                chunk.write(&mut vec![], |out| out.copy_from_slice(values));
            }
        }
        assert_eq!(own, values);
        let mut wide = [0f32; BLOCK];
        assert_eq!(Source::Bf16(&narrow).widened(1..3, &mut wide), [-2.5, 1.0]);
        assert_eq!(Source::Own(&own).widened(1..3, &mut wide), [-2.5, 1.001]);
        assert_eq!((Source::<f32>::Bf16(&narrow).count(), Source::Own(&own).count()), (3, 3));
    }
}
