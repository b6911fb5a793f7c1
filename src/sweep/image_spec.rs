//! `[data.image]`: what a specification says about how images become what the model takes. What it leaves open, the ingredients' own files tell.

use serde::{Deserialize, Serialize};

/// `[data.image]`; every key overrides what the ingredients' files say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSpec {
    /// What the model takes; the other steps keep their proportion to it.
    pub size: Option<Extent>,
    /// What an image is first resized to.
    pub resize: Option<ResizeSpec>,
    /// What is then cut from the middle.
    pub crop: Option<Extent>,
    /// How it is resized.
    pub interpolation: Option<Interpolation>,
    /// Mean of each channel, of values in [0, 1]; one number stands for all channels.
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, > 0.
    pub std: Option<Vec<f64>>,
    /// Whether images are turned as their EXIF data say.
    pub orientation: bool,
    /// Most pixels that an image may have before it is resized.
    pub max_pixels: u64,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            size: None,
            resize: None,
            crop: None,
            interpolation: None,
            mean: None,
            std: None,
            orientation: true,
            max_pixels: Self::MAX_PIXELS,
        }
    }
}

impl ImageSpec {
    /// Default of [`max_pixels`](Self::max_pixels): 100 megapixels, 300 MB once decoded.
    pub const MAX_PIXELS: u64 = 100_000_000;

    /// Whether it says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Height and width in pixels, both at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// A square.
    pub fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.height, self.width)
    }
}

/// What an image is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeSpec {
    /// The shorter side becomes this long, the longer one in proportion.
    ShortestEdge(usize),
    /// Exactly this, whatever the proportions.
    Exact(Extent),
}

/// How pixels between pixels are computed, named and computed as in Pillow (smoothed when made smaller).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest pixel; never smoothed.
    Nearest,
    /// Triangle.
    Bilinear,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Interpolation {
    /// Every interpolation, by the name used in specifications.
    pub const NAMED: [(&str, Interpolation); 4] = [
        ("nearest", Interpolation::Nearest),
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos", Interpolation::Lanczos),
    ];
}
