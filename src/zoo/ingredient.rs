//! One ingredient on disk: a safetensors file, or a Hugging Face folder with one file or several shards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use memmap2::{Advice, Mmap};
use safetensors::{Dtype, SafeTensors};

use super::element::{Element, convert, is_float};
use super::error::ZooError;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What a header says of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// Stored dtype.
    pub dtype: Dtype,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    shard: usize,
    range: (usize, usize),
}

/// One weights file.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
}

impl Shard {
    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name within the ingredient's folder.
    pub fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// One fine-tuned model's weights, memory-mapped; only what is read is in memory, and the system may drop it again.
#[derive(Debug)]
pub struct Ingredient {
    pub(super) name: String,
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorInfo>,
    config: Option<serde_json::Value>,
}

/// Whether a path looks like an ingredient, without opening it.
pub(super) fn is_candidate(path: &Path) -> bool {
    if path.is_dir() {
        path.join(SINGLE).is_file() || path.join(INDEX).is_file()
    } else {
        path.extension().is_some_and(|e| e == "safetensors")
    }
}

impl Ingredient {
    /// Opens a file or folder and checks its headers.
    ///
    /// # Errors
    /// If something cannot be read, a header is malformed, or the shard index disagrees with the shards or points outside the folder.
    pub fn open(path: &Path) -> Result<Self, ZooError> {
        let path = path.canonicalize().map_err(ZooError::io(path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut config = None;
        let (files, index) = if path.is_dir() {
            let config_path = path.join("config.json");
            if config_path.is_file() {
                let text = fs::read(&config_path).map_err(ZooError::io(&config_path))?;
                config = Some(serde_json::from_slice(&text).map_err(|e| ZooError::ShardIndex {
                    path: config_path.display().to_string(),
                    what: format!("not valid JSON: {e}"),
                })?);
            }
            if path.join(SINGLE).is_file() {
                (vec![SINGLE.to_string()], None)
            } else if path.join(INDEX).is_file() {
                let index = read_index(&path.join(INDEX))?;
                let mut files: Vec<String> = index.values().cloned().collect();
                files.sort();
                files.dedup();
                (files, Some(index))
            } else {
                return Err(ZooError::NotAnIngredient { path: path.display().to_string() });
            }
        } else if is_candidate(&path) {
            (vec![String::new()], None)
        } else {
            return Err(ZooError::NotAnIngredient { path: path.display().to_string() });
        };
        let mut ingredient = Self { name, path, shards: vec![], tensors: BTreeMap::new(), config };
        for file in files {
            let shard = if file.is_empty() { ingredient.path.clone() } else { ingredient.path.join(&file) };
            ingredient.add_shard(shard, &file, index.as_ref())?;
        }
        if let Some(missing) = index.and_then(|i| i.into_keys().find(|name| !ingredient.tensors.contains_key(name))) {
            return Err(ZooError::Missing { path: ingredient.path.display().to_string(), tensor: missing });
        }
        if ingredient.tensors.is_empty() {
            return Err(ZooError::Empty(ingredient.path.display().to_string()));
        }
        Ok(ingredient)
    }

    fn add_shard(
        &mut self,
        path: PathBuf,
        file: &str,
        index: Option<&BTreeMap<String, String>>,
    ) -> Result<(), ZooError> {
        let handle = File::open(&path).map_err(ZooError::io(&path))?;
        // SAFETY: the map is read-only. Whoever truncates the file while it is used ends this process with SIGBUS, as with any map;
        // tasks resume, and the content hashes tell that the zoo changed.
        let map = unsafe { Mmap::map(&handle) }.map_err(ZooError::io(&path))?;
        // A hint; without it everything works.
        let _ = map.advise(Advice::Sequential);
        let malformed = |what: String| ZooError::Malformed { path: path.display().to_string(), what };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| malformed(e.to_string()))?;
        let data = header + 8;
        if map.len() != data + metadata.data_len() {
            return Err(malformed(format!(
                "expected {} bytes as the header says, found {}",
                data + metadata.data_len(),
                map.len()
            )));
        }
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            if index.is_some_and(|index| index.get(&name).is_none_or(|stated| stated != file)) {
                return Err(ZooError::ShardIndex {
                    path: self.path.join(INDEX).display().to_string(),
                    what: format!("tensor `{name}`: found in `{file}`, where the index does not have it"),
                });
            }
            let range = (data + info.data_offsets.0, data + info.data_offsets.1);
            let info = TensorInfo { dtype: info.dtype, shape: info.shape.clone(), shard, range };
            self.tensors.insert(name, info);
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    /// Short name, unique within its [`super::Zoo`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Absolute path of the file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The weights files, in the order of their names.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Index into [`Ingredient::shards`] of the file that holds a tensor.
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        self.tensors.get(tensor).map(|info| info.shard)
    }

    /// `config.json` of a Hugging Face folder.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref()
    }

    /// Names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Dtype and shape of a tensor.
    pub fn info(&self, tensor: &str) -> Option<&TensorInfo> {
        self.tensors.get(tensor)
    }

    /// The stored bytes of a tensor, little-endian, row-major.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn bytes(&self, tensor: &str) -> Result<&[u8], ZooError> {
        let info = self.tensors.get(tensor).ok_or_else(|| self.missing(tensor))?;
        Ok(&self.shards[info.shard].map[info.range.0..info.range.1])
    }

    /// Reads a float tensor into `out`, converted exactly (f64 on disk is rounded for f32).
    ///
    /// # Errors
    /// If there is no such tensor, it is no float, or it has not `out.len()` elements.
    pub fn read<T: Element>(&self, tensor: &str, out: &mut [T]) -> Result<(), ZooError> {
        let (dtype, bytes) = self.float_bytes(tensor, out.len())?;
        convert(dtype, bytes, out);
        Ok(())
    }

    /// Dtype and stored bytes of a float tensor of so many elements.
    pub(crate) fn float_bytes(&self, tensor: &str, elements: usize) -> Result<(Dtype, &[u8]), ZooError> {
        let info = self.tensors.get(tensor).ok_or_else(|| self.missing(tensor))?;
        if !is_float(info.dtype) || info.shape.iter().product::<usize>() != elements {
            return Err(ZooError::Tensor {
                path: self.path.display().to_string(),
                tensor: tensor.to_string(),
                what: format!("expected {elements} floats, found {:?} of shape {:?}", info.dtype, info.shape),
            });
        }
        Ok((info.dtype, self.bytes(tensor)?))
    }

    fn missing(&self, tensor: &str) -> ZooError {
        ZooError::Missing { path: self.path.display().to_string(), tensor: tensor.to_string() }
    }
}

/// Tensor name to file name.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ZooError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let fault = |what: String| ZooError::ShardIndex { path: path.display().to_string(), what };
    let text = fs::read(path).map_err(ZooError::io(path))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| fault(format!("not a shard index: {e}")))?;
    for (tensor, file) in &index.weight_map {
        let mut components = Path::new(file).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(fault(format!("tensor `{tensor}`: expected a file of the same folder, found `{file}`")));
        }
    }
    Ok(index.weight_map)
}
