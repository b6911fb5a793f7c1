//! A user's own images as data of a zoo.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::sweep::image_spec::{Extent, ImageSpec};
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::spec::{ComputeSpec, DataSpec};
use mehl_soup::sweep::text_spec::TextSpec;
use mehl_soup::zoo::HashCache;

use super::DemoError;
use super::splits::{self, NAMES};
use super::trainee::{Edge, Trainee};
use super::write::whole_folder;
use super::zoo::Material;
use crate::data::images::cache::ImageCache;
use crate::data::images::resolve::ModelFacts;
use crate::data::images::sources::{Columns, Labels, Listing, Place, Source, SourceKind};
use crate::data::images::{self, ImageInputs};
use crate::data::{DataError, Loaded};

/// A folder with a folder for each class.
pub struct ImageFolder {
    root: PathBuf,
    listing: Listing,
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
}

/// The images of a folder, cut in splits.
pub struct Images<'a> {
    folder: &'a ImageFolder,
    splits: [Vec<usize>; 5],
    /// What is trained with.
    pub material: Material,
    /// Hash of the images that are used, their labels, and how they become what the model takes.
    pub hash: String,
}

impl ImageFolder {
    /// Lists the images.
    ///
    /// # Errors
    /// If it is no such folder, or has fewer than two classes.
    pub fn open(root: &Path) -> Result<Self, DemoError> {
        let fault = |what: String| DemoError::Input(format!("{}: {what}", root.display()));
        let source = Source::find(root)?;
        if source.kind != SourceKind::Folder {
            return Err(fault("expected a folder with one subfolder of images per class".to_string()));
        }
        let listing = Listing::open(&source, &Columns { image: None, label: None, skip_unreadable: false })?;
        let Labels::Names { names: classes, .. } = &listing.labels else {
            return Err(fault("expected a folder with one subfolder of images per class".to_string()));
        };
        let classes = classes.clone();
        if let [only] = &classes[..] {
            return Err(fault(format!("expected subfolders of at least two classes, found only `{only}`")));
        }
        Ok(Self { root: root.to_path_buf(), listing, classes })
    }

    /// Decodes the images as a model takes them, `size` over what its files say, and cuts them in splits. An image that is there twice is used once.
    /// `base_is_trained`: nothing is left to be trained on the base split, and ingredients are trained on it too.
    ///
    /// # Errors
    /// If an image cannot be read, or a class has too few.
    pub fn load(
        &self,
        model: &Trainee,
        size: Option<usize>,
        seed: u64,
        base_is_trained: bool,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Images<'_>, DemoError> {
        let inputs = ImageInputs {
            model: ModelFacts {
                family: model.family(),
                input: model.model().input_shapes().and_then(|shapes| shapes.into_iter().next()),
                config: model.start().config(),
                folders: model.start().folder().map(Path::to_path_buf).into_iter().collect(),
            },
            cache: ImageCache {
                folder: HashCache::from_environment().map(|cache| cache.beside("images")),
                bound: ComputeSpec::default_image_cache(),
            },
        };
        let spec = data_spec(&self.root, size);
        let loaded = images::load(&[Source::find(&self.root)?], &spec, &inputs, tell)?;
        loaded.notes.iter().for_each(|note| tell(note));
        let Some(Loaded { split, hash, rows }) = loaded.splits.into_iter().next() else {
            return Err(DemoError::Input(format!("{}: expected images, found none", self.root.display())));
        };
        let labels = Vec::<i64>::try_from(&split.targets)?;
        let mut seen = HashSet::new();
        let once: Vec<usize> = (0..rows.len()).filter(|&i| seen.insert(rows[i])).collect();
        if once.len() < rows.len() {
            let twice = rows.len() - once.len();
            tell(&format!("{}: {twice} images are copies of others and were skipped", self.root.display()));
        }
        let of_once: Vec<i64> = once.iter().map(|&i| labels[i]).collect();
        let mut splits = splits::stratified(&of_once, self.classes.len(), seed).map_err(|(class, found)| {
            // Numbers are the model's; the name is that of any image with it.
            let name = labels.iter().position(|&label| label == class as i64).map(|i| self.class_of(i));
            DemoError::Input(format!(
                "{}: class `{}`: expected at least {} different images (one each for {}), found \
                 {found}",
                self.root.display(),
                name.unwrap_or_default(),
                NAMES.len(),
                NAMES.join(", ")
            ))
        })?;
        for split in &mut splits {
            split.iter_mut().for_each(|i| *i = once[*i]);
        }
        if base_is_trained {
            let base = std::mem::take(&mut splits[0]);
            splits[1].extend(base);
            splits[1].sort_unstable();
        }
        let part = |split_of: usize| split.subset(&splits[split_of]);
        let material = Material { base: part(0)?, train: part(1)?, select: part(3)?, edge: Edge::Nearest };
        let sizes: Vec<String> = NAMES.iter().zip(&splits).map(|(name, of)| format!("{} {name}", of.len())).collect();
        tell(&format!("{} images of {} classes: {}", once.len(), self.classes.len(), sizes.join(", ")));
        Ok(Images { folder: self, splits, material, hash })
    }

    /// The name of an image's class.
    fn class_of(&self, image: usize) -> &str {
        match &self.listing.labels {
            Labels::Names { names, of, .. } => &names[of[image]],
            Labels::Indices { .. } => "",
        }
    }
}

impl Images<'_> {
    /// Copies the images of the sweep's splits to `data/learn`, `data/select` and `data/test`; what is there is kept.
    ///
    /// # Errors
    /// If one cannot be copied.
    pub fn write(&self, data: &Path) -> Result<(), DemoError> {
        for (name, images) in NAMES.iter().zip(&self.splits).skip(2) {
            let target = data.join(name);
            if target.exists() {
                continue;
            }
            whole_folder(&target, |temporary| {
                images.iter().try_for_each(|&image| match &self.folder.listing.samples[image].place {
                    Place::File(path) => {
                        copy(path, &temporary.join(path.strip_prefix(&self.folder.root).unwrap_or(path)))
                    }
                    Place::Row { .. } => Ok(()),
                })
            })?;
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), DemoError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| DemoError::Io { path, source }
    };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let content = source::of(from).read(from, u64::MAX).map_err(io(from))?;
    fs::write(to, content).map_err(io(to))
}

fn data_spec(root: &Path, size: Option<usize>) -> DataSpec {
    DataSpec {
        learn: root.to_path_buf(),
        select: None,
        test: None,
        inputs: vec!["inputs".to_string()],
        labels: "labels".to_string(),
        select_fraction: 0.3,
        metric: Metric::LOSS,
        objective: None,
        scale: None,
        image: ImageSpec { size: size.map(Extent::square), ..ImageSpec::default() },
        text: TextSpec::default(),
        classes: None,
        skip_unreadable: false,
        allow_missing_classes: false,
    }
}

impl From<DataError> for DemoError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Torch(error) => Self::Torch(error),
            other => Self::Input(other.to_string()),
        }
    }
}
