//! Seeded permutations that are the same on every machine and for every version of this program.
//!
//! Nothing here has state: a permutation is a function of a seed, a purpose and counters, so that a resumed task needs no generator's state.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A generator for one purpose of a seed.
pub fn generator(seed: u64, purpose: &str, counters: &[usize]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
    for &counter in counters {
        hasher.update(&(counter as u64).to_le_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A uniformly random order of `0..n` (Fisher and Yates, from the back).
pub fn permutation(seed: u64, purpose: &str, counters: &[usize], n: usize) -> Vec<usize> {
    let mut rng = generator(seed, purpose, counters);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(&mut rng, i as u64 + 1) as usize);
    }
    order
}

/// Uniform in `0..bound`, by rejection.
pub fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let value = rng.next_u64();
        if value < limit {
            return value % bound;
        }
    }
}

/// Uniform in [0, 1).
pub fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::permutation;

    #[test]
    fn orders_are_permutations_and_differ_by_seed_purpose_and_counter() {
        let base = permutation(1, "data", &[0, 0], 50);
        let mut sorted = base.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(base, permutation(2, "data", &[0, 0], 50));
        assert_ne!(base, permutation(1, "models", &[0, 0], 50));
        assert_ne!(base, permutation(1, "data", &[0, 1], 50));
    }

    #[test]
    fn an_order_never_changes_between_versions() {
        // A checkpoint of an older version must go on with the same data.
        assert_eq!(permutation(7, "models", &[0], 6), [3, 5, 2, 0, 1, 4]);
    }
}
