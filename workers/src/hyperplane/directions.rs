//! The unit directions of a model batch: from the ingredients' files, and back to the centre when the batch ends.

use mehl_soup::sweep::spec::DirectionDtype;
use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, TchError, Tensor};

use super::ahead::Ahead;
use super::compact::{Code, CompactRows};
use super::kernels::{self, Base, Float, MixJob, Sink};
use super::span::{MixedTensors, Rows, Span, SpanError, by_kind, check_members, load_into, load_rows};
use super::{slice, slice_mut};

/// A direction of a group counts as vanished below this part of the larger of the two norms: it is rounding noise then.
const VANISHED: f64 = 1e-6;

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

    fn of(
        source: &Source<'_>,
        mixed: &MixedTensors,
        centre: Vec<Tensor>,
        Stored { device, kind, dtype }: Stored,
    ) -> Result<Self, SpanError> {
        let b = source.members.len();
        let mut lengths = Lengths::new(b, mixed);
        let rows = match Code::of(dtype) {
            None => {
                let mut rows = Vec::with_capacity(mixed.names.len());
                for (i, centre) in centre.iter().enumerate() {
                    let row = source.rows(mixed, i, kind)?;
                    let (squares, of_centre) = by_kind!(kind, subtract(&row, &centre.f_to_device(Device::Cpu)?));
                    lengths.add(i, 0, &squares, of_centre);
                    // The host holds no more than one tensor of the batch for another device, beside what was read ahead.
                    rows.push(source.kept(row, device)?);
                }
                Rows::Whole(rows)
            }
            Some(code) => {
                let mut rows = Vec::with_capacity(mixed.names.len());
                let scratch = scratch(mixed, kind)?;
                for (i, &n) in mixed.sizes.iter().enumerate() {
                    let host_centre = centre[i].f_to_device(Device::Cpu)?;
                    let mut compact = CompactRows::new(code, b, n)?;
                    for k in 0..b {
                        let row = source.row(mixed, i, k, (&scratch, kind))?;
                        lengths.take(i, k, (&row, kind), &host_centre);
                        by_kind!(kind, store(&mut compact, k, &row));
                    }
                    rows.push(compact.to_device(device)?);
                }
                Rows::Compact { rows, inverse_norms: vec![] }
            }
        };
        check_members(source.zoo, source.members)?;
        let (l, norms) = (mixed.group_count, lengths.norms());
        let rows = match rows {
            Rows::Whole(mut rows) => {
                for (i, row) in rows.iter_mut().enumerate() {
                    let norm = |k: usize| norms[k * l + mixed.groups[i]];
                    if device == Device::Cpu {
                        by_kind!(kind, normalise_rows(row, norm));
                    } else {
                        let inverse: Vec<f64> = (0..b).map(|k| inverse(norm(k))).collect();
                        let inverse = Tensor::f_from_slice(&inverse)?.f_to_kind(kind)?.f_to_device(device)?;
                        let _same = row.f_mul_(&inverse.f_unsqueeze(1)?)?;
                    }
                }
                Rows::Whole(rows)
            }
            Rows::Compact { rows, .. } => {
                let inverse_norms = norms.iter().map(|&n| inverse(n)).collect();
                Rows::Compact { rows, inverse_norms }
            }
        };
        let span = Span { kind, members: b, groups: mixed.groups.clone(), group_count: l, base: Some(centre), rows };
        Ok(Self { span, norms })
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
        if matches!(span.rows, Rows::Whole(_)) {
            return Ok(span.fold(x)?);
        }
        let kind = span.kind;
        // The compact rows are given back before anything is read.
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
            lengths.take(i, k, (&row, kind), &host_centre);
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
            by_kind!(kind, normalise_rows(&row, |_| norms[at]));
            by_kind!(kind, add(&folded, &row, x[at]));
        }
        *centre = folded.f_to_device(device)?;
    }
    check_members(zoo, members)?;
    Ok(centre)
}

/// Room for one row of any tensor, `[1, longest]`: one for all, as rows that come and go between compact ones would leave holes that no other fits.
fn scratch(mixed: &MixedTensors, kind: Kind) -> Result<Tensor, SpanError> {
    let longest = mixed.sizes.iter().max().copied().unwrap_or(0);
    Ok(Tensor::f_empty([1, longest as i64], (kind, Device::Cpu))?)
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

/// Where the rows of a model batch come from.
struct Source<'a> {
    zoo: &'a Zoo,
    members: &'a [usize],
    /// What was read before, of the same members; else the files.
    ahead: Option<&'a Ahead>,
}

impl Source<'_> {
    /// All rows of one tensor on the host, `[b, n]`, to be written to.
    fn rows(&self, mixed: &MixedTensors, tensor: usize, kind: Kind) -> Result<Tensor, SpanError> {
        match self.ahead {
            Some(ahead) => Ok(ahead.rows(mixed, tensor)?),
            None => by_kind!(kind, load_rows(self.zoo, self.members, &mixed.names[tensor], mixed.sizes[tensor])),
        }
    }

    /// A member's row of one tensor on the host, `[1, n]`, to be written to: in `scratch` if it is read now.
    fn row(
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
    fn kept(&self, rows: Tensor, device: Device) -> Result<Tensor, TchError> {
        if device != rows.device() || self.ahead.is_none() {
            return rows.f_to_device(device);
        }
        let mut own = rows.f_empty_like()?;
        own.f_copy_(&rows)?;
        Ok(own)
    }
}

/// Squares that the lengths of directions are made of, by member and layer group.
struct Lengths<'a> {
    mixed: &'a MixedTensors,
    difference: Vec<f64>,
    own: Vec<f64>,
    centre: Vec<f64>,
}

impl<'a> Lengths<'a> {
    fn new(members: usize, mixed: &'a MixedTensors) -> Self {
        let zeros = vec![0.0; members * mixed.group_count];
        Self { mixed, difference: zeros.clone(), own: zeros, centre: vec![0.0; mixed.group_count] }
    }

    /// Of one tensor and the members from `first` on: squares of their differences and of themselves; and of the centre.
    fn add(&mut self, tensor: usize, first: usize, squares: &[(f64, f64)], of_centre: f64) {
        let (group, l) = (self.mixed.groups[tensor], self.mixed.group_count);
        self.centre[group] += of_centre;
        for (k, (difference, own)) in squares.iter().enumerate() {
            self.difference[(first + k) * l + group] += difference;
            self.own[(first + k) * l + group] += own;
        }
    }

    /// Takes the centre from a member's row of one tensor, and counts it in.
    fn take(&mut self, tensor: usize, k: usize, (row, kind): (&Tensor, Kind), centre: &Tensor) {
        let (squares, of_centre) = by_kind!(kind, subtract(row, centre));
        self.add(tensor, k, &squares, if k == 0 { of_centre } else { 0.0 });
    }

    fn norms(&self) -> Vec<f64> {
        let l = self.mixed.group_count;
        let squares = self.difference.iter().zip(&self.own).enumerate();
        squares
            .map(|(i, (difference, own))| {
                let n = difference.sqrt();
                if n <= VANISHED * own.max(self.centre[i % l]).sqrt() { 0.0 } else { n }
            })
            .collect()
    }
}

fn inverse(norm: f64) -> f64 {
    if norm == 0.0 { 0.0 } else { 1.0 / norm }
}

fn store<T: Float>(compact: &mut CompactRows, k: usize, row: &Tensor) {
    compact.store(k, slice::<T>(row));
}

/// `sum += x row`
fn add<T: Float>(sum: &Tensor, row: &Tensor, x: f64) {
    let job = MixJob {
        out: Sink::Own(slice_mut::<T>(sum)),
        base: Base::InPlace,
        rows: slice::<T>(row),
        x: vec![T::from_f64(x)],
    };
    kernels::mix(vec![job]);
}

fn subtract<T: Float>(rows: &Tensor, centre: &Tensor) -> (Vec<(f64, f64)>, f64) {
    kernels::subtract_centre(slice_mut::<T>(rows), slice::<T>(centre))
}

fn normalise_rows<T: Float>(rows: &Tensor, norm: impl Fn(usize) -> f64) {
    let n = rows.size()[1].max(1) as usize;
    for (k, row) in slice_mut::<T>(rows).chunks_mut(n).enumerate() {
        kernels::normalise(row, norm(k));
    }
}
