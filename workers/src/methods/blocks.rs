//! Which ingredients are in which model batch: decided by seed, size, and where memory ran out.

use crate::engine::train::Position;
use crate::rng::permutation;

/// The model batches of a task.
pub struct Blocks<'a> {
    /// The task's seed.
    pub seed: u64,
    /// Ingredients, ascending.
    pub members: &'a [usize],
    /// Passes over them.
    pub outer_epochs: usize,
    /// Ingredients a model batch, at most.
    pub b: usize,
    /// `(i, b)`: from the model batch of index `i` on, at most `b`; ascending in `i`.
    pub cuts: &'a [(usize, usize)],
}

/// A model batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Outer epoch, and index in it.
    pub at: (usize, usize),
    /// Indices of ingredients, ascending.
    pub members: Vec<usize>,
}

impl Block {
    /// Its position, where rungs do not count inner epochs.
    pub fn position(&self) -> Position {
        Position { outer: self.at.0, batch: self.at.1, epochs_before: None }
    }
}

impl Blocks<'_> {
    /// At most so many ingredients in the model batch of this index.
    pub fn size(&self, index: usize) -> usize {
        let cut = self.cuts.iter().rev().find(|(from, _)| *from <= index);
        cut.map_or(self.b, |&(_, b)| b).max(1)
    }

    /// All of them: for each outer epoch the ingredients, shuffled anew, cut in pieces.
    pub fn all(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for outer in 0..self.outer_epochs {
            let order = permutation(self.seed, "model batches", &[outer], self.members.len());
            let (mut rest, mut batch) = (order.as_slice(), 0);
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(self.size(blocks.len()).min(rest.len()));
                let mut members: Vec<usize> = piece.iter().map(|&i| self.members[i]).collect();
                members.sort_unstable();
                blocks.push(Block { at: (outer, batch), members });
                (rest, batch) = (later, batch + 1);
            }
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(members: &[usize], outer_epochs: usize, b: usize, cuts: &[(usize, usize)]) -> Vec<Block> {
        Blocks { seed: 5, members, outer_epochs, b, cuts }.all()
    }

    #[test]
    fn every_ingredient_is_in_one_batch_of_each_outer_epoch() {
        let members = [0, 2, 3, 5, 7, 8, 9];
        let all = blocks(&members, 3, 3, &[]);
        assert_eq!(all.iter().map(|b| b.members.len()).collect::<Vec<_>>(), [3, 3, 1, 3, 3, 1, 3, 3, 1]);
        for outer in 0..3 {
            let of: Vec<&Block> = all.iter().filter(|b| b.at.0 == outer).collect();
            assert!(of.iter().all(|b| b.members.is_sorted()) && of.iter().enumerate().all(|(i, b)| b.at.1 == i));
            let mut whole: Vec<usize> = of.iter().flat_map(|b| b.members.clone()).collect();
            whole.sort_unstable();
            assert_eq!(whole, members);
        }
        assert_ne!(
            all[..3].iter().map(|b| &b.members).collect::<Vec<_>>(),
            all[3..6].iter().map(|b| &b.members).collect::<Vec<_>>()
        );
        assert_eq!(blocks(&members, 1, 100, &[])[0].members, members);
    }

    #[test]
    fn a_cut_leaves_what_was_before_it() {
        let members: Vec<usize> = (0..10).collect();
        let whole = blocks(&members, 2, 4, &[]);
        let cut = blocks(&members, 2, 4, &[(1, 2), (3, 1)]);
        assert_eq!(cut[0], whole[0]);
        assert_eq!(
            cut.iter().map(|b| b.members.len()).collect::<Vec<_>>(),
            [vec![4, 2, 2], vec![1; 2], vec![1; 10]].concat()
        );
        let mut second: Vec<usize> = [&cut[1], &cut[2]].into_iter().flat_map(|b| b.members.clone()).collect();
        second.sort_unstable();
        assert_eq!(second, whole[1].members, "the pieces are in the order in which the whole was");
    }
}
