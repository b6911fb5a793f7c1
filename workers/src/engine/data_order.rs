//! In which order an epoch goes through the samples.

use crate::data::Split;
use crate::rng::permutation;

/// Batches whose samples are sorted by length together.
const BATCHES_SORTED: usize = 50;

/// The samples of one epoch, batch after batch, drawn anew for each `place`.
///
/// Where samples have lengths of their own, those of 50 batches are sorted by length before batches are cut, and batches
/// are then in random order: a batch has samples of similar lengths, and little padding. It rests on the order of such a
/// split, which is that of lengths.
pub fn of_epoch(split: &Split, batch: usize, seed: u64, place: &[usize]) -> Vec<usize> {
    let order = permutation(seed, "data order", place, split.samples());
    if split.is_by_length() { by_length(&order, batch, seed, place) } else { order }
}

fn by_length(order: &[usize], batch: usize, seed: u64, place: &[usize]) -> Vec<usize> {
    let mut sorted = order.to_vec();
    for part in sorted.chunks_mut(BATCHES_SORTED * batch) {
        part.sort_unstable();
    }
    // The last batch may not be full, and stays where it is.
    let whole = sorted.len() / batch;
    let batches = permutation(seed, "batch order", place, whole);
    let shuffled = batches.iter().flat_map(|&at| &sorted[at * batch..(at + 1) * batch]);
    shuffled.chain(&sorted[whole * batch..]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_samples_of_similar_lengths_and_an_epoch_has_each_sample_once() {
        let order = permutation(3, "data order", &[0], 1003);
        let epoch = by_length(&order, 10, 3, &[0]);
        let mut all = epoch.clone();
        all.sort_unstable();
        assert_eq!(all, (0..1003).collect::<Vec<_>>());
        let spread = |epoch: &[usize]| {
            let of = |batch: &[usize]| batch.iter().max().unwrap() - batch.iter().min().unwrap();
            epoch.chunks(10).map(of).sum::<usize>()
        };
        assert!(10 * spread(&epoch) < spread(&order), "{} and {}", spread(&epoch), spread(&order));
        let firsts: Vec<usize> = epoch.chunks(10).map(|batch| batch[0]).collect();
        assert!(!firsts.is_sorted(), "long batches do not come last");
        assert_ne!(epoch, by_length(&order, 10, 4, &[0]));
    }
}
