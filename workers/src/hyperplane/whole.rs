//! Rows of all values, in the dtype that is computed in: f32, or f64 for checks.

use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, TchError, Tensor};

use super::cuda::DeviceRows;
use super::directions::Stored;
use super::kernels::{self, Base, Float, MixJob, ProjectJob, Sink};
use super::lengths::{Lengths, inverse};
use super::narrow;
use super::on_device::{self, OnDevice};
use super::read::{Source, load_rows};
use super::rows::{Division, Rows, Start, TensorProjection};
use super::span::{MixedTensors, SpanError};
use super::tensors::{by_kind, slice, slice_mut};

/// Rows `[b, n]`, one tensor for each mixed tensor.
pub struct Whole {
    kind: Kind,
    members: usize,
    rows: Vec<Tensor>,
}

impl Whole {
    /// Of rows `[b, n]` in the dtype `kind`, on any device.
    pub fn new(rows: Vec<Tensor>, members: usize, kind: Kind) -> Self {
        Self { kind, members, rows }
    }

    /// The ingredients themselves.
    pub(super) fn of_ingredients(
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SpanError> {
        let mut rows = Vec::with_capacity(mixed.names.len());
        for (name, &n) in mixed.names.iter().zip(&mixed.sizes) {
            rows.push(by_kind!(kind, load_rows(zoo, members, name, n))?.f_to_device(device)?);
        }
        Ok(Self::new(rows, members.len(), kind))
    }

    /// Differences of the ingredients from the centre, whose squares go to `lengths`.
    pub(super) fn read(
        source: &Source<'_>,
        mixed: &MixedTensors,
        centre: &[Tensor],
        Stored { device, kind, .. }: Stored,
        lengths: &mut Lengths,
    ) -> Result<Self, SpanError> {
        let mut rows = Vec::with_capacity(mixed.names.len());
        for (i, centre) in centre.iter().enumerate() {
            let row = source.rows(mixed, i, kind)?;
            let (squares, of_centre) = by_kind!(kind, subtract(&row, &centre.f_to_device(Device::Cpu)?));
            lengths.add(mixed.groups[i], 0, &squares, of_centre);
            // Besides what was read ahead, the host holds one tensor of the batch for another
            // device.
            rows.push(source.kept(row, device)?);
        }
        Ok(Self::new(rows, source.members.len(), kind))
    }
}

impl Rows for Whole {
    fn mix(&self, x: &[f64], start: Start<'_>, outputs: &[Tensor]) -> Result<(), TchError> {
        if on_device::are_on_host(outputs) {
            by_kind!(self.kind, mix_on_host(self, x, start, outputs));
            return Ok(());
        }
        tch::no_grad(|| on_device::mix(self, x, start, outputs))
    }

    fn project(&self, gradients: &[Tensor], which: &[usize]) -> Result<Vec<TensorProjection>, TchError> {
        match on_device::host_gradients(gradients, which)? {
            Some(gradients) => Ok(by_kind!(self.kind, project_on_host(self, &gradients, which))),
            None => on_device::project(self, gradients, which),
        }
    }

    fn normalise(&mut self, lengths: &[f64]) -> Result<Division, TchError> {
        for (i, row) in self.rows.iter_mut().enumerate() {
            let lengths = &lengths[i * self.members..(i + 1) * self.members];
            if row.device() == Device::Cpu {
                by_kind!(self.kind, normalise_rows(row, lengths));
            } else {
                let inverse: Vec<f64> = lengths.iter().map(|&n| inverse(n)).collect();
                let inverse = Tensor::f_from_slice(&inverse)?.f_to_kind(self.kind)?.f_to_device(row.device())?;
                let _same = row.f_mul_(&inverse.f_unsqueeze(1)?)?;
            }
        }
        Ok(Division::Rows)
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.numel() * row.kind().elt_size_in_bytes()).sum()
    }
}

impl OnDevice for Whole {
    fn members(&self) -> usize {
        self.members
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn for_kernels(&self, tensor: usize) -> DeviceRows<'_> {
        DeviceRows { code: None, values: &self.rows[tensor], scales: None }
    }

    fn at_once(&self, _: usize) -> usize {
        self.members
    }

    fn values(&self, tensor: usize, _: std::ops::Range<usize>) -> Result<Tensor, TchError> {
        Ok(self.rows[tensor].shallow_clone())
    }
}

fn mix_on_host<T: Float>(whole: &Whole, x: &[f64], start: Start<'_>, outputs: &[Tensor]) {
    let b = whole.members;
    let job = |(i, out): (usize, _)| MixJob {
        out: narrow::sink(out),
        base: match start {
            Start::Zero => Base::Zero,
            Start::From(base) => Base::From(slice::<T>(&base[i])),
            Start::InPlace => Base::InPlace,
        },
        rows: slice::<T>(&whole.rows[i]),
        x: x[i * b..(i + 1) * b].iter().map(|&x| T::from_f64(x)).collect(),
    };
    kernels::mix(outputs.iter().enumerate().map(job).collect());
}

fn project_on_host<T: Float>(whole: &Whole, gradients: &[Tensor], which: &[usize]) -> Vec<TensorProjection> {
    let job = |(&i, gradient)| ProjectJob { rows: slice::<T>(&whole.rows[i]), gradient: narrow::source(gradient) };
    kernels::project(&which.iter().zip(gradients).map(job).collect::<Vec<_>>())
}

/// Takes the centre from rows of ingredients: the squares of [`kernels::subtract_centre`].
pub(super) fn subtract<T: Float>(rows: &Tensor, centre: &Tensor) -> (Vec<(f64, f64)>, f64) {
    kernels::subtract_centre(slice_mut::<T>(rows), slice::<T>(centre))
}

/// Divides rows `[k, n]` by their lengths `[k]`.
pub(super) fn normalise_rows<T: Float>(rows: &Tensor, lengths: &[f64]) {
    let n = rows.size()[1].max(1) as usize;
    for (row, &length) in slice_mut::<T>(rows).chunks_mut(n).zip(lengths) {
        kernels::normalise(row, length);
    }
}

/// `sum += x row`
pub(super) fn add<T: Float>(sum: &Tensor, row: &Tensor, x: f64) {
    let job = MixJob {
        out: Sink::Own(slice_mut::<T>(sum)),
        base: Base::InPlace,
        rows: slice::<T>(row),
        x: vec![T::from_f64(x)],
    };
    kernels::mix(vec![job]);
}
