//! Small image data sets, loaded as the engine loads them.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::{Family, Spec};
use mehl_soup_worker::data::images::ImageInputs;
use mehl_soup_worker::data::images::cache::ImageCache;
use mehl_soup_worker::data::images::resolve::ModelFacts;
use mehl_soup_worker::data::{Data, Kinds};
use mehl_soup_worker::objectives::{Classification, Objective};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// An image whose every pixel follows from its seed.
pub fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mix = |channel: u32| {
            let n = (x + 1).wrapping_mul(2_654_435_761)
                ^ (y + 7).wrapping_mul(40_503)
                ^ (seed * 3 + channel + 1).wrapping_mul(2_246_822_519);
            (n ^ (n >> 13)).wrapping_mul(3_266_489_917).to_le_bytes()[2]
        };
        image::Rgb([mix(0), mix(1), mix(2)])
    })
}

/// Writes `root/class/name.png` for each class, `n` images a class of 12 x 8.
pub fn folder(root: &Path, classes: &[&str], n: u32, seed: u32) {
    for (c, class) in classes.iter().enumerate() {
        fs::create_dir_all(root.join(class)).unwrap();
        for i in 0..n {
            picture(12, 8, seed + c as u32 * 100 + i).save(root.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

/// A place with data, a model and a cache.
pub struct Scene {
    place: tempfile::TempDir,
    /// What the model takes.
    pub input: Option<Vec<i64>>,
    /// The model's `config.json`.
    pub config: Option<Value>,
    /// Folder of the first ingredient.
    pub model: Option<PathBuf>,
    /// Folders of all ingredients, in its place.
    pub models: Vec<PathBuf>,
    /// Most bytes of the cache.
    pub bound: u64,
}

impl Scene {
    /// With a model that takes 3 x 8 x 8.
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        Self { place, input: Some(vec![3, 8, 8]), config: None, model: None, models: vec![], bound: 1 << 30 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn cache(&self) -> PathBuf {
        self.path("cache/images")
    }

    /// Loads `[data]` as stated; also the notes said on the way.
    pub fn load(&self, data: &str) -> Result<Data, String> {
        let text = format!("[zoo]\ningredients = ['zoo']\n[data]\n{data}");
        let spec: Spec = parse_spec_text(&text, Format::Toml, self.place.path()).unwrap_or_else(|e| panic!("{e}"));
        let model = ModelFacts {
            family: Family::Vit,
            input: self.input.clone(),
            config: self.config.as_ref(),
            folders: self.model.iter().chain(&self.models).cloned().collect(),
        };
        let inputs = ImageInputs { model, cache: ImageCache { folder: Some(self.cache()), bound: self.bound } };
        let targets = |found| Classification.read_targets(found);
        Data::load(&spec.data, 3, Kind::Float, &Kinds { images: inputs, text: None }, &targets, &mut |_| {})
            .map_err(|error| error.to_string())
    }

    /// That loading fails and says all of these texts.
    #[track_caller]
    pub fn refuses(&self, data: &str, says: &[&str]) {
        let Err(error) = self.load(data) else { panic!("it was not refused: {data}") };
        for text in says {
            assert!(error.contains(text), "expected `{text}` in: {error}");
        }
    }

    /// Names of files in the cache that end in `.ending`, sorted.
    pub fn cached(&self, ending: &str) -> Vec<String> {
        let entries = fs::read_dir(self.cache()).into_iter().flatten().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> =
            entries.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(ending)).collect();
        names.sort();
        names
    }
}

/// A split's labels.
pub fn labels(split: &mehl_soup_worker::data::Split) -> Vec<i64> {
    Vec::try_from(&split.targets).unwrap()
}

/// All inputs of a split, one after the other.
pub fn values(split: &mehl_soup_worker::data::Split) -> Vec<f32> {
    let inputs = split.range(0, split.samples(), Device::Cpu).unwrap().inputs;
    flat(inputs.only().unwrap())
}

pub fn flat(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}
