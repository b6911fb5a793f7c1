//! Values out of a search space: every combination, or seeded samples.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value as Json;

use super::spec::{Distribution, Overrides};

/// A space, in the order of the specification.
type Space = [(String, Distribution)];

/// Number of combinations of a space of `choice` and `int`; 1 for an empty one, `u128::MAX` if there are more than can be counted.
/// Continuous distributions, of which no grid can be made, count as one value.
pub(super) fn grid_size(space: &Space) -> u128 {
    space.iter().fold(1, |size: u128, (_, distribution)| size.saturating_mul(values(distribution)))
}

/// Number of values of a distribution.
fn values(distribution: &Distribution) -> u128 {
    match distribution {
        Distribution::Choice(values) => values.len() as u128,
        Distribution::Int(low, high) => (i128::from(*high) - i128::from(*low) + 1).max(0) as u128,
        Distribution::Uniform(..) | Distribution::LogUniform(..) => 1,
    }
}

/// Every combination, lexicographic in the order of the space: its last field changes fastest.
pub(super) fn grid(space: &Space) -> impl Iterator<Item = Overrides> + '_ {
    (0..grid_size(space)).map(move |index| {
        let mut rest = index;
        let mut combination = Overrides::new();
        for (key, distribution) in space.iter().rev() {
            let size = values(distribution);
            let value = match distribution {
                Distribution::Choice(values) => values[(rest % size) as usize].clone(),
                Distribution::Int(low, _) => Json::from((i128::from(*low) + (rest % size) as i128) as i64),
                Distribution::Uniform(low, _) | Distribution::LogUniform(low, _) => Json::from(*low),
            };
            combination.insert(key.clone(), value);
            rest /= size;
        }
        combination
    })
}

/// Sample `index` of a space. It depends on the seed, the index and each field's name and distribution only: more samples, or another
/// field in the space, leave the values as they are.
pub(super) fn sample(space: &Space, seed: u64, index: u64) -> Overrides {
    space
        .iter()
        .map(|(key, distribution)| {
            let mut random = generator(seed, index, key);
            let value = match distribution {
                Distribution::Choice(values) => values[below(&mut random, values.len() as u64) as usize].clone(),
                Distribution::Int(low, high) => Json::from(whole(&mut random, *low, *high)),
                Distribution::Uniform(low, high) => Json::from(uniform(&mut random, *low, *high)),
                Distribution::LogUniform(low, high) => {
                    Json::from(rounded(uniform_in(&mut random, low.ln(), high.ln()).exp(), *low, *high))
                }
            };
            (key.clone(), value)
        })
        .collect()
}

/// The generator of one value. Its key is a hash and its numbers are those of the ChaCha cipher, so no library's version changes them.
fn generator(seed: u64, index: u64, key: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("mehl-soup 1 search sample");
    hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes()).update(key.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Uniform in [0, count), without bias: numbers beyond the largest multiple of `count` are drawn again.
fn below(random: &mut impl Rng, count: u64) -> u64 {
    let surplus = (u64::MAX % count + 1) % count;
    loop {
        let number = random.next_u64();
        if number <= u64::MAX - surplus {
            return number % count;
        }
    }
}

/// Uniform over the whole numbers in [low, high].
fn whole(random: &mut impl Rng, low: i64, high: i64) -> i64 {
    match high.abs_diff(low).checked_add(1) {
        Some(count) => low.wrapping_add_unsigned(below(random, count)),
        None => random.next_u64() as i64,
    }
}

/// Uniform in [low, high], rounded.
fn uniform(random: &mut impl Rng, low: f64, high: f64) -> f64 {
    rounded(uniform_in(random, low, high), low, high)
}

fn uniform_in(random: &mut impl Rng, low: f64, high: f64) -> f64 {
    // The upper 53 bits: each multiple of 2^-53 in [0, 1) with the same probability.
    let part = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    // Weighted, because `high - low` may overflow.
    low * (1.0 - part) + high * part
}

/// To six significant digits, within the range: a person can write the value down, and the last bits of `exp` do not matter.
fn rounded(value: f64, low: f64, high: f64) -> f64 {
    format!("{value:.5e}").parse::<f64>().unwrap_or(value).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn example() -> Vec<(String, Distribution)> {
        vec![
            ("method".into(), Distribution::Choice(vec![json!("mehl"), json!("hl")])),
            ("batch".into(), Distribution::Int(3, 5)),
        ]
    }

    #[test]
    fn a_grid_is_lexicographic_in_the_order_of_the_space() {
        let all: Vec<_> = grid(&example())
            .map(|o| (o["method"].as_str().unwrap().to_string(), o["batch"].as_i64().unwrap()))
            .collect();
        let expected = [("mehl", 3), ("mehl", 4), ("mehl", 5), ("hl", 3), ("hl", 4), ("hl", 5)];
        assert_eq!(all, expected.map(|(method, batch)| (method.to_string(), batch)));
        assert_eq!(grid_size(&[]), 1);
        assert_eq!(grid(&[]).collect::<Vec<_>>(), [Overrides::new()]);
        assert_eq!(grid_size(&[("seed".into(), Distribution::Int(i64::MIN, i64::MAX))]), 1 << 64);
    }

    #[test]
    fn samples_are_these_whatever_the_version_and_the_rest_of_the_space() {
        let rate = ("learning_rate".to_string(), Distribution::LogUniform(1e-3, 1e-1));
        let drawn: Vec<f64> =
            (0..3).map(|i| sample(std::slice::from_ref(&rate), 7, i)["learning_rate"].as_f64().unwrap()).collect();
        // Computed apart from this program, with the Python package blake3 1.0 and a ChaCha8 written out from RFC 8439 (8 rounds for 20):
        // key = blake3(le64(7) + le64(i) + b"learning_rate", derive_key_context="mehl-soup 1 search sample"),
        // u = (first 64 bits >> 11) / 2^53, value = exp(ln(1e-3) (1 - u) + ln(1e-1) u) to six digits.
        assert_eq!(drawn, [0.00161989, 0.00168622, 0.0123457]);
        let mut wider = example();
        wider.push(rate);
        assert_eq!(sample(&wider, 7, 2)["learning_rate"], json!(drawn[2]));
    }

    #[test]
    fn samples_are_spread_as_the_distribution_says() {
        let space = [
            ("a".to_string(), Distribution::LogUniform(1e-4, 1.0)),
            ("b".to_string(), Distribution::Int(0, 3)),
            ("c".to_string(), Distribution::Uniform(-1.0, 1.0)),
        ];
        let samples: Vec<_> = (0..4000).map(|i| sample(&space, 1, i)).collect();
        let part = |test: &dyn Fn(&Overrides) -> bool| samples.iter().filter(|s| test(s)).count() as f64 / 4000.0;
        // Five standard deviations of a part of 1/2 or 1/4 among 4000 are 0.04 and 0.034.
        assert!((part(&|s| s["a"].as_f64().unwrap() < 1e-2) - 0.5).abs() < 0.04);
        assert!((part(&|s| s["c"].as_f64().unwrap() < 0.0) - 0.5).abs() < 0.04);
        for value in 0..4 {
            assert!((part(&|s| s["b"] == json!(value)) - 0.25).abs() < 0.035);
        }
    }

    proptest! {
        #[test]
        fn samples_stay_within_their_ranges(
            seed: u64, index: u64,
            a in -1e300..1e300_f64, b in -1e300..1e300_f64,
            i: i64, j: i64,
            low in 1e-300..1e300_f64, factor in 1.0..1e8_f64,
        ) {
            let (uniform, int) = ((a.min(b), a.max(b)), (i.min(j), i.max(j)));
            let space = [
                ("u".to_string(), Distribution::Uniform(uniform.0, uniform.1)),
                ("l".to_string(), Distribution::LogUniform(low, low * factor)),
                ("i".to_string(), Distribution::Int(int.0, int.1)),
                ("n".to_string(), Distribution::Int(i64::MIN, i64::MAX)),
                ("c".to_string(), Distribution::Choice(vec![json!(1), json!(2), json!(3)])),
            ];
            let drawn = sample(&space, seed, index);
            let u = drawn["u"].as_f64().unwrap();
            prop_assert!(uniform.0 <= u && u <= uniform.1);
            let l = drawn["l"].as_f64().unwrap();
            prop_assert!(low <= l && l <= low * factor);
            let n = drawn["i"].as_i64().unwrap();
            prop_assert!(int.0 <= n && n <= int.1);
            prop_assert!((1..=3).contains(&drawn["c"].as_i64().unwrap()));
            prop_assert_eq!(sample(&space, seed, index), drawn);
        }
    }
}
