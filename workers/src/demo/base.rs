//! What fine-tuning starts from: a small model without training, or one that the user has, with a new head if its classes are others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mehl_soup::source;
use mehl_soup::sweep::spec::Family;
use mehl_soup::untrusted::{LARGEST_COMPANION, LARGEST_CONFIG};
use mehl_soup::zoo::Zoo;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::DemoError;
use super::blank::{Blank, random_head};
use super::trainee::Trainee;
use super::write::{Companions, Content, write_model};
use crate::data::images::classes::ClassNames;
use crate::data::images::preprocessor;

/// Modules that tell classes, by their last name: ViT and DeiT, timm's, ResNet's.
const HEADS: [&str; 6] = ["classifier", "cls_classifier", "distillation_classifier", "head", "head_dist", "fc"];

/// Files of a tokenizer, which go along as they are.
const TOKENIZER: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/// What is left to be trained before fine-tuning.
pub enum Untrained {
    /// Everything.
    All,
    /// The parameters of the head, by name.
    Head(Vec<String>),
    /// Nothing.
    Nothing,
}

/// A model to begin with, in a folder of its own.
pub struct Start {
    place: TempDir,
    /// What of it is to be trained.
    pub untrained: Untrained,
    /// Content hash of the user's model, if it is one.
    pub hash: Option<String>,
}

impl Start {
    /// With a folder that is to be written.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn new(untrained: Untrained, hash: Option<String>) -> Result<Self, DemoError> {
        Ok(Self { place: place()?, untrained, hash })
    }

    /// A small model without training.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn blank(blank: &Blank<'_>, seed: u64) -> Result<Self, DemoError> {
        let start = Self { place: place()?, untrained: Untrained::All, hash: None };
        blank.write(&start.folder(), seed)?;
        Ok(start)
    }

    /// The user's model, in f32. It gets a new head unless it tells `classes`: by their names if its configuration has names, else by their number;
    /// in this order if `ordered`.
    ///
    /// # Errors
    /// If it is no model of a family that is fine-tuned here, or has values that are not finite.
    pub fn of_user(path: &Path, classes: &[String], ordered: bool, seed: u64) -> Result<Self, DemoError> {
        let fault = |what: String| DemoError::Input(format!("{}: {what}", path.display()));
        if !source::of(path).is_folder(path) {
            return Err(fault("expected a folder with a model".to_string()));
        }
        let model = Trainee::open(path)?;
        let family = model.family();
        if !matches!(family, Family::Vit | Family::TimmVit | Family::Resnet) {
            return Err(fault(format!("expected a model of family vit, timm-vit or resnet, found {family}")));
        }
        let zoo = Zoo::open(&[path.to_path_buf()]).map_err(|e| DemoError::Input(e.to_string()))?;
        let hashes = zoo.hash(None, &mut |_, _| {}).map_err(|e| DemoError::Input(e.to_string()))?;
        let mut start = Self {
            place: place()?,
            untrained: Untrained::Nothing,
            hash: hashes.ingredients.first().map(|of| of.total.clone()),
        };
        let (mut tensors, mut companions) = (model.tensors()?, companions(path)?);
        for config in companions.iter_mut().filter_map(json) {
            for key in ["dtype", "torch_dtype"] {
                if config.get(key).is_some() {
                    config[key] = json!("float32");
                }
            }
        }
        if !tells(&model, classes, ordered) {
            let heads: Vec<String> = model.model().parameters().keys().filter(|name| is_head(name)).cloned().collect();
            if heads.is_empty() {
                return Err(fault(format!("expected a head named one of {}, found none", HEADS.join(", "))));
            }
            tch::manual_seed(seed as i64);
            for tensor in tensors.iter_mut().filter(|tensor| heads.contains(&tensor.name)) {
                let mut shape: Vec<i64> = tensor.shape.iter().map(|&d| d as i64).collect();
                shape[0] = classes.len() as i64;
                *tensor = random_head(&tensor.name, &shape)?;
            }
            for (name, content) in &mut companions {
                if let ("config.json", Content::Json(config)) = (*name, content) {
                    rename_classes(config, classes);
                }
            }
            start.untrained = Untrained::Head(heads);
        }
        write_model(&start.folder(), &companions, &tensors)?;
        Ok(start)
    }

    /// The model folder.
    pub fn folder(&self) -> std::path::PathBuf {
        self.place.path().join("start")
    }
}

fn json<'a>((_, content): &'a mut (&'static str, Content)) -> Option<&'a mut Value> {
    match content {
        Content::Json(json) => Some(json),
        Content::Bytes(_) => None,
    }
}

fn place() -> Result<TempDir, DemoError> {
    tempfile::tempdir().map_err(|source| DemoError::Io { path: std::env::temp_dir().display().to_string(), source })
}

/// The files of a model folder that say what the model is and takes.
///
/// # Errors
/// If one is there and cannot be read.
pub fn companions(folder: &Path) -> Result<Companions, DemoError> {
    let mut companions = Companions::new();
    for name in ["config.json", preprocessor::FILE] {
        let path = folder.join(name);
        match source::of(&path).read(&path, LARGEST_CONFIG) {
            Ok(bytes) => {
                let json = serde_json::from_slice(&bytes)
                    .map_err(|e| DemoError::Input(format!("{}: not JSON: {e}", path.display())))?;
                companions.push((name, Content::Json(json)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DemoError::Io { path: path.display().to_string(), source }),
        }
    }
    for name in TOKENIZER {
        let path = folder.join(name);
        match source::of(&path).read(&path, LARGEST_COMPANION) {
            Ok(bytes) => companions.push((name, Content::Bytes(bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DemoError::Io { path: path.display().to_string(), source }),
        }
    }
    Ok(companions)
}

/// Whether a model's outputs are these classes.
fn tells(model: &Trainee, classes: &[String], ordered: bool) -> bool {
    if model.model().classes() != Some(classes.len() as i64) {
        return false;
    }
    match ClassNames::find(None, model.start().config(), None) {
        // A map that cannot be used says nothing for certain: a new head is made.
        Err(_) => false,
        Ok(None) => true,
        Ok(Some(own)) if ordered => own.names == classes,
        Ok(Some(own)) => own.names.iter().collect::<BTreeSet<_>>() == classes.iter().collect::<BTreeSet<_>>(),
    }
}

fn is_head(name: &str) -> bool {
    let mut parts = name.rsplit('.').skip(1);
    parts.next().is_some_and(|module| HEADS.contains(&module))
}

/// Puts other classes in a configuration of transformers or timm.
pub fn rename_classes(config: &mut Value, classes: &[String]) {
    let timm = config.get("architecture").is_some();
    let Some(fields) = config.as_object_mut() else { return };
    if timm {
        fields.insert("num_classes".to_string(), json!(classes.len()));
        fields.insert("label_names".to_string(), json!(classes));
        fields.remove("label_descriptions");
        for part in ["pretrained_cfg", "model_args"] {
            if let Some(fields) = fields.get_mut(part).and_then(Value::as_object_mut) {
                fields.remove("label_names");
                fields.remove("label_descriptions");
                if fields.contains_key("num_classes") {
                    fields.insert("num_classes".to_string(), json!(classes.len()));
                }
            }
        }
    } else {
        let names: BTreeMap<String, &String> =
            classes.iter().enumerate().map(|(i, name)| (i.to_string(), name)).collect();
        let ids: BTreeMap<&String, usize> = classes.iter().enumerate().map(|(i, name)| (name, i)).collect();
        fields.insert("id2label".to_string(), json!(names));
        fields.insert("label2id".to_string(), json!(ids));
        fields.remove("num_labels");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_known_by_the_module_that_they_are() {
        for name in ["classifier.weight", "fc.bias", "module.head.weight", "head_dist.bias"] {
            assert!(is_head(name), "{name}");
        }
        for name in ["blocks.0.mlp.fc1.weight", "norm.weight", "fc.0.weight", "head"] {
            assert!(!is_head(name), "{name}");
        }
    }

    #[test]
    fn configurations_get_the_new_classes_where_their_library_has_them() {
        let classes = ["ant".to_string(), "bee".to_string()];
        let mut config = json!({"model_type": "vit", "num_labels": 3, "id2label": {"0": "x", "1": "y", "2": "z"}});
        rename_classes(&mut config, &classes);
        let expected =
            json!({"model_type": "vit", "id2label": {"0": "ant", "1": "bee"}, "label2id": {"ant": 0, "bee": 1}});
        assert_eq!(config, expected);
        let mut config = json!({"architecture": "resnet50", "num_classes": 1000, "model_args": {"num_classes": 1000},
            "pretrained_cfg": {"num_classes": 1000, "label_names": ["x"], "mean": [0.5]}});
        rename_classes(&mut config, &classes);
        let expected = json!({"architecture": "resnet50", "num_classes": 2, "label_names": ["ant", "bee"],
            "model_args": {"num_classes": 2}, "pretrained_cfg": {"num_classes": 2, "mean": [0.5]}});
        assert_eq!(config, expected);
    }
}
