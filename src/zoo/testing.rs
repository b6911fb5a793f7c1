//! Miniature zoos for tests.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::Zoo;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// A tensor from its bytes.
pub fn bytes(name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Tensor {
    Tensor { name: name.into(), dtype, shape: shape.to_vec(), data }
}

/// An F32 tensor.
pub fn f32s(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    bytes(name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// Values rounded to any mixable dtype.
pub fn floats(name: &str, dtype: Dtype, values: &[f64]) -> Tensor {
    let mut data = Vec::new();
    super::encode(values, dtype, &mut data).expect("values of a test fit their dtype");
    bytes(name, dtype, &[values.len()], data)
}

/// Writes one safetensors file.
pub fn write_file(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|t| (&t.name, TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes a Hugging Face folder with these shards.
pub fn write_sharded(folder: &Path, shards: &[Vec<Tensor>]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut map = HashMap::new();
    for (i, tensors) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        write_file(&folder.join(&name), tensors);
        map.extend(tensors.iter().map(|t| (t.name.clone(), name.clone())));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(folder.join(super::INDEX), index.to_string()).unwrap();
}

/// A zoo of single files; the folder lives as long as the first value.
pub fn open_zoo(models: &[Vec<Tensor>]) -> (tempfile::TempDir, Zoo) {
    let root = tempfile::tempdir().unwrap();
    let write = |(i, tensors): (usize, &Vec<Tensor>)| {
        let path = root.path().join(format!("{i:02}.safetensors"));
        write_file(&path, tensors);
        path
    };
    let paths: Vec<_> = models.iter().enumerate().map(write).collect();
    let zoo = Zoo::open(&paths).unwrap();
    (root, zoo)
}
