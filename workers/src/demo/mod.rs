//! `mehl-soup demo`: a zoo made here by real fine-tuning runs on UCI digits, and a sweep over it with every method.

mod digits;
mod fine_tune;

use std::fs;
use std::path::{Path, PathBuf};

use mehl_soup::files::write_atomic;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::TchError;

pub use digits::{Digits, Parts};
pub use fine_tune::{Recipe, Trainee};

/// Changes whenever the demo makes another zoo of the same seed.
const VERSION: u32 = 1;

/// Why the demo cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The shipped data is damaged.
    #[error("digits: {0}")]
    Data(String),
    /// The folder holds another demo.
    #[error("{folder} holds another demo: expected {expected}found {found}choose another --out, or remove it")]
    Other {
        /// The folder.
        folder: String,
        /// What was asked for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's message.
        source: std::io::Error,
    },
    /// libtorch refused.
    #[error("training the demo's zoo: {0}")]
    Torch(#[from] TchError),
    /// A model cannot be scored.
    #[error("training the demo's zoo: {0}")]
    Engine(#[from] mehl_soup::runner::engine::EngineError),
}

/// Trains the zoo and writes it beside its data and a specification: `base/`, `zoo/*`, `data/*.safetensors`, `sweep.toml`. What is there
/// already is kept. Returns the specification's path.
///
/// `seed` decides the split of the data, the base model and the hyperparameters; `tell` is told of every run.
///
/// # Errors
/// If something cannot be written.
pub fn make(folder: &Path, seed: u64, ingredients: usize, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, DemoError> {
    let spec = folder.join("sweep.toml");
    claim(folder, seed, ingredients)?;
    let parts = Digits::all()?.parts(seed);
    for (name, part) in [("learn", &parts.learn), ("select", &parts.select), ("test", &parts.test)] {
        let path = folder.join("data").join(format!("{name}.safetensors"));
        if !path.exists() {
            part.write(&path)?;
        }
    }
    let (train, select) = (parts.train.to_split()?, parts.select.to_split()?);
    let missing: Vec<usize> = (0..ingredients).filter(|&i| !ingredient(folder, i).exists()).collect();
    if !missing.is_empty() {
        tell(&format!("training a base model on {} images", parts.base.len()));
        let mut base = Trainee::new(seed)?;
        base.train(&parts.base.to_split()?, &Recipe::base(seed))?;
        let score = base.score(&select)?;
        tell(&format!("base: select loss {:.4}, accuracy {:.4}", score.loss, score.accuracy));
        if !folder.join("base").exists() {
            write_model(&folder.join("base"), &base, None)?;
        }
        for i in missing {
            let recipe = Recipe::random(seed, i);
            let mut model = base.fork()?;
            model.train(&train, &recipe)?;
            let score = model.score(&select)?;
            tell(&format!(
                "fine-tuned {}/{ingredients}: lr {:.1e}, {} epochs, smoothing {:.2}: select loss {:.4}, accuracy {:.4}",
                i + 1,
                recipe.learning_rate,
                recipe.epochs,
                recipe.label_smoothing,
                score.loss,
                score.accuracy
            ));
            write_model(&ingredient(folder, i), &model, Some(&recipe))?;
        }
    }
    write(&spec, SPEC.as_bytes())?;
    Ok(spec)
}

const SPEC: &str = r#"# The demo's sweep: every method once. Batch, inner epochs and model batch suit a few hundred learn samples; they were chosen by select loss on
# zoos of other seeds.
name = "digits"

[zoo]
ingredients = ["zoo/*"]

[data]
learn = "data/learn.safetensors"
select = "data/select.safetensors"
test = "data/test.safetensors"

[soup]
model_batch = 7
batch = 32
inner_epochs = 15

[search]
strategy = "grid"
greedy_baseline = true

[search.space]
method = { choice = ["best", "uniform", "greedy", "learned", "learned+", "hl", "hl+", "mehl", "mehl+"] }
"#;

/// Zoos of two seeds or versions do not belong in one folder: one's test images are the other's training images.
fn claim(folder: &Path, seed: u64, ingredients: usize) -> Result<(), DemoError> {
    let path = folder.join("demo.json");
    let own = format!("{:#}\n", serde_json::json!({ "version": VERSION, "seed": seed, "ingredients": ingredients }));
    match fs::read_to_string(&path) {
        Ok(found) if found == own => Ok(()),
        Ok(found) => Err(DemoError::Other { folder: folder.display().to_string(), expected: own, found }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => write(&path, own.as_bytes()),
        Err(source) => Err(DemoError::Io { path: path.display().to_string(), source }),
    }
}

fn ingredient(folder: &Path, index: usize) -> PathBuf {
    folder.join("zoo").join(format!("run-{index:02}"))
}

/// Writes a Hugging Face folder; it appears whole or not at all.
fn write_model(path: &Path, model: &Trainee, recipe: Option<&Recipe>) -> Result<(), DemoError> {
    // Hidden from the sweep's glob until it is whole.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.partial"));
    let io = |source| DemoError::Io { path: path.display().to_string(), source };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io)?;
    }
    write(&temporary.join("config.json"), &pretty(&fine_tune::config()))?;
    if let Some(recipe) = recipe {
        let json = serde_json::to_value(recipe).map_err(|e| DemoError::Data(e.to_string()))?;
        write(&temporary.join("training.json"), &pretty(&json))?;
    }
    let mut tensors = Vec::new();
    for (name, tensor) in model.parameters() {
        let flat = tensor.f_detach()?.f_contiguous()?.f_view(-1)?;
        let bytes: Vec<u8> = Vec::<f32>::try_from(flat)?.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape: Vec<usize> = tensor.size().iter().map(|&d| d as usize).collect();
        tensors.push((name, shape, bytes));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| DemoError::Data(e.to_string()))?;
        views.push((name.as_str(), view));
    }
    // transformers refuses files that do not say which library's layout they have.
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let blob = safetensors::serialize(views, Some(metadata)).map_err(|e| DemoError::Data(e.to_string()))?;
    write(&temporary.join("model.safetensors"), &blob)?;
    fs::rename(&temporary, path).map_err(io)
}

fn pretty(value: &serde_json::Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    let io = |source| DemoError::Io { path: path.display().to_string(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    write_atomic(path, bytes).map_err(io)
}
