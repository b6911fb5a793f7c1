//! A model batch of compact rows.

use tch::{Device, Kind, TchError, Tensor};

use super::kernels::{self, CompactMix, CompactProject};
use super::{Code, CompactRows};
use crate::hyperplane::cuda::DeviceRows;
use crate::hyperplane::directions::Stored;
use crate::hyperplane::kernels::Float;
use crate::hyperplane::lengths::Lengths;
use crate::hyperplane::narrow;
use crate::hyperplane::on_device::{self, OnDevice};
use crate::hyperplane::read::{Source, scratch};
use crate::hyperplane::rows::{Rows, Start, TensorProjection};
use crate::hyperplane::span::{MixedTensors, SpanError};
use crate::hyperplane::tensors::{by_kind, slice};

/// Most values that compact rows are made into at a time; few where tests are to see several
/// groups.
const UNPACKED: usize = if cfg!(test) { 2 * 192 } else { 1 << 24 };

/// Compact rows, one for each mixed tensor, before they are divided by their lengths.
pub struct Compact {
    kind: Kind,
    members: usize,
    rows: Vec<CompactRows>,
}

impl Compact {
    /// Of the rows of each mixed tensor, for mixes and projections in the dtype `kind`.
    pub fn new(rows: Vec<CompactRows>, members: usize, kind: Kind) -> Self {
        Self { kind, members, rows }
    }

    /// Differences of the ingredients from the centre, whose squares go to `lengths`. They are read
    /// one row at a time.
    pub(in crate::hyperplane) fn read(
        code: Code,
        source: &Source<'_>,
        mixed: &MixedTensors,
        centre: &[Tensor],
        Stored { device, kind, .. }: Stored,
        lengths: &mut Lengths,
    ) -> Result<Self, SpanError> {
        let b = source.members.len();
        let mut rows = Vec::with_capacity(mixed.names.len());
        let scratch = scratch(mixed, kind)?;
        for (i, &n) in mixed.sizes.iter().enumerate() {
            let host_centre = centre[i].f_to_device(Device::Cpu)?;
            let mut compact = CompactRows::new(code, b, n)?;
            for k in 0..b {
                let row = source.row(mixed, i, k, (&scratch, kind))?;
                lengths.take(mixed.groups[i], k, (&row, kind), &host_centre);
                by_kind!(kind, store(&mut compact, k, &row));
            }
            rows.push(compact.to_device(device)?);
        }
        Ok(Self::new(rows, b, kind))
    }
}

impl Rows for Compact {
    fn mix(&self, x: &[f64], start: Start<'_>, outputs: &[Tensor]) -> Result<(), TchError> {
        match start {
            Start::From(base) if on_device::are_on_host(outputs) => {
                by_kind!(self.kind, mix_on_host(self, x, base, outputs));
                Ok(())
            }
            _ => tch::no_grad(|| on_device::mix(self, x, start, outputs)),
        }
    }

    fn project(&self, gradients: &[Tensor], which: &[usize]) -> Result<Vec<TensorProjection>, TchError> {
        match on_device::host_gradients(gradients, which)? {
            Some(gradients) => Ok(by_kind!(self.kind, project_on_host(self, &gradients, which))),
            None => on_device::project(self, gradients, which),
        }
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn bytes(&self) -> usize {
        self.rows.iter().map(CompactRows::bytes).sum()
    }
}

impl OnDevice for Compact {
    fn members(&self) -> usize {
        self.members
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn for_kernels(&self, tensor: usize) -> DeviceRows<'_> {
        self.rows[tensor].for_kernels()
    }

    fn at_once(&self, n: usize) -> usize {
        UNPACKED / n.max(1)
    }

    fn values(&self, tensor: usize, members: std::ops::Range<usize>) -> Result<Tensor, TchError> {
        self.rows[tensor].unpacked(members, self.kind)
    }
}

fn store<T: Float>(compact: &mut CompactRows, k: usize, row: &Tensor) {
    compact.store(k, slice::<T>(row));
}

fn mix_on_host<T: Float>(compact: &Compact, x: &[f64], base: &[Tensor], outputs: &[Tensor]) {
    let b = compact.members;
    let job = |(i, out): (usize, _)| CompactMix {
        out: narrow::sink(out),
        base: slice::<T>(&base[i]),
        rows: compact.rows[i].host(),
        x: x[i * b..(i + 1) * b].iter().map(|&x| T::from_f64(x)).collect(),
    };
    kernels::mix(outputs.iter().enumerate().map(job).collect());
}

fn project_on_host<T: Float>(compact: &Compact, gradients: &[Tensor], which: &[usize]) -> Vec<TensorProjection> {
    let job = |(&i, gradient): (&usize, _)| CompactProject {
        rows: compact.rows[i].host(),
        gradient: narrow::source::<T>(gradient),
    };
    kernels::project(&which.iter().zip(gradients).map(job).collect::<Vec<_>>())
}
