//! Batches of cached images: taken as bytes, copied to the device, normalised there.

use std::cell::RefCell;
use std::sync::Arc;

use tch::{Device, Kind, TchError, Tensor};

use super::cache::Entry;
use super::transform::Normalization;

/// Images of a split, `[N, channels, height, width]`, as bytes in a mapped file.
pub struct StoredImages {
    /// Over the map, never written to.
    values: Tensor,
    /// Rows of `values` that are in the split, in its order; `None` for all.
    rows: Option<Vec<usize>>,
    normalization: Normalization,
    /// Dtype of batches.
    kind: Kind,
    /// The images of the split on a device, uint8, where they are [kept](StoredImages::keep_on) on one.
    kept: Option<Tensor>,
    /// Where bytes of batches are put together.
    staging: RefCell<Option<Tensor>>,
    /// `mean / rescale` and `std / rescale`, `[1, channels, 1, 1]`, in the dtype and on the device of the last batch.
    constants: RefCell<Option<(Tensor, Tensor)>>,
    /// Keeps the map alive that `values` looks at.
    entry: Arc<Entry>,
}

impl StoredImages {
    /// All images of an entry.
    ///
    /// # Errors
    /// Of libtorch.
    pub fn new(entry: Arc<Entry>, normalization: Normalization) -> Result<Self, TchError> {
        let shape = entry.description.shape.map(|n| n as i64);
        let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
        // SAFETY: the map has as many bytes as the shape says (checked when it was opened) and lives as long as `entry`, which is dropped after
        // `values`; no operation here writes to the tensor, and no view of it leaves this struct.
        let values =
            unsafe { Tensor::f_from_blob(entry.values().as_ptr(), &shape, &strides, Kind::Uint8, Device::Cpu) }?;
        Ok(Self {
            values,
            rows: None,
            kept: None,
            normalization,
            kind: Kind::Float,
            staging: RefCell::default(),
            constants: RefCell::default(),
            entry,
        })
    }

    /// N.
    pub fn samples(&self) -> usize {
        self.rows.as_ref().map_or(self.entry.description.shape[0], Vec::len)
    }

    /// `[channels, height, width]`
    pub fn shape(&self) -> [i64; 3] {
        let [_, channels, height, width] = self.entry.description.shape.map(|n| n as i64);
        [channels, height, width]
    }

    /// Batches in another dtype.
    pub fn into_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The images at `indices` of this split, without copying them.
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            values: self.values.shallow_clone(),
            rows: Some(indices.iter().map(|&i| self.row(i)).collect()),
            kept: None,
            normalization: self.normalization.clone(),
            kind: self.kind,
            staging: RefCell::default(),
            constants: RefCell::default(),
            entry: Arc::clone(&self.entry),
        }
    }

    /// Copies all images of the split to a device, some at a time: batches are taken from there.
    ///
    /// # Errors
    /// If memory cannot be had there.
    pub fn keep_on(&mut self, device: Device) -> Result<(), TchError> {
        /// Images that are put together on the host at a time.
        const PIECE: usize = 1024;
        let ([channels, height, width], n) = (self.shape(), self.samples());
        let kept = Tensor::f_empty([n as i64, channels, height, width], (Kind::Uint8, device))?;
        for first in (0..n).step_by(PIECE) {
            let indices: Vec<usize> = (first..n.min(first + PIECE)).collect();
            let piece = self.bytes(&indices)?;
            kept.f_narrow(0, first as i64, indices.len() as i64)?.f_copy_(&piece)?;
        }
        *self.staging.borrow_mut() = None;
        self.kept = Some(kept);
        Ok(())
    }

    fn row(&self, index: usize) -> usize {
        self.rows.as_ref().map_or(index, |rows| rows[index])
    }

    /// The bytes of the images at `indices`, `[n, channels, height, width]`, uint8, in host memory. The next call writes to the same memory: to take
    /// it anew each time costs as much as the copy, in page faults.
    ///
    /// # Errors
    /// Of libtorch.
    pub fn bytes(&self, indices: &[usize]) -> Result<Tensor, TchError> {
        let [channels, height, width] = self.shape();
        let (n, image) = (indices.len() as i64, (channels * height * width) as usize);
        let mut staging = self.staging.borrow_mut();
        if staging.as_ref().is_none_or(|kept| kept.size()[0] < n) {
            *staging = None;
        }
        let staging = match &mut *staging {
            Some(kept) => kept,
            none => none.insert(Tensor::f_empty([n, channels, height, width], (Kind::Uint8, Device::Cpu))?),
        };
        let taken = staging.f_narrow(0, 0, n)?;
        // SAFETY: the first n rows of a contiguous tensor of ours, that nobody looks at while this runs: tensors stay on their thread.
        let bytes = unsafe { std::slice::from_raw_parts_mut(taken.data_ptr().cast::<u8>(), indices.len() * image) };
        // Twice as fast as libtorch's index_select. One thread copies as fast as memory gives; several wait for each other where cores are busy.
        let values = self.entry.values();
        for (to, &i) in bytes.chunks_exact_mut(image).zip(indices) {
            to.copy_from_slice(&values[self.row(i) * image..][..image]);
        }
        Ok(taken)
    }

    /// The images at `indices`, normalised, on `device`.
    ///
    /// # Errors
    /// Of libtorch.
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<Tensor, TchError> {
        match &self.kept {
            Some(kept) => {
                let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
                let rows = Tensor::f_from_slice(&rows)?.f_to_device(kept.device())?;
                self.normalized(&kept.f_index_select(0, &rows)?, device)
            }
            None => self.normalized(&self.bytes(indices)?, device),
        }
    }

    /// Images `start..end`, normalised, on `device`.
    ///
    /// # Errors
    /// Of libtorch.
    pub fn range(&self, start: usize, end: usize, device: Device) -> Result<Tensor, TchError> {
        let part = |values: &Tensor| values.f_narrow(0, start as i64, (end - start) as i64);
        match (&self.kept, &self.rows) {
            (Some(kept), _) => self.normalized(&part(kept)?, device),
            (None, Some(_)) => self.batch(&(start..end).collect::<Vec<_>>(), device),
            // Converted straight out of the map.
            (None, None) => self.normalized(&part(&self.values)?, device),
        }
    }

    /// `(value * rescale - mean) / std`, as `(value - mean / rescale) / (std / rescale)`.
    fn normalized(&self, bytes: &Tensor, device: Device) -> Result<Tensor, TchError> {
        let mut constants = self.constants.borrow_mut();
        let (mean, std) = match &mut *constants {
            Some(known) if known.0.device() == device && known.0.kind() == self.kind => known,
            other => other.insert(self.constants_on(device)?),
        };
        let mut values = bytes.f_to_device(device)?.f_to_kind(self.kind)?;
        values.f_sub_(mean)?.f_div_(std)
    }

    fn constants_on(&self, device: Device) -> Result<(Tensor, Tensor), TchError> {
        let Normalization { rescale, mean, std } = &self.normalization;
        let by_channel = |values: &[f64]| {
            let scaled: Vec<f64> = values.iter().map(|value| value / rescale).collect();
            Tensor::f_from_slice(&scaled)?.f_to_kind(self.kind)?.f_view([1, -1, 1, 1])?.f_to_device(device)
        };
        Ok((by_channel(mean)?, by_channel(std)?))
    }
}
