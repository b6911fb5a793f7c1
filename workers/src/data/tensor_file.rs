//! A split in one safetensors file: input tensors `[N, ...]` and labels `[N]`.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{DataError, Split};

/// A split as it is in its file, with the content hash of the file.
pub struct Loaded {
    /// The samples, dtypes as in the file.
    pub split: Split,
    /// blake3 of the file, hexadecimal.
    pub hash: String,
    /// blake3 of each sample's inputs, to notice samples that two splits share.
    pub rows: Vec<blake3::Hash>,
}

/// Reads a split.
///
/// # Errors
/// If the file is missing or malformed, a tensor is missing or has another dtype or first dimension, a label is negative, or there is no sample.
pub fn load(path: &Path, inputs: &[String], labels: &str) -> Result<Loaded, DataError> {
    let io = |source| DataError::Io { file: path.display().to_string(), source };
    let content = |what: String| DataError::Content { file: path.display().to_string(), what };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read-only and lives only in this function; another program that truncates the file meanwhile ends the process, as with any map.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let tensors = SafeTensors::deserialize(&map).map_err(|e| content(format!("not a safetensors file: {e}")))?;
    let names = || {
        let mut names = tensors.names();
        names.sort_unstable();
        names.join(", ")
    };
    let find = |name: &str| {
        tensors.tensor(name).map_err(|_| content(format!("tensor `{name}`: expected it, found only {}", names())))
    };
    let label_view = find(labels)?;
    let [n] = label_view.shape() else {
        return Err(content(format!("tensor `{labels}`: expected shape [N], found {:?}", label_view.shape())));
    };
    let n = *n;
    if n == 0 {
        return Err(content("expected samples, found none".to_string()));
    }
    if !matches!(label_view.dtype(), Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::U8 | Dtype::I8) {
        return Err(content(format!("tensor `{labels}`: expected whole numbers, found {:?}", label_view.dtype())));
    }
    let label_tensor = to_tensor(label_view.dtype(), label_view.shape(), label_view.data())
        .ok_or_else(|| content(format!("tensor `{labels}`: dtype {:?} is not supported", label_view.dtype())))?
        .f_to_kind(Kind::Int64)?;
    let smallest = label_tensor.f_min()?.f_int64_value(&[])?;
    if smallest < 0 {
        return Err(content(format!("tensor `{labels}`: expected classes from 0, found {smallest}")));
    }
    let mut views = Vec::new();
    let mut input_tensors = Vec::new();
    for name in inputs {
        let view = find(name)?;
        if view.shape().first() != Some(&n) {
            return Err(content(format!(
                "tensor `{name}`: expected first dimension {n} as `{labels}` has, found shape {:?}",
                view.shape()
            )));
        }
        if view.data().is_empty() {
            return Err(content(format!("tensor `{name}`: expected values, found shape {:?}", view.shape())));
        }
        let tensor = to_tensor(view.dtype(), view.shape(), view.data())
            .ok_or_else(|| content(format!("tensor `{name}`: dtype {:?} is not supported", view.dtype())))?;
        if tensor.is_floating_point() && !tensor.f_isfinite()?.f_all()?.f_int64_value(&[]).is_ok_and(|v| v == 1) {
            return Err(content(format!("tensor `{name}`: expected finite values, found NaN or infinity")));
        }
        input_tensors.push(tensor);
        views.push(view);
    }
    let row = |i: usize| {
        let mut hasher = blake3::Hasher::new();
        for view in &views {
            let width = view.data().len() / n;
            hasher.update(&view.data()[i * width..(i + 1) * width]);
        }
        hasher.finalize()
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&map);
    Ok(Loaded {
        split: Split { inputs: input_tensors, labels: label_tensor },
        hash: hasher.finalize().to_hex().to_string(),
        rows: (0..n).into_par_iter().map(row).collect(),
    })
}

/// A tensor of its own from a view's bytes; `None` for a dtype that libtorch does not compute with.
fn to_tensor(dtype: Dtype, shape: &[usize], data: &[u8]) -> Option<Tensor> {
    let kind = match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    };
    let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    Tensor::f_from_data_size(data, &shape, kind).ok()
}
