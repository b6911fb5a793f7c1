//! `[data.image]` and the other keys of `[data]` that are about images.

use super::fault::Problem;
use super::node::{Node, Value};
use super::section::Section;
use crate::sweep::image_spec::{Extent, ImageSpec, Interpolation, ResizeSpec};

/// Longest side that is taken, in pixels.
const LONGEST_SIDE: i64 = 16_384;
const EXTENT: &str = "a number of pixels, or a list of two (height, width), from 1 to 16384";

/// Reads `[data.image]`.
pub(super) fn image(mut section: Section<'_>) -> ImageSpec {
    let default = ImageSpec::default();
    let spec = ImageSpec {
        size: extent(&mut section, "size").map(|extent| extent.unwrap_or_else(Extent::square)),
        resize: extent(&mut section, "resize")
            .map(|extent| extent.map_or_else(ResizeSpec::ShortestEdge, ResizeSpec::Exact)),
        crop: extent(&mut section, "crop").map(|extent| extent.unwrap_or_else(Extent::square)),
        interpolation: section.word("interpolation", &Interpolation::NAMED),
        mean: channels(&mut section, "mean", "a number, or a list of one or three", |_| true),
        std: channels(&mut section, "std", "a number above 0, or a list of one or three", |value| value > 0.0),
        orientation: section.boolean("orientation").unwrap_or(default.orientation),
        max_pixels: section.integer("max_pixels", 1..=i64::MAX).map_or(default.max_pixels, |value| value as u64),
    };
    section.finish();
    spec
}

/// Names of classes, in the order of the model's outputs.
pub(super) fn classes(section: &mut Section<'_>) -> Option<Vec<String>> {
    let names = section.texts("classes", "a class's name")?;
    let field = section.field("classes")?;
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        section.fault(&field, Problem::Conflict(format!("class `{}` is listed twice", pair[0])));
    }
    Some(names)
}

/// One number (`Err`) or a pair.
fn extent(section: &mut Section<'_>, key: &'static str) -> Option<Result<Extent, usize>> {
    let field = section.field(key)?;
    let side = |node: &Node| match node.value {
        Value::Integer(side) if (1..=LONGEST_SIDE).contains(&side) => Some(side as usize),
        _ => None,
    };
    let found = match &field.node.value {
        Value::List(items) => match items.as_slice() {
            [height, width] => side(height).zip(side(width)).map(|(height, width)| Ok(Extent { height, width })),
            _ => None,
        },
        _ => side(field.node).map(Err),
    };
    found.or_else(|| section.refuse(&field, EXTENT))
}

fn channels(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    fits: impl Fn(f64) -> bool,
) -> Option<Vec<f64>> {
    let field = section.field(key)?;
    let number = |node: &Node| match node.value {
        Value::Float(value) if value.is_finite() && fits(value) => Some(value),
        Value::Integer(value) if fits(value as f64) => Some(value as f64),
        _ => None,
    };
    let found = match &field.node.value {
        Value::List(items) if matches!(items.len(), 1 | 3) => items.iter().map(number).collect(),
        Value::List(_) => None,
        _ => number(field.node).map(|value| vec![value]),
    };
    found.or_else(|| section.refuse(&field, expected))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sweep::parse::{Format, parse_spec_text};
    use crate::sweep::spec::Spec;

    const LEAST: &str = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn'\n";

    fn with(rest: &str) -> Spec {
        let text = format!("{LEAST}{rest}");
        parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_key_is_read() {
        let spec = with(
            "[data.image]\nsize = 224\nresize = [256, 300]\ncrop = [224, 240]\ninterpolation = 'bicubic'\nmean = [0.5, 0.4, 1]\nstd = 0.25\n\
             orientation = false\nmax_pixels = 1000\n[compute]\nimage_cache = '5GiB'",
        );
        let expected = ImageSpec {
            size: Some(Extent::square(224)),
            resize: Some(ResizeSpec::Exact(Extent { height: 256, width: 300 })),
            crop: Some(Extent { height: 224, width: 240 }),
            interpolation: Some(Interpolation::Bicubic),
            mean: Some(vec![0.5, 0.4, 1.0]),
            std: Some(vec![0.25]),
            orientation: false,
            max_pixels: 1000,
        };
        assert_eq!(spec.data.image, expected);
        assert_eq!(spec.compute.image_cache_bytes, 5 << 30);
        let spec = with(
            "data.classes = ['a', 'b']\ndata.skip_unreadable = true\ndata.allow_missing_classes = true\ndata.image.resize = 256",
        );
        assert_eq!(spec.data.classes, Some(vec!["a".to_string(), "b".to_string()]));
        assert!(spec.data.skip_unreadable && spec.data.allow_missing_classes);
        assert_eq!(spec.data.image.resize, Some(ResizeSpec::ShortestEdge(256)));
    }

    #[test]
    fn what_is_not_said_changes_nothing() {
        let spec = with("");
        assert!(spec.data.image.is_default() && spec.data.image.orientation);
        assert_eq!(spec.data.image.max_pixels, 100_000_000);
        assert_eq!(spec.compute.image_cache_bytes, 20 << 30);
        // Specifications of before images were known hash to the same.
        let json = serde_json::to_string(&spec.data).unwrap();
        assert!(!json.contains("image") && !json.contains("classes") && !json.contains("skip"), "{json}");
        assert_eq!(spec, serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap());
    }

    #[test]
    fn all_of_it_is_part_of_the_identity_but_the_cache() {
        let identity = |rest: &str| with(rest).identity();
        let plain = identity("");
        assert_eq!(plain, identity("compute.image_cache = 0"));
        for other in [
            "data.image.size = 8",
            "data.image.mean = 0.5",
            "data.image.orientation = false",
            "data.image.max_pixels = 5",
            "data.classes = 'a'",
            "data.skip_unreadable = true",
            "data.allow_missing_classes = true",
        ] {
            assert_ne!(plain, identity(other), "{other}");
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = format!(
            "{LEAST}[data]\nclasses = ['a', 'b', 'a']\nskip_unreadable = 1\n[data.image]\nsize = [8]\nresize = 0\ncrop = 'all'\n\
             interpolation = 'bicubi'\nmean = [1, 2]\nstd = [0.5, 0, 1]\nmax_pixels = 0\norientations = true\n[compute]\nimage_cache = -1",
        )
        .replace("data.learn = 'learn'\n[data]\n", "[data]\nlearn = 'learn'\n");
        let error = parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap_err().to_string();
        let expected = [
            "sweep:4:11: data.classes: class `a` is listed twice",
            "sweep:5:19: data.skip_unreadable: expected true or false, found 1",
            "sweep:7:8: data.image.size: expected a number of pixels, or a list of two (height, \
             width), from 1 to 16384, found a list of length 1",
            "sweep:8:10: data.image.resize: expected a number of pixels, or a list of two (height, width), from 1 to 16384, found 0",
            "sweep:9:8: data.image.crop: expected a number of pixels, or a list of two (height, width), from 1 to 16384, found `all`",
            "sweep:10:17: data.image.interpolation: expected one of `nearest`, `bilinear`, \
             `bicubic`, `lanczos`, found `bicubi`; did you mean `bicubic`?",
            "sweep:11:8: data.image.mean: expected a number, or a list of one or three, found a \
             list of length 2",
            "sweep:12:7: data.image.std: expected a number above 0, or a list of one or three, \
             found a list of length 3",
            "sweep:13:14: data.image.max_pixels: expected a whole number of at least 1, found 0",
            "sweep:14:1: data.image.orientations: unknown key; did you mean `orientation`?",
            "sweep:16:15: compute.image_cache: expected a number of bytes, or a size such as `8GiB` or `8GB`, found -1",
        ];
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
    }
}
