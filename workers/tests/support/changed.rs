//! Copies of the fixtures' models, changed: what must be refused.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mehl_soup::sweep::spec::ZooSpec;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::fixture;
use super::golden::try_load;

/// The model in a folder, or its file where the folder has no configuration.
pub fn ingredient(folder: &Path) -> PathBuf {
    let config = folder.join("config.json").exists();
    if config { folder.to_path_buf() } else { folder.join("model.safetensors") }
}

/// A copy of a fixture's tensors, changed, beside the configuration given.
pub struct Changed {
    pub folder: tempfile::TempDir,
    pub tensors: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Changed {
    pub fn copy(of: &str) -> Self {
        let bytes = std::fs::read(fixture(of).join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let own = |(name, view): (String, TensorView<'_>)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let tensors = tensors.tensors().into_iter().map(own).collect();
        let folder = tempfile::tempdir().unwrap();
        copy_json(&fixture(of), folder.path());
        Self { folder, tensors }
    }

    /// Adds zeros, or puts them in a tensor's place.
    pub fn zeros(mut self, name: &str, shape: &[usize]) -> Self {
        let bytes = 4 * shape.iter().product::<usize>();
        self.tensors.insert(name.to_string(), (Dtype::F32, shape.to_vec(), vec![0; bytes]));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        assert!(self.tensors.remove(name).is_some(), "{name}");
        self
    }

    pub fn under(mut self, prefix: &str) -> Self {
        self.tensors = self.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        self
    }

    pub fn config(self, pointer: &str, value: serde_json::Value) -> Self {
        self.json("config.json", pointer, value)
    }

    /// Changes what is at a place of a JSON file, or adds it to an object.
    pub fn json(self, file: &str, pointer: &str, value: serde_json::Value) -> Self {
        let path = self.folder.path().join(file);
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(parent).unwrap() {
            serde_json::Value::Object(fields) => _ = fields.insert(key.to_string(), value),
            _ => *config.pointer_mut(pointer).unwrap() = value,
        }
        std::fs::write(path, config.to_string()).unwrap();
        self
    }

    pub fn write(&self) -> PathBuf {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        std::fs::write(self.folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
        ingredient(self.folder.path())
    }

    /// Asserts that it is refused, saying all of this.
    pub fn refused(&self, spec: &ZooSpec, says: &[&str]) {
        let Err(error) = try_load(&[self.write()], spec) else { panic!("expected a refusal that says {says:?}") };
        let error = error.to_string();
        for part in says {
            assert!(error.contains(part), "expected `{part}` in:\n{error}");
        }
    }
}

/// Copies JSON files, those of subfolders too.
fn copy_json(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_json(&path, &target);
        } else if path.extension().is_some_and(|ending| ending == "json") {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
