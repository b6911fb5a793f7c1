//! Float dtypes on disk and in memory.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

/// A float in memory: `f32` or `f64`.
pub trait Element: Copy + Default + Send + Sync + sealed::Sealed {
    /// Exact.
    fn from_f32(value: f32) -> Self;
    /// Exact for `f64`, rounded to nearest even for `f32`.
    fn from_f64(value: f64) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Element for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

impl Element for f64 {
    fn from_f32(value: f32) -> Self {
        value.into()
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Whether tensors of this dtype can be mixed: F32, F16, BF16, F64. All others must be equal in all ingredients and are copied.
pub fn is_mixable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Decodes little-endian values of a mixable dtype, any alignment. F16 and BF16 widen exactly.
///
/// # Panics
/// If the dtype is not mixable or `bytes` does not hold `out.len()` elements: callers check both.
pub(crate) fn decode<T: Element>(dtype: Dtype, bytes: &[u8], out: &mut [T]) {
    assert!(is_mixable(dtype), "{dtype} is not a float that can be mixed");
    assert_eq!(bytes.len(), out.len() * dtype.bitsize() / 8, "as many bytes as elements");
    match dtype {
        Dtype::F32 => {
            for (to, from) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *to = T::from_f32(f32::from_le_bytes(*from));
            }
        }
        Dtype::F64 => {
            for (to, from) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *to = T::from_f64(f64::from_le_bytes(*from));
            }
        }
        Dtype::BF16 => {
            for (to, from) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *to = T::from_f32(bf16::from_le_bytes(*from).to_f32());
            }
        }
        _ => {
            // By slices: the hardware's conversion takes several at once, and needs aligned input.
            const RUN: usize = 256;
            let (mut halves, mut wide) = ([f16::ZERO; RUN], [0f32; RUN]);
            for (to, from) in out.chunks_mut(RUN).zip(bytes.chunks(2 * RUN)) {
                let n = to.len();
                for (half, raw) in halves.iter_mut().zip(from.as_chunks::<2>().0) {
                    *half = f16::from_le_bytes(*raw);
                }
                halves[..n].convert_to_f32_slice(&mut wide[..n]);
                for (to, &value) in to.iter_mut().zip(&wide) {
                    *to = T::from_f32(value);
                }
            }
        }
    }
}

/// Appends `values` to `out` as little-endian `dtype`, rounded to nearest even.
///
/// F16 and BF16 are rounded from the f32 soup, the one that is scored, not from the wider sum: two roundings, but the
/// model on disk is then exactly the scored one cast to its dtype, on every processor.
///
/// # Errors
/// The index of the first finite value that the dtype cannot hold.
///
/// # Panics
/// If the dtype is not mixable.
pub(crate) fn encode(values: &[f64], dtype: Dtype, out: &mut Vec<u8>) -> Result<(), usize> {
    assert!(is_mixable(dtype), "{dtype} is not a float that can be mixed");
    out.reserve(values.len() * dtype.bitsize() / 8);
    for (i, &value) in values.iter().enumerate() {
        let single = value as f32;
        let overflow = match dtype {
            Dtype::F64 => {
                out.extend(value.to_le_bytes());
                value.is_infinite()
            }
            Dtype::F32 => {
                out.extend(single.to_le_bytes());
                single.is_infinite()
            }
            Dtype::BF16 => {
                let rounded = bf16::from_f32(single);
                out.extend(rounded.to_le_bytes());
                rounded.is_infinite()
            }
            _ => {
                let rounded = f16::from_f32(single);
                out.extend(rounded.to_le_bytes());
                rounded.is_infinite()
            }
        };
        if overflow {
            return Err(i);
        }
    }
    Ok(())
}

/// Flat index and value of the first NaN or infinity in `bytes` of a mixable dtype; `None` too for other dtypes.
pub(crate) fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<(usize, f64)> {
    // Bits only: an exponent of all ones is NaN or infinity.
    fn find<const N: usize>(bytes: &[u8], bad: impl Fn([u8; N]) -> bool + Copy) -> Option<usize> {
        let elements = bytes.as_chunks::<N>().0;
        // A run is judged as a whole, without branches, and searched only when it is bad.
        for (i, run) in elements.chunks(1024).enumerate() {
            if run.iter().fold(false, |any, &e| any | bad(e)) {
                return run.iter().position(|&e| bad(e)).map(|at| i * 1024 + at);
            }
        }
        None
    }
    let at = match dtype {
        Dtype::F32 => find::<4>(bytes, |e| u32::from_le_bytes(e) & 0x7f80_0000 == 0x7f80_0000),
        Dtype::F16 => find::<2>(bytes, |e| u16::from_le_bytes(e) & 0x7c00 == 0x7c00),
        Dtype::BF16 => find::<2>(bytes, |e| u16::from_le_bytes(e) & 0x7f80 == 0x7f80),
        Dtype::F64 => find::<8>(bytes, |e| u64::from_le_bytes(e) & (0x7ff << 52) == 0x7ff << 52),
        _ => None,
    }?;
    let size = dtype.bitsize() / 8;
    let mut value = [0f64];
    decode(dtype, &bytes[at * size..(at + 1) * size], &mut value);
    Some((at, value[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_bit_for_bit() {
        for dtype in [Dtype::F16, Dtype::BF16] {
            // An odd start: mapped files promise no alignment.
            let mut bytes = vec![0u8];
            let finite = (0..=u16::MAX).filter(|b| first_not_finite(dtype, &b.to_le_bytes()).is_none());
            bytes.extend(finite.flat_map(u16::to_le_bytes));
            let mut wide = vec![0f64; (bytes.len() - 1) / 2];
            decode(dtype, &bytes[1..], &mut wide);
            let mut back = Vec::new();
            encode(&wide, dtype, &mut back).unwrap();
            assert!(back == bytes[1..], "{dtype}");
        }
    }

    #[test]
    fn halves_round_to_nearest_even() {
        let mut out = Vec::new();
        // Between 1 and the next half (1 + 2^-10): the tie goes down to even, the next tie up to even.
        encode(&[1.0 + 2f64.powi(-11), 1.0 + 3.0 * 2f64.powi(-11)], Dtype::F16, &mut out).unwrap();
        assert_eq!(out, [f16::from_bits(0x3c00).to_le_bytes(), f16::from_bits(0x3c02).to_le_bytes()].concat());
    }

    #[test]
    fn what_a_dtype_cannot_hold_is_found() {
        assert_eq!(encode(&[0.0, 65519.0, 65520.0], Dtype::F16, &mut Vec::new()), Err(2));
        assert_eq!(encode(&[65520.0], Dtype::BF16, &mut Vec::new()), Ok(()));
        assert_eq!(encode(&[1e39], Dtype::F32, &mut Vec::new()), Err(0));
        assert_eq!(encode(&[1e39], Dtype::F64, &mut Vec::new()), Ok(()));
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found_in_every_dtype() {
        let mut values = vec![1.0; 3000];
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
            let mut bytes = Vec::new();
            encode(&values, dtype, &mut bytes).unwrap();
            assert_eq!(first_not_finite(dtype, &bytes), None);
            let size = dtype.bitsize() / 8;
            // All ones is a NaN everywhere.
            bytes[2048 * size..2049 * size].fill(0xff);
            let (at, value) = first_not_finite(dtype, &bytes).unwrap();
            assert_eq!(at, 2048, "{dtype}");
            assert!(value.is_nan());
        }
        values.clear();
    }
}
