//! The unit directions of a model batch: from the ingredients' files, and back to the centre when the batch ends.

use mehl_soup::sweep::spec::DirectionDtype;
use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, TchError, Tensor};

use super::ahead::Ahead;
use super::compact::{Code, Compact};
use super::lengths::{Lengths, inverse};
use super::read::{Source, check_members, scratch};
use super::rows::{Division, Rows};
use super::span::{MixedTensors, Span, SpanError, by_tensor};
use super::tensors::by_kind;
use super::whole::{Whole, add, normalise_rows, subtract};

/// A span of unit directions, with their lengths before division.
pub struct Directions {
    /// Centre and unit directions.
    pub span: Span,
    /// n, row-major `[b, L]`; 0 where a direction vanishes.
    pub norms: Vec<f64>,
}

impl Directions {
    /// Reads the model batch and takes its unit directions from the centre (step 2 of a model batch).
    ///
    /// `d[k,l] = (theta[k,l] - c[l]) / n[k,l]` with n the Euclidean norm over the group, squares summed in f64. Where
    /// `n <= 1e-6 max(|theta|, |c|)` the direction is 0 and n is given as 0.
    ///
    /// Reads each member once, tensor by tensor, straight into its row; compact rows by way of one that is as long as the longest tensor.
    ///
    /// # Errors
    /// If an ingredient cannot be read or memory cannot be had.
    pub fn new(
        zoo: &Zoo,
        members: &[usize],
        mixed: &MixedTensors,
        centre: Vec<Tensor>,
        stored: Stored,
    ) -> Result<Self, SpanError> {
        Self::of(&Source { zoo, members, ahead: None }, mixed, centre, stored)
    }

    /// [`new`](Self::new) for the model batch that was read ahead, with the same bits. What was read is written over.
    ///
    /// # Errors
    /// If an ingredient has changed since it was opened, or memory cannot be had.
    pub fn of_ahead(
        zoo: &Zoo,
        ahead: &mut Ahead,
        mixed: &MixedTensors,
        centre: Vec<Tensor>,
        stored: Stored,
    ) -> Result<Self, SpanError> {
        let directions = Self::of(&Source { zoo, members: ahead.members(), ahead: Some(ahead) }, mixed, centre, stored);
        ahead.clear();
        directions
    }

    fn of(source: &Source<'_>, mixed: &MixedTensors, centre: Vec<Tensor>, stored: Stored) -> Result<Self, SpanError> {
        let mut lengths = Lengths::new(source.members.len(), mixed);
        let rows: Box<dyn Rows> = match Code::of(stored.dtype) {
            None => Box::new(Whole::read(source, mixed, &centre, stored, &mut lengths)?),
            Some(code) => Box::new(Compact::read(code, source, mixed, &centre, stored, &mut lengths)?),
        };
        check_members(source.zoo, source.members)?;
        Ok(Self::of_rows(rows, &lengths, mixed, centre, stored.kind)?)
    }

    /// Unit directions of rows that hold the differences from the centre, whose squares were counted
    /// in `lengths`. The centre is flat, one tensor for each mixed tensor, in the dtype `kind`.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn of_rows(
        mut rows: Box<dyn Rows>,
        lengths: &Lengths,
        mixed: &MixedTensors,
        centre: Vec<Tensor>,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let norms = lengths.norms();
        let members = norms.len().checked_div(mixed.group_count).unwrap_or(0);
        let inverse_norms = match rows.normalise(&by_tensor(&norms, members, mixed))? {
            Division::Rows => None,
            Division::Coordinates => Some(norms.iter().map(|&n| inverse(n)).collect()),
        };
        Ok(Self { span: Span::new(rows, members, mixed, Some(centre), kind, inverse_norms), norms })
    }

    /// Step 5 of a model batch: `c += sum_k x[k,l] d[k,l]` with the exact directions, k ascending, in the centre's dtype; gives the centre back.
    ///
    /// Compact directions are read from the files once more, one row at a time: the result is bit for bit that of whole ones at the same coordinates.
    ///
    /// The chain of folds and the mix that `A` stands for differ by rounding alone. In f32, elementwise and relative to the largest `|theta|` of the
    /// tensor: at most `folds (4 b + 8) 2^-24 s g`, with s the largest `sum_k |A[k,l]|` seen and g the product of `max(1, |1 - sum_k beta[k,l]|)` over the
    /// folds (shown by a property test).
    ///
    /// # Errors
    /// If an ingredient cannot be read or memory cannot be had.
    pub fn fold(self, zoo: &Zoo, members: &[usize], mixed: &MixedTensors, x: &[f64]) -> Result<Vec<Tensor>, SpanError> {
        let Self { span, norms } = self;
        if span.is_exact() {
            return Ok(span.fold(x)?);
        }
        let kind = span.kind();
        // The rows are given back before anything is read.
        fold_from_files(zoo, members, mixed, (span.into_base(), kind), (&norms, x))
    }
}

/// A model batch that ended before, once more: the lengths of its directions from the centre, and the centre after its fold at coordinates x. The bits are those of [`Directions::new`] and
/// [`Directions::fold`] on the host, in the memory of one row: wherever a task goes on, its finished model batches fit.
///
/// # Errors
/// If an ingredient cannot be read or memory cannot be had.
pub fn replay(
    zoo: &Zoo,
    members: &[usize],
    mixed: &MixedTensors,
    (centre, kind): (Vec<Tensor>, Kind),
    x: &[f64],
) -> Result<(Vec<f64>, Vec<Tensor>), SpanError> {
    let source = Source { zoo, members, ahead: None };
    let mut lengths = Lengths::new(members.len(), mixed);
    let scratch = scratch(mixed, kind)?;
    for (i, centre) in centre.iter().enumerate() {
        let host_centre = centre.f_to_device(Device::Cpu)?;
        for k in 0..members.len() {
            let row = source.row(mixed, i, k, (&scratch, kind))?;
            lengths.take(mixed.groups[i], k, (&row, kind), &host_centre);
        }
    }
    drop(scratch);
    let norms = lengths.norms();
    let centre = fold_from_files(zoo, members, mixed, (centre, kind), (&norms, x))?;
    Ok((norms, centre))
}

/// The fold by directions that are read from the files, one row at a time.
fn fold_from_files(
    zoo: &Zoo,
    members: &[usize],
    mixed: &MixedTensors,
    (mut centre, kind): (Vec<Tensor>, Kind),
    (norms, x): (&[f64], &[f64]),
) -> Result<Vec<Tensor>, SpanError> {
    let l = mixed.group_count;
    let source = Source { zoo, members, ahead: None };
    let scratch = scratch(mixed, kind)?;
    for (i, centre) in centre.iter_mut().enumerate() {
        let device = centre.device();
        let begun = centre.f_to_device(Device::Cpu)?;
        // Directions are from the centre as it was.
        let mut folded = begun.f_empty_like()?;
        folded.f_copy_(&begun)?;
        for k in 0..members.len() {
            let row = source.row(mixed, i, k, (&scratch, kind))?;
            by_kind!(kind, subtract(&row, &begun));
            let at = k * l + mixed.groups[i];
            by_kind!(kind, normalise_rows(&row, &norms[at..=at]));
            by_kind!(kind, add(&folded, &row, x[at]));
        }
        *centre = folded.f_to_device(device)?;
    }
    check_members(zoo, members)?;
    Ok(centre)
}

/// How directions are stored, and where.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Device of the centre and of the rows.
    pub device: Device,
    /// Dtype of the centre, and of rows that are not compact.
    pub kind: Kind,
    /// How rows are stored.
    pub dtype: DirectionDtype,
}

/// What the rows of one ingredient take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowBytes {
    /// Its rows.
    pub stored: u64,
    /// What reading and folding take besides, however many ingredients there are.
    pub besides: u64,
}

impl RowBytes {
    /// Of rows that are stored so, where the span computes in `kind`.
    pub fn new(mixed: &MixedTensors, dtype: DirectionDtype, kind: Kind) -> Self {
        let value = kind.elt_size_in_bytes();
        match Code::of(dtype) {
            None => Self { stored: (mixed.elements() * value) as u64, besides: 0 },
            Some(code) => {
                let bytes: usize = mixed.sizes.iter().map(|&n| code.bytes(n)).sum();
                // While a batch is folded: one row of the longest tensor, and the sum so far.
                let longest = mixed.sizes.iter().max().copied().unwrap_or(0);
                Self { stored: bytes as u64, besides: (2 * longest * value) as u64 }
            }
        }
    }
}
