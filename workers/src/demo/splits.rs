//! How many images of each class go to each split.

use crate::rng::permutation;

/// The splits: the base model is trained on the first, ingredients on the second, the sweep has the others.
pub const NAMES: [&str; 5] = ["base", "train", "learn", "select", "test"];
/// Their shares of each class.
const SHARES: [f64; 5] = [0.25, 0.25, 0.2, 0.15, 0.15];

/// Cuts samples in the five splits, each class by itself, in a seeded order: at least one sample of each class in every split, and otherwise in proportion.
/// Indices of each split are sorted.
///
/// # Errors
/// The first class that has too few samples, and how many it has.
pub fn stratified(labels: &[i64], classes: usize, seed: u64) -> Result<[Vec<usize>; 5], (usize, usize)> {
    let mut splits: [Vec<usize>; 5] = Default::default();
    for class in 0..classes {
        let members: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class as i64).collect();
        if members.len() < NAMES.len() {
            return Err((class, members.len()));
        }
        let order = permutation(seed, "image splits", &[class], members.len());
        let mut rest = order.as_slice();
        for (split, size) in splits.iter_mut().zip(sizes(members.len())) {
            let (own, after) = rest.split_at(size);
            split.extend(own.iter().map(|&i| members[i]));
            rest = after;
        }
    }
    for split in &mut splits {
        split.sort_unstable();
    }
    Ok(splits)
}

/// Sizes that sum to `n`, at least 5: one each, and every further sample goes where most is missing of the share.
fn sizes(n: usize) -> [usize; 5] {
    let mut sizes = [1; 5];
    for _ in sizes.len()..n {
        let missing = |split: usize| SHARES[split] * n as f64 - sizes[split] as f64;
        let neediest = (0..sizes.len()).max_by(|&a, &b| missing(a).total_cmp(&missing(b))).unwrap_or(0);
        sizes[neediest] += 1;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_shares_and_leave_nobody_without() {
        assert_eq!(sizes(5), [1; 5]);
        assert_eq!(sizes(100), [25, 25, 20, 15, 15]);
        for n in 5..60 {
            let found = sizes(n);
            assert_eq!(found.iter().sum::<usize>(), n);
            assert!(
                found.iter().zip(SHARES).all(|(&s, share)| (s as f64 - share * n as f64).abs() <= 1.0),
                "{found:?}"
            );
        }
    }

    #[test]
    fn every_sample_is_in_one_split_and_every_class_in_all() {
        let labels: Vec<i64> = (0..100).map(|i| if i < 7 { 0 } else { 1 + i % 2 }).collect();
        let splits = stratified(&labels, 3, 4).unwrap();
        let mut all = splits.concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        for split in &splits {
            let mut classes: Vec<i64> = split.iter().map(|&i| labels[i]).collect();
            classes.sort_unstable();
            classes.dedup();
            assert_eq!(classes, [0, 1, 2]);
        }
        assert_ne!(splits, stratified(&labels, 3, 5).unwrap());
    }

    #[test]
    fn a_class_with_too_few_samples_is_named() {
        assert_eq!(stratified(&[0, 0, 0, 0, 0, 1, 1, 1, 1], 2, 0), Err((1, 4)));
    }
}
