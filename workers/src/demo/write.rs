//! Files of a zoo: each appears whole or not at all.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use mehl_soup::files::write_atomic;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

use super::DemoError;

/// What was asked for, in the zoo's folder.
const CLAIM: &str = "demo.json";

/// A tensor of a model.
pub struct StoredTensor {
    /// Name on disk.
    pub name: String,
    /// Dtype on disk.
    pub dtype: Dtype,
    /// Shape on disk.
    pub shape: Vec<usize>,
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
}

/// Files of a model folder beside its tensors: name and content.
pub type Companions = Vec<(&'static str, Content)>;

/// Content of a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// What is written may be changed.
    Json(Value),
    /// As it is.
    Bytes(Vec<u8>),
}

/// Zoos of two seeds, data sets or versions do not belong in one folder: one's test images are the other's training images.
///
/// # Errors
/// [`DemoError::Other`] with what differs, if the folder holds another zoo.
pub fn claim(folder: &Path, own: &Value) -> Result<(), DemoError> {
    let path = folder.join(CLAIM);
    let text = pretty(own);
    match fs::read(&path) {
        Ok(found) if found == text => Ok(()),
        Ok(found) => {
            let found: Value = serde_json::from_slice(&found).unwrap_or(Value::Null);
            let mut differences = Vec::new();
            compare("", own, &found, &mut differences);
            Err(DemoError::Other { folder: folder.display().to_string(), differences: differences.join("; ") })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => write(&path, &text),
        Err(source) => Err(DemoError::Io { path: path.display().to_string(), source }),
    }
}

/// Which fields differ, by their names with dots.
fn compare(name: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    if let (Value::Object(ours), Value::Object(theirs)) = (expected, found) {
        let missing = |key: &&String| !ours.contains_key(*key);
        for key in ours.keys().chain(theirs.keys().filter(missing)) {
            let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
            compare(&inner, &of(ours), &of(theirs), differences);
        }
    } else if expected != found {
        let shown = |value: &Value| if value.is_null() { "nothing".to_string() } else { value.to_string() };
        differences.push(format!("{name}: expected {}, found {}", shown(expected), shown(found)));
    }
}

/// Writes a model folder; it appears whole or not at all.
pub fn write_model(path: &Path, companions: &Companions, tensors: &[StoredTensor]) -> Result<(), DemoError> {
    whole_folder(path, |temporary| {
        for (name, content) in companions {
            match content {
                Content::Json(json) => write(&temporary.join(name), &pretty(json))?,
                Content::Bytes(bytes) => write(&temporary.join(name), bytes)?,
            }
        }
        let malformed = |e: safetensors::SafeTensorError| DemoError::Data(e.to_string());
        let mut views = Vec::new();
        for tensor in tensors {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).map_err(malformed)?;
            views.push((tensor.name.as_str(), view));
        }
        // transformers refuses files that do not say which library's layout they have.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let blob = safetensors::serialize(views, Some(metadata)).map_err(malformed)?;
        write(&temporary.join("model.safetensors"), &blob)
    })
}

/// Makes a folder under a hidden name, which the sweep's glob does not see, and renames it.
pub fn whole_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<(), DemoError>) -> Result<(), DemoError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.partial"));
    let io = |source| DemoError::Io { path: path.display().to_string(), source };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io)?;
    }
    fs::create_dir_all(&temporary).map_err(io)?;
    fill(&temporary)?;
    fs::rename(&temporary, path).map_err(io)
}

/// Writes a file, and the folders that it is in.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    let io = |source| DemoError::Io { path: path.display().to_string(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    write_atomic(path, bytes).map_err(io)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
