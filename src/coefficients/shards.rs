//! How a written model is split in safetensors files, and each file's header.

use std::collections::{BTreeMap, HashMap};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::zoo::{INDEX, Ingredient, SINGLE, is_mixable};

/// One file to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShardPlan {
    pub file_name: String,
    /// In the order in which they are written: widest elements first, so that every tensor is aligned; then by name.
    pub tensors: Vec<PlannedTensor>,
}

/// One tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannedTensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: usize,
}

impl ShardPlan {
    /// Bytes of the file's tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes as u64).sum()
    }

    /// The file up to its first tensor: length, JSON, padding to 8 bytes.
    pub fn header(&self) -> Vec<u8> {
        let mut offset = 0;
        let entries = self.tensors.iter().map(|tensor| {
            let begin = offset;
            offset += tensor.bytes;
            let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (begin, offset) };
            (tensor.name.clone(), info)
        });
        // Transformers refuses files without a format.
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let metadata = Metadata::new(Some(format), entries.collect()).expect("offsets were counted from shapes");
        let mut json = serde_json::to_vec(&metadata).expect("plain data serializes");
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json);
        header
    }
}

/// Splits the tensors of `like` as it is split itself, or so that no file has more than `max_bytes` of tensors (a larger
/// tensor has a file of its own). Float tensors get `dtype`, where one is asked for, else their `usual` one.
pub(super) fn plan(
    like: &Ingredient,
    usual: &dyn Fn(&str) -> Option<Dtype>,
    dtype: Option<Dtype>,
    max_bytes: Option<u64>,
) -> Vec<ShardPlan> {
    let tensor = |name: &String| {
        let info = like.info(name).expect("shards name the ingredient's own tensors");
        let dtype = dtype.filter(|_| is_mixable(info.dtype)).or_else(|| usual(name)).unwrap_or(info.dtype);
        let bytes = info.numel() * dtype.bitsize() / 8;
        PlannedTensor { name: name.clone(), dtype, shape: info.shape.clone(), bytes }
    };
    let as_is = like.shards().iter().map(|shard| shard.tensors().iter().map(tensor).collect::<Vec<_>>());
    let mut parts: Vec<Vec<PlannedTensor>> = match max_bytes {
        None => as_is.collect(),
        Some(max_bytes) => {
            let mut parts: Vec<Vec<PlannedTensor>> = Vec::new();
            let mut held = 0;
            for tensor in as_is.flatten() {
                let bytes = tensor.bytes as u64;
                match parts.last_mut() {
                    Some(part) if held + bytes <= max_bytes => {
                        held += bytes;
                        part.push(tensor);
                    }
                    _ => {
                        held = bytes;
                        parts.push(vec![tensor]);
                    }
                }
            }
            parts
        }
    };
    let count = parts.len();
    for part in &mut parts {
        part.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    }
    // Named anew: names of a foreign index could be those of other files in the folder.
    let file_name = |i: usize| {
        if count == 1 { SINGLE.to_string() } else { format!("model-{:05}-of-{count:05}.safetensors", i + 1) }
    };
    parts.into_iter().enumerate().map(|(i, tensors)| ShardPlan { file_name: file_name(i), tensors }).collect()
}

/// The index that several files need: name and content.
pub(super) fn index(shards: &[ShardPlan]) -> Option<(&'static str, Vec<u8>)> {
    if shards.len() < 2 {
        return None;
    }
    let map: BTreeMap<&str, &str> = shards
        .iter()
        .flat_map(|shard| shard.tensors.iter().map(|tensor| (tensor.name.as_str(), shard.file_name.as_str())))
        .collect();
    let total: u64 = shards.iter().map(ShardPlan::bytes).sum();
    let json = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    Some((INDEX, serde_json::to_vec_pretty(&json).expect("plain data serializes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{bytes, f32s, write_file, write_sharded};

    fn names(plan: &[ShardPlan]) -> Vec<(&str, Vec<&str>)> {
        plan.iter().map(|s| (s.file_name.as_str(), s.tensors.iter().map(|t| t.name.as_str()).collect())).collect()
    }

    #[test]
    fn split_as_it_was_or_by_size() {
        let root = tempfile::tempdir().unwrap();
        let tensor = |name: &str| f32s(name, &[2], &[1.0, 2.0]);
        write_sharded(root.path(), &[vec![tensor("a"), tensor("d")], vec![tensor("b"), tensor("c")]]);
        let like = Ingredient::open(root.path()).unwrap();
        let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        assert_eq!(names(&plan(&like, &|_| None, None, None)), [(one, vec!["a", "d"]), (two, vec!["b", "c"])]);
        assert_eq!(names(&plan(&like, &|_| None, None, Some(24))), [(one, vec!["a", "b", "d"]), (two, vec!["c"])]);
        assert_eq!(names(&plan(&like, &|_| None, None, Some(1 << 20))), [(SINGLE, vec!["a", "b", "c", "d"])]);
        assert_eq!(plan(&like, &|_| None, None, Some(0)).len(), 4);
        // Half the bytes a tensor, twice the tensors a file.
        assert_eq!(plan(&like, &|_| None, Some(Dtype::F16), Some(8)).len(), 2);
    }

    #[test]
    fn the_header_is_one_that_safetensors_reads() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.safetensors");
        write_file(&path, &[bytes("n", Dtype::U8, &[3], vec![1, 2, 3]), f32s("w", &[2, 1], &[1.0, 2.0])]);
        let [shard] = plan(&Ingredient::open(&path).unwrap(), &|_| None, None, None).try_into().unwrap();
        let mut file = shard.header();
        assert_eq!(file.len() % 8, 0);
        file.resize(file.len() + shard.bytes() as usize, 0);
        let (_, read) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(read.offset_keys(), ["w", "n"], "the wider dtype comes first");
        assert_eq!(read.metadata().as_ref().unwrap()["format"], "pt");
    }
}
