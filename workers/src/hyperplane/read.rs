//! Rows of ingredients on the host: read from the files, or read ahead.

use mehl_soup::zoo::{Element, Zoo, ZooError};
use tch::{Device, Kind, TchError, Tensor};

use super::ahead::Ahead;
use super::kernels::Float;
use super::span::{MixedTensors, SpanError};
use super::tensors::{by_kind, slice_mut};

/// Where the rows of a model batch come from.
pub(super) struct Source<'a> {
    pub zoo: &'a Zoo,
    pub members: &'a [usize],
    /// What was read before, of the same members; else the files.
    pub ahead: Option<&'a Ahead>,
}

impl Source<'_> {
    /// All rows of one tensor on the host, `[b, n]`, to be written to.
    pub fn rows(&self, mixed: &MixedTensors, tensor: usize, kind: Kind) -> Result<Tensor, SpanError> {
        match self.ahead {
            Some(ahead) => Ok(ahead.rows(mixed, tensor)?),
            None => by_kind!(kind, load_rows(self.zoo, self.members, &mixed.names[tensor], mixed.sizes[tensor])),
        }
    }

    /// A member's row of one tensor on the host, `[1, n]`, to be written to: in `scratch` if it is
    /// read now.
    pub fn row(
        &self,
        mixed: &MixedTensors,
        tensor: usize,
        k: usize,
        (scratch, kind): (&Tensor, Kind),
    ) -> Result<Tensor, SpanError> {
        if let Some(ahead) = self.ahead {
            return Ok(ahead.rows(mixed, tensor)?.f_narrow(0, k as i64, 1)?);
        }
        let row = scratch.f_narrow(1, 0, mixed.sizes[tensor] as i64)?;
        by_kind!(kind, load_into(self.zoo, &self.members[k..=k], &mixed.names[tensor], &row))?;
        Ok(row)
    }

    /// Rows on their device, in memory of their own.
    pub fn kept(&self, rows: Tensor, device: Device) -> Result<Tensor, TchError> {
        if device != rows.device() || self.ahead.is_none() {
            return rows.f_to_device(device);
        }
        let mut own = rows.f_empty_like()?;
        own.f_copy_(&rows)?;
        Ok(own)
    }
}

/// Room for one row of any tensor, `[1, longest]`: one for all, as rows that come and go between
/// compact ones would leave holes that no other fits.
pub(super) fn scratch(mixed: &MixedTensors, kind: Kind) -> Result<Tensor, SpanError> {
    let longest = mixed.sizes.iter().max().copied().unwrap_or(0);
    Ok(Tensor::f_empty([1, longest as i64], (kind, Device::Cpu))?)
}

/// After reading: a file that changed meanwhile would give directions that belong to no ingredient.
pub(super) fn check_members(zoo: &Zoo, members: &[usize]) -> Result<(), ZooError> {
    members.iter().try_for_each(|&k| zoo.row(k).check_unchanged())
}

/// One tensor of each member, `[b, n]`.
pub(super) fn load_rows<T: Float + Element>(
    zoo: &Zoo,
    members: &[usize],
    name: &str,
    n: usize,
) -> Result<Tensor, SpanError> {
    let kind = if size_of::<T>() == 4 { Kind::Float } else { Kind::Double };
    let rows = Tensor::f_empty([members.len() as i64, n as i64], (kind, Device::Cpu))?;
    load_into::<T>(zoo, members, name, &rows)?;
    Ok(rows)
}

/// Reads one tensor of each member into its row, `[b, n]`.
pub(super) fn load_into<T: Float + Element>(
    zoo: &Zoo,
    members: &[usize],
    name: &str,
    rows: &Tensor,
) -> Result<(), SpanError> {
    let n = rows.size()[1].max(1) as usize;
    for (row, &k) in slice_mut::<T>(rows).chunks_mut(n).zip(members) {
        zoo.read_row(k, name, row)?;
    }
    Ok(())
}
