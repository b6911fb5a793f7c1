//! Mixing and projecting for rows that are not on the host: by [`cuda`]'s kernels where they can be had, else by libtorch's own operations.
//!
//! What goes to the device or comes from it goes at once, for all tensors: each copy waits for the device. Compact rows become values of the span's dtype a few at
//! a time, never all of a model batch.

use tch::{Kind, TchError, Tensor};

use super::cuda::{self, DeviceRows, Part};
use super::span::{Rows, Span};

/// Most values that compact rows are made into at a time; few where tests are to see rows come in several groups.
const UNPACKED: usize = if cfg!(test) { 2 * 192 } else { 1 << 24 };

/// Sets each output to `base + sum_k x[k] rows[k]`, rounded to its own dtype. Coordinates are row-major `[b, L]`, of unit directions.
pub(super) fn mix(span: &Span, x: &[f64], outputs: &[Tensor]) -> Result<(), TchError> {
    let Some(first) = outputs.first() else { return Ok(()) };
    let own: Vec<f64> = match &span.rows {
        Rows::Whole(_) => x.to_vec(),
        Rows::Compact { inverse_norms, .. } => x.iter().zip(inverse_norms).map(|(x, inverse)| x * inverse).collect(),
    };
    let all: Vec<f64> = (0..outputs.len()).flat_map(|i| span.coordinates(&own, i)).collect();
    if let Some(kernels) = cuda::of(first.device(), span.kind, span.members) {
        let part = |(i, vector)| Part { rows: rows_of(span, i), base: span.base.as_ref().map(|base| &base[i]), vector };
        let parts: Vec<Part<'_>> = outputs.iter().enumerate().map(part).collect();
        let x: Vec<f32> = all.iter().map(|&x| x as f32).collect();
        return kernels.mix(&parts, &x, span.members);
    }
    let all = Tensor::f_from_slice(&all)?.f_to_kind(span.kind)?.f_to_device(first.device())?;
    let all = all.f_view([outputs.len() as i64, span.members as i64])?;
    for (i, out) in outputs.iter().enumerate() {
        let (flat, x) = (out.f_view(-1)?, all.f_get(i as i64)?);
        let mut sum = span.base.as_ref().map(|base| base[i].shallow_clone());
        for (first, rows) in groups(span, i, flat.numel()) {
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

/// For each tensor of `which`: inner products of its rows, as they are stored, with its gradient, and the gradient's square.
pub(super) fn project(span: &Span, gradients: &[Tensor], which: &[usize]) -> Result<Vec<(Vec<f64>, f64)>, TchError> {
    let Some(&first) = which.first() else { return Ok(vec![]) };
    if let Some(kernels) = cuda::of(gradients[first].device(), span.kind, span.members) {
        let contiguous: Vec<Tensor> = which.iter().map(|&i| gradients[i].f_contiguous()).collect::<Result<_, _>>()?;
        let part = |(&i, vector)| Part { rows: rows_of(span, i), base: None, vector };
        let parts: Vec<Part<'_>> = which.iter().zip(&contiguous).map(part).collect();
        return kernels.project(&parts, span.members);
    }
    // All products are queued before the first is waited for.
    let mut queued = Vec::with_capacity(which.len());
    for &i in which {
        let gradient = gradients[i].f_reshape(-1)?.f_to_kind(span.kind)?;
        let mut found = Vec::new();
        for (_, rows) in groups(span, i, gradient.numel()) {
            found.push(rows?.f_mv(&gradient)?);
        }
        found.push(gradient.f_dot(&gradient)?.f_view(1)?);
        queued.push(Tensor::f_cat(&found, 0)?);
    }
    let all = Vec::<f64>::try_from(Tensor::f_stack(&queued, 0)?.f_to_kind(Kind::Double)?.f_view(-1)?)?;
    Ok(all.chunks(span.members + 1).map(|found| (found[..span.members].to_vec(), found[span.members])).collect())
}

/// The rows of one tensor, for the kernels.
fn rows_of(span: &Span, tensor: usize) -> DeviceRows<'_> {
    match &span.rows {
        Rows::Whole(rows) => DeviceRows { code: None, values: &rows[tensor], scales: None },
        Rows::Compact { rows, .. } => rows[tensor].for_kernels(),
    }
}

/// The rows of one tensor, some at a time: the first one's number, and rows `[some, n]` in the span's dtype.
fn groups(span: &Span, tensor: usize, n: usize) -> impl Iterator<Item = (i64, Result<Tensor, TchError>)> {
    let members = span.members;
    let some = match &span.rows {
        Rows::Whole(_) => members,
        Rows::Compact { .. } => UNPACKED / n.max(1),
    };
    let some = some.clamp(1, members.max(1));
    (0..members).step_by(some).map(move |first| {
        let rows = match &span.rows {
            Rows::Whole(rows) => Ok(rows[tensor].shallow_clone()),
            Rows::Compact { rows, .. } => rows[tensor].unpacked(first..members.min(first + some), span.kind),
        };
        (first as i64, rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyperplane::compact::{Code, CompactRows};
    use tch::Device;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let whole = |i: u32| (i + 1_000_003 * seed).wrapping_mul(2_654_435_761) >> 8;
        (0..n as u32).map(|i| whole(i) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Libtorch's operations do not care where tensors are: on the host they must agree with the host's own kernels.
    #[test]
    fn what_is_for_other_devices_agrees_with_the_kernels_of_the_host() {
        let (sizes, members) = ([70, 3 * 64], 5);
        for code in [None, Some(Code::Bf16), Some(Code::Int8), Some(Code::Int4)] {
            let rows: Vec<Vec<f32>> = sizes.iter().map(|n| values(n * members, *n as u32)).collect();
            let norms: Vec<f64> = (0..members * 2).map(|i| if i == 3 { 0.0 } else { 1.0 / (1.0 + i as f64) }).collect();
            let rows = match code {
                None => {
                    Rows::Whole(rows.iter().map(|row| Tensor::from_slice(row).view([members as i64, -1])).collect())
                }
                Some(code) => Rows::Compact {
                    rows: rows
                        .iter()
                        .zip(sizes)
                        .map(|(row, n)| {
                            let mut compact = CompactRows::new(code, members, n).unwrap();
                            row.chunks(n).enumerate().for_each(|(k, row)| compact.store(k, row));
                            compact
                        })
                        .collect(),
                    inverse_norms: norms,
                },
            };
            let base = sizes.iter().map(|&n| Tensor::from_slice(&values(n, 9))).collect();
            let span = Span { kind: Kind::Float, members, groups: vec![1, 0], group_count: 2, base: Some(base), rows };
            let x: Vec<f64> = values(members * 2, 4).into_iter().map(f64::from).collect();
            for kind in [Kind::Float, Kind::BFloat16] {
                let outputs = || sizes.map(|n| Tensor::zeros([n as i64], (kind, Device::Cpu)));
                let (here, there) = (outputs(), outputs());
                span.mix_into(&x, &here).unwrap();
                mix(&span, &x, &there).unwrap();
                let tolerance = if kind == Kind::Float { 1e-5 } else { 1e-2 };
                for (here, there) in here.iter().zip(&there) {
                    assert!(here.allclose(there, tolerance, tolerance, false), "{code:?}, {kind:?}");
                }
                let gradients = sizes.map(|n| Tensor::from_slice(&values(n, 7)).to_kind(kind));
                let expected = span.project(&gradients).unwrap();
                let found = project(&span, &gradients, &[0, 1]).unwrap();
                let square: f64 = found.iter().map(|(_, square)| square).sum();
                assert!((square.sqrt() / expected.gradient_norm - 1.0).abs() < 1e-5);
                for (i, (dots, _)) in found.iter().enumerate() {
                    for (k, dot) in dots.iter().enumerate() {
                        let at = k * 2 + span.groups[i];
                        let inverse = match &span.rows {
                            Rows::Whole(_) => 1.0,
                            Rows::Compact { inverse_norms, .. } => inverse_norms[at],
                        };
                        assert!((dot * inverse - expected.dots[at]).abs() < 1e-4, "{code:?}, {kind:?}: {i}, {k}");
                    }
                }
            }
        }
    }
}
