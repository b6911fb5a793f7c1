//! A split in one safetensors file: input tensors and targets, `[N, ...]` each.

use std::path::Path;

use mehl_soup::zoo::{TensorFile, ZooError};
use rayon::prelude::*;
use safetensors::Dtype;
use tch::{Kind, Tensor};

use super::{DataError, Loaded, ReadTargets, Split};

/// Reads a split.
///
/// # Errors
/// If the file is missing or malformed, a tensor is missing or has another dtype or first dimension, the objective
/// refuses the targets, or there is no sample.
pub fn load(path: &Path, inputs: &[String], targets: &str, read: ReadTargets<'_>) -> Result<Loaded, DataError> {
    let content = |what: String| DataError::Content { file: path.display().to_string(), what };
    let refused = |error: ZooError| match error {
        ZooError::Io { source, .. } => DataError::Io { file: path.display().to_string(), source },
        ZooError::Malformed { reason, .. } | ZooError::NotAnIngredient { reason, .. } => content(reason),
        ZooError::Changed { reason, .. } => content(format!("{reason} while it was read")),
        other => content(other.to_string()),
    };
    let file = TensorFile::open(path).map_err(refused)?;
    let find = |name: &str| {
        let names = || file.names().collect::<Vec<_>>().join(", ");
        let key = if name == targets { "data.labels" } else { "data.inputs" };
        let missing = || format!("tensor `{name}`: not found, the file has only {} (set {key})", names());
        file.info(name).ok_or_else(|| content(missing()))
    };
    let info = find(targets)?;
    let [n, ..] = info.shape[..] else {
        return Err(content(format!("tensor `{targets}`: expected shape [N, ...], found {:?}", info.shape)));
    };
    if n == 0 {
        return Err(content("expected samples, found none".to_string()));
    }
    let found = to_tensor(info.dtype, &info.shape, &file.read(targets).map_err(refused)?)
        .ok_or_else(|| content(format!("tensor `{targets}`: dtype {:?} is not supported", info.dtype)))?;
    let target_tensor = read(found).map_err(|what| content(format!("tensor `{targets}`: {what}")))?;
    let mut input_tensors = Vec::new();
    let mut rows = vec![blake3::hash(&[]); n];
    for name in inputs {
        let info = find(name)?;
        if info.shape.first() != Some(&n) {
            return Err(content(format!(
                "tensor `{name}`: expected first dimension {n} as in `{targets}`, found shape {:?}",
                info.shape
            )));
        }
        let data = file.read(name).map_err(refused)?;
        if data.is_empty() {
            return Err(content(format!("tensor `{name}`: expected values, found shape {:?}", info.shape)));
        }
        let tensor = to_tensor(info.dtype, &info.shape, &data)
            .ok_or_else(|| content(format!("tensor `{name}`: dtype {:?} is not supported", info.dtype)))?;
        if tensor.is_floating_point() && !tensor.f_isfinite()?.f_all()?.f_int64_value(&[]).is_ok_and(|v| v == 1) {
            return Err(content(format!("tensor `{name}`: expected finite values, found NaN or infinity")));
        }
        input_tensors.push((name.clone(), tensor));
        // Whole bytes a sample: libtorch has no smaller elements.
        rows.par_iter_mut().zip(data.par_chunks(data.len() / n)).for_each(|(hash, row)| {
            let mut hasher = blake3::Hasher::new();
            *hash = hasher.update(hash.as_bytes()).update(row).finalize();
        });
    }
    Ok(Loaded {
        split: Split::of_tensors(input_tensors, target_tensor),
        // Last: a file that changed meanwhile is noticed here.
        hash: file.hash().map_err(refused)?,
        rows,
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
