//! `mehl-soup demo`: a zoo made here by real fine-tuning runs on UCI digits, and a sweep over it with every method. With `--make-zoo`, zoos on a user's images,
//! from a user's base model, and with ingredients that are bad on purpose.
//!
//! | file | holds |
//! |---|---|
//! | `zoo`, `text_zoo` | the order of things: claim, data, base model, ingredients, `sweep.toml` |
//! | `recipes` | hyperparameters from a seed and ranges, and what is bad on purpose |
//! | `blank`, `base`, `text_base` | what fine-tuning starts from |
//! | `trainee` | training and scoring of one model |
//! | `digits`, `images`, `texts`, `splits` | data and how they are cut |
//! | `specification`, `write` | what is written, and how |

mod base;
mod blank;
mod digits;
mod images;
mod recipes;
mod specification;
mod splits;
mod text_base;
mod text_zoo;
mod texts;
mod trainee;
mod write;
mod zoo;

use std::path::{Path, PathBuf};

use mehl_soup::cli::Ranges;
use mehl_soup::sweep::spec::Family;
use tch::TchError;

use base::Start;
use blank::Blank;
use digits::Digits;
use zoo::Runs;
pub use zoo::make_zoo;

/// Changes whenever the demo makes another zoo of the same seed.
const VERSION: u32 = 1;

/// Why a zoo cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The shipped data is damaged.
    #[error("digits: {0}")]
    Data(String),
    /// The user's images, base model or flags are not what is expected.
    #[error("{0}")]
    Input(String),
    /// The folder holds another zoo.
    #[error("{folder} contains another zoo: {differences}; choose another folder, or remove this one")]
    Other {
        /// The folder.
        folder: String,
        /// Fields of what was asked for, with what is asked for now and what was before.
        differences: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's message.
        source: std::io::Error,
    },
    /// libtorch refused.
    #[error("training the zoo: {0}")]
    Torch(#[from] TchError),
    /// A model cannot be scored.
    #[error("training the zoo: {0}")]
    Engine(#[from] mehl_soup::runner::engine::EngineError),
    /// An ingredient's run came to nothing.
    #[error("training {run}: {error}; try a lower --learning-rate or another --seed")]
    Run {
        /// The ingredient.
        run: String,
        /// What became of it.
        error: mehl_soup::runner::engine::EngineError,
    },
}

/// Trains the demo's zoo and writes it beside its data and a specification: `base/`, `zoo/*`, `data/*.safetensors`, `sweep.toml`. What is there
/// already is kept. Returns the specification's path.
///
/// `seed` decides the split of the data, the base model and the hyperparameters, which are drawn from `ranges`; `tell` is told of every run.
///
/// # Errors
/// If something cannot be written, or the folder holds another zoo.
pub fn make(
    folder: &Path,
    seed: u64,
    ingredients: usize,
    ranges: &Ranges,
    tell: &mut dyn FnMut(&str),
) -> Result<PathBuf, DemoError> {
    let own = serde_json::json!({ "version": VERSION, "seed": seed, "ingredients": ingredients });
    write::claim(folder, &own)?;
    let parts = Digits::all()?.parts(seed);
    zoo::write_digits(&parts, &folder.join("data"))?;
    let classes: Vec<String> = (0..digits::CLASSES).map(|digit| digit.to_string()).collect();
    let blank = Blank { family: Family::Vit, side: digits::SIDE, channels: 1, classes: &classes };
    let runs = Runs {
        folder,
        start: &Start::blank(&blank, seed)?,
        base: zoo::base_recipe(seed),
        base_is_described: false,
        ingredients: &zoo::sound_recipes(seed, ingredients, ranges),
    };
    zoo::train(&runs, &zoo::material(&parts)?, tell)?;
    let spec = folder.join("sweep.toml");
    write::write(&spec, specification::of_demo().as_bytes())?;
    Ok(spec)
}
