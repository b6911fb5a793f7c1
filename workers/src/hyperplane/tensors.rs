//! Views of CPU tensors as slices.

use half::bf16;
use tch::{Device, Kind, TchError, Tensor};

use super::kernels::Float;

/// Calls a function for f64 or f32.
macro_rules! by_kind {
    ($kind:expr, $function:ident ( $($argument:expr),* )) => {
        match $kind {
            Kind::Double => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}

pub(super) use by_kind;

/// The libtorch dtype of a [`Float`].
fn kind_of<T: Float>() -> Kind {
    if size_of::<T>() == 4 { Kind::Float } else { Kind::Double }
}

fn check<T: Float>(tensor: &Tensor) {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == kind_of::<T>() && tensor.is_contiguous(),
        "slices are taken of contiguous CPU tensors of their own dtype"
    );
}

/// All elements of a contiguous CPU tensor, in row-major order.
///
/// # Panics
/// If the tensor is on another device, strided, or of another dtype.
pub fn slice<T: Float>(tensor: &Tensor) -> &[T] {
    check::<T>(tensor);
    // SAFETY: the tensor is contiguous, on the host and of type T (checked), owns its storage at least as long as it is borrowed, and
    // libtorch aligns allocations to 64 bytes.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) }
}

/// All elements of a contiguous CPU tensor, to be written.
///
/// The autograd engine does not see the write: only leaves between two passes may be written so.
///
/// # Panics
/// If the tensor is on another device, strided, or of another dtype.
#[allow(clippy::mut_from_ref)] // A `Tensor` is a shared handle; libtorch itself writes through it.
pub fn slice_mut<T: Float>(tensor: &Tensor) -> &mut [T] {
    check::<T>(tensor);
    // SAFETY: as in `slice`; callers hold the only handle that is used while the slice lives, and all of them are on the device's one thread.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), tensor.numel()) }
}

/// All values of a contiguous CPU tensor in bf16.
///
/// # Panics
/// If the tensor is on another device, strided, or of another dtype.
pub fn slice_bf16(tensor: &Tensor) -> &[bf16] {
    check_bf16(tensor);
    // SAFETY: as in `slice`; `half::bf16` is two bytes, laid out as libtorch's.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<bf16>(), tensor.numel()) }
}

/// All values of a contiguous CPU tensor in bf16, to be written as those of [`slice_mut`].
///
/// # Panics
/// If the tensor is on another device, strided, or of another dtype.
#[allow(clippy::mut_from_ref)] // As `slice_mut`.
pub fn slice_bf16_mut(tensor: &Tensor) -> &mut [bf16] {
    check_bf16(tensor);
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: as in `slice_mut`; `half::bf16` is two bytes, laid out as libtorch's.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<bf16>(), tensor.numel()) }
}

fn check_bf16(tensor: &Tensor) {
    assert!(
        tensor.device() == Device::Cpu && tensor.kind() == Kind::BFloat16 && tensor.is_contiguous(),
        "slices in bf16 are taken of contiguous CPU tensors in bf16"
    );
}

/// Overwrites a leaf tensor on any device, outside of autograd.
pub fn copy_from_slice<T: Float + tch::kind::Element>(tensor: &Tensor, values: &[T]) -> Result<(), TchError> {
    if tensor.device() == Device::Cpu {
        slice_mut::<T>(tensor).copy_from_slice(values);
        return Ok(());
    }
    let source = Tensor::f_from_slice(values)?.f_view_as(tensor)?;
    tch::no_grad(|| tensor.shallow_clone().f_copy_(&source))
}
