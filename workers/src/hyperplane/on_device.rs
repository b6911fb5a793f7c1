//! Mixing and projecting for rows that are not on the host: by [`cuda`]'s kernels where they can be had, else by libtorch's own operations.
//!
//! What goes to the device or comes from it goes at once, for all tensors: each copy waits for the device. Compact rows become values of the span's dtype a few at
//! a time, never all of a model batch.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::cuda::{self, DeviceRows, Part};
use super::rows::{Start, TensorProjection};

/// Rows that are one tensor of stored values for each mixed tensor.
pub(super) trait OnDevice {
    /// b.
    fn members(&self) -> usize;
    /// Dtype that is computed in.
    fn kind(&self) -> Kind;
    /// The rows of one tensor, for [`cuda`]'s kernels.
    fn for_kernels(&self, tensor: usize) -> DeviceRows<'_>;
    /// Rows of `n` values that [`values`](Self::values) is asked for at a time, at most.
    fn at_once(&self, n: usize) -> usize;
    /// The rows of some members, `[some, n]`, in the dtype that is computed in.
    fn values(&self, tensor: usize, members: Range<usize>) -> Result<Tensor, TchError>;
}

/// Whether tensors that a mix writes to are on the host.
pub(super) fn are_on_host(outputs: &[Tensor]) -> bool {
    outputs.first().is_none_or(|output| output.device() == Device::Cpu)
}

/// The gradients of `which`, contiguous, if they are on the host.
pub(super) fn host_gradients(gradients: &[Tensor], which: &[usize]) -> Result<Option<Vec<Tensor>>, TchError> {
    let on_host = which.first().is_none_or(|&i| gradients[i].device() == Device::Cpu);
    on_host.then(|| which.iter().map(|&i| gradients[i].f_contiguous()).collect()).transpose()
}

/// [`Rows::mix`](super::Rows::mix).
pub(super) fn mix<R: OnDevice>(rows: &R, x: &[f64], start: Start<'_>, outputs: &[Tensor]) -> Result<(), TchError> {
    let Some(first) = outputs.first() else { return Ok(()) };
    let base = match start {
        Start::Zero => None,
        Start::From(base) => Some(base),
        Start::InPlace => Some(outputs),
    };
    let (members, kind) = (rows.members(), rows.kind());
    if let Some(kernels) = cuda::of(first.device(), kind, members) {
        let part = |(i, vector)| Part { rows: rows.for_kernels(i), base: base.map(|base| &base[i]), vector };
        let parts: Vec<Part<'_>> = outputs.iter().enumerate().map(part).collect();
        let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        return kernels.mix(&parts, &x, members);
    }
    let all = Tensor::f_from_slice(x)?.f_to_kind(kind)?.f_to_device(first.device())?;
    let all = all.f_view([outputs.len() as i64, members as i64])?;
    for (i, out) in outputs.iter().enumerate() {
        let (flat, x) = (out.f_view(-1)?, all.f_get(i as i64)?);
        let mut sum = base.map(|base| base[i].shallow_clone());
        for (first, rows) in groups(rows, i, flat.numel()) {
            let rows = rows?;
            let (rows, x) = (rows.f_transpose(0, 1)?, x.f_narrow(0, first, rows.size()[0])?);
            sum = Some(match &sum {
                Some(sum) => sum.f_addmv(&rows, &x)?,
                None => rows.f_mv(&x)?,
            });
        }
        if let Some(sum) = sum {
            flat.shallow_clone().f_copy_(&sum)?;
        }
    }
    Ok(())
}

/// [`Rows::project`](super::Rows::project).
pub(super) fn project<R: OnDevice>(
    rows: &R,
    gradients: &[Tensor],
    which: &[usize],
) -> Result<Vec<TensorProjection>, TchError> {
    let Some(&first) = which.first() else { return Ok(vec![]) };
    let (members, kind) = (rows.members(), rows.kind());
    if let Some(kernels) = cuda::of(gradients[first].device(), kind, members) {
        let contiguous: Vec<Tensor> = which.iter().map(|&i| gradients[i].f_contiguous()).collect::<Result<_, _>>()?;
        let part = |(&i, vector)| Part { rows: rows.for_kernels(i), base: None, vector };
        let parts: Vec<Part<'_>> = which.iter().zip(&contiguous).map(part).collect();
        return kernels.project(&parts, members);
    }
    // All products are queued before the first is waited for.
    let mut queued = Vec::with_capacity(which.len());
    for &i in which {
        let gradient = gradients[i].f_reshape(-1)?.f_to_kind(kind)?;
        let mut found = Vec::new();
        for (_, rows) in groups(rows, i, gradient.numel()) {
            found.push(rows?.f_mv(&gradient)?);
        }
        found.push(gradient.f_dot(&gradient)?.f_view(1)?);
        queued.push(Tensor::f_cat(&found, 0)?);
    }
    let all = Vec::<f64>::try_from(Tensor::f_stack(&queued, 0)?.f_to_kind(Kind::Double)?.f_view(-1)?)?;
    Ok(all.chunks(members + 1).map(|found| (found[..members].to_vec(), found[members])).collect())
}

/// The rows of one tensor, some at a time: the first one's number, and rows `[some, n]`.
fn groups<R: OnDevice>(rows: &R, tensor: usize, n: usize) -> impl Iterator<Item = (i64, Result<Tensor, TchError>)> {
    let members = rows.members();
    let some = rows.at_once(n).clamp(1, members.max(1));
    (0..members).step_by(some).map(move |first| (first as i64, rows.values(tensor, first..members.min(first + some))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperplane::compact::{Code, CompactRows};
    use crate::hyperplane::{Compact, Rows, Whole};

    const SIZES: [usize; 2] = [70, 3 * 64];
    const MEMBERS: usize = 5;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let whole = |i: u32| (i + 1_000_003 * seed).wrapping_mul(2_654_435_761) >> 8;
        (0..n as u32).map(|i| whole(i) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Of these rows, what is for other devices must agree with the kernels of the host.
    fn agree<R: Rows + OnDevice>(rows: &R, what: &str) {
        let base = SIZES.map(|n| Tensor::from_slice(&values(n, 9)));
        let x: Vec<f64> = values(MEMBERS * 2, 4).into_iter().map(f64::from).collect();
        for kind in [Kind::Float, Kind::BFloat16] {
            let outputs = || SIZES.map(|n| Tensor::zeros([n as i64], (kind, Device::Cpu)));
            let (here, there) = (outputs(), outputs());
            rows.mix(&x, Start::From(&base), &here).unwrap();
            mix(rows, &x, Start::From(&base), &there).unwrap();
            let tolerance = if kind == Kind::Float { 1e-5 } else { 1e-2 };
            for (here, there) in here.iter().zip(&there) {
                assert!(here.allclose(there, tolerance, tolerance, false), "{what}, {kind:?}");
            }
            let gradients = SIZES.map(|n| Tensor::from_slice(&values(n, 7)).to_kind(kind));
            let expected = rows.project(&gradients, &[0, 1]).unwrap();
            let found = project(rows, &gradients, &[0, 1]).unwrap();
            assert_eq!((expected.len(), found.len()), (2, 2));
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found.1 / expected.1 - 1.0).abs() < 1e-5, "{what}, {kind:?}: {i}");
                assert_eq!((found.0.len(), expected.0.len()), (MEMBERS, MEMBERS));
                for (k, (found, expected)) in found.0.iter().zip(&expected.0).enumerate() {
                    assert!((found - expected).abs() < 1e-4, "{what}, {kind:?}: {i}, {k}");
                }
            }
        }
        let here = base.each_ref().map(Tensor::copy);
        let there = base.each_ref().map(Tensor::copy);
        rows.mix(&x, Start::InPlace, &here).unwrap();
        mix(rows, &x, Start::InPlace, &there).unwrap();
        assert!(here.iter().zip(&there).all(|(here, there)| here.allclose(there, 1e-5, 1e-5, false)), "{what}");
        assert!(here.iter().zip(&base).all(|(here, base)| !here.allclose(base, 1e-2, 1e-2, false)), "{what}");
    }

    /// Libtorch's operations do not care where tensors are.
    #[test]
    fn what_is_for_other_devices_agrees_with_the_kernels_of_the_host() {
        let rows = SIZES.map(|n| values(n * MEMBERS, n as u32));
        let whole = rows.each_ref().map(|row| Tensor::from_slice(row).view([MEMBERS as i64, -1]));
        agree(&Whole::new(whole.into(), MEMBERS, Kind::Float), "f32");
        for code in [Code::Bf16, Code::Int8, Code::Int4] {
            let compact = rows.iter().zip(SIZES).map(|(row, n)| {
                let mut compact = CompactRows::new(code, MEMBERS, n).unwrap();
                row.chunks(n).enumerate().for_each(|(k, row)| compact.store(k, row));
                compact
            });
            agree(&Compact::new(compact.collect(), MEMBERS, Kind::Float), &format!("{code:?}"));
        }
    }
}
