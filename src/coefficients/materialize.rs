//! From coefficients to a model that loads where the ingredients came from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::weights_file::{self, Planned};
use super::{CoefficientsFile, mix_tensor, model_card};
use crate::files::{parent, sync_folder, write_atomically};
use crate::zoo::{HashCache, Ingredient, Zoo, ZooError, is_float};

/// Files of a Hugging Face folder that are not weights and belong to the model: never code.
const COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
];

/// What to write, and where.
#[derive(Debug, Clone)]
pub struct MaterializeOptions {
    /// The model's folder.
    pub out: PathBuf,
    /// Dtype of float tensors; `None` for the ingredients' own.
    pub dtype: Option<Dtype>,
    /// Largest weights file, in bytes of tensors; `None` for files cut as the first ingredient's are.
    pub max_shard_bytes: Option<u64>,
    /// Look for the ingredients here instead of where they were; they are told by their content.
    pub zoo: Option<Vec<PathBuf>>,
    /// Replace a folder that is there.
    pub overwrite: bool,
}

/// Why no model was written. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum MaterializeError {
    /// An ingredient is at fault.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// An ingredient is not what it was.
    #[error("{path}: expected content {expected} as the coefficients were learned on, found {found}")]
    Changed {
        /// The ingredient.
        path: String,
        /// Its hash then.
        expected: String,
        /// Its hash now.
        found: String,
    },
    /// None of the given ingredients has the content that the coefficients were learned on.
    #[error("ingredient `{name}` with content {hash} is not among the given ones")]
    NotFound {
        /// Its name.
        name: String,
        /// Its hash.
        hash: String,
    },
    /// The folder is there already.
    #[error("{0} exists and is not empty; choose another folder, or overwrite it with --overwrite")]
    Exists(String),
    /// The disk is too small.
    #[error("{path}: expected {needed} bytes of free space, found {available}")]
    NoSpace {
        /// The folder.
        path: String,
        /// What the model takes.
        needed: u64,
        /// What there is.
        available: u64,
    },
    /// A value is too large for the dtype asked for.
    #[error("tensor `{tensor}`: a value overflows {dtype:?}; choose a wider dtype")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The dtype.
        dtype: Dtype,
    },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's message.
        source: io::Error,
    },
}

/// Writes the model's folder under a temporary name and renames it. `progress` is told bytes done and in all.
///
/// Mixed tensors are summed in f64 from the original files (see [`mix_tensor`]), all others copied from the first ingredient.
///
/// # Errors
/// As [`MaterializeError`].
pub fn materialize(
    file: &CoefficientsFile,
    options: &MaterializeOptions,
    cache: Option<&HashCache>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), MaterializeError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| MaterializeError::Io { path, source }
    };
    let out = &options.out;
    let occupied = out.exists() && fs::read_dir(out).map_err(io(out))?.next().is_some();
    if occupied && !options.overwrite {
        return Err(MaterializeError::Exists(out.display().to_string()));
    }
    let zoo = find_zoo(file, options, cache)?;
    let shards = plan(&zoo.ingredients()[0], options);
    let needed: u64 = shards.iter().flat_map(|(_, tensors)| tensors).map(|t| t.bytes() as u64).sum();
    let folder = parent(out);
    fs::create_dir_all(folder).map_err(io(folder))?;
    check_space(folder, needed)?;
    let temporary = tempfile::Builder::new().prefix(".materialize-").tempdir_in(folder).map_err(io(folder))?;
    write_folder(file, &zoo, &shards, temporary.path(), options, needed, progress)?;
    sync_folder(temporary.path()).map_err(io(out))?;
    // Temporary folders are private; a model is meant to be read by whoever may read its parent.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).map_err(io(out))?;
    }
    if out.exists() {
        // Two folders cannot be exchanged in one step everywhere; the old one is moved aside and goes last.
        let aside = tempfile::Builder::new().prefix(".replaced-").tempdir_in(folder).map_err(io(folder))?;
        fs::rename(out, aside.path().join("old")).map_err(io(out))?;
        if let Err(error) = fs::rename(temporary.path(), out) {
            fs::rename(aside.path().join("old"), out).map_err(io(out))?;
            return Err(io(out)(error));
        }
    } else {
        fs::rename(temporary.path(), out).map_err(io(out))?;
    }
    // It has another name now, and nothing to remove.
    let _ = temporary.keep();
    sync_folder(folder).map_err(io(folder))
}

/// The ingredients in the order of `A`'s rows, with the content that they had.
fn find_zoo(
    file: &CoefficientsFile,
    options: &MaterializeOptions,
    cache: Option<&HashCache>,
) -> Result<Zoo, MaterializeError> {
    let stated = &file.about.ingredients;
    let Some(elsewhere) = &options.zoo else {
        let zoo = Zoo::open(&stated.iter().map(|i| i.path.clone()).collect::<Vec<_>>())?;
        let hashes = zoo.hash(cache, &mut |_, _| {})?;
        for (ingredient, now) in stated.iter().zip(&hashes.ingredients) {
            if ingredient.hash != now.total {
                return Err(MaterializeError::Changed {
                    path: ingredient.path.display().to_string(),
                    expected: ingredient.hash.clone(),
                    found: now.total.clone(),
                });
            }
        }
        return Ok(zoo);
    };
    let given = Zoo::open(elsewhere)?;
    let hashes = given.hash(cache, &mut |_, _| {})?;
    let mut paths = Vec::new();
    for ingredient in stated {
        let at = hashes.ingredients.iter().position(|now| now.total == ingredient.hash).ok_or_else(|| {
            MaterializeError::NotFound { name: ingredient.name.clone(), hash: ingredient.hash.clone() }
        })?;
        paths.push(given.ingredients()[at].path().to_path_buf());
    }
    Ok(Zoo::open(&paths)?)
}

/// Which tensor goes to which file.
fn plan(first: &Ingredient, options: &MaterializeOptions) -> Vec<(String, Vec<Planned>)> {
    let planned = |name: &str| {
        let info = first.info(name)?;
        let dtype = match options.dtype {
            Some(dtype) if is_float(info.dtype) => dtype,
            _ => info.dtype,
        };
        Some(Planned { name: name.to_string(), dtype, shape: info.shape.clone() })
    };
    let mut files: Vec<Vec<Planned>> = vec![vec![]; first.shards().len()];
    match options.max_shard_bytes {
        None => {
            for name in first.tensor_names() {
                if let (Some(tensor), Some(shard)) = (planned(name), first.shard_of(name)) {
                    files[shard].push(tensor);
                }
            }
        }
        Some(limit) => {
            files = vec![vec![]];
            let mut bytes = 0;
            for tensor in first.tensor_names().filter_map(planned) {
                let last = files.len() - 1;
                if bytes + tensor.bytes() as u64 > limit && !files[last].is_empty() {
                    files.push(vec![]);
                    bytes = 0;
                }
                bytes += tensor.bytes() as u64;
                let last = files.len() - 1;
                files[last].push(tensor);
            }
        }
    }
    let count = files.len();
    let name = |i: usize| {
        if count == 1 {
            "model.safetensors".to_string()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", i + 1)
        }
    };
    files.into_iter().enumerate().map(|(i, tensors)| (name(i), tensors)).collect()
}

fn check_space(folder: &Path, needed: u64) -> Result<(), MaterializeError> {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available < needed {
        return Err(MaterializeError::NoSpace { path: folder.display().to_string(), needed, available });
    }
    Ok(())
}

fn write_folder(
    file: &CoefficientsFile,
    zoo: &Zoo,
    shards: &[(String, Vec<Planned>)],
    folder: &Path,
    options: &MaterializeOptions,
    total: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), MaterializeError> {
    let first = &zoo.ingredients()[0];
    let columns: Vec<Vec<f64>> = (0..file.coefficients.groups()).map(|l| file.coefficients.column(l)).collect();
    let mut done = 0;
    let mut weight_map = BTreeMap::new();
    for (name, tensors) in shards {
        let path = folder.join(name);
        let shown = options.out.join(name).display().to_string();
        let mut fill = |planned: &Planned, buffer: &mut Vec<u8>| -> Result<(), Fault> {
            write_tensor(file, zoo, &columns, planned, buffer)?;
            done += buffer.len() as u64;
            progress(done, total);
            Ok(())
        };
        weights_file::write(&path, tensors, &mut fill).map_err(|fault| match fault {
            Fault::Io(source) => MaterializeError::Io { path: shown, source },
            Fault::Other(error) => *error,
        })?;
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), name.clone())));
    }
    let write = |name: &str, bytes: &[u8]| {
        write_atomically(&folder.join(name), bytes)
            .map_err(|source| MaterializeError::Io { path: options.out.join(name).display().to_string(), source })
    };
    if shards.len() > 1 {
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
    }
    if first.path().is_dir() {
        for name in COMPANIONS {
            let path = first.path().join(name);
            // A link could point anywhere.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if !meta.is_file() {
                continue;
            }
            let mut bytes =
                fs::read(&path).map_err(|source| MaterializeError::Io { path: path.display().to_string(), source })?;
            if let (Some(dtype), "config.json", Some(config)) = (options.dtype, name, first.config()) {
                bytes = with_dtype(config, dtype);
            }
            write(name, &bytes)?;
        }
    }
    write("coefficients.safetensors", &file.to_bytes())?;
    write("README.md", model_card::render(file, zoo).as_bytes())
}

/// `config.json` that names the dtype its weights now have.
fn with_dtype(config: &serde_json::Value, dtype: Dtype) -> Vec<u8> {
    let word = match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F64 => "float64",
        _ => "float32",
    };
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        let key = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
        fields.insert(key.to_string(), word.into());
    }
    format!("{config:#}\n").into_bytes()
}

/// A fault while one file is written.
enum Fault {
    Io(io::Error),
    Other(Box<MaterializeError>),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<MaterializeError> for Fault {
    fn from(error: MaterializeError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<ZooError> for Fault {
    fn from(error: ZooError) -> Self {
        Self::Other(Box::new(error.into()))
    }
}

fn write_tensor(
    file: &CoefficientsFile,
    zoo: &Zoo,
    columns: &[Vec<f64>],
    planned: &Planned,
    buffer: &mut Vec<u8>,
) -> Result<(), Fault> {
    let first = &zoo.ingredients()[0];
    let stored = first.info(&planned.name).map(|info| info.dtype);
    let group = file.about.tensors.get(&planned.name);
    if group.is_none() && stored == Some(planned.dtype) {
        buffer.extend_from_slice(first.bytes(&planned.name)?);
        return Ok(());
    }
    let mut values = vec![0f32; planned.shape.iter().product()];
    match group {
        Some(&group) => mix_tensor(zoo, &planned.name, &columns[group], &mut values)?,
        None => first.read(&planned.name, &mut values)?,
    }
    weights_file::encode(&values, planned.dtype, buffer)
        .ok_or_else(|| MaterializeError::Overflow { tensor: planned.name.clone(), dtype: planned.dtype })?;
    Ok(())
}
