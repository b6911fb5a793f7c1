//! Writing a safetensors file tensor by tensor, so that no model is ever whole in memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

/// A tensor that will be in the file.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Name.
    pub name: String,
    /// Dtype in the file.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Planned {
    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes a whole file: `fill` is called for each tensor, in the file's order, and appends exactly its bytes to the buffer.
///
/// The metadata says `format: pt`, without which transformers refuses a file.
///
/// # Errors
/// What `fill` says, or the system.
pub fn write<E: From<io::Error>>(
    path: &Path,
    tensors: &[Planned],
    fill: &mut dyn FnMut(&Planned, &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    // Wide elements first, so that every tensor is aligned to its own.
    let mut order: Vec<&Planned> = tensors.iter().collect();
    order.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then(a.name.cmp(&b.name)));
    let mut offset = 0;
    let mut infos = Vec::new();
    for planned in &order {
        let end = offset + planned.bytes();
        let info = TensorInfo { dtype: planned.dtype, shape: planned.shape.clone(), data_offsets: (offset, end) };
        infos.push((planned.name.clone(), info));
        offset = end;
    }
    let metadata = Metadata::new(Some(HashMap::from([("format".to_string(), "pt".to_string())])), infos)
        .map_err(|e| io::Error::other(e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(io::Error::other)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create_new(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut buffer = Vec::new();
    for planned in order {
        buffer.clear();
        fill(planned, &mut buffer)?;
        if buffer.len() != planned.bytes() {
            return Err(io::Error::other(format!("tensor `{}` has {} bytes", planned.name, buffer.len())).into());
        }
        file.write_all(&buffer)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

/// Appends values in a float dtype, rounded to nearest even. `None`: a value overflows it.
pub fn encode(values: &[f32], dtype: Dtype, buffer: &mut Vec<u8>) -> Option<()> {
    match dtype {
        Dtype::F32 => values.iter().for_each(|v| buffer.extend_from_slice(&v.to_le_bytes())),
        Dtype::F64 => values.iter().for_each(|v| buffer.extend_from_slice(&f64::from(*v).to_le_bytes())),
        Dtype::F16 => {
            for &value in values {
                let rounded = f16::from_f32(value);
                if rounded.is_infinite() && value.is_finite() {
                    return None;
                }
                buffer.extend_from_slice(&rounded.to_le_bytes());
            }
        }
        Dtype::BF16 => {
            for &value in values {
                let rounded = bf16::from_f32(value);
                if rounded.is_infinite() && value.is_finite() {
                    return None;
                }
                buffer.extend_from_slice(&rounded.to_le_bytes());
            }
        }
        _ => return None,
    }
    Some(())
}
