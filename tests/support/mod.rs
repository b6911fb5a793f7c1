//! Miniature models on disk, for tests of the public interface.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test binary uses its part of this")]

pub mod dying;
pub mod memory_source;
pub mod piecemeal;
pub mod pool_processes;
pub mod processes;
pub mod proxy;
pub mod servers;
pub mod service;
pub mod stub_engine;
pub mod waitaof;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{SafeTensors, TensorView};
use safetensors::{Dtype, serialize};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// Values of a float dtype, rounded to it.
pub fn floats(name: &str, dtype: Dtype, shape: &[usize], values: &[f64]) -> Tensor {
    let data = values
        .iter()
        .flat_map(|&v| match dtype {
            Dtype::F16 => f16::from_f32(v as f32).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(v as f32).to_le_bytes().to_vec(),
            Dtype::F64 => v.to_le_bytes().to_vec(),
            _ => (v as f32).to_le_bytes().to_vec(),
        })
        .collect();
    Tensor { name: name.into(), dtype, shape: shape.to_vec(), data }
}

/// An I64 scalar.
pub fn counter(name: &str, value: i64) -> Tensor {
    Tensor { name: name.into(), dtype: Dtype::I64, shape: vec![], data: value.to_le_bytes().to_vec() }
}

pub fn blob(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
    serialize(views, None).unwrap()
}

/// A Hugging Face folder with these shards and a small `config.json`.
pub fn write_model(folder: &Path, shards: &[Vec<Tensor>]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), r#"{"model_type": "tiny", "torch_dtype": "float32"}"#).unwrap();
    if let [only] = shards {
        fs::write(folder.join("model.safetensors"), blob(only)).unwrap();
        return;
    }
    let mut map = BTreeMap::new();
    for (i, tensors) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        fs::write(folder.join(&name), blob(tensors)).unwrap();
        map.extend(tensors.iter().map(|t| (t.name.clone(), name.clone())));
    }
    write_index(folder, &map);
}

pub fn write_index(folder: &Path, map: &BTreeMap<String, String>) {
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// All tensors of a safetensors file, by name.
pub fn read_file(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let (dtype, shape, data) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_string(), Tensor { name: name.to_string(), dtype, shape, data })
        })
        .collect()
}

/// Names in a folder, hidden ones too, sorted.
pub fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A file of this header text and so many zero bytes of data.
pub fn raw(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + data, 0);
    file
}

/// A header's entry of an U8 tensor.
pub fn entry(name: &str, shape: &str, from: u64, to: u64) -> String {
    format!(r#""{name}":{{"dtype":"U8","shape":{shape},"data_offsets":[{from},{to}]}}"#)
}

/// A pipe: to open it for reading waits until somebody writes.
pub fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "mkfifo {}", path.display());
}
