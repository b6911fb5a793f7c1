//! The memory that a task needs at its largest, and the model batch that fits a budget: arithmetic over what was measured once.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::{ComputeDtype, ComputeSpec, DirectionDtype, SoupSpec};

use super::dtype;
use super::inputs::Inputs;
use super::probe::Probed;
use crate::families::{Pass, Precision};
use crate::hyperplane::{MixedTensors, RowBytes};
use crate::objectives::Backward;

/// Bytes of a task's parts on its device; on the CPU, anonymous memory of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// What is there before a task begins: the model's parameters, and on the CPU libtorch's and the program's own.
    pub base: u64,
    /// The centre; 0 for `learned`.
    pub centre: u64,
    /// Rows of one ingredient.
    pub row: u64,
    /// What reading compact rows takes beside them.
    pub reading: u64,
    /// What the soup takes less while it is learned in bf16.
    pub saved: u64,
    /// The soup's gradient and activations of one learning pass.
    pub learning: u64,
    /// Activations of one scoring pass in the dtype that is learned in, for early stopping.
    pub steering: u64,
    /// Activations of one scoring pass in the dtype of the parameters, for which no model batch is there.
    pub scoring: u64,
}

impl Needs {
    /// Those of a task that learns, by some small passes.
    ///
    /// # Errors
    /// As [`Probed::learning`].
    pub(super) fn of_task(
        inputs: &Inputs,
        soup: &SoupSpec,
        mixed: &MixedTensors,
        dtype: ComputeDtype,
        compute: &ComputeSpec,
        probed: &Probed,
    ) -> Result<Self, EngineError> {
        let value = inputs.kind.elt_size_in_bytes();
        let learned = !soup.method.is_on_hyperplane();
        let stored = match learned {
            true => DirectionDtype::F32,
            false => soup.direction_dtype.resolve(dtype == ComputeDtype::Bf16),
        };
        let RowBytes { stored: row, besides: reading } = RowBytes::new(mixed, stored, inputs.kind);
        let centre = if learned { 0 } else { (mixed.elements() * value) as u64 };
        let data = &inputs.data;
        let largest = data.select.samples().max(data.learn.samples());
        let precision = dtype::precision(dtype);
        let (leaves, subject) = (inputs.leaves(&mixed.names, precision)?, inputs.subject());
        let backward = Backward { how: Pass::Learn.with(precision), course: leaves.course(compute.recompute) };
        let learning = probed.learning(subject, &leaves, soup.batch.min(data.learn.samples()), backward)?;
        let score_batch = inputs.score_batch(compute.score_batch).min(largest);
        let steering = match soup.early_stopping {
            true => probed.scoring(subject, score_batch, Pass::Score.with(precision))?,
            false => 0,
        };
        inputs.leaves(&mixed.names, Precision::Full)?;
        let scoring = probed.scoring(subject, score_batch, Pass::Score.full())?;
        let (base, saved) = (inputs.base_bytes(), inputs.saved(&mixed.names, precision));
        Ok(Self { base, centre, row, reading, saved, learning, steering, scoring })
    }

    /// At the largest, with `b` ingredients at once.
    pub fn peak(&self, b: usize) -> u64 {
        (self.base + self.scoring).max(self.base + self.centre + self.row * b as u64 + self.beside())
    }

    /// The most that is there beside base, centre and rows: a pass, or what reading takes, before which the soup may not be in bf16 yet.
    pub fn beside(&self) -> u64 {
        self.learning.max(self.steering).saturating_sub(self.saved).max(self.reading)
    }

    /// The largest number of ingredients at once that fits, at most `ingredients`; `None` if not even one does.
    pub fn largest(&self, budget: u64, ingredients: usize) -> Option<usize> {
        if self.peak(0) > budget {
            return None;
        }
        let left = budget - (self.base + self.centre + self.beside());
        let fits = left.checked_div(self.row).map_or(ingredients, |b| usize::try_from(b).unwrap_or(usize::MAX));
        let b = fits.min(ingredients.max(1));
        (b > 0).then_some(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_batch_follows_the_budget() {
        let needs =
            Needs { base: 100, centre: 50, row: 30, reading: 5, saved: 20, learning: 80, steering: 30, scoring: 110 };
        assert_eq!((needs.peak(0), needs.peak(2)), (210, 270));
        assert_eq!((needs.largest(209, 72), needs.largest(210, 72), needs.largest(240, 72)), (None, None, Some(1)));
        assert_eq!(Needs { scoring: 170, ..needs }.largest(269, 72), None);
        assert_eq!(Needs { learning: 20, steering: 80, ..needs }.peak(0), 210);
        let needs = Needs { scoring: 40, ..needs };
        assert_eq!((needs.peak(0), needs.peak(2)), (210, 270));
        assert_eq!(needs.largest(239, 72), None);
        assert_eq!(needs.largest(240, 72), Some(1));
        assert_eq!(needs.largest(299, 72), Some(2));
        assert_eq!(needs.largest(u64::MAX, 72), Some(72));
        assert_eq!(Needs { row: 0, ..needs }.largest(210, 3), Some(3));
    }
}
