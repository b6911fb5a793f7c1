//! Makes a zoo of text classifiers: a user's encoder, its new head, and fine-tunes of it.

use std::path::{Path, PathBuf};

use mehl_soup::cli::DemoArgs;
use serde_json::json;

use super::DemoError;
use super::base::Untrained;
use super::recipes::{Recipe, recipes};
use super::specification::{self, Sources};
use super::text_base;
use super::texts::TextFile;
use super::trainee::Trainee;
use super::write::{claim, write};
use super::zoo::{Runs, train};

/// Changes whenever another zoo is made of the same command.
const VERSION: u32 = 1;
/// Most tokens of a text unless the user says otherwise.
const LONGEST: u32 = 128;
/// Epochs of a new head, of which each goes through the whole encoder.
const HEAD_EPOCHS: u32 = 3;

/// Makes the zoo that `demo --make-zoo --texts` asks for; what is there already of the same zoo is kept. Returns the path of its
/// `sweep.toml`.
///
/// # Errors
/// If flags, texts or base model do not go together, or the folder holds another zoo.
pub fn make_zoo(
    folder: &Path,
    args: &DemoArgs,
    texts: &Path,
    base: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<PathBuf, DemoError> {
    let seed = args.seed;
    let file = TextFile::open(texts, tell)?;
    let start = text_base::start(base, &file.classes, seed)?;
    let texts = file.cut(seed, matches!(start.untrained, Untrained::Nothing), tell)?;
    let longest = args.zoo.max_length.unwrap_or(LONGEST);
    let base_epochs = args.zoo.base_epochs.unwrap_or(HEAD_EPOCHS);
    claim(
        folder,
        &json!({
            "version": VERSION,
            "seed": seed,
            "ingredients": args.ingredients,
            "texts": texts.hash,
            "max_length": longest,
            "base": start.hash,
            "base_epochs": base_epochs,
            "ranges": args.ranges,
            "bad": args.zoo.bad,
        }),
    )?;
    texts.write(folder)?;
    let model = Trainee::open(&start.folder())?;
    let material = texts.material(folder, &model, longest as usize, tell)?;
    drop(model);
    let recipes = recipes(seed, args.ingredients as usize, &args.ranges, args.zoo.bad);
    // Images are shifted and get noise; texts are taken as they are.
    let base = Recipe { shift: 0.0, noise: 0.0, ..Recipe::base(seed, base_epochs as usize) };
    let runs = Runs { folder, start: &start, base, base_is_described: true, ingredients: &recipes };
    train(&runs, &material, tell)?;
    let spec = folder.join("sweep.toml");
    let sources = Sources::Texts { longest: longest as usize };
    write(&spec, specification::of_zoo(folder, recipes.len(), &sources).as_bytes())?;
    Ok(spec)
}
