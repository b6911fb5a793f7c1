//! Rows of rank 1: `theta[k] = base + left[k] right[k]^T` over one base, never as all their values.
//!
//! From a centre `base + sum_j A[j,l] left[j] right[j]^T` the direction of a member is a
//! combination of all ingredients' differences. Everything is done on vectors, one row of a matrix
//! at a time.

use mehl_soup_worker::hyperplane::{Directions, Lengths, Rows, Start, TensorProjection, slice};
use tch::{Kind, TchError, Tensor};

use super::case::{Case, Factors, GROUP_OF, GROUPS, INGREDIENTS, MEMBERS, SHAPES};

/// Factors of all ingredients for one tensor.
struct Pairs {
    rows: usize,
    columns: usize,
    /// `[K]` vectors of `rows` values.
    left: Vec<Vec<f64>>,
    /// `[K]` vectors of `columns` values.
    right: Vec<Vec<f64>>,
    /// Factor of each ingredient's difference in each member's direction, row-major `[b, K]`.
    parts: Vec<f64>,
}

impl Pairs {
    /// `left[j]^T M right[j]` for each ingredient, and the square of M, which is given row by row.
    fn through(&self, mut row: impl FnMut(usize) -> Result<Vec<f64>, TchError>) -> Result<(Vec<f64>, f64), TchError> {
        let (mut products, mut square) = (vec![0.0; INGREDIENTS], 0.0);
        for r in 0..self.rows {
            let values = row(r)?;
            square += dot(&values, &values);
            for (j, product) in products.iter_mut().enumerate() {
                *product += self.left[j][r] * dot(&self.right[j], &values);
            }
        }
        Ok((products, square))
    }

    /// The member's direction, by its parts.
    fn parts_of(&self, member: usize) -> &[f64] {
        &self.parts[member * INGREDIENTS..(member + 1) * INGREDIENTS]
    }

    /// Squared length of a member's direction.
    fn square(&self, member: usize) -> f64 {
        let parts = self.parts_of(member);
        let inner = |i: usize, j: usize| dot(&self.left[i], &self.left[j]) * dot(&self.right[i], &self.right[j]);
        let of = |i: usize| (0..INGREDIENTS).map(|j| parts[i] * parts[j] * inner(i, j)).sum::<f64>();
        (0..INGREDIENTS).map(of).sum::<f64>().max(0.0)
    }
}

/// Rows of a model batch.
pub struct RankOne {
    tensors: Vec<Pairs>,
}

impl RankOne {
    /// The model batch of a case.
    pub fn directions(case: &Case, centre: Vec<Tensor>) -> Directions {
        let pairs = |(i, factors): (usize, &Factors)| {
            let [rows, columns] = SHAPES[i];
            let part = |&k: &usize| {
                let of_centre = |j: usize| case.coefficients[j * GROUPS + GROUP_OF[i]];
                (0..INGREDIENTS).map(move |j| f64::from(u8::from(j == k)) - of_centre(j))
            };
            let parts = MEMBERS.iter().flat_map(part).collect();
            Pairs { rows, columns, left: factors.left.clone(), right: factors.right.clone(), parts }
        };
        let tensors: Vec<Pairs> = case.factors.iter().enumerate().map(pairs).collect();
        let mut lengths = Lengths::new(MEMBERS.len(), &case.mixed);
        for (i, pairs) in tensors.iter().enumerate() {
            let (products, of_centre) = pairs.through(|r| Ok(row_of(&centre[i], pairs, r))).unwrap();
            let squares = (0..MEMBERS.len()).map(|member| {
                let (square, with_centre) = (pairs.square(member), dot(pairs.parts_of(member), &products));
                (square, of_centre + 2.0 * with_centre + square)
            });
            lengths.add(GROUP_OF[i], 0, &squares.collect::<Vec<_>>(), of_centre);
        }
        Directions::of_rows(Box::new(Self { tensors }), &lengths, &case.mixed, centre, Kind::Float).unwrap()
    }
}

impl Rows for RankOne {
    fn mix(&self, x: &[f64], start: Start<'_>, outputs: &[Tensor]) -> Result<(), TchError> {
        let b = MEMBERS.len();
        for (i, (pairs, output)) in self.tensors.iter().zip(outputs).enumerate() {
            let x = &x[i * b..(i + 1) * b];
            // All members together are one combination of the ingredients' differences.
            let factor = |j: usize| (0..b).map(|k| x[k] * pairs.parts_of(k)[j]).sum::<f64>();
            let factors: Vec<f64> = (0..INGREDIENTS).map(factor).collect();
            for r in 0..pairs.rows {
                let mut row = match start {
                    Start::Zero => vec![0.0; pairs.columns],
                    Start::From(base) => row_of(&base[i], pairs, r),
                    Start::InPlace => row_of(output, pairs, r),
                };
                for (j, factor) in factors.iter().enumerate() {
                    let factor = factor * pairs.left[j][r];
                    row.iter_mut().zip(&pairs.right[j]).for_each(|(sum, v)| *sum += factor * v);
                }
                let output = output.f_view([pairs.rows as i64, pairs.columns as i64])?;
                tch::no_grad(|| output.f_get(r as i64)?.f_copy_(&Tensor::f_from_slice(&row)?))?;
            }
        }
        Ok(())
    }

    fn project(&self, gradients: &[Tensor], which: &[usize]) -> Result<Vec<TensorProjection>, TchError> {
        let projected = |&i: &usize| {
            let (pairs, gradient) = (&self.tensors[i], &gradients[i]);
            let matrix = gradient.f_view([pairs.rows as i64, pairs.columns as i64])?;
            let row = |r: usize| Vec::<f64>::try_from(matrix.f_get(r as i64)?.f_to_kind(Kind::Double)?);
            let (products, square) = pairs.through(row)?;
            let dots = (0..MEMBERS.len()).map(|member| dot(pairs.parts_of(member), &products));
            Ok((dots.collect(), square))
        };
        which.iter().map(projected).collect()
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        let vectors = |vectors: &[Vec<f64>]| vectors.iter().map(|v| size_of_val(&v[..])).sum::<usize>();
        let of = |pairs: &Pairs| vectors(&pairs.left) + vectors(&pairs.right) + size_of_val(&pairs.parts[..]);
        self.tensors.iter().map(of).sum()
    }
}

/// A row of a matrix that is stored flat, in f32.
fn row_of(tensor: &Tensor, pairs: &Pairs, r: usize) -> Vec<f64> {
    let values = &slice::<f32>(tensor)[r * pairs.columns..(r + 1) * pairs.columns];
    values.iter().map(|&value| f64::from(value)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
