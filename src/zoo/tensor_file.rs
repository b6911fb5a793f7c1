//! Any one safetensors file, read without trust: data splits.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorInfo;

use super::error::ZooError;
use super::shard::Shard;
use crate::source::State;

/// A safetensors file whose header was checked. Tensors are read when they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    shard: Shard,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// Opens a file, whatever its name ends in.
    ///
    /// # Errors
    /// If it is no regular file, cannot be read, or is malformed.
    pub fn open(path: &Path) -> Result<Self, ZooError> {
        let (shard, tensors) = Shard::open_with_header(path)?;
        Ok(Self { shard, tensors: tensors.into_iter().collect() })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's header entry.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// A tensor's bytes: little-endian, row-major.
    ///
    /// # Errors
    /// If there is no such tensor, or the file cannot be read or was shortened.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, ZooError> {
        let missing = || ZooError::NoTensor { file: self.shard.path().to_path_buf(), tensor: name.to_string() };
        let (start, end) = self.info(name).ok_or_else(missing)?.data_offsets;
        let mut bytes = vec![0; end - start];
        self.shard.read_at(start, &mut bytes)?;
        Ok(bytes)
    }

    /// blake3 of the whole file, hexadecimal.
    ///
    /// # Errors
    /// If it cannot be read, or was changed since it was opened: what was read before is then of unknown contents.
    pub fn hash(&self) -> Result<String, ZooError> {
        let hash = self.shard.hash_file()?;
        match self.shard.state() {
            // Touched: the hash is of the contents as they are now, read after everything else.
            State::Same | State::Touched(_) => Ok(hash),
            State::Changed(reason) => Err(self.shard.changed(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    #[test]
    fn tensors_and_the_hash_are_those_of_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let (a, b) = (f32s("a", &[2], &[1.0, 2.0]), f32s("b", &[1, 1], &[3.0]));
        write_file(&path, &[a.clone(), b.clone()]);
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(file.info("b").unwrap().shape, [1, 1]);
        assert_eq!((file.read("a").unwrap(), file.read("b").unwrap()), (a.data, b.data));
        assert!(matches!(file.read("c"), Err(ZooError::NoTensor { .. })));
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(file.hash().unwrap(), blake3::hash(&whole).to_hex().to_string());

        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(file.read("b").and(file.read("a")), Err(ZooError::Changed { .. })));
        assert!(matches!(file.hash(), Err(ZooError::Changed { .. })));
    }
}
