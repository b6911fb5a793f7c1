//! Batches in which a split is scored, where the loss of a sample depends on the other samples of
//! its batch.

use crate::rng::permutation;

/// Which samples are scored together: the same for every task of a sweep, whatever
/// `compute.score_batch` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedBatches {
    /// Samples of a batch.
    pub size: usize,
    /// Decides which samples are in which batch.
    pub seed: u64,
}

impl FixedBatches {
    /// The batches of a split of so many samples. A last batch that is not full would have fewer
    /// candidates than the others: it is left out unless it is the only one.
    pub fn of(&self, samples: usize) -> Vec<Vec<usize>> {
        let order = permutation(self.seed, "scored batches", &[], samples);
        let whole = |chunk: &&[usize]| chunk.len() == self.size || samples < self.size;
        order.chunks(self.size.max(1)).filter(whole).map(<[usize]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::FixedBatches;

    #[test]
    fn batches_are_full_and_fixed() {
        let batches = FixedBatches { size: 4, seed: 3 };
        let found = batches.of(11);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        let mut all = found.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
        assert_eq!(batches.of(11), found);
        assert_ne!(FixedBatches { seed: 4, ..batches }.of(11), found);
        assert_eq!(batches.of(3).iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    }
}
