//! A split in one safetensors file: input tensors and targets, `[N, ...]` each, or tuples of texts, `[N, texts, ...]`, without targets.

use std::path::Path;

use mehl_soup::zoo::{TensorFile, ZooError};
use rayon::prelude::*;
use safetensors::Dtype;
use tch::{Kind, Tensor};

use super::{DataError, Loaded, ReadTargets, Split};

/// Reads a split. `targets` is the name of the tensor of targets, and what the objective makes of them; without, samples are
/// tuples of texts.
///
/// # Errors
/// If the file is missing or malformed, a tensor is missing or has another dtype or first dimension, the objective
/// refuses the targets, or there is no sample.
pub fn load(path: &Path, inputs: &[String], targets: Option<(&str, ReadTargets<'_>)>) -> Result<Loaded, DataError> {
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
        let is_target = targets.is_some_and(|(targets, _)| name == targets);
        let key = if is_target { "data.labels" } else { "data.inputs" };
        let missing = || format!("tensor `{name}`: not found, the file has only {} (set {key})", names());
        file.info(name).ok_or_else(|| content(missing()))
    };
    // What all tensors have as many samples as.
    let first = targets.map_or(inputs.first().map_or("", String::as_str), |(targets, _)| targets);
    let shape = &find(first)?.shape;
    let [n, ..] = shape[..] else {
        return Err(content(format!("tensor `{first}`: expected shape [N, ...], found {shape:?}")));
    };
    if n == 0 {
        return Err(content("expected samples, found none".to_string()));
    }
    let tensor = |name: &str, data: &[u8]| {
        let info = find(name)?;
        to_tensor(info.dtype, &info.shape, data)
            .ok_or_else(|| content(format!("tensor `{name}`: dtype {:?} is not supported", info.dtype)))
    };
    let target_tensor = match targets {
        None => Tensor::f_zeros([n as i64], (Kind::Int64, tch::Device::Cpu))?,
        Some((name, read)) => {
            let found = tensor(name, &file.read(name).map_err(refused)?)?;
            read(found).map_err(|what| content(format!("tensor `{name}`: {what}")))?
        }
    };
    let mut input_tensors = Vec::new();
    let mut rows = vec![blake3::hash(&[]); n];
    for name in inputs {
        let info = find(name)?;
        if info.shape.first() != Some(&n) {
            return Err(content(format!(
                "tensor `{name}`: expected first dimension {n} as in `{first}`, found shape {:?}",
                info.shape
            )));
        }
        let data = file.read(name).map_err(refused)?;
        if data.is_empty() {
            return Err(content(format!("tensor `{name}`: expected values, found shape {:?}", info.shape)));
        }
        let tensor = tensor(name, &data)?;
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
    let split = Split::of_tensors(input_tensors, target_tensor);
    let split = if targets.is_some() { split } else { with_texts(split, &file, inputs).map_err(content)? };
    Ok(Loaded {
        split,
        // Last: a file that changed meanwhile is noticed here.
        hash: file.hash().map_err(refused)?,
        rows,
    })
}

/// The samples as tuples of the texts that all inputs have as their second dimension, two at least.
fn with_texts(split: Split, file: &TensorFile, inputs: &[String]) -> Result<Split, String> {
    let mut texts = None;
    for (name, shape) in inputs.iter().filter_map(|name| Some((name, &file.info(name)?.shape))) {
        let expected = texts.map_or("texts".to_string(), |texts: usize| texts.to_string());
        let found = shape.get(1).filter(|_| shape.len() > 2).copied();
        match found {
            Some(found) if found >= 2 && texts.is_none_or(|texts| texts == found) => texts = Some(found),
            _ => {
                return Err(format!(
                    "tensor `{name}`: expected shape [N, {expected}, ...] with two or more texts for objective `pairs`, \
                     found {shape:?}"
                ));
            }
        }
    }
    split.with_texts(texts.unwrap_or(0)).map_err(|error| error.to_string())
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
