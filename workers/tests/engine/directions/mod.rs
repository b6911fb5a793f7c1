//! The seam of directions: one suite for all rows, and rows of rank 1 that were written for it.

mod case;
mod rank_one;
mod watch;

use mehl_soup::coefficients::Coefficients;
use mehl_soup::sweep::spec::DirectionDtype;
use mehl_soup_worker::hyperplane::{Directions, Projection, Stored};
use mehl_soup_worker::methods::units;
use tch::{Device, Kind, Tensor};

use case::{Case, GROUPS, INGREDIENTS, MEMBERS, SHAPES, largest_apart};
use rank_one::RankOne;
use watch::largest_allocation;

/// Rounding of sums in f32.
const ROUNDING: f64 = 2e-5;
/// Coefficients of the members' differences from the centre, row-major `[b, L]`.
const MOVES: [f64; 6] = [0.25, -0.5, 0.75, 0.5, -0.25, 1.0];

/// What suite and implementations under test have in common.
struct Suite<'a> {
    name: &'a str,
    case: &'a Case,
    /// How far values of a direction may be off, elementwise.
    tolerance: f64,
    make: &'a dyn Fn(Vec<Tensor>) -> Directions,
}

impl Suite<'_> {
    /// Checks everything that a span does, and answers the bytes of the largest allocation
    /// meanwhile.
    fn run(&self) -> usize {
        let centre = self.case.centre_tensors();
        let (directions, mut largest) = largest_allocation(|| (self.make)(centre));
        self.lengths(&directions);
        for kind in [Kind::Float, Kind::BFloat16] {
            largest = largest.max(self.mixes(&directions, kind));
            largest = largest.max(self.projects(&directions, kind));
        }
        largest.max(self.folds(directions))
    }

    fn lengths(&self, directions: &Directions) {
        let expected = self.case.norms();
        assert_eq!(directions.norms.len(), expected.len(), "{}", self.name);
        for (i, (found, expected)) in directions.norms.iter().zip(&expected).enumerate() {
            let apart = (found - expected).abs();
            assert!(apart <= 1e-5 * expected, "{}: length {i}: {found}, expected {expected}", self.name);
        }
        // The centre is the last member in group 1: there is no direction.
        assert_eq!(directions.norms[2 * GROUPS + 1], 0.0, "{}", self.name);
        assert_eq!(directions.norms.iter().filter(|n| **n == 0.0).count(), 1, "{}", self.name);
    }

    /// In relative coordinates, `centre + sum_k s[k] (theta[k] - centre)`, whatever the lengths
    /// are.
    fn mixes(&self, directions: &Directions, kind: Kind) -> usize {
        let x = relative(directions);
        let outputs = self.case.zeros(kind);
        let (_, largest) = largest_allocation(|| directions.span.mix_into(&x, &outputs).unwrap());
        let moved = self.case.moved(&MOVES);
        let rounding = if kind == Kind::Float { ROUNDING } else { 2e-2 };
        let apart = largest_apart(&outputs, &moved);
        assert!(apart < self.tolerance + rounding, "{}, {kind:?}: apart by {apart}", self.name);
        // The moves are larger than what is tolerated.
        assert!(largest_apart(&outputs, &self.case.centre()) > 0.3, "{}, {kind:?}", self.name);
        largest
    }

    fn projects(&self, directions: &Directions, kind: Kind) -> usize {
        let gradients = self.case.gradients(kind);
        let mut largest = 0;
        let mut projected = |gradients: &[Tensor]| {
            let (found, bytes) = largest_allocation(|| directions.span.project(gradients).unwrap());
            largest = largest.max(bytes);
            found
        };
        self.equal(&projected(&gradients), &gradients);
        // A parameter that the loss does not depend on.
        let [first, _, last] = gradients;
        let gradients = [first, Tensor::new(), last];
        let found = projected(&gradients);
        self.equal(&found, &gradients);
        assert!((0..MEMBERS.len()).all(|k| found.dots[k * GROUPS + 1] == 0.0), "{}", self.name);
        largest
    }

    fn equal(&self, found: &Projection, gradients: &[Tensor]) {
        let (dots, norm) = self.case.projection(gradients);
        assert!((found.gradient_norm / norm - 1.0).abs() < 1e-5, "{}", self.name);
        for (i, (found, expected)) in found.dots.iter().zip(&dots).enumerate() {
            let apart = (found - expected).abs();
            assert!(apart < (self.tolerance + ROUNDING) * norm, "{}: {i}: {found}, {expected}", self.name);
        }
        let largest = dots.iter().fold(0f64, |largest, dot| largest.max(dot.abs()));
        assert!(largest > 0.02 * norm, "{}: the gradient is not orthogonal to all directions", self.name);
    }

    /// A fold is exact, and the table of coefficients stands for what it gives.
    fn folds(&self, directions: Directions) -> usize {
        let Case { zoo, mixed, .. } = self.case;
        let x = relative(&directions);
        let beta: Vec<f64> = x.iter().zip(units(&directions.norms)).map(|(x, n)| x / n).collect();
        let (folded, largest) = largest_allocation(|| directions.fold(zoo, &MEMBERS, mixed, &x).unwrap());
        let apart = largest_apart(&folded, &self.case.moved(&MOVES));
        assert!(apart < ROUNDING, "{}: the fold is apart by {apart}", self.name);
        let mut a = Coefficients::from_values(INGREDIENTS, GROUPS, self.case.coefficients.clone()).unwrap();
        a.fold(&MEMBERS, &beta);
        let apart = largest_apart(&folded, &self.case.soup(a.values()));
        assert!(apart < ROUNDING, "{}: the fold is apart from A by {apart}", self.name);
        largest
    }
}

/// Coordinates of the moves.
fn relative(directions: &Directions) -> Vec<f64> {
    units(&directions.norms).iter().zip(MOVES).map(|(n, s)| n * s).collect()
}

/// Bytes of a row of all values.
fn dense(shape: [usize; 2]) -> usize {
    shape[0] * shape[1] * size_of::<f32>()
}

#[test]
fn rows_of_all_kinds_pass_the_suite_and_rank_1_makes_no_dense_row() {
    let case = Case::new();
    let kinds = [
        (DirectionDtype::F32, 0.0),
        (DirectionDtype::Bf16, 0.01),
        (DirectionDtype::Int8, 0.01),
        (DirectionDtype::Int4, 0.15),
    ];
    for (dtype, tolerance) in kinds {
        let stored = Stored { device: Device::Cpu, kind: Kind::Float, dtype };
        let make = |centre| Directions::new(&case.zoo, &MEMBERS, &case.mixed, centre, stored).unwrap();
        let largest = Suite { name: &format!("{dtype:?}"), case: &case, tolerance, make: &make }.run();
        if dtype == DirectionDtype::F32 {
            // What is measured is seen: the rows of the largest tensor are one allocation.
            assert!(largest >= MEMBERS.len() * dense(SHAPES[0]), "{largest}");
        }
    }
    let make = |centre| RankOne::directions(&case, centre);
    let largest = Suite { name: "rank 1", case: &case, tolerance: 0.0, make: &make }.run();
    let smallest_row = SHAPES.map(dense).into_iter().min().unwrap();
    assert!(largest < smallest_row, "an allocation of {largest} bytes, a dense row has {smallest_row}");
}

#[test]
fn rank_1_takes_the_bytes_of_its_factors() {
    let case = Case::new();
    let span = RankOne::directions(&case, case.centre_tensors()).span;
    let factors: usize = SHAPES.iter().map(|[rows, columns]| INGREDIENTS * (rows + columns)).sum();
    assert!(span.bytes() <= 2 * factors * size_of::<f64>());
    let dense: usize = SHAPES.map(dense).iter().sum();
    assert!(span.bytes() < MEMBERS.len() * dense / 2);
}
