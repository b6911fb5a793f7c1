//! What is done to a decoded image: resize, crop, and, when a batch is taken, normalisation. Pure; sizes and rounding are those of torchvision,
//! transformers and timm, pixels those of Pillow within one level.

use std::cell::RefCell;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use mehl_soup::sweep::image_spec::{Extent, Interpolation};
use serde::{Deserialize, Serialize};

/// An image in memory: one byte a value, rows from the top, channels of a pixel side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Pixels {
    /// Size.
    pub extent: Extent,
    /// 1 (luminance) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` values.
    pub values: Vec<u8>,
}

/// From an encoded image to the values that are cached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PixelTransform {
    /// Whether EXIF orientation is applied.
    pub orientation: bool,
    /// Most pixels an image may have.
    pub max_pixels: u64,
    /// 1 or 3.
    pub channels: usize,
    /// First step.
    pub resize: Resize,
    /// How the first step computes.
    pub interpolation: Interpolation,
    /// Which side is resized first.
    pub passes: Passes,
    /// Second step.
    pub crop: Option<Crop>,
}

/// Resizing goes over columns and rows one after the other, and rounds to bytes in between: at sharp edges the order tells by some levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passes {
    /// As Pillow from version 13 on: rows first where the height shrinks by more than twice as many pixels as the width (torchvision, timm).
    Pillow,
    /// Columns first: torchvision on tensors (transformers), and Pillow before version 13.
    ColumnsFirst,
}

impl Passes {
    /// Whether rows come before columns.
    fn rows_first(self, source: Extent, full: Extent) -> bool {
        let shrinks = |from: usize, to: usize| from as i64 - to as i64;
        let (height, width) = (shrinks(source.height, full.height), shrinks(source.width, full.width));
        self == Self::Pillow && height > 0 && height > 2 * width
    }
}

/// What an image is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resize {
    /// It stays as it is.
    Keep,
    /// The shorter side to this, the longer one in proportion, rounded down (torchvision, transformers).
    ShortestEdge(usize),
    /// Exactly this.
    Exact(Extent),
    /// In proportion, the smallest that covers this, rounded to the nearest (timm, where the model's input is not square).
    Cover(Extent),
}

/// A cut from the middle; where the image is smaller, black is added on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crop {
    /// What is cut.
    pub extent: Extent,
    /// Where the middle is when an odd number of pixels is left over.
    pub rounding: Rounding,
}

/// How half a pixel is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// To the even one (torchvision, timm).
    HalfToEven,
    /// Down (transformers).
    Down,
}

/// `(value * rescale - mean) / std`, channel by channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// 1 / 255 nearly always.
    pub rescale: f64,
    /// One a channel.
    pub mean: Vec<f64>,
    /// One a channel, > 0.
    pub std: Vec<f64>,
}

impl Resize {
    /// The size of an image of this size once it is resized.
    pub fn of(self, source: Extent) -> Extent {
        // In f64, as Python divides whole numbers.
        let scaled = |n: usize, by: usize, over: usize| ((n as f64 * by as f64) / over as f64) as usize;
        let size = match self {
            Self::Keep => source,
            Self::Exact(extent) => extent,
            Self::ShortestEdge(side) if source.width <= source.height => {
                Extent { height: scaled(side, source.height, source.width), width: side }
            }
            Self::ShortestEdge(side) => Extent { height: side, width: scaled(side, source.width, source.height) },
            Self::Cover(target) => {
                let ratio =
                    (source.height as f64 / target.height as f64).min(source.width as f64 / target.width as f64);
                let side = |n: usize| (n as f64 / ratio).round_ties_even() as usize;
                Extent { height: side(source.height), width: side(source.width) }
            }
        };
        Extent { height: size.height.max(1), width: size.width.max(1) }
    }
}

/// One side of a crop: what of the resized image is seen, and where it lies in the result.
struct Window {
    /// First pixel of the resized image.
    from: usize,
    /// First pixel of the result.
    to: usize,
    /// Pixels.
    length: usize,
}

impl Rounding {
    /// A side of `target` pixels cut from one of `source`.
    fn window(self, source: usize, target: usize) -> Window {
        if target >= source {
            return Window { from: 0, to: (target - source) / 2, length: source };
        }
        let spare = source - target;
        let from = match self {
            Self::Down => spare / 2,
            Self::HalfToEven => (spare as f64 / 2.0).round_ties_even() as usize,
        };
        Window { from, to: 0, length: target }
    }
}

/// What one thread uses again for each image.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    narrowed: Vec<u8>,
    resized: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl PixelTransform {
    /// The size of every result; `None` where it follows the image's.
    pub fn output(&self) -> Option<Extent> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop.extent),
            (None, Resize::Exact(extent)) => Some(extent),
            (None, _) => None,
        }
    }

    /// Resizes and crops into `out`, `[channels, height, width]` of [`output`](Self::output), every value of which is written.
    ///
    /// # Errors
    /// If the image's channels or the size of `out` are others, or an intermediate size cannot be held.
    pub fn apply(&self, image: &Pixels, out: &mut [u8]) -> Result<(), String> {
        let full = self.resize.of(image.extent);
        let target = self.crop.map_or(full, |crop| crop.extent);
        if image.channels != self.channels || out.len() != self.channels * target.height * target.width {
            return Err(format!(
                "expected an image of {} channels and {} values of it, found {} and {}",
                self.channels,
                out.len(),
                image.channels,
                image.channels * target.height * target.width
            ));
        }
        let rounding = self.crop.map_or(Rounding::Down, |crop| crop.rounding);
        let (rows, columns) = (rounding.window(full.height, target.height), rounding.window(full.width, target.width));
        SCRATCH.with_borrow_mut(|scratch| {
            // Only what is seen is computed: each pixel depends on its surroundings in the source alone.
            let seen = Extent { height: rows.length, width: columns.length };
            let length = seen.height * seen.width * self.channels;
            scratch.resized.resize(length, 0);
            if full == image.extent {
                copy(image, &rows, &columns, &mut scratch.resized);
            } else if self.interpolation == Interpolation::Nearest {
                nearest(image, full, &rows, &columns, &mut scratch.resized);
            } else {
                self.convolve(image, full, (rows.from, columns.from), seen, scratch)?;
            }
            if seen != target {
                out.fill(0);
            }
            let area = target.height * target.width;
            for (row, from) in scratch.resized.chunks_exact(seen.width * self.channels).enumerate() {
                let start = (rows.to + row) * target.width + columns.to;
                if self.channels == 1 {
                    out[start..][..seen.width].copy_from_slice(from);
                    continue;
                }
                let (red, others) = out.split_at_mut(area);
                let (green, blue) = others.split_at_mut(area);
                let planes = red[start..].iter_mut().zip(&mut green[start..]).zip(&mut blue[start..]);
                for (((red, green), blue), pixel) in planes.zip(from.chunks_exact(3)) {
                    (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
                }
            }
            Ok(())
        })
    }

    fn convolve(
        &self,
        image: &Pixels,
        full: Extent,
        (top, left): (usize, usize),
        seen: Extent,
        Scratch { resizer, narrowed, resized }: &mut Scratch,
    ) -> Result<(), String> {
        let (filter, lobes) = match self.interpolation {
            // Nearest is handled before; a triangle is the nearest to it that smooths.
            Interpolation::Nearest | Interpolation::Bilinear => (FilterType::Bilinear, 1.0),
            Interpolation::Bicubic => (FilterType::CatmullRom, 2.0),
            Interpolation::Lanczos => (FilterType::Lanczos3, 3.0),
        };
        let kind = if self.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        // The part of the source that makes the part of the result.
        let part = |from: usize, length: usize, of: usize, source: usize| {
            let scale = source as f64 / of as f64;
            let start = from as f64 * scale;
            let length = if from + length == of { source as f64 - start } else { length as f64 * scale };
            (start, length)
        };
        let (y, height) = part(top, seen.height, full.height, image.extent.height);
        let (x, width) = part(left, seen.width, full.width, image.extent.width);
        if self.passes.rows_first(image.extent, full) {
            // The resizer's own order.
            let source = view(&image.values, image.extent, kind)?;
            let mut target =
                Image::from_slice_u8(seen.width as u32, seen.height as u32, resized, kind).map_err(refused)?;
            return resizer.resize(&source, &mut target, &options.crop(x, y, width, height)).map_err(refused);
        }
        // Columns in a pass of their own, of only the rows that the second pass looks at.
        let reach = lobes * (image.extent.height as f64 / full.height as f64).max(1.0);
        let first = (y - reach).floor().max(0.0) as usize;
        let last = ((y + height + reach).ceil() as usize).min(image.extent.height);
        let rows = last - first;
        narrowed.resize(rows * seen.width * self.channels, 0);
        let source = view(&image.values, image.extent, kind)?;
        let mut middle = Image::from_slice_u8(seen.width as u32, rows as u32, narrowed, kind).map_err(refused)?;
        resizer.resize(&source, &mut middle, &options.crop(x, first as f64, width, rows as f64)).map_err(refused)?;
        let source = view(narrowed, Extent { height: rows, width: seen.width }, kind)?;
        let mut target = Image::from_slice_u8(seen.width as u32, seen.height as u32, resized, kind).map_err(refused)?;
        let options = options.crop(0.0, y - first as f64, seen.width as f64, height);
        resizer.resize(&source, &mut target, &options).map_err(refused)
    }
}

fn view(values: &[u8], extent: Extent, kind: PixelType) -> Result<ImageRef<'_>, String> {
    ImageRef::new(extent.width as u32, extent.height as u32, values, kind).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> String {
    format!("cannot be resized: {error}")
}

/// The window of an image that is not resized.
fn copy(image: &Pixels, rows: &Window, columns: &Window, out: &mut [u8]) {
    let width = columns.length * image.channels;
    for (row, to) in out.chunks_exact_mut(width).enumerate() {
        let start = ((rows.from + row) * image.extent.width + columns.from) * image.channels;
        to.copy_from_slice(&image.values[start..start + width]);
    }
}

/// The window of an image resized without smoothing; positions are added up one by one, as in Pillow, so that they round alike.
fn nearest(image: &Pixels, full: Extent, rows: &Window, columns: &Window, out: &mut [u8]) {
    let positions = |source: usize, of: usize, window: &Window| -> Vec<usize> {
        let scale = source as f64 / of as f64;
        std::iter::successors(Some(scale * 0.5), |at| Some(at + scale))
            .skip(window.from)
            .take(window.length)
            .map(|at| (at as usize).min(source - 1))
            .collect()
    };
    let xs = positions(image.extent.width, full.width, columns);
    let ys = positions(image.extent.height, full.height, rows);
    let channels = image.channels;
    for (to, y) in out.chunks_exact_mut(columns.length * channels).zip(ys) {
        let row = &image.values[y * image.extent.width * channels..][..image.extent.width * channels];
        for (pixel, &x) in to.chunks_exact_mut(channels).zip(&xs) {
            pixel.copy_from_slice(&row[x * channels..][..channels]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(height: usize, width: usize) -> Extent {
        Extent { height, width }
    }

    #[test]
    fn sizes_are_those_of_python() {
        assert_eq!(Resize::ShortestEdge(256).of(extent(375, 500)), extent(256, 341));
        assert_eq!(Resize::ShortestEdge(256).of(extent(500, 375)), extent(341, 256));
        assert_eq!(Resize::ShortestEdge(3).of(extent(1000, 1)), extent(3000, 3));
        assert_eq!(Resize::Cover(extent(100, 50)).of(extent(37, 53)), extent(100, 143));
        assert_eq!(Resize::Exact(extent(5, 7)).of(extent(1, 1)), extent(5, 7));
    }

    #[test]
    fn the_middle_is_where_each_library_has_it() {
        for (source, even, down) in [(7, 2, 1), (9, 2, 2), (11, 4, 3), (8, 2, 2)] {
            assert_eq!(Rounding::HalfToEven.window(source, 4).from, even, "{source}");
            assert_eq!(Rounding::Down.window(source, 4).from, down, "{source}");
        }
    }

    #[test]
    fn the_order_of_passes_is_pillows() {
        let first = |passes: Passes, source, full| passes.rows_first(source, full);
        assert!(first(Passes::Pillow, extent(240, 120), extent(36, 20)));
        assert!(!first(Passes::Pillow, extent(240, 120), extent(40, 20)));
        assert!(first(Passes::Pillow, extent(120, 120), extent(119, 140)));
        assert!(!first(Passes::Pillow, extent(120, 120), extent(124, 160)));
        assert!(!first(Passes::ColumnsFirst, extent(240, 120), extent(36, 20)));
    }

    #[test]
    fn a_smaller_image_is_surrounded_by_black() {
        let transform = PixelTransform {
            orientation: true,
            max_pixels: 100,
            channels: 1,
            resize: Resize::Keep,
            interpolation: Interpolation::Bilinear,
            passes: Passes::Pillow,
            crop: Some(Crop { extent: extent(2, 5), rounding: Rounding::Down }),
        };
        let image = Pixels { extent: extent(3, 2), channels: 1, values: vec![1, 2, 3, 4, 5, 6] };
        let mut out = [9; 10];
        transform.apply(&image, &mut out).unwrap();
        assert_eq!(out, [0, 1, 2, 0, 0, 0, 3, 4, 0, 0]);
        assert!(transform.apply(&image, &mut [0; 9]).is_err());
    }
}
