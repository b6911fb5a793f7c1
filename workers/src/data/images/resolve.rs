//! The transform of a sweep: what files say, what the specification puts over it, checked against what the model takes.

use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::sweep::image_spec::{Extent, ImageSpec, Interpolation, ResizeSpec};
use mehl_soup::sweep::spec::Family;
use mehl_soup::untrusted::{LARGEST_CONFIG, without_mark};
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
    let steps = stated(model, spec, &mut notes)?.unwrap_or_else(|| {
        let mut usual = preprocessor::usual(model.family, size.unwrap_or(Extent::square(USUAL_SIDE)));
        notes.push(format!(
            "assumed: images are prepared as {}, with [data.image] applied, because there is no \
             {}, {} or pretrained_cfg",
            usual.source,
            preprocessor::PROCESSOR_FILE,
            preprocessor::FILE
        ));
        override_by(spec, &mut usual);
        usual
    });
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
        fault("expected a crop or an exact size, found neither, so images would have different sizes (set data.image.crop, or data.image.resize = [height, width])".to_string())
    })?;
    if let Some(size) = size
        && output != size
    {
        return Err(fault(format!(
            "expected images of {size} as required by the model, found {output} (change with \
             data.image.size)"
        )));
    }
    let values = |values: &[f64], what: &str| match values {
        [one] => Ok(vec![*one; channels]),
        several if several.len() == channels => Ok(several.to_vec()),
        [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(vec![*first; channels]),
        several => Err(fault(format!(
            "expected {what} of {channels} channels as required by the model, found {several:?} \
             (change with data.image.{what})"
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

/// What the ingredients' files say, with the specification's keys over it: all that say something have to say the same.
///
/// # Errors
/// If a file cannot be used, or two lead to other steps.
fn stated(model: &ModelFacts<'_>, spec: &ImageSpec, notes: &mut Vec<String>) -> Result<Option<Steps>, DataError> {
    let mut first: Option<Steps> = None;
    let mut silent = None;
    for (i, folder) in model.folders.iter().enumerate() {
        // The notes of one say it for all.
        let mut own = Vec::new();
        let Some(mut steps) = said_in(folder, model, i == 0, &mut own)? else {
            silent.get_or_insert(folder);
            continue;
        };
        override_by(spec, &mut steps);
        match &first {
            None => {
                notes.append(&mut own);
                first = Some(steps);
            }
            Some(first) => {
                if let Some(what) = difference(first, &steps) {
                    return Err(DataError::Content {
                        file: steps.source,
                        what: format!(
                            "{what} as in {}: ingredients with different preprocessing cannot be \
                             compared; set one for all in [data.image]",
                            first.source
                        ),
                    });
                }
            }
        }
    }
    if model.folders.is_empty()
        && let Some(config) = model.config
    {
        first = timm_steps(config, "config.json".to_string())?;
        if let Some(steps) = &mut first {
            override_by(spec, steps);
        }
    }
    if let (Some(steps), Some(folder)) = (&first, silent) {
        notes.push(format!(
            "assumed: images for {} are prepared as in {}, because it has no configuration for \
             that",
            folder.display(),
            steps.source
        ));
    }
    Ok(first)
}

/// What the files of one ingredient say.
fn said_in(
    folder: &Path,
    model: &ModelFacts<'_>,
    is_first: bool,
    notes: &mut Vec<String>,
) -> Result<Option<Steps>, DataError> {
    let fault = |file: &Path, what: String| DataError::Content { file: file.display().to_string(), what };
    if let Some(found) = preprocessor::read(folder).map_err(|(file, what)| fault(&file, what))? {
        let steps = preprocessor::from_hugging_face(&found.json).map_err(|what| fault(&found.file, what))?;
        if let Some((mut steps, note)) = steps {
            steps.source = found.file.display().to_string();
            notes.extend(note);
            let other = found.other.as_ref().and_then(|json| preprocessor::from_hugging_face(json).ok().flatten());
            if let Some(what) = other.and_then(|(other, _)| difference(&steps, &other)) {
                notes.push(format!(
                    "assumed: images are prepared as in {}, as transformers 5 does, not as in {}: \
                     {what}",
                    steps.source,
                    preprocessor::FILE
                ));
            }
            return Ok(Some(steps));
        }
    }
    let file = folder.join("config.json");
    if is_first {
        return model.config.map_or(Ok(None), |config| timm_steps(config, file.display().to_string()));
    }
    let config = match source::of(&file).read(&file, LARGEST_CONFIG) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(&file, error.to_string())),
    };
    let config: Value =
        serde_json::from_slice(without_mark(&config)).map_err(|error| fault(&file, format!("not JSON: {error}")))?;
    timm_steps(&config, file.display().to_string())
}

fn timm_steps(config: &Value, file: String) -> Result<Option<Steps>, DataError> {
    let steps = preprocessor::from_timm(config).map_err(|what| DataError::Content { file: file.clone(), what })?;
    Ok(steps.map(|steps| Steps { source: file, ..steps }))
}

/// The first step in which two differ, expected and found, if there is one.
fn difference(expected: &Steps, found: &Steps) -> Option<String> {
    let differ = |name: &str, a: String, b: String| (a != b).then(|| format!("{name}: found {b}, expected {a}"));
    let shown = |steps: &Steps| {
        // One value for all channels is as good as one for each.
        let each = |values: &[f64]| match values {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => format!("{first}"),
            values => format!("{values:?}"),
        };
        let Normalization { rescale, mean, std } = &steps.normalization;
        let resize = match steps.resize {
            Resize::Keep => "none".to_string(),
            Resize::ShortestEdge(side) => format!("shorter side to {side}"),
            Resize::Cover(extent) => format!("to cover {extent}"),
            Resize::Exact(extent) => format!("to {extent}"),
        };
        let named = Interpolation::NAMED.iter().find(|(_, found)| *found == steps.interpolation);
        [
            ("resize", resize),
            ("crop", steps.crop.map_or("none".to_string(), |crop| crop.extent.to_string())),
            ("interpolation", named.map_or("unknown", |(name, _)| name).to_string()),
            ("rescale", format!("{rescale}")),
            ("mean", each(mean)),
            ("std", each(std)),
        ]
    };
    shown(expected).into_iter().zip(shown(found)).find_map(|((name, a), (_, b))| differ(name, a, b))
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
