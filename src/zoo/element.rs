//! Reading stored floats as f32 or f64.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

/// A type that soups are computed in.
pub trait Element: Copy + Send + Sync + Default + 'static {
    /// From f32, exact.
    fn from_f32(value: f32) -> Self;
    /// From f64, rounded to nearest.
    fn from_f64(value: f64) -> Self;
    /// To f64, exact.
    fn to_f64(self) -> f64;
}

impl Element for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
}

/// Elements that one thread converts at a time.
pub(crate) const CHUNK: usize = 1 << 16;

/// Whether a dtype is one of the float types that ingredients may have.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Converts little-endian floats; `bytes` holds exactly `out.len()` of them.
///
/// # Panics
/// If the dtype is no float, or lengths disagree.
pub fn convert<T: Element>(dtype: Dtype, bytes: &[u8], out: &mut [T]) {
    assert_eq!(bytes.len() * 8, out.len() * dtype.bitsize(), "one element for each value");
    match dtype {
        Dtype::F32 => each(bytes, out, |b| T::from_f32(f32::from_le_bytes(b))),
        Dtype::F16 => each(bytes, out, |b| T::from_f32(f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => each(bytes, out, |b| T::from_f32(bf16::from_le_bytes(b).to_f32())),
        Dtype::F64 => each(bytes, out, |b| T::from_f64(f64::from_le_bytes(b))),
        other => panic!("{other:?} is no float type"),
    }
}

fn each<const N: usize, T: Element>(bytes: &[u8], out: &mut [T], read: impl Fn([u8; N]) -> T + Sync) {
    out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * N)).for_each(|(out, bytes)| {
        for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *value = read(*bytes);
        }
    });
}

/// Whether all floats are finite. Other dtypes always are.
pub fn all_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    // Infinity and NaN have all exponent bits set.
    let pieces = bytes.par_chunks(CHUNK * 8);
    match dtype {
        Dtype::F32 => pieces.all(|p| p.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite())),
        Dtype::F16 => pieces.all(|p| p.as_chunks().0.iter().all(|b| f16::from_le_bytes(*b).is_finite())),
        Dtype::BF16 => pieces.all(|p| p.as_chunks().0.iter().all(|b| bf16::from_le_bytes(*b).is_finite())),
        Dtype::F64 => pieces.all(|p| p.as_chunks().0.iter().all(|b| f64::from_le_bytes(*b).is_finite())),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_is_read_exactly() {
        let values = [0.0f32, 1.0, -2.5, 0.125, 384.0];
        let mut out = [0f32; 5];
        for (dtype, bytes) in [
            (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()),
            (Dtype::F16, values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (Dtype::BF16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
            (Dtype::F64, values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
        ] {
            convert(dtype, &bytes, &mut out);
            assert_eq!(out, values, "{dtype:?}");
            assert!(all_finite(dtype, &bytes));
        }
        assert!(!all_finite(Dtype::F16, &f16::INFINITY.to_le_bytes()));
        assert!(!all_finite(Dtype::BF16, &bf16::NAN.to_le_bytes()));
    }
}
