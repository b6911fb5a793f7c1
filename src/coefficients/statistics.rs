//! Running statistics of a soup: what the layers of batch normalisation saw with the soup's weights.
//!
//! A weighted sum of the ingredients' own would describe nobody's layers, and with negative coefficients its variances can be negative.
//! So they are computed anew for a soup, kept beside its coefficients, and written with it.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::{TensorInfo, TensorView};

/// What comes before a statistic's name in a coefficients file.
pub(super) const PREFIX: &str = "buffers.";

/// Means and variances by their names on disk.
pub type Statistics = BTreeMap<String, Statistic>;

/// One running mean or variance.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistic {
    /// Shape on disk.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Statistic {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    pub(super) fn view<'a>(&self, bytes: &'a [u8]) -> TensorView<'a> {
        TensorView::new(Dtype::F32, self.shape.clone(), bytes).expect("as many values as the shape has elements")
    }

    /// From a tensor of a coefficients file; `data` are the file's tensors, and the header was found to fit them.
    pub(super) fn read(name: &str, info: &TensorInfo, data: &[u8]) -> Result<Self, String> {
        if info.dtype != Dtype::F32 {
            return Err(format!("statistic `{name}`: expected F32, found {}", info.dtype));
        }
        let bytes = &data[info.data_offsets.0..info.data_offsets.1];
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("statistic `{name}`: expected finite values, found {bad}"));
        }
        if let Some(bad) = values.iter().find(|value| name.ends_with(".running_var") && **value < 0.0) {
            return Err(format!("statistic `{name}`: expected variances of at least 0, found {bad}"));
        }
        Ok(Self { shape: info.shape.clone(), values })
    }
}
