//! Makes a zoo: a base model and its fine-tunes, on digits or on a user's images, with the data and the specification of a sweep.

use std::path::{Path, PathBuf};

use mehl_soup::cli::{DemoArgs, Ranges};
use mehl_soup::sweep::spec::Family;
use serde_json::{Value, json};

use super::DemoError;
use super::base::{Start, Untrained, companions};
use super::blank::Blank;
use super::digits::{self, Digits};
use super::images::{ImageFolder, Images};
use super::recipes::{Bad, Recipe, recipes};
use super::specification::{self, Sources};
use super::text_zoo;
use super::trainee::{Edge, Trainee};
use super::write::{Content, claim, write, write_model};
use crate::data::Split;

/// Changes whenever another zoo is made of the same command.
const VERSION: u32 = 1;

/// Side that images are resized to unless the user says otherwise, and digits for a ResNet, whose features are 32 times smaller than its input.
const SIDE: usize = 32;
/// Epochs of base models.
const BASE_EPOCHS: u32 = 100;
/// Fewest steps of those of ViTs, which learn nothing in a hundred epochs of a few steps.
const BASE_STEPS: usize = 900;
/// The same for ResNets, and for heads alone.
const FEWER_EPOCHS: u32 = 30;

/// What models are trained and looked at with.
pub struct Material {
    /// The base model's.
    pub base: Split,
    /// The ingredients'.
    pub train: Split,
    /// Scores that are told.
    pub select: Split,
    /// What is behind the edge of an image.
    pub edge: Edge,
}

/// Training runs that make a zoo.
pub struct Runs<'a> {
    /// The zoo's folder.
    pub folder: &'a Path,
    /// What they start from.
    pub start: &'a Start,
    /// How the base model, or its head, is trained.
    pub base: Recipe,
    /// Whether the base model's folder says how.
    pub base_is_described: bool,
    /// How the ingredients are fine-tuned.
    pub ingredients: &'a [Recipe],
}

/// Makes the zoo that the flags of `demo --make-zoo` ask for; what is there already of the same zoo is kept. Returns the path of its `sweep.toml`.
///
/// # Errors
/// If flags, images or base model do not go together, or the folder holds another zoo.
pub fn make_zoo(folder: &Path, args: &DemoArgs, tell: &mut dyn FnMut(&str)) -> Result<PathBuf, DemoError> {
    if let (Some(texts), Some(base)) = (&args.zoo.texts, &args.zoo.base) {
        return text_zoo::make_zoo(folder, args, texts, base, tell);
    }
    let seed = args.seed;
    let images = args.zoo.images.as_deref().map(ImageFolder::open).transpose()?;
    let classes = match &images {
        Some(images) => images.classes.clone(),
        None => (0..digits::CLASSES).map(|digit| digit.to_string()).collect(),
    };
    let wanted_side = args.zoo.image_size.map(|side| side as usize);
    let start = match &args.zoo.base {
        Some(base) => Start::of_user(base, &classes, images.is_none(), seed)?,
        None => {
            let family = args.zoo.family.map_or(Family::Vit, |family| family.family());
            let usual = if images.is_some() || family == Family::Resnet { SIDE } else { digits::SIDE };
            let side = wanted_side.unwrap_or(usual);
            if !side.is_multiple_of(4) {
                return Err(DemoError::Input(format!("--image-size: expected a multiple of 4, found {side}")));
            }
            if family == Family::Resnet && side < SIDE {
                let what = format!(
                    "--image-size: expected at least {SIDE} for a ResNet, because it halves the \
                     size five times, found {side}"
                );
                return Err(DemoError::Input(what));
            }
            let channels = if images.is_none() && family == Family::Vit { 1 } else { 3 };
            Start::blank(&Blank { family, side, channels, classes: &classes }, seed)?
        }
    };
    let model = Trainee::open(&start.folder())?;
    let taken = model.model().input_shapes().and_then(|shapes| shapes.into_iter().next());
    if let (Some(&[_, height, width]), Some(side)) = (taken.as_deref(), wanted_side)
        && [height, width] != [side as i64; 2]
    {
        let what = format!("--image-size: expected {height} x {width} as required by the base model, found {side}");
        return Err(DemoError::Input(what));
    }
    let base_is_trained = matches!(start.untrained, Untrained::Nothing);
    // Only a model that takes any size has to be told.
    let size = wanted_side.filter(|_| taken.is_none());
    let data = match &images {
        Some(images) => Data::Images(images.load(&model, size, seed, base_is_trained, tell)?),
        None => Data::digits(seed, base_is_trained, taken.as_deref(), wanted_side)?,
    };
    let epochs = match start.untrained {
        Untrained::All if model.family() != Family::Resnet => {
            let steps = data.material().base.samples().div_ceil(base_recipe(seed).batch);
            BASE_EPOCHS.max(BASE_STEPS.div_ceil(steps) as u32)
        }
        _ => FEWER_EPOCHS,
    };
    let base_epochs = args.zoo.base_epochs.unwrap_or(epochs);
    let family = model.family();
    drop(model);
    claim(folder, &asked(args, family, &start, &data, wanted_side, base_epochs))?;
    data.write(&folder.join("data"))?;
    let recipes = recipes(seed, args.ingredients as usize, &args.ranges, args.zoo.bad);
    let runs = Runs {
        folder,
        start: &start,
        base: Recipe::base(seed, base_epochs as usize),
        base_is_described: true,
        ingredients: &recipes,
    };
    train(&runs, data.material(), tell)?;
    let sources = match &data {
        Data::Images(_) => Sources::Images { size: size.filter(|_| args.zoo.base.is_some()) },
        Data::Digits { .. } => Sources::Tensors,
    };
    let spec = folder.join("sweep.toml");
    write(&spec, specification::of_zoo(folder, recipes.len(), &sources).as_bytes())?;
    Ok(spec)
}

/// What two commands must have in common to make one zoo.
fn asked(args: &DemoArgs, family: Family, start: &Start, data: &Data<'_>, side: Option<usize>, epochs: u32) -> Value {
    json!({
        "version": VERSION,
        "seed": args.seed,
        "ingredients": args.ingredients,
        "family": family,
        "images": data.hash(),
        "image_size": side,
        "base": start.hash,
        "base_epochs": epochs,
        "ranges": args.ranges,
        "bad": args.zoo.bad,
    })
}

/// Where the images are from.
enum Data<'a> {
    /// Shipped with this program.
    Digits { parts: digits::Parts, material: Material },
    /// The user's.
    Images(Images<'a>),
}

impl Data<'_> {
    /// Digits as large as a model takes them, `taken` being `[channels, height, width]` where it takes no other.
    fn digits(seed: u64, base_is_trained: bool, taken: Option<&[i64]>, side: Option<usize>) -> Result<Self, DemoError> {
        let (channels, height, width) = match taken {
            Some(&[channels, height, width]) => (channels as usize, height as usize, width as usize),
            _ => (3, side.unwrap_or(SIDE), side.unwrap_or(SIDE)),
        };
        if height != width || !height.is_multiple_of(digits::SIDE) {
            return Err(DemoError::Input(format!(
                "digits need an image size that is a multiple of {0} x {0} pixels, found {height} \
                 x {width} (change --image-size or --base)",
                digits::SIDE
            )));
        }
        let mut parts = Digits::all()?.enlarged(height, channels).parts(seed);
        if base_is_trained {
            parts.train = parts.train.with(&parts.base);
        }
        Ok(Self::Digits { material: material(&parts)?, parts })
    }

    fn material(&self) -> &Material {
        match self {
            Self::Digits { material, .. } => material,
            Self::Images(images) => &images.material,
        }
    }

    fn hash(&self) -> &str {
        match self {
            Self::Digits { .. } => "digits",
            Self::Images(images) => &images.hash,
        }
    }

    fn write(&self, folder: &Path) -> Result<(), DemoError> {
        match self {
            Self::Digits { parts, .. } => write_digits(parts, folder),
            Self::Images(images) => images.write(folder),
        }
    }
}

/// Digits as models are trained on them.
///
/// # Errors
/// If libtorch refuses.
pub fn material(parts: &digits::Parts) -> Result<Material, DemoError> {
    Ok(Material {
        base: parts.base.to_split()?,
        train: parts.train.to_split()?,
        select: parts.select.to_split()?,
        edge: Edge::Background(-1.0),
    })
}

/// Writes the parts of the sweep as tensor files; what is there is kept.
///
/// # Errors
/// If one cannot be written.
pub fn write_digits(parts: &digits::Parts, folder: &Path) -> Result<(), DemoError> {
    for (name, part) in [("learn", &parts.learn), ("select", &parts.select), ("test", &parts.test)] {
        let path = folder.join(format!("{name}.safetensors"));
        if !path.exists() {
            part.write(&path)?;
        }
    }
    Ok(())
}

/// Trains the base model, if there is something to train and it is not there yet, then the ingredients that are missing.
///
/// # Errors
/// If something cannot be written, or a run ends with a loss that is not finite.
pub fn train(runs: &Runs<'_>, material: &Material, tell: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let missing: Vec<usize> = (0..runs.ingredients.len()).filter(|&i| !ingredient(runs.folder, i).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let path = runs.folder.join("base");
    if !path.exists() {
        train_base(runs, material, &path, tell)?;
    }
    let model = Trainee::open(&path)?;
    let companions = companions(&path)?;
    for i in missing {
        let recipe = &runs.ingredients[i];
        let run = format!("fine-tuned {}/{}", i + 1, runs.ingredients.len());
        let bad = recipe.bad.map_or(String::new(), |bad| format!(", deliberately bad ({})", Bad::name(bad)));
        let in_run = |error: DemoError| match error {
            DemoError::Engine(error) => DemoError::Run { run: ingredient(runs.folder, i).display().to_string(), error },
            other => other,
        };
        model.reset()?;
        model.train(&material.train, material.edge, recipe).map_err(in_run)?;
        let score = model.score(&material.select).map_err(in_run)?;
        tell(&format!(
            "{run}: lr {:.1e}, {} epochs, smoothing {:.2}{bad}: select {}",
            recipe.learning_rate,
            recipe.epochs,
            recipe.label_smoothing,
            score.short()
        ));
        let mut files = companions.clone();
        files.push((TRAINING, Content::Json(described(recipe)?)));
        write_model(&ingredient(runs.folder, i), &files, &model.tensors()?)?;
    }
    Ok(())
}

/// How a model was trained, in its folder.
const TRAINING: &str = "training.json";

fn train_base(runs: &Runs<'_>, material: &Material, path: &Path, tell: &mut dyn FnMut(&str)) -> Result<(), DemoError> {
    let folder = runs.start.folder();
    let model = Trainee::open(&folder)?;
    let mut files = companions(&folder)?;
    let samples = material.base.samples();
    match &runs.start.untrained {
        Untrained::All => {
            tell(&format!("training a base model on {samples} samples"));
            model.train(&material.base, material.edge, &runs.base)?;
        }
        Untrained::Head(names) => {
            tell(&format!("the base model has other classes: training a new head on {samples} samples"));
            model.train_head(&material.base, material.edge, &runs.base, names)?;
        }
        Untrained::Nothing => {}
    }
    let score = model.score(&material.select)?;
    tell(&format!("base: select {}", score.short()));
    if runs.base_is_described && !matches!(runs.start.untrained, Untrained::Nothing) {
        files.push((TRAINING, Content::Json(described(&runs.base)?)));
    }
    write_model(path, &files, &model.tensors()?)
}

fn described(recipe: &Recipe) -> Result<Value, DemoError> {
    serde_json::to_value(recipe).map_err(|e| DemoError::Data(e.to_string()))
}

fn ingredient(folder: &Path, index: usize) -> PathBuf {
    folder.join("zoo").join(format!("run-{index:02}"))
}

/// Recipes of the demo's zoo: none is bad on purpose.
pub fn sound_recipes(seed: u64, ingredients: usize, ranges: &Ranges) -> Vec<Recipe> {
    recipes(seed, ingredients, ranges, 0.0)
}

/// The demo's base recipe.
pub fn base_recipe(seed: u64) -> Recipe {
    Recipe::base(seed, BASE_EPOCHS as usize)
}
