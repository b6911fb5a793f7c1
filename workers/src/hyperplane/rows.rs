//! The seam of directions: what a span asks of the rows of a model batch, however they are stored.
//!
//! A row is one member's values of one mixed tensor. [`Whole`](super::Whole) stores all values,
//! [`Compact`](super::Compact) in fewer bytes each. `docs/add-directions.md` shows how to add
//! another.

use tch::{TchError, Tensor};

/// What a mix begins with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Zeros.
    Zero,
    /// One tensor for each output: flat, as long as the output, in the dtype of the span.
    From(&'a [Tensor]),
    /// What the outputs hold. They are in the dtype of the span.
    InPlace,
}

/// Inner products of the rows of one tensor with its gradient, `[b]`, and the gradient's square.
pub type TensorProjection = (Vec<f64>, f64);

/// Where directions are divided by their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// In the rows, which are unit directions now.
    Rows,
    /// In the span, which divides coordinates before a mix and inner products after a projection.
    Coordinates,
}

/// The rows of a model batch: for each mixed tensor one row of each of the `b` members.
///
/// One call works on all tensors, so that an implementation spreads them over threads or starts one
/// kernel for all. Outputs and gradients have any shape; rows and values of a start are flat.
pub trait Rows {
    /// Sets each output to `start + sum_k x[k] row[k]`, k ascending.
    ///
    /// `outputs` has one tensor for each mixed tensor; `x` is row-major `[tensors, b]`. Sums are in
    /// the dtype of the span; outputs in that dtype or in bf16, rounded once.
    ///
    /// # Errors
    /// What libtorch reports.
    fn mix(&self, x: &[f64], start: Start<'_>, outputs: &[Tensor]) -> Result<(), TchError>;

    /// For each tensor of `which`, ascending: inner products of its rows with its gradient.
    ///
    /// `gradients` has one tensor for each mixed tensor, in the dtype of the span or in bf16. Those
    /// in `which` are defined.
    ///
    /// # Errors
    /// What libtorch reports.
    fn project(&self, gradients: &[Tensor], which: &[usize]) -> Result<Vec<TensorProjection>, TchError>;

    /// Divides each row by its length, or leaves that to the span, which is the default.
    ///
    /// `lengths` is row-major `[tensors, b]`; a length of 0 makes the row 0.
    ///
    /// # Errors
    /// What libtorch reports.
    fn normalise(&mut self, lengths: &[f64]) -> Result<Division, TchError> {
        let _ = lengths;
        Ok(Division::Coordinates)
    }

    /// Whether rows are as exact as the ingredients' files. A fold reads the files where they are
    /// not.
    fn is_exact(&self) -> bool;

    /// Bytes that are stored.
    fn bytes(&self) -> usize;
}
