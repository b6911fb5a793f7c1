//! The files beside the weights of a Hugging Face model: configuration, tokenizer, preprocessor.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use safetensors::Dtype;
use serde_json::Value;

use crate::source::{self, FileSource};
use crate::untrusted::{LARGEST_COMPANION, LARGEST_CONFIG};

/// Files that are copied, by exact name.
const NAMES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    MODULES,
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
];

/// What sentence-transformers makes of tokens; each module's configuration is in a folder of its own.
const MODULES: &str = "modules.json";

/// Whether a file of this name is copied: data that a model needs, never code. SentencePiece models end in `.model`.
fn is_companion(name: &str) -> bool {
    let data = |ends: [&str; 2]| ends.iter().any(|end| name.ends_with(end));
    NAMES.contains(&name)
        || ((name.starts_with("tokenizer") || name.starts_with("vocab")) && data([".json", ".txt"]))
        || (name.ends_with(".model") && !name.starts_with('.'))
}

/// Copies companions of the model in `from` to `to`, flushed to the disk; returns their names, sorted. Links that lead out of
/// the folder are passed over, and subfolders but for the configurations of sentence-transformers' modules. With a dtype,
/// `config.json` says so.
pub(super) fn copy(from: &Path, to: &Path, dtype: Option<Dtype>) -> io::Result<Vec<String>> {
    let mut copied = Vec::new();
    let files = source::of(from);
    for entry in files.list(from)? {
        // A name that is not UTF-8 is none of ours.
        let Some(name) = entry.file_name().and_then(OsStr::to_str).map(str::to_string) else { continue };
        if !is_companion(&name) {
            continue;
        }
        // A dangling link is no file of the model's either.
        let Some(own) = files.own_file(from, &name).ok().flatten() else { continue };
        let target = to.join(&name);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("`{name}`: {e}"));
        match dtype.filter(|_| name == "config.json") {
            Some(dtype) => {
                std::fs::write(&target, with_dtype(&files.read(&own, LARGEST_CONFIG).map_err(named)?, dtype)?)?
            }
            // Contents only, not modes: the copy must be writable and of the user's umask.
            None => std::fs::write(&target, files.read(&own, LARGEST_COMPANION).map_err(named)?)?,
        }
        std::fs::File::open(&target)?.sync_all()?;
        copied.push(name);
    }
    for name in module_folders(files, from)? {
        let Some(own) = files.own_file(&from.join(&name), "config.json").ok().flatten() else { continue };
        let shown = format!("{name}/config.json");
        let contents = files
            .read(&own, LARGEST_CONFIG)
            .map_err(|error| io::Error::new(error.kind(), format!("`{shown}`: {error}")))?;
        std::fs::create_dir_all(to.join(&name))?;
        let target = to.join(&name).join("config.json");
        std::fs::write(&target, contents)?;
        std::fs::File::open(&target)?.sync_all()?;
        std::fs::File::open(to.join(&name))?.sync_all()?;
        copied.push(shown);
    }
    copied.sort();
    copied.dedup();
    Ok(copied)
}

/// The model's own folders that `modules.json` names, by plain names.
fn module_folders(files: &dyn FileSource, from: &Path) -> io::Result<Vec<String>> {
    let Some(own) = files.own_file(from, MODULES).ok().flatten() else { return Ok(vec![]) };
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, format!("`{MODULES}`: not JSON: {error}"));
    let modules: Value = serde_json::from_slice(&files.read(&own, LARGEST_CONFIG)?).map_err(invalid)?;
    let paths = modules.as_array().into_iter().flatten().filter_map(|module| module.get("path")?.as_str());
    let is_own = |path: &&str| {
        let mut parts = Path::new(path).components();
        let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        // A folder that is a link would be somebody else's.
        let place = |path: &Path| files.canonical(path).ok();
        is_plain && place(from).map(|from| from.join(path)) == place(&from.join(path))
    };
    Ok(paths.filter(is_own).map(str::to_string).collect())
}

/// A configuration whose dtype fields, nested ones too, are changed; with `torch_dtype` if it had none.
fn with_dtype(config: &[u8], dtype: Dtype) -> io::Result<Vec<u8>> {
    let name = match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::F64 => "float64",
        _ => "float32",
    };
    fn change(value: &mut Value, name: &str) {
        let Value::Object(fields) = value else { return };
        for (key, value) in fields {
            if (key == "dtype" || key == "torch_dtype") && value.is_string() {
                *value = name.into();
            } else {
                change(value, name);
            }
        }
    }
    let mut value: Value = serde_json::from_slice(config)?;
    change(&mut value, name);
    if let Value::Object(fields) = &mut value
        && !fields.contains_key("dtype")
        && !fields.contains_key("torch_dtype")
    {
        fields.insert("torch_dtype".into(), name.into());
    }
    Ok(serde_json::to_vec_pretty(&value)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn data_is_copied_and_code_links_and_folders_are_not() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(&to).unwrap();
        fs::create_dir_all(from.join("tokenizer.json")).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        symlink("../secret", from.join("merges.txt")).unwrap();
        symlink("nowhere", from.join("vocab.json")).unwrap();
        let taken = ["config.json", "spiece.model", "tokenizer_config.json", "vocab.txt"];
        for name in taken.iter().chain(&["modeling_x.py", "tokenizer.py", "tokenizer.so", "README.md", "optimizer.pt"])
        {
            fs::write(from.join(name), format!("content of {name}")).unwrap();
        }
        assert_eq!(copy(&from, &to, None).unwrap(), taken);
        assert_eq!(fs::read_dir(&to).unwrap().count(), taken.len());
        assert_eq!(fs::read_to_string(to.join("vocab.txt")).unwrap(), "content of vocab.txt");
    }

    #[test]
    fn configurations_of_modules_are_copied_from_the_models_own_folders() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for folder in ["from/1_Pooling", "from/unnamed", "elsewhere", "to"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        symlink("../elsewhere", from.join("2_Linked")).unwrap();
        for folder in ["from/1_Pooling", "from/unnamed", "elsewhere"] {
            fs::write(root.path().join(folder).join("config.json"), folder).unwrap();
        }
        let paths = ["", "1_Pooling", "2_Linked", "../elsewhere", "/", "3_Normalize"];
        let modules: Vec<_> = paths.iter().map(|path| serde_json::json!({ "path": path })).collect();
        fs::write(from.join("modules.json"), serde_json::to_vec(&modules).unwrap()).unwrap();
        assert_eq!(copy(&from, &to, None).unwrap(), ["1_Pooling/config.json", "modules.json"]);
        assert_eq!(fs::read_to_string(to.join("1_Pooling/config.json")).unwrap(), "from/1_Pooling");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
    }

    #[test]
    fn a_companion_larger_than_any_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::File::create(from.join("vocab.txt")).unwrap().set_len(LARGEST_COMPANION + 1).unwrap();
        let error = copy(&from, &to, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("`vocab.txt`: expected at most"), "{error}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }

    #[test]
    fn the_configuration_says_the_new_dtype() {
        let change = |text: &str| -> Value {
            serde_json::from_slice(&with_dtype(text.as_bytes(), Dtype::BF16).unwrap()).unwrap()
        };
        let nested = change(r#"{"dtype":"float32","vision":{"torch_dtype":"float32"},"layers":2}"#);
        assert_eq!(nested, serde_json::json!({"dtype":"bfloat16","vision":{"torch_dtype":"bfloat16"},"layers":2}));
        assert_eq!(change("{}"), serde_json::json!({"torch_dtype":"bfloat16"}));
        assert!(with_dtype(b"{", Dtype::F16).is_err());
    }
}
