//! Directions in fewer bytes than f32: bf16, or whole numbers of 8 or 4 bits with a scale for each [`GROUP`] of values.
//!
//! What is stored is the difference of an ingredient from the centre, before it is divided by its length n: the division is done to the few coordinates
//! instead, `x / n` in a mix and `<difference, g> / n` in a projection, so no stored value is rounded twice. Directions steer the search; folds
//! and scores use the original files.
//!
//! Errors of one value against the largest magnitude m in its group: bf16 at most `2^-9` of the value itself; int8 at most `m / 127 / 2 (1 + 2^-7)`; int4 at most
//! `m / 7 / 2 (1 + 2^-7)`. The scale is a bf16, rounded up.
//!
//! The kernels read each stored byte once and give the same bits for any number of threads, as those of [`kernels`](super::kernels).

mod batch;
mod kernels;

use std::ops::Range;

use half::bf16;
use mehl_soup::sweep::spec::DirectionDtype;
use rayon::prelude::*;
use tch::{Device, Kind, TchError, Tensor};

use super::cuda::DeviceRows;
use super::kernels::Float;
use super::tensors::slice_bf16_mut;
pub use batch::Compact;

/// Values that share a scale.
pub const GROUP: usize = 64;
/// Values that one thread works on at a time, as in the kernels of uncompacted rows.
const CHUNK: usize = 1 << 16;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 16 bits, no scale.
    Bf16,
    /// 8 bits, from -127 to 127.
    Int8,
    /// 4 bits, from -7 to 7: value j of a group in the low half of byte j, value j + 32 in its high half.
    Int4,
}

impl Code {
    /// `None` for values that are stored as they are computed with. `auto` is to be resolved before.
    pub fn of(dtype: DirectionDtype) -> Option<Self> {
        match dtype {
            DirectionDtype::Auto | DirectionDtype::F32 => None,
            DirectionDtype::Bf16 => Some(Self::Bf16),
            DirectionDtype::Int8 => Some(Self::Int8),
            DirectionDtype::Int4 => Some(Self::Int4),
        }
    }

    /// Bytes of a whole group, without its scale.
    #[inline]
    const fn group_bytes(self) -> usize {
        match self {
            Self::Bf16 => 2 * GROUP,
            Self::Int8 => GROUP,
            Self::Int4 => GROUP / 2,
        }
    }

    #[inline]
    fn has_scales(self) -> bool {
        self != Self::Bf16
    }

    /// Bytes of so many values, scales included. The last group is as long as the others.
    pub fn bytes(self, n: usize) -> usize {
        n.div_ceil(GROUP) * (self.group_bytes() + if self.has_scales() { 2 } else { 0 })
    }

    /// Largest whole number.
    fn limit(self) -> f32 {
        if self == Self::Int4 { 7.0 } else { 127.0 }
    }
}

/// The rows of one tensor, on any device.
#[derive(Debug)]
pub struct CompactRows {
    code: Code,
    /// b.
    members: usize,
    /// n: values of a row.
    length: usize,
    /// `[b, groups * bytes of a group]`, bytes.
    values: Tensor,
    /// `[b, groups]`, bf16; empty without scales.
    scales: Tensor,
}

/// Rows on the host, as slices.
#[derive(Clone, Copy)]
pub struct HostRows<'a> {
    members: usize,
    code: Code,
    values: &'a [u8],
    scales: &'a [bf16],
    /// Groups of a row.
    groups: usize,
}

impl HostRows<'_> {
    #[inline]
    fn group(&self, row: usize, group: usize) -> (&[u8], f32) {
        let (at, bytes) = (row * self.groups + group, self.code.group_bytes());
        let scale = if self.code.has_scales() { self.scales[at].to_f32() } else { 1.0 };
        (&self.values[at * bytes..(at + 1) * bytes], scale)
    }
}

impl CompactRows {
    /// Room for so many rows of so many values, on the host.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(code: Code, members: usize, length: usize) -> Result<Self, TchError> {
        let groups = length.div_ceil(GROUP);
        let (b, bytes) = (members as i64, (groups * code.group_bytes()) as i64);
        let scaled = if code.has_scales() { groups as i64 } else { 0 };
        let values = Tensor::f_zeros([b, bytes], (Kind::Uint8, Device::Cpu))?;
        let scales = Tensor::f_zeros([b, scaled], (Kind::BFloat16, Device::Cpu))?;
        Ok(Self { code, members, length, values, scales })
    }

    /// Stores row `k`.
    ///
    /// # Panics
    /// If it has another length, or the rows are on another device.
    pub fn store<T: Float>(&mut self, k: usize, row: &[T]) {
        assert_eq!(row.len(), self.length, "a row has as many values as the others");
        let (code, groups) = (self.code, self.length.div_ceil(GROUP));
        let bytes = groups * code.group_bytes();
        let values = &mut bytes_mut(&self.values)[k * bytes..(k + 1) * bytes];
        let groups_of_row = row.par_chunks(GROUP).zip(values.par_chunks_mut(code.group_bytes()));
        let groups_of_row = groups_of_row.with_min_len(CHUNK / GROUP);
        if code.has_scales() {
            let scales = &mut slice_bf16_mut(&self.scales)[k * groups..(k + 1) * groups];
            groups_of_row.zip(scales).for_each(|((group, out), scale)| *scale = encode(code, group, out));
        } else {
            groups_of_row.for_each(|(group, out)| _ = encode(code, group, out));
        }
    }

    /// On another device.
    ///
    /// # Errors
    /// If memory cannot be had there.
    pub fn to_device(self, device: Device) -> Result<Self, TchError> {
        let (values, scales) = (self.values.f_to_device(device)?, self.scales.f_to_device(device)?);
        Ok(Self { values, scales, ..self })
    }

    /// Bytes of all of them, scales included.
    pub fn bytes(&self) -> usize {
        self.members * self.code.bytes(self.length)
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        self.values.device()
    }

    /// Rows on the host as slices, which threads can share.
    ///
    /// # Panics
    /// If they are on another device.
    pub fn host(&self) -> HostRows<'_> {
        HostRows {
            members: self.members,
            code: self.code,
            values: bytes_mut(&self.values),
            scales: slice_bf16_mut(&self.scales),
            groups: self.length.div_ceil(GROUP),
        }
    }

    /// As the kernels of a device read them.
    pub(super) fn for_kernels(&self) -> DeviceRows<'_> {
        DeviceRows {
            code: Some(self.code),
            values: &self.values,
            scales: self.code.has_scales().then_some(&self.scales),
        }
    }

    /// Some rows as values of `kind`, `[some, n]`, on the rows' device, by libtorch's own operations.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn unpacked(&self, members: Range<usize>, kind: Kind) -> Result<Tensor, TchError> {
        let (first, some, groups) = (members.start as i64, members.len() as i64, self.length.div_ceil(GROUP) as i64);
        let values = self.values.f_narrow(0, first, some)?;
        let whole = match self.code {
            Code::Bf16 => values.f_view_dtype(Kind::BFloat16)?.f_to_kind(kind)?,
            Code::Int8 => values.f_view_dtype(Kind::Int8)?.f_to_kind(kind)?,
            Code::Int4 => {
                let pairs = values.f_view([some, groups, GROUP as i64 / 2])?;
                let (low, high) = (pairs.f_bitwise_and(15)?, pairs.f_bitwise_right_shift_tensor_scalar(4)?);
                Tensor::f_cat(&[low, high], 2)?.f_to_kind(kind)?.f_sub_scalar(8)?
            }
        };
        let whole = if self.code.has_scales() {
            let scales = self.scales.f_narrow(0, first, some)?.f_to_kind(kind)?;
            whole.f_view([some, groups, GROUP as i64])?.f_mul(&scales.f_unsqueeze(2)?)?
        } else {
            whole
        };
        whole.f_reshape([some, -1])?.f_narrow(1, 0, self.length as i64)
    }
}

#[allow(clippy::mut_from_ref)] // As `slice_mut`: a `Tensor` is a shared handle.
fn bytes_mut(tensor: &Tensor) -> &mut [u8] {
    assert!(tensor.device() == Device::Cpu && tensor.kind() == Kind::Uint8 && tensor.is_contiguous());
    // SAFETY: contiguous bytes on the host (checked), owned at least as long as they are borrowed; written only while they are built.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), tensor.numel()) }
}

/// Stores a group of at most [`GROUP`] values, the others as zeros, and answers its scale.
fn encode<T: Float>(code: Code, group: &[T], out: &mut [u8]) -> bf16 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide<T: Float>(code: Code, group: &[T], out: &mut [u8]) -> bf16 {
            encode_plain(code, group, out)
        }
        // SAFETY: the processor has the instructions, as was just asked.
        return unsafe { wide(code, group, out) };
    }
    encode_plain(code, group, out)
}

#[inline(always)]
fn encode_plain<T: Float>(code: Code, group: &[T], out: &mut [u8]) -> bf16 {
    let mut values = [0.0f32; GROUP];
    group.iter().zip(&mut values).for_each(|(value, own)| *own = value.to_f32());
    let value = |j: usize| values[j];
    if code == Code::Bf16 {
        for (j, bytes) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *bytes = bf16::from_f32(value(j)).to_ne_bytes();
        }
        return bf16::ONE;
    }
    let largest = (0..GROUP).map(|j| value(j).abs()).fold(0.0, f32::max);
    let mut scale = bf16::from_f32(largest / code.limit());
    // Rounded up, so that the largest value is within the whole numbers.
    if scale.to_f32() * code.limit() < largest {
        scale = bf16::from_bits(scale.to_bits() + 1);
    }
    let step = scale.to_f32();
    let whole = |j: usize| if step == 0.0 { 0.0 } else { (value(j) / step).round_ties_even() };
    match code {
        Code::Int4 => {
            for (j, byte) in out.iter_mut().enumerate() {
                let [low, high] = [whole(j), whole(j + GROUP / 2)].map(|value| (value + 8.0) as u8);
                *byte = low | high << 4;
            }
        }
        _ => out.iter_mut().enumerate().for_each(|(j, byte)| *byte = (whole(j) as i8).cast_unsigned()),
    }
    scale
}

/// A stored group as numbers that its scale is still to be multiplied with.
#[inline(always)]
fn decode<T: Float>(code: Code, bytes: &[u8]) -> [T; GROUP] {
    const PART: usize = GROUP / 2;
    let mut values = [T::default(); GROUP];
    for (part, values) in values.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        *values = decode_part::<T, PART>(code, bytes, part);
    }
    values
}

/// Values `part * N..(part + 1) * N` of a stored group. `N` divides half a group.
#[inline(always)]
fn decode_part<T: Float, const N: usize>(code: Code, bytes: &[u8], part: usize) -> [T; N] {
    const { assert!((GROUP / 2).is_multiple_of(N)) };
    let mut values = [T::default(); N];
    match code {
        Code::Bf16 => {
            let (pairs, _) = bytes[2 * part * N..2 * (part + 1) * N].as_chunks::<2>();
            for (value, pair) in values.iter_mut().zip(pairs) {
                *value = T::from_f32(f32::from_bits(u32::from(u16::from_ne_bytes(*pair)) << 16));
            }
        }
        Code::Int8 => {
            for (value, byte) in values.iter_mut().zip(&bytes[part * N..(part + 1) * N]) {
                *value = T::from_f32(f32::from(byte.cast_signed()));
            }
        }
        Code::Int4 => {
            let (half, within) = (part * N / (GROUP / 2), part * N % (GROUP / 2));
            for (value, byte) in values.iter_mut().zip(&bytes[within..within + N]) {
                let number = if half == 0 { byte & 15 } else { byte >> 4 };
                *value = T::from_f32(f32::from(number.cast_signed() - 8));
            }
        }
    }
    values
}

#[cfg(test)]
mod tests;
