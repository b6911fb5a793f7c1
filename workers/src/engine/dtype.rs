//! In which dtype a task is computed.

use mehl_soup::sweep::spec::{ComputeDtype, Spec};
use tch::{Device, Kind};

use super::device;
use crate::families::{Model, Precision};

/// Elements of all mixed tensors together from which on `auto` may mean bf16: below, there is little to gain, and f32 gives the same bits on more machines.
pub const LARGE: usize = 4_000_000;

/// Dtype of parameters and float inputs: f64 where the specification says so, else f32.
pub fn of_parameters(spec: &Spec) -> Kind {
    match spec.compute.dtype {
        Some(ComputeDtype::F64) => Kind::Double,
        _ => Kind::Float,
    }
}

/// The dtype that a task is begun in, and a note where it is not the stated one.
///
/// `auto` is bf16 for large models of families that know it, on devices that have instructions for it; else f32.
pub fn resolve(
    stated: Option<ComputeDtype>,
    parameters: Kind,
    device: Device,
    model: &dyn Model,
    elements: usize,
) -> (ComputeDtype, Option<&'static str>) {
    if parameters == Kind::Double {
        return (ComputeDtype::F64, None);
    }
    match stated {
        Some(ComputeDtype::Bf16) if !model.knows_bf16() => (
            ComputeDtype::F32,
            Some(
                "compute.dtype = \"bf16\" is not supported for this graph: its code decides about \
                 dtypes, so it computes in f32. A graph of `python -m mehl_soup export` may support it",
            ),
        ),
        Some(stated) => (stated, None),
        None if model.knows_bf16()
            && model.bf16_is_chosen()
            && elements >= LARGE
            && device::is_fast_in_bf16(device) =>
        {
            (ComputeDtype::Bf16, None)
        }
        None => (ComputeDtype::F32, None),
    }
}

/// How a forward pass in this dtype is computed.
pub fn precision(dtype: ComputeDtype) -> Precision {
    match dtype {
        ComputeDtype::Bf16 => Precision::Bf16,
        ComputeDtype::F32 | ComputeDtype::F64 => Precision::Full,
    }
}
