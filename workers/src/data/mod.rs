//! Data: the three splits, their sources (tensor files or images), and batches of them.

pub mod images;
mod splits;
mod tensor_file;

use tch::{Device, Kind, TchError, Tensor};

use images::stored::StoredImages;
pub use splits::Data;

/// Some samples, on one device.
#[derive(Debug)]
pub struct Batch {
    /// The model's inputs, in the order of `data.inputs`; first dimension N.
    pub inputs: Vec<Tensor>,
    /// What the objective compares outputs with; first dimension N.
    pub targets: Tensor,
}

/// Samples with targets: in host memory, mapped into it, or [kept on a device](Split::keep_on).
pub struct Split {
    inputs: Samples,
    /// First dimension N; labels `[N]`, i64, for classification.
    pub targets: Tensor,
}

/// The inputs of a split.
enum Samples {
    /// One tensor an input, first dimension N: float ones in the model's dtype, whole numbers as i64.
    Tensors(Vec<Tensor>),
    /// One input: images.
    Images(StoredImages),
}

impl Split {
    /// Of tensors, one an input, first dimension N.
    pub fn of_tensors(inputs: Vec<Tensor>, targets: Tensor) -> Self {
        Self { inputs: Samples::Tensors(inputs), targets }
    }

    /// Of images.
    pub fn of_images(images: StoredImages, targets: Tensor) -> Self {
        Self { inputs: Samples::Images(images), targets }
    }

    /// N.
    pub fn samples(&self) -> usize {
        self.targets.size()[0] as usize
    }

    /// Dtype and shape of one sample of each input, as batches have them.
    pub fn sample_shapes(&self) -> Vec<(Kind, Vec<i64>)> {
        match &self.inputs {
            Samples::Tensors(tensors) => tensors.iter().map(|t| (t.kind(), t.size()[1..].to_vec())).collect(),
            Samples::Images(images) => vec![(Kind::Float, images.shape().to_vec())],
        }
    }

    /// The images, if it is of images.
    pub fn images(&self) -> Option<&StoredImages> {
        match &self.inputs {
            Samples::Images(images) => Some(images),
            Samples::Tensors(_) => None,
        }
    }

    /// The samples at `indices`, on `device`.
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<Batch, TchError> {
        let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let rows = Tensor::f_from_slice(&rows)?;
        let take = |t: &Tensor| t.f_index_select(0, &rows.f_to_device(t.device())?)?.f_to_device(device);
        let inputs = match &self.inputs {
            Samples::Tensors(tensors) => tensors.iter().map(take).collect::<Result<_, _>>()?,
            Samples::Images(images) => vec![images.batch(indices, device)?],
        };
        Ok(Batch { inputs, targets: take(&self.targets)? })
    }

    /// Samples `start..end`, on `device`.
    pub fn range(&self, start: usize, end: usize, device: Device) -> Result<Batch, TchError> {
        let take = |t: &Tensor| t.f_narrow(0, start as i64, (end - start) as i64)?.f_to_device(device);
        let inputs = match &self.inputs {
            Samples::Tensors(tensors) => tensors.iter().map(take).collect::<Result<_, _>>()?,
            Samples::Images(images) => vec![images.range(start, end, device)?],
        };
        Ok(Batch { inputs, targets: take(&self.targets)? })
    }

    /// Bytes of all samples, as they are stored.
    pub fn bytes(&self) -> u64 {
        let of = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        let inputs = match &self.inputs {
            Samples::Tensors(tensors) => tensors.iter().map(of).sum(),
            Samples::Images(images) => images.shape().iter().product::<i64>() as u64 * images.samples() as u64,
        };
        inputs + of(&self.targets)
    }

    /// Copies all samples to a device, as they are stored: batches are then taken there, and are the same values.
    ///
    /// # Errors
    /// If memory cannot be had there.
    pub fn keep_on(&mut self, device: Device) -> Result<(), TchError> {
        let targets = self.targets.f_to_device(device)?;
        match &mut self.inputs {
            Samples::Tensors(tensors) => {
                *tensors = tensors.iter().map(|t| t.f_to_device(device)).collect::<Result<_, _>>()?;
            }
            Samples::Images(images) => images.keep_on(device)?,
        }
        self.targets = targets;
        Ok(())
    }

    /// The samples at `indices`, as a split of their own; images are not copied.
    pub(crate) fn subset(&self, indices: &[usize]) -> Result<Self, TchError> {
        match &self.inputs {
            Samples::Tensors(_) => {
                let Batch { inputs, targets } = self.batch(indices, Device::Cpu)?;
                Ok(Self::of_tensors(inputs, targets))
            }
            Samples::Images(images) => {
                let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
                let targets = self.targets.f_index_select(0, &Tensor::f_from_slice(&rows)?)?;
                Ok(Self::of_images(images.subset(indices), targets))
            }
        }
    }

    /// Float inputs in another dtype.
    fn into_kind(self, kind: Kind) -> Result<Self, TchError> {
        let convert = |t: Tensor| {
            if t.is_floating_point() { t.f_to_kind(kind) } else { t.f_to_kind(Kind::Int64) }
        };
        let inputs = match self.inputs {
            Samples::Tensors(tensors) => Samples::Tensors(tensors.into_iter().map(convert).collect::<Result<_, _>>()?),
            Samples::Images(images) => Samples::Images(images.into_kind(kind)),
        };
        Ok(Self { inputs, targets: self.targets })
    }
}

/// A split as it is in its source.
pub struct Loaded {
    /// The samples; tensors with dtypes as in the file.
    pub split: Split,
    /// Hash of all that the split is, hexadecimal: blake3 of a tensor file; of the images' contents, classes and transform.
    pub hash: String,
    /// blake3 of each sample's inputs or encoded image, to notice samples that two splits share.
    pub rows: Vec<blake3::Hash>,
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
