//! The rows of a model batch, read before their turn.
//!
//! Where a device has memory of its own, the host is idle while a model batch trains: it reads the next one's files, converts them, and keeps the rows in memory whose pages
//! the device's driver can copy from directly. Directions cannot be made of them before the model batch that trains has ended, as they start from where it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, TchError, Tensor};

use super::cuda::Locked;
use super::read::load_into;
use super::span::{MixedTensors, SpanError};
use super::tensors::by_kind;

/// Rows of one model batch on the host, as they are in the files.
pub struct Ahead {
    /// Before the memory that it is about, so that it is dropped first.
    _locked: Option<Locked>,
    /// The rows of one tensor after those of another, each `[b, n]`.
    memory: Tensor,
    kind: Kind,
    members: Vec<usize>,
}

impl Ahead {
    /// Room for so many values of rows that go to `device`.
    ///
    /// # Errors
    /// If memory cannot be had.
    pub fn new(values: usize, kind: Kind, device: Device) -> Result<Self, TchError> {
        let memory = Tensor::f_empty([values as i64], (kind, Device::Cpu))?;
        Ok(Self { _locked: Locked::new(&memory, device), memory, kind, members: vec![] })
    }

    /// Values that there is room for.
    pub fn room(&self) -> usize {
        self.memory.numel()
    }

    /// The ingredients whose rows are here, all of them.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.members.clear();
    }

    /// Reads the rows of a model batch, tensor by tensor, unless it is told to stop before it is done: then there are none.
    ///
    /// # Errors
    /// If an ingredient cannot be read; [`TchError`] if there is not enough room.
    pub fn read(
        &mut self,
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        stop: &AtomicBool,
    ) -> Result<(), SpanError> {
        self.clear();
        for (i, name) in mixed.names.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let rows = self.place(mixed, i, members.len())?;
            by_kind!(self.kind, load_into(zoo, members, name, &rows))?;
        }
        self.members = members.to_vec();
        Ok(())
    }

    /// The rows of one tensor, `[b, n]`, in the order of the members. Whoever takes them may write to them; what is read next is written over them.
    pub(super) fn rows(&self, mixed: &MixedTensors, tensor: usize) -> Result<Tensor, TchError> {
        self.place(mixed, tensor, self.members.len())
    }

    fn place(&self, mixed: &MixedTensors, tensor: usize, b: usize) -> Result<Tensor, TchError> {
        let (before, n) = (mixed.sizes[..tensor].iter().sum::<usize>(), mixed.sizes[tensor]);
        self.memory.f_narrow(0, (before * b) as i64, (n * b) as i64)?.f_view([b as i64, n as i64])
    }
}
