//! Lengths of directions, and where one counts as vanished.

use tch::{Kind, Tensor};

use super::span::MixedTensors;
use super::tensors::by_kind;
use super::whole::subtract;

/// A direction of a group counts as vanished below this part of the larger of the two norms: it is
/// rounding noise then.
const VANISHED: f64 = 1e-6;

/// Squares that the lengths of directions are made of, by member and layer group, in f64.
pub struct Lengths {
    groups: usize,
    difference: Vec<f64>,
    own: Vec<f64>,
    centre: Vec<f64>,
}

impl Lengths {
    /// Of a model batch of `members` ingredients; nothing is counted in yet.
    pub fn new(members: usize, mixed: &MixedTensors) -> Self {
        let zeros = vec![0.0; members * mixed.group_count];
        Self { groups: mixed.group_count, difference: zeros.clone(), own: zeros, centre: vec![0.0; mixed.group_count] }
    }

    /// Counts one tensor of a layer group in: for the members from `first` on the squares
    /// `(|theta[k] - c|^2, |theta[k]|^2)`, and `|c|^2`.
    pub fn add(&mut self, group: usize, first: usize, squares: &[(f64, f64)], of_centre: f64) {
        self.centre[group] += of_centre;
        for (k, (difference, own)) in squares.iter().enumerate() {
            self.difference[(first + k) * self.groups + group] += difference;
            self.own[(first + k) * self.groups + group] += own;
        }
    }

    /// Takes the centre from a member's row of one tensor, and counts it in.
    pub(super) fn take(&mut self, group: usize, k: usize, (row, kind): (&Tensor, Kind), centre: &Tensor) {
        let (squares, of_centre) = by_kind!(kind, subtract(row, centre));
        self.add(group, k, &squares, if k == 0 { of_centre } else { 0.0 });
    }

    /// Euclidean lengths over each group, row-major `[b, L]`; 0 where a direction vanishes, which
    /// is at `n <= 1e-6 max(|theta|, |c|)`.
    pub fn norms(&self) -> Vec<f64> {
        let squares = self.difference.iter().zip(&self.own).enumerate();
        squares
            .map(|(i, (difference, own))| {
                let n = difference.sqrt();
                if n <= VANISHED * own.max(self.centre[i % self.groups]).sqrt() { 0.0 } else { n }
            })
            .collect()
    }
}

/// `1 / n`; 0 where a direction vanishes.
pub(super) fn inverse(norm: f64) -> f64 {
    if norm == 0.0 { 0.0 } else { 1.0 / norm }
}
