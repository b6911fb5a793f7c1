//! The unit directions of a model batch: from the ingredients' files, and back to the centre when the batch ends.

use mehl_soup::sweep::spec::DirectionDtype;
use mehl_soup::zoo::Zoo;
use tch::{Device, Kind, Tensor};

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
        let Stored { device, kind, dtype } = stored;
        let mut lengths = Lengths::new(members.len(), mixed);
        let rows = match Code::of(dtype) {
            None => {
                let mut rows = Vec::with_capacity(mixed.names.len());
                for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
                    let row = by_kind!(kind, load_rows(zoo, members, name, n))?;
                    let (squares, of_centre) = by_kind!(kind, subtract(&row, &centre[i].f_to_device(Device::Cpu)?));
                    lengths.add(i, 0, &squares, of_centre);
                    // The host holds no more than one tensor of the batch for another device.
                    rows.push(row.f_to_device(device)?);
                }
                Rows::Whole(rows)
            }
            Some(code) => {
                let mut rows = Vec::with_capacity(mixed.names.len());
                let scratch = scratch(mixed, kind)?;
                for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
                    let host_centre = centre[i].f_to_device(Device::Cpu)?;
                    let mut compact = CompactRows::new(code, members.len(), n)?;
                    for (k, member) in members.iter().enumerate() {
                        let row = scratch.f_narrow(1, 0, n as i64)?;
                        lengths.read(zoo, (i, name), (k, member), (&row, kind), &host_centre)?;
                        by_kind!(kind, store(&mut compact, k, &row));
                    }
                    rows.push(compact.to_device(device)?);
                }
                Rows::Compact { rows, inverse_norms: vec![] }
            }
        };
        check_members(zoo, members)?;
        let (b, l, norms) = (members.len(), mixed.group_count, lengths.norms());
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
    let mut lengths = Lengths::new(members.len(), mixed);
    let scratch = scratch(mixed, kind)?;
    for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
        let host_centre = centre[i].f_to_device(Device::Cpu)?;
        for (k, member) in members.iter().enumerate() {
            let row = scratch.f_narrow(1, 0, n as i64)?;
            lengths.read(zoo, (i, name), (k, member), (&row, kind), &host_centre)?;
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
    let scratch = scratch(mixed, kind)?;
    for (i, (name, &n)) in mixed.names.iter().zip(&mixed.sizes).enumerate() {
        let device = centre[i].device();
        let begun = centre[i].f_to_device(Device::Cpu)?;
        // Directions are from the centre as it was.
        let mut folded = begun.f_empty_like()?;
        folded.f_copy_(&begun)?;
        for (k, member) in members.iter().enumerate() {
            let row = scratch.f_narrow(1, 0, n as i64)?;
            by_kind!(kind, load_into(zoo, std::slice::from_ref(member), name, &row))?;
            by_kind!(kind, subtract(&row, &begun));
            let at = k * l + mixed.groups[i];
            by_kind!(kind, normalise_rows(&row, |_| norms[at]));
            by_kind!(kind, add(&folded, &row, x[at]));
        }
        centre[i] = folded.f_to_device(device)?;
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

    /// Reads a row of one tensor, less the centre, and counts it in.
    fn read(
        &mut self,
        zoo: &Zoo,
        (tensor, name): (usize, &str),
        (k, member): (usize, &usize),
        (row, kind): (&Tensor, Kind),
        centre: &Tensor,
    ) -> Result<(), SpanError> {
        by_kind!(kind, load_into(zoo, std::slice::from_ref(member), name, row))?;
        let (squares, of_centre) = by_kind!(kind, subtract(row, centre));
        self.add(tensor, k, &squares, if k == 0 { of_centre } else { 0.0 });
        Ok(())
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
