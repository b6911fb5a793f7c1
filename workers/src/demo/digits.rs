//! UCI optical digits: 1797 images of 8 x 8 pixels, shipped with this program (see `workers/data/README.md` for source and licence).

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, TchError, Tensor};

use super::DemoError;
use super::write::write;
use crate::data::Split;
use crate::rng::permutation;

const CSV: &[u8] = include_bytes!("../../data/optdigits.csv.gz");

/// Side of an image as it is shipped.
pub const SIDE: usize = 8;
/// Digits.
pub const CLASSES: usize = 10;

/// Images and labels.
#[derive(Debug, Clone)]
pub struct Digits {
    /// Row-major `[N, channels, side, side]`, grey values scaled to [-1, 1].
    pub pixels: Vec<f32>,
    /// `[N]`.
    pub labels: Vec<i64>,
    /// All equal.
    pub channels: usize,
    /// Of an image.
    pub side: usize,
}

/// The parts that the demo cuts the data in; no two share an image.
pub struct Parts {
    /// The base model is trained on these.
    pub base: Digits,
    /// Ingredients are fine-tuned on these.
    pub train: Digits,
    /// Coefficients are learned on these.
    pub learn: Digits,
    /// Choices rest on these.
    pub select: Digits,
    /// Only reported.
    pub test: Digits,
}

impl Digits {
    /// All 1797.
    pub fn all() -> Result<Self, DemoError> {
        let damaged = |what: String| DemoError::Data(what);
        let mut text = String::new();
        GzDecoder::new(CSV).read_to_string(&mut text).map_err(|e| damaged(e.to_string()))?;
        let mut digits = Self { pixels: vec![], labels: vec![], channels: 1, side: SIDE };
        for (line, row) in text.lines().enumerate() {
            let values: Result<Vec<f32>, _> = row.split(',').map(|value| value.trim().parse::<f32>()).collect();
            let values = values.map_err(|e| damaged(format!("line {}: {e}", line + 1)))?;
            let [pixels @ .., label] = values.as_slice() else {
                return Err(damaged(format!("line {}: expected 65 values, found none", line + 1)));
            };
            if pixels.len() != SIDE * SIDE {
                return Err(damaged(format!("line {}: expected 65 values, found {}", line + 1, pixels.len() + 1)));
            }
            digits.pixels.extend(pixels.iter().map(|grey| grey / 8.0 - 1.0));
            digits.labels.push(*label as i64);
        }
        Ok(digits)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Cuts all images in parts by a seeded shuffle: 450 base, 400 train, 350 learn, 250 select, the other 347 test.
    pub fn parts(&self, seed: u64) -> Parts {
        let order = permutation(seed, "digits", &[], self.len());
        let take = |from: usize, to: usize| {
            let values = self.channels * self.side * self.side;
            let mut part = Self { pixels: vec![], labels: vec![], ..*self };
            for &i in &order[from.min(order.len())..to.min(order.len())] {
                part.pixels.extend_from_slice(&self.pixels[i * values..(i + 1) * values]);
                part.labels.push(self.labels[i]);
            }
            part
        };
        Parts {
            base: take(0, 450),
            train: take(450, 850),
            learn: take(850, 1200),
            select: take(1200, 1450),
            test: take(1450, self.len()),
        }
    }

    /// The same images with each pixel a square of pixels, in some channels. `side` is a multiple of the side of an image.
    pub fn enlarged(&self, side: usize, channels: usize) -> Self {
        let times = side / self.side;
        let mut pixels = Vec::with_capacity(self.len() * channels * side * side);
        for image in self.pixels.chunks_exact(self.channels * self.side * self.side) {
            for _ in 0..channels {
                let at = |n: usize| image[n / side / times * self.side + n % side / times];
                pixels.extend((0..side * side).map(at));
            }
        }
        Self { pixels, labels: self.labels.clone(), channels, side }
    }

    /// These images, and others of the same size.
    pub fn with(mut self, others: &Self) -> Self {
        self.pixels.extend_from_slice(&others.pixels);
        self.labels.extend_from_slice(&others.labels);
        self
    }

    /// As tensors in memory.
    pub fn to_split(&self) -> Result<Split, TchError> {
        let shape = [self.len() as i64, self.channels as i64, self.side as i64, self.side as i64];
        Ok(Split::of_tensors(
            vec![("inputs".to_string(), Tensor::f_from_slice(&self.pixels)?.f_view(shape)?.f_to_device(Device::Cpu)?)],
            Tensor::f_from_slice(&self.labels)?,
        ))
    }

    /// Writes `inputs` and `labels` as a tensor file.
    pub fn write(&self, path: &Path) -> Result<(), DemoError> {
        let pixels: Vec<u8> = self.pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
        let labels: Vec<u8> = self.labels.iter().flat_map(|v| v.to_le_bytes()).collect();
        let n = self.len();
        let view = |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(|e| DemoError::Data(e.to_string()));
        let bytes = safetensors::serialize(
            [
                ("inputs", view(Dtype::F32, vec![n, self.channels, self.side, self.side], &pixels)?),
                ("labels", view(Dtype::I64, vec![n], &labels)?),
            ],
            None,
        )
        .map_err(|e| DemoError::Data(e.to_string()))?;
        write(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_images_are_there_and_no_two_parts_share_one() {
        let all = Digits::all().unwrap();
        assert_eq!((all.len(), all.pixels.len()), (1797, 1797 * 64));
        assert!(all.pixels.iter().all(|p| (-1.0..=1.0).contains(p)));
        assert!(all.labels.iter().all(|label| (0..10).contains(label)));
        let parts = all.parts(3);
        let sizes = [&parts.base, &parts.train, &parts.learn, &parts.select, &parts.test].map(Digits::len);
        assert_eq!(sizes, [450, 400, 350, 250, 347]);
        assert_ne!(parts.test.pixels, all.parts(4).test.pixels);
    }

    #[test]
    fn enlarged_images_are_of_larger_pixels_in_every_channel() {
        let small = Digits { pixels: (0..8).map(|v| v as f32).collect(), labels: vec![0, 1], channels: 1, side: 2 };
        let large = small.enlarged(4, 3);
        let first = [0., 0., 1., 1., 0., 0., 1., 1., 2., 2., 3., 3., 2., 2., 3., 3.];
        assert_eq!((large.side, large.channels, large.pixels.len()), (4, 3, 2 * 3 * 16));
        for channel in large.pixels[..48].chunks(16) {
            assert_eq!(channel, first);
        }
        assert_eq!(large.pixels[48], 4.0);
        assert_eq!(small.enlarged(2, 1).pixels, small.pixels);
        assert_eq!(small.clone().with(&small).labels, [0, 1, 0, 1]);
    }
}
