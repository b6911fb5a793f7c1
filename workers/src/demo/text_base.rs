//! What fine-tuning on texts starts from: a text encoder, with a head for the classes of the texts.

use std::collections::BTreeSet;
use std::path::Path;

use mehl_soup::source;
use mehl_soup::zoo::{ClassMap, Ingredient};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::DemoError;
use super::base::{Start, Untrained, companions, rename_classes};
use super::blank::random_head;
use super::write::{Content, StoredTensor, write_model};

/// How transformers names the parts of an encoder with a head for classes.
struct Architecture {
    model_type: &'static str,
    /// Of the model with the head.
    class: &'static str,
    /// What the encoder's names begin with in it.
    prefix: &'static str,
    /// Products of the head before the one that gives logits, `[width, width]`, whole names.
    products: &'static [&'static str],
    /// Norms of the head, `[width]`.
    norms: &'static [&'static str],
    /// What gives logits, `[classes, width]`.
    logits: &'static str,
    /// Whether products, norms and logits have biases.
    has_biases: bool,
}

const BERT: Architecture = Architecture {
    model_type: "bert",
    class: "BertForSequenceClassification",
    prefix: "bert.",
    products: &["bert.pooler.dense"],
    norms: &[],
    logits: "classifier",
    has_biases: true,
};
const ARCHITECTURES: [Architecture; 5] = [
    BERT,
    Architecture {
        model_type: "roberta",
        class: "RobertaForSequenceClassification",
        prefix: "roberta.",
        products: &["classifier.dense"],
        logits: "classifier.out_proj",
        ..BERT
    },
    Architecture {
        model_type: "xlm-roberta",
        class: "XLMRobertaForSequenceClassification",
        prefix: "roberta.",
        products: &["classifier.dense"],
        logits: "classifier.out_proj",
        ..BERT
    },
    Architecture {
        model_type: "distilbert",
        class: "DistilBertForSequenceClassification",
        prefix: "distilbert.",
        products: &["pre_classifier"],
        ..BERT
    },
    Architecture {
        model_type: "modernbert",
        class: "ModernBertForSequenceClassification",
        prefix: "model.",
        products: &["head.dense"],
        norms: &["head.norm"],
        logits: "classifier",
        has_biases: false,
    },
];

/// Names that say which part of an encoder without a head begins.
const ENCODER: [&str; 5] = ["embeddings.", "encoder.", "transformer.", "layers.", "final_norm."];
/// Buffers that older versions saved.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

/// A user's encoder, in f32: as it is if its head is one of these classes, else with a new head.
///
/// # Errors
/// If it is no text encoder that is fine-tuned here.
pub fn start(path: &Path, classes: &[String], seed: u64) -> Result<Start, DemoError> {
    let fault = |what: String| DemoError::Input(format!("{}: {what}", path.display()));
    if !source::of(path).is_folder(path) {
        return Err(fault("expected a folder with a model".to_string()));
    }
    let base = Ingredient::open(path).map_err(|error| DemoError::Input(error.to_string()))?;
    let config = base.config().ok_or_else(|| fault("expected a config.json, found none".to_string()))?;
    let found = config.get("model_type").and_then(Value::as_str).unwrap_or("none");
    let architecture = ARCHITECTURES.iter().find(|one| one.model_type == found).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|one| one.model_type).collect();
        fault(format!("model_type: expected one of {}, found {found}", known.join(", ")))
    })?;
    let logits = format!("{}.weight", architecture.logits);
    let mut tensors = encoder(&base, architecture)?;
    if tensors.is_empty() {
        return Err(fault(format!("expected tensors of a {found} encoder, found none")));
    }
    let width = ["hidden_size", "dim"].iter().find_map(|key| config.get(key)?.as_i64());
    let width = width.ok_or_else(|| fault("expected hidden_size in config.json, found none".to_string()))?;
    let names: BTreeSet<&String> = classes.iter().collect();
    let own = ClassMap::of(config).ok().flatten();
    let is_kept = base.info(&logits).is_some_and(|info| info.shape.first() == Some(&classes.len()))
        && own.is_some_and(|own| own.names.iter().collect::<BTreeSet<_>>() == names);
    tch::manual_seed(seed as i64);
    let mut untrained = Vec::new();
    for (name, shape) in head(architecture, width, classes.len() as i64) {
        if tensors.iter().any(|tensor| tensor.name == name) {
            continue;
        }
        tensors.push(match base.info(&name) {
            Some(_) if is_kept => stored(&base, &name, &name)?,
            _ => new(&name, &shape, architecture)?,
        });
        untrained.push(name);
    }
    let mut companions = companions(path)?;
    for (name, content) in &mut companions {
        if let ("config.json", Content::Json(config)) = (*name, content) {
            rename_classes(config, classes);
            for key in ["problem_type", "torch_dtype", "dtype"] {
                config.as_object_mut().map(|fields| fields.remove(key));
            }
            config["architectures"] = json!([architecture.class]);
            config["torch_dtype"] = json!("float32");
        }
    }
    let hash = content_hash(&tensors);
    let untrained = if is_kept { Untrained::Nothing } else { Untrained::Head(untrained) };
    let start = Start::new(untrained, Some(hash))?;
    write_model(&start.folder(), &companions, &tensors)?;
    Ok(start)
}

/// The tensors of an encoder, with the names that they have below a head; none of another head.
fn encoder(base: &Ingredient, architecture: &Architecture) -> Result<Vec<StoredTensor>, DemoError> {
    let mut tensors = Vec::new();
    for (name, _) in base.tensors() {
        let plain = name.strip_prefix(architecture.prefix).unwrap_or(name);
        let whole = format!("{}{plain}", architecture.prefix);
        let is_pooler = architecture.products.iter().any(|product| whole.starts_with(&format!("{product}.")));
        let is_own = ENCODER.iter().any(|part| plain.starts_with(part)) && !BUFFERS.contains(&plain);
        if is_own || is_pooler && whole.starts_with(architecture.prefix) {
            tensors.push(stored(base, name, &whole)?);
        }
    }
    Ok(tensors)
}

/// Names and shapes of a head.
fn head(architecture: &Architecture, width: i64, classes: i64) -> Vec<(String, Vec<i64>)> {
    let mut tensors = Vec::new();
    let mut add = |name: &str, shape: Vec<i64>, bias: bool| {
        if bias {
            tensors.push((format!("{name}.bias"), vec![shape[0]]));
        }
        tensors.push((format!("{name}.weight"), shape));
    };
    for product in architecture.products {
        add(product, vec![width, width], architecture.has_biases);
    }
    for norm in architecture.norms {
        add(norm, vec![width], architecture.has_biases);
    }
    // transformers gives logits a bias in each of them.
    add(architecture.logits, vec![classes, width], true);
    tensors
}

fn new(name: &str, shape: &[i64], architecture: &Architecture) -> Result<StoredTensor, DemoError> {
    let mut tensor = random_head(name, shape)?;
    if architecture.norms.iter().any(|norm| name == format!("{norm}.weight")) {
        tensor.bytes = vec![1.0_f32; shape[0] as usize].into_iter().flat_map(f32::to_le_bytes).collect();
    }
    Ok(tensor)
}

fn stored(base: &Ingredient, name: &str, wanted: &str) -> Result<StoredTensor, DemoError> {
    let refused = |error: mehl_soup::zoo::ZooError| DemoError::Input(error.to_string());
    let info = base.info(name).ok_or_else(|| DemoError::Input(format!("{name}: found no such tensor")))?;
    let mut values = vec![0.0_f32; info.numel()];
    base.read(name, &mut values).map_err(refused)?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(DemoError::Input(format!(
            "{}: {name}: expected finite values, found {value}",
            base.path().display()
        )));
    }
    Ok(StoredTensor {
        name: wanted.to_string(),
        dtype: Dtype::F32,
        shape: info.shape.clone(),
        bytes: values.into_iter().flat_map(f32::to_le_bytes).collect(),
    })
}

fn content_hash(tensors: &[StoredTensor]) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors {
        hasher.update(tensor.name.as_bytes()).update(&tensor.bytes);
    }
    hasher.finalize().to_hex().to_string()
}
