//! What is to be done to images: from `preprocessor_config.json` or timm's `pretrained_cfg` of the ingredients, else what is usual in the family.
//! The keys of `[data.image]` are put over it in [`super::resolve`].

use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::sweep::image_spec::{Extent, Interpolation};
use mehl_soup::sweep::spec::Family;
use mehl_soup::untrusted::{LARGEST_CONFIG, without_mark};
use serde_json::Value;

use super::transform::{Crop, Normalization, Passes, Resize, Rounding};

/// File of Hugging Face image processors.
pub const FILE: &str = "preprocessor_config.json";
/// File of Hugging Face processors, which transformers 5 writes with the image processor in it.
pub const PROCESSOR_FILE: &str = "processor_config.json";
/// Key of the image processor in [`PROCESSOR_FILE`].
const IN_PROCESSOR: &str = "image_processor";

const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const HALF: ([f64; 3], [f64; 3]) = ([0.5; 3], [0.5; 3]);
const CLIP: ([f64; 3], [f64; 3]) = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);
/// What torchvision and timm keep of the shorter side unless they say otherwise.
const CROP_PART: f64 = 0.875;
/// The sides of what most image models take.
pub const USUAL_SIDE: usize = 224;

/// Steps for three-channel images.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// First.
    pub resize: Resize,
    /// How.
    pub interpolation: Interpolation,
    /// In which order.
    pub passes: Passes,
    /// Second.
    pub crop: Option<Crop>,
    /// Where half a pixel goes if a crop is added.
    pub rounding: Rounding,
    /// Third; `mean` and `std` of 1 or 3 values.
    pub normalization: Normalization,
    /// Who says so.
    pub source: String,
}

/// What a family is usually evaluated with, for models that take `size`: `vit` what `ViTImageProcessor` does by default, `clip-vit`
/// what CLIP does, others what torchvision and timm do.
pub fn usual(family: Family, size: Extent) -> Steps {
    let (mean, std) = match family {
        Family::ClipVit => CLIP,
        Family::Vit => HALF,
        Family::TimmVit | Family::Resnet | Family::Bert | Family::Modernbert | Family::Torchscript => IMAGENET,
    };
    let interpolation = match family {
        Family::Vit | Family::Resnet | Family::Bert | Family::Modernbert | Family::Torchscript => {
            Interpolation::Bilinear
        }
        Family::TimmVit | Family::ClipVit => Interpolation::Bicubic,
    };
    let (part, rounding) = match family {
        Family::Vit | Family::ClipVit => (1.0, Rounding::Down),
        _ => (CROP_PART, Rounding::HalfToEven),
    };
    let (resize, crop) = match family {
        Family::Vit => (Resize::Exact(size), None),
        _ => (in_proportion(size, part), Some(Crop { extent: size, rounding })),
    };
    Steps {
        resize,
        interpolation,
        passes: if matches!(family, Family::Vit | Family::ClipVit) { Passes::ColumnsFirst } else { Passes::Pillow },
        crop,
        rounding,
        normalization: normalization(&mean, &std),
        source: format!("usual for `{family}`"),
    }
}

fn normalization(mean: &[f64], std: &[f64]) -> Normalization {
    Normalization { rescale: 1.0 / 255.0, mean: mean.to_vec(), std: std.to_vec() }
}

/// A resize of which a crop of `size` keeps `part` of each side.
fn in_proportion(size: Extent, part: f64) -> Resize {
    let side = |n: usize| (n as f64 / part).floor() as usize;
    let scaled = Extent { height: side(size.height), width: side(size.width) };
    if scaled.height == scaled.width { Resize::ShortestEdge(scaled.height) } else { Resize::Cover(scaled) }
}

/// timm's evaluation transform (`timm.data.create_transform`) for the `pretrained_cfg` of a `config.json`; `None` if it has none.
///
/// # Errors
/// If a key has a value that is not supported.
pub fn from_timm(config: &Value) -> Result<Option<Steps>, String> {
    let Some(cfg) = config.get("pretrained_cfg").filter(|cfg| cfg.get("input_size").is_some()) else {
        return Ok(None);
    };
    let reader = Reader { json: cfg, prefix: "pretrained_cfg." };
    let sides: Vec<usize> = reader
        .get("input_size")
        .and_then(Value::as_array)
        .map(|items| items.iter().filter_map(side).collect())
        .unwrap_or_default();
    let [_, height, width] = sides[..] else {
        return Err(reader.refuse("input_size", "three sizes (channels, height, width)"));
    };
    let size = Extent { height, width };
    let part = reader.number("crop_pct", CROP_PART, |part| part > 0.0)?;
    let scaled = |n: usize| (n as f64 / part).floor() as usize;
    let resize = match reader.text("crop_mode")?.as_deref().unwrap_or("center") {
        "center" => in_proportion(size, part),
        "squash" => Resize::Exact(Extent { height: scaled(height), width: scaled(width) }),
        _ => return Err(reader.refuse("crop_mode", "`center` or `squash`")),
    };
    let interpolation = match reader.text("interpolation")?.as_deref().unwrap_or("bilinear") {
        word if Interpolation::NAMED.iter().any(|(name, _)| *name == word) => named(word),
        _ => return Err(reader.refuse("interpolation", "`nearest`, `bilinear`, `bicubic` or `lanczos`")),
    };
    let mean = reader.channels("mean", &IMAGENET.0, |_| true)?;
    let std = reader.channels("std", &IMAGENET.1, |value| value > 0.0)?;
    Ok(Some(Steps {
        resize,
        interpolation,
        passes: Passes::Pillow,
        crop: Some(Crop { extent: size, rounding: Rounding::HalfToEven }),
        rounding: Rounding::HalfToEven,
        normalization: normalization(&mean, &std),
        source: "pretrained_cfg of config.json".to_string(),
    }))
}

fn named(word: &str) -> Interpolation {
    Interpolation::NAMED.iter().find(|(name, _)| *name == word).map_or(Interpolation::Bilinear, |(_, found)| *found)
}

/// What an image processor of transformers does where its file is silent.
struct Defaults {
    resample: Interpolation,
    moments: ([f64; 3], [f64; 3]),
    size: Resize,
    /// Whether one number as `size` means a square rather than the shorter side.
    square: bool,
    center_crop: bool,
}

/// By the class's name without `ImageProcessor` and the like; those of transformers 5. `None` for classes that are not known here.
fn defaults(class: &str) -> Option<Defaults> {
    let square = |n| Resize::Exact(Extent::square(n));
    let (resample, moments, size, square, center_crop) = match class {
        "ViT" => (Interpolation::Bilinear, HALF, square(224), true, false),
        "DeiT" => (Interpolation::Bicubic, HALF, square(256), true, true),
        "CLIP" | "Bit" => (Interpolation::Bicubic, CLIP, Resize::ShortestEdge(224), false, true),
        "ConvNext" => (Interpolation::Bicubic, HALF, Resize::ShortestEdge(384), false, false),
        _ => return None,
    };
    Some(Defaults { resample, moments, size, square, center_crop })
}

/// What a Hugging Face `preprocessor_config.json` says; `None` if it only points to timm's configuration. The second value is a note.
///
/// # Errors
/// If a key has a value that is not supported.
pub fn from_hugging_face(json: &Value) -> Result<Option<(Steps, Option<String>)>, String> {
    let reader = Reader { json, prefix: "" };
    let class = match reader.text("image_processor_type")? {
        Some(class) => class,
        None => reader.text("feature_extractor_type")?.unwrap_or_default(),
    };
    let short = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"]
        .iter()
        .find_map(|ending| class.strip_suffix(ending))
        .unwrap_or(&class);
    if short == "TimmWrapper" {
        return Ok(None);
    }
    let (defaults, note) = match defaults(short) {
        Some(defaults) => (defaults, None),
        None => {
            let note = format!("assumed: the unknown image processor `{class}` has the same keys as ViTImageProcessor");
            let vit = Defaults {
                resample: Interpolation::Bilinear,
                moments: HALF,
                size: Resize::Exact(Extent::square(USUAL_SIDE)),
                square: true,
                center_crop: false,
            };
            (vit, Some(note))
        }
    };
    if reader.flag("do_pad", false)? {
        return Err(reader.refuse("do_pad", "false"));
    }
    let size = match reader.get("size") {
        None => defaults.size,
        Some(value) => hugging_face_size(value, defaults.square)
            .ok_or_else(|| reader.refuse("size", "a number, {height, width} or {shortest_edge}"))?,
    };
    let crop = if reader.flag("do_center_crop", defaults.center_crop)? {
        let extent = match reader.get("crop_size") {
            None => Extent::square(USUAL_SIDE),
            Some(value) => match hugging_face_size(value, true) {
                Some(Resize::Exact(extent)) => extent,
                _ => return Err(reader.refuse("crop_size", "a number or {height, width}")),
            },
        };
        Some(Crop { extent, rounding: Rounding::Down })
    } else {
        None
    };
    let (mut resize, mut crop) = (if reader.flag("do_resize", true)? { size } else { Resize::Keep }, crop);
    if let ("ConvNext", Resize::ShortestEdge(side)) = (short, resize) {
        // Its own rule: up to 384 a crop of a larger image, from there on the whole image warped.
        let part = reader.number("crop_pct", 224.0 / 256.0, |part| part > 0.0)?;
        if side < 384 {
            resize = Resize::ShortestEdge((side as f64 / part) as usize);
            crop.get_or_insert(Crop { extent: Extent::square(side), rounding: Rounding::Down });
        } else {
            resize = Resize::Exact(Extent::square(side));
        }
    }
    let interpolation = match reader.get("resample") {
        None => defaults.resample,
        Some(value) => resample(value)
            .ok_or_else(|| reader.refuse("resample", "0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)"))?,
    };
    let rescale = if reader.flag("do_rescale", true)? {
        reader.number("rescale_factor", 1.0 / 255.0, |factor| factor > 0.0)?
    } else {
        1.0
    };
    let (mean, std) = if reader.flag("do_normalize", true)? {
        let (mean, std) = defaults.moments;
        (reader.channels("image_mean", &mean, |_| true)?, reader.channels("image_std", &std, |value| value > 0.0)?)
    } else {
        (vec![0.0], vec![1.0])
    };
    let steps = Steps {
        resize,
        interpolation,
        passes: Passes::ColumnsFirst,
        crop,
        rounding: Rounding::Down,
        normalization: Normalization { rescale, mean, std },
        source: String::new(),
    };
    Ok(Some((steps, note)))
}

/// What the files of a folder say of images.
pub struct Found {
    /// The image processor's configuration.
    pub json: Value,
    /// Where it is.
    pub file: PathBuf,
    /// What `preprocessor_config.json` says, where `processor_config.json` says something too.
    pub other: Option<Value>,
}

/// Reads the image processor's configuration of a folder: that in `processor_config.json`, else `preprocessor_config.json`, as transformers 5
/// does. `None` without either.
///
/// # Errors
/// If a file cannot be read or is no JSON, with its name.
pub fn read(folder: &Path) -> Result<Option<Found>, (PathBuf, String)> {
    let (whole, own) = (folder.join(PROCESSOR_FILE), folder.join(FILE));
    let nested = read_json(&whole)?.and_then(|json| json.get(IN_PROCESSOR).filter(|value| value.is_object()).cloned());
    let alone = read_json(&own)?;
    Ok(match (nested, alone) {
        (Some(json), other) => Some(Found { json, file: whole, other }),
        (None, Some(json)) => Some(Found { json, file: own, other: None }),
        (None, None) => None,
    })
}

fn read_json(path: &Path) -> Result<Option<Value>, (PathBuf, String)> {
    let fault = |what: String| (path.to_path_buf(), what);
    let text = match source::of(path).read(path, LARGEST_CONFIG) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error.to_string())),
    };
    serde_json::from_slice(without_mark(&text)).map(Some).map_err(|error| fault(format!("not JSON: {error}")))
}

fn side(value: &Value) -> Option<usize> {
    value.as_u64().filter(|side| (1..=16_384).contains(side)).map(|side| side as usize)
}

fn hugging_face_size(value: &Value, square: bool) -> Option<Resize> {
    if let Some(n) = side(value) {
        return Some(if square { Resize::Exact(Extent::square(n)) } else { Resize::ShortestEdge(n) });
    }
    if let Some(pair) = value.as_array() {
        return match &pair[..] {
            [height, width] => Some(Resize::Exact(Extent { height: side(height)?, width: side(width)? })),
            _ => None,
        };
    }
    let keys: Vec<(&String, &Value)> = value.as_object()?.iter().filter(|(_, value)| !value.is_null()).collect();
    let get = |name: &str| side(keys.iter().find(|(key, _)| *key == name)?.1);
    match keys.len() {
        1 => get("shortest_edge").map(Resize::ShortestEdge),
        2 => Some(Resize::Exact(Extent { height: get("height")?, width: get("width")? })),
        _ => None,
    }
}

/// Pillow's numbers.
fn resample(value: &Value) -> Option<Interpolation> {
    match value.as_u64()? {
        0 => Some(Interpolation::Nearest),
        1 => Some(Interpolation::Lanczos),
        2 => Some(Interpolation::Bilinear),
        3 => Some(Interpolation::Bicubic),
        _ => None,
    }
}

/// Takes values out of a JSON object; null is as good as absent.
struct Reader<'a> {
    json: &'a Value,
    prefix: &'static str,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    fn refuse(&self, key: &str, expected: &str) -> String {
        format!("{}{key}: expected {expected}, found {}", self.prefix, self.json.get(key).unwrap_or(&Value::Null))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.refuse(key, "true or false")))
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        let text = |value: &Value| value.as_str().map(str::to_string).ok_or_else(|| self.refuse(key, "a text"));
        self.get(key).map(text).transpose()
    }

    fn number(&self, key: &str, default: f64, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
        let number = |value: &Value| {
            value.as_f64().filter(|&n| n.is_finite() && fits(n)).ok_or_else(|| self.refuse(key, "a number above 0"))
        };
        self.get(key).map_or(Ok(default), number)
    }

    /// One number or a list of one or three.
    fn channels(&self, key: &str, default: &[f64], fits: impl Fn(f64) -> bool) -> Result<Vec<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let number = |value: &Value| value.as_f64().filter(|&n| n.is_finite() && fits(n));
        let values = match value.as_array() {
            Some(items) => items.iter().map(number).collect::<Option<Vec<f64>>>(),
            None => number(value).map(|n| vec![n]),
        };
        values
            .filter(|values| matches!(values.len(), 1 | 3))
            .ok_or_else(|| self.refuse(key, "one or three numbers (above 0 for a standard deviation)"))
    }
}
