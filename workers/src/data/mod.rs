//! Data: the three splits, their files, and batches of them.

mod splits;
mod tensor_file;

use tch::{Device, Kind, TchError, Tensor};

pub use splits::Data;

/// Samples with labels, in host memory.
pub struct Split {
    /// One tensor an input, first dimension N: float ones in the model's dtype, whole numbers as i64.
    pub inputs: Vec<Tensor>,
    /// `[N]`, i64.
    pub labels: Tensor,
}

impl Split {
    /// N.
    pub fn samples(&self) -> usize {
        self.labels.size()[0] as usize
    }

    /// The samples at `indices`, on `device`.
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<(Vec<Tensor>, Tensor), TchError> {
        let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let indices = Tensor::f_from_slice(&indices)?;
        let take = |t: &Tensor| t.f_index_select(0, &indices)?.f_to_device(device);
        Ok((self.inputs.iter().map(take).collect::<Result<_, _>>()?, take(&self.labels)?))
    }

    /// Samples `start..end`, on `device`.
    pub fn range(&self, start: usize, end: usize, device: Device) -> Result<(Vec<Tensor>, Tensor), TchError> {
        let take = |t: &Tensor| t.f_narrow(0, start as i64, (end - start) as i64)?.f_to_device(device);
        Ok((self.inputs.iter().map(take).collect::<Result<_, _>>()?, take(&self.labels)?))
    }

    /// The samples at `indices`, as a split of their own.
    fn subset(&self, indices: &[usize]) -> Result<Self, TchError> {
        let (inputs, labels) = self.batch(indices, Device::Cpu)?;
        Ok(Self { inputs, labels })
    }

    /// Float inputs in another dtype.
    fn into_kind(self, kind: Kind) -> Result<Self, TchError> {
        let convert = |t: Tensor| {
            if t.is_floating_point() { t.f_to_kind(kind) } else { t.f_to_kind(Kind::Int64) }
        };
        Ok(Self { inputs: self.inputs.into_iter().map(convert).collect::<Result<_, _>>()?, labels: self.labels })
    }
}

/// What is wrong with the data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be opened or read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's message.
        source: std::io::Error,
    },
    /// A file's content is not what is expected.
    #[error("{file}: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong, with the tensor, expected and found.
        what: String,
    },
    /// libtorch refused.
    #[error("data: {0}")]
    Torch(#[from] TchError),
}
