//! The transform of a sweep: what files say, what the specification puts over it, checked against what the model takes.

use std::path::PathBuf;

use mehl_soup::sweep::image_spec::{Extent, ImageSpec, ResizeSpec};
use mehl_soup::sweep::spec::Family;
use serde_json::Value;

use super::preprocessor::{self, Steps, USUAL_SIDE};
use super::transform::{Crop, Normalization, PixelTransform, Resize};
use crate::data::DataError;

/// What is known of the model before data are read.
#[derive(Debug, Clone)]
pub struct ModelFacts<'a> {
    /// Its family.
    pub family: Family,
    /// `[channels, height, width]` of its one input, where the family knows it.
    pub input: Option<Vec<i64>>,
    /// `config.json` of the first ingredient.
    pub config: Option<&'a Value>,
    /// Folders of the ingredients that have one, in order.
    pub folders: Vec<PathBuf>,
}

/// All that is done to images.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Up to what is cached.
    pub pixels: PixelTransform,
    /// What is done to a batch.
    pub normalization: Normalization,
    /// Size of every image.
    pub output: Extent,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Finds the transform.
///
/// # Errors
/// If a file cannot be read or says what is not supported, sizes would differ between images, or the result is not what the model takes.
pub fn resolve(spec: &ImageSpec, model: &ModelFacts<'_>) -> Result<Resolved, DataError> {
    let mut notes = Vec::new();
    let (channels, size) = model_input(model);
    let mut steps = stated(model, &mut notes)?.unwrap_or_else(|| {
        let usual = preprocessor::usual(model.family, size.unwrap_or(Extent::square(USUAL_SIDE)));
        notes.push(format!(
            "nothing says how images are prepared (no {}, no pretrained_cfg): {}, with [data.image] over it",
            preprocessor::FILE,
            usual.source
        ));
        usual
    });
    override_by(spec, &mut steps);
    let fault = |what: String| DataError::Content { file: steps.source.clone(), what };
    let pixels = PixelTransform {
        orientation: spec.orientation,
        max_pixels: spec.max_pixels,
        channels,
        resize: steps.resize,
        interpolation: steps.interpolation,
        passes: steps.passes,
        crop: steps.crop,
    };
    let output = pixels.output().ok_or_else(|| {
        fault("expected a crop or an exact size after resizing, found neither: images would be of different sizes (data.image.crop or data.image.resize = [height, width])".to_string())
    })?;
    if let Some(size) = size
        && output != size
    {
        return Err(fault(format!(
            "expected images of {size} as the model takes, found {output} (data.image.size overrides it)"
        )));
    }
    let values = |values: &[f64], what: &str| match values {
        [one] => Ok(vec![*one; channels]),
        several if several.len() == channels => Ok(several.to_vec()),
        [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(vec![*first; channels]),
        several => Err(fault(format!(
            "expected {what} of {channels} channels as the model takes, found {several:?} (data.image.{what} overrides it)"
        ))),
    };
    let normalization = Normalization {
        rescale: steps.normalization.rescale,
        mean: values(&steps.normalization.mean, "mean")?,
        std: values(&steps.normalization.std, "std")?,
    };
    Ok(Resolved { pixels, normalization, output, notes })
}

/// Channels, and the size where it is known.
fn model_input(model: &ModelFacts<'_>) -> (usize, Option<Extent>) {
    let positive = |n: i64| usize::try_from(n).ok().filter(|&n| n > 0);
    if let Some([channels, height, width]) = model.input.as_deref() {
        let size = positive(*height).zip(positive(*width)).map(|(height, width)| Extent { height, width });
        return (if *channels == 1 { 1 } else { 3 }, size);
    }
    let channels = model.config.and_then(|config| config.get("num_channels")).and_then(Value::as_u64);
    (if channels == Some(1) { 1 } else { 3 }, None)
}

/// What the ingredients' files say. The first ingredient decides.
fn stated(model: &ModelFacts<'_>, notes: &mut Vec<String>) -> Result<Option<Steps>, DataError> {
    let fault = |file: String| move |what: String| DataError::Content { file, what };
    let named = |folder: &PathBuf| folder.join(preprocessor::FILE).display().to_string();
    if let Some(first) = model.folders.first() {
        let json = preprocessor::read(first).map_err(fault(named(first)))?;
        for other in &model.folders[1..] {
            if preprocessor::read(other).map_err(fault(named(other)))? != json {
                notes.push(format!("{} is not as that of {}, which is used for all", named(other), first.display()));
                break;
            }
        }
        if let Some(json) = json
            && let Some((mut steps, note)) = preprocessor::from_hugging_face(&json).map_err(fault(named(first)))?
        {
            steps.source = named(first);
            notes.extend(note);
            return Ok(Some(steps));
        }
    }
    let Some(config) = model.config else { return Ok(None) };
    let file = model.folders.first().map_or("config.json".to_string(), |f| f.join("config.json").display().to_string());
    let mut steps = preprocessor::from_timm(config).map_err(fault(file.clone()))?;
    if let Some(steps) = &mut steps {
        steps.source = file;
    }
    Ok(steps)
}

/// Puts the specification's keys over what files say.
fn override_by(spec: &ImageSpec, steps: &mut Steps) {
    let crop = |extent, steps: &Steps| Some(Crop { extent, rounding: steps.rounding });
    if let Some(size) = spec.size {
        let before = steps.crop.map(|crop| crop.extent);
        // The other steps keep their proportion to what comes out.
        let scale = |n: usize, to: usize, from: usize| (n as f64 * to as f64 / from as f64).floor() as usize;
        let scaled = |extent: Extent, from: Extent| Extent {
            height: scale(extent.height, size.height, from.height),
            width: scale(extent.width, size.width, from.width),
        };
        (steps.resize, steps.crop) = match (steps.resize, before) {
            (Resize::ShortestEdge(side), Some(before)) => {
                let covered = scaled(Extent::square(side), before);
                let square = covered.height == covered.width;
                let resize = if square { Resize::ShortestEdge(covered.height) } else { Resize::Cover(covered) };
                (resize, crop(size, steps))
            }
            (Resize::Cover(covered), Some(before)) => (Resize::Cover(scaled(covered, before)), crop(size, steps)),
            (Resize::Exact(extent), Some(before)) => (Resize::Exact(scaled(extent, before)), crop(size, steps)),
            (Resize::Keep, Some(_)) => (Resize::Keep, crop(size, steps)),
            (Resize::Exact(_) | Resize::Keep, None) => (Resize::Exact(size), None),
            (Resize::ShortestEdge(_) | Resize::Cover(_), None) => (Resize::Cover(size), crop(size, steps)),
        };
    }
    if let Some(resize) = spec.resize {
        steps.resize = match resize {
            ResizeSpec::ShortestEdge(side) => Resize::ShortestEdge(side),
            ResizeSpec::Exact(extent) => Resize::Exact(extent),
        };
    }
    if let Some(extent) = spec.crop {
        steps.crop = crop(extent, steps);
    }
    if let Some(interpolation) = spec.interpolation {
        steps.interpolation = interpolation;
    }
    if let Some(mean) = &spec.mean {
        steps.normalization.mean.clone_from(mean);
    }
    if let Some(std) = &spec.std {
        steps.normalization.std.clone_from(std);
    }
}
