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
        resize: extent(&mut section, "resize").map(|extent| extent.map_or_else(ResizeSpec::ShortestEdge, ResizeSpec::Exact)),
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
        section.fault(&field, Problem::Conflict(format!("class `{}` is named twice", pair[0])));
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
