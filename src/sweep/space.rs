//! Values out of a search space: every combination, or seeded samples.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value as Json;

use super::distribution::last_step;
use super::spec::{Distribution, MethodName, Overrides};

/// The field that other fields may depend on.
const METHOD: &str = "method";

/// A space, in the order of the specification.
type Space = [(String, Distribution)];

/// Number of combinations of a space of distributions that can be gone through; 1 for an empty one, `u128::MAX` if there are more than can be counted.
/// Distributions of which no grid can be made count as one value. `method` is that of tasks where the space has none.
pub(super) fn grid_size(space: &Space, method: MethodName) -> u128 {
    blocks(space, method).iter().fold(0, |sum: u128, block| sum.saturating_add(block.size()))
}

/// Combination `index` of all, lexicographic in the order of the space: its last field changes fastest. Where fields depend on the method, the method
/// comes first of all, and each has the combinations of its own fields. `None` beyond the last.
pub(super) fn combination(space: &Space, method: MethodName, mut index: u128) -> Option<Overrides> {
    for block in blocks(space, method) {
        let size = block.size();
        if index < size {
            return Some(block.combination(index));
        }
        index -= size;
    }
    None
}

/// Combinations of some fields.
struct Block<'a> {
    /// A method that all of them have.
    method: Option<&'a Json>,
    fields: Vec<&'a (String, Distribution)>,
}

impl Block<'_> {
    fn size(&self) -> u128 {
        self.fields.iter().fold(1, |size: u128, (_, values)| size.saturating_mul(values.count().unwrap_or(1)))
    }

    fn combination(&self, index: u128) -> Overrides {
        let mut rest = index;
        let mut combination = Overrides::new();
        combination.extend(self.method.map(|method| (METHOD.to_string(), method.clone())));
        for (key, distribution) in self.fields.iter().rev() {
            let size = distribution.count().unwrap_or(1);
            combination.insert(key.clone(), nth(distribution.values(), rest % size));
            rest /= size;
        }
        combination
    }
}

/// One block for each method where fields depend on it, else one for all.
fn blocks(space: &Space, method: MethodName) -> Vec<Block<'_>> {
    let searched = space.iter().find(|(key, _)| key == METHOD);
    let is_conditional = space.iter().any(|(_, distribution)| distribution.methods().is_some());
    match searched {
        Some((_, Distribution::Choice(methods))) if is_conditional => {
            let of = |name: &Json| named(name).unwrap_or(method);
            let fields =
                |of| space.iter().filter(move |(key, values)| key != METHOD && values.applies_to(of)).collect();
            methods.iter().map(|name| Block { method: Some(name), fields: fields(of(name)) }).collect()
        }
        _ => vec![Block { method: None, fields: space.iter().filter(|(_, of)| of.applies_to(method)).collect() }],
    }
}

fn named(name: &Json) -> Option<MethodName> {
    serde_json::from_value(name.clone()).ok()
}

/// Value `index` of a distribution that can be gone through, the lowest of another.
fn nth(distribution: &Distribution, index: u128) -> Json {
    let whole = |low: i64, step: i64| Json::from((i128::from(low) + i128::from(step) * index as i128) as i64);
    match distribution {
        Distribution::Choice(values) => values[index as usize].clone(),
        Distribution::Int(low, _) | Distribution::LogInt(low, _) => whole(*low, 1),
        Distribution::StepInt(low, _, step) => whole(*low, *step),
        Distribution::StepUniform(low, high, step) | Distribution::StepLogUniform(low, high, step) => {
            Json::from(at_step(*low, *high, *step, index as u64))
        }
        Distribution::Uniform(low, _) | Distribution::LogUniform(low, _) => Json::from(*low),
        Distribution::When(_, values) => nth(values, index),
    }
}

/// Sample `index` of a space; `method` is that of tasks where the space has none. A value depends on the seed, the index and its field's name and
/// distribution only: more samples, or another field in the space, leave it as it is. A field that depends on the method is left out if it does not
/// apply to the sample's.
pub(super) fn sample(space: &Space, method: MethodName, seed: u64, index: u64) -> Overrides {
    let mut sample: Overrides = space
        .iter()
        .map(|(key, distribution)| {
            let mut random = generator(seed, index, key);
            (key.clone(), drawn(distribution.values(), &mut random))
        })
        .collect();
    let method = sample.get(METHOD).and_then(named).unwrap_or(method);
    for (key, _) in space.iter().filter(|(_, distribution)| !distribution.applies_to(method)) {
        sample.remove(key);
    }
    sample
}

fn drawn(distribution: &Distribution, random: &mut impl Rng) -> Json {
    match distribution {
        Distribution::Choice(values) => values[below(random, values.len() as u64) as usize].clone(),
        Distribution::Int(low, high) => Json::from(whole(random, *low, *high)),
        Distribution::Uniform(low, high) => Json::from(uniform(random, *low, *high)),
        Distribution::LogUniform(low, high) => Json::from(rounded(log_uniform(random, *low, *high), *low, *high)),
        Distribution::LogInt(low, high) => {
            // Each whole number has the interval of what rounds to it, the ends too.
            let value = log_uniform(random, *low as f64 - 0.5, *high as f64 + 0.5);
            Json::from((value.round() as i64).clamp(*low, *high))
        }
        Distribution::StepInt(low, high, step) => {
            let last = high.abs_diff(*low) / step.unsigned_abs().max(1);
            let index = match last.checked_add(1) {
                Some(count) => below(random, count),
                None => random.next_u64(),
            };
            nth(distribution, u128::from(index))
        }
        Distribution::StepUniform(low, high, step) => {
            let index = below(random, last_step(*low, *high, *step) + 1);
            Json::from(at_step(*low, *high, *step, index))
        }
        Distribution::StepLogUniform(low, high, step) => {
            let nearest = ((log_uniform(random, *low, *high) - low) / step).round().max(0.0) as u64;
            Json::from(at_step(*low, *high, *step, nearest.min(last_step(*low, *high, *step))))
        }
        Distribution::When(_, values) => drawn(values, random),
    }
}

/// `low + index * step`, without what binary fractions add to it.
fn at_step(low: f64, high: f64, step: f64, index: u64) -> f64 {
    let value = low + index as f64 * step;
    format!("{value:.14e}").parse::<f64>().unwrap_or(value).clamp(low, high)
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

fn log_uniform(random: &mut impl Rng, low: f64, high: f64) -> f64 {
    uniform_in(random, low.ln(), high.ln()).exp()
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

    const BASE: MethodName = MethodName::MehlPlus;

    /// Every combination.
    fn grid(space: &Space, method: MethodName) -> impl Iterator<Item = Overrides> + '_ {
        (0..).map_while(move |index| combination(space, method, index))
    }

    fn example() -> Vec<(String, Distribution)> {
        vec![
            ("method".into(), Distribution::Choice(vec![json!("mehl"), json!("hl")])),
            ("batch".into(), Distribution::Int(3, 5)),
        ]
    }

    #[test]
    fn a_grid_is_lexicographic_in_the_order_of_the_space() {
        let all: Vec<_> = grid(&example(), BASE)
            .map(|o| (o["method"].as_str().unwrap().to_string(), o["batch"].as_i64().unwrap()))
            .collect();
        let expected = [("mehl", 3), ("mehl", 4), ("mehl", 5), ("hl", 3), ("hl", 4), ("hl", 5)];
        assert_eq!(all, expected.map(|(method, batch)| (method.to_string(), batch)));
        assert_eq!(grid_size(&[], BASE), 1);
        assert_eq!(grid(&[], BASE).collect::<Vec<_>>(), [Overrides::new()]);
        assert_eq!(grid_size(&[("seed".into(), Distribution::Int(i64::MIN, i64::MAX))], BASE), 1 << 64);
    }

    #[test]
    fn samples_are_these_whatever_the_version_and_the_rest_of_the_space() {
        let rate = ("learning_rate".to_string(), Distribution::LogUniform(1e-3, 1e-1));
        let drawn: Vec<f64> = (0..3)
            .map(|i| sample(std::slice::from_ref(&rate), BASE, 7, i)["learning_rate"].as_f64().unwrap())
            .collect();
        // Computed apart from this program, with the Python package blake3 1.0 and a ChaCha8 written out from RFC 8439 (8 rounds for 20):
        // key = blake3(le64(7) + le64(i) + b"learning_rate", derive_key_context="mehl-soup 1 search sample"),
        // u = (first 64 bits >> 11) / 2^53, value = exp(ln(1e-3) (1 - u) + ln(1e-1) u) to six digits.
        assert_eq!(drawn, [0.00161989, 0.00168622, 0.0123457]);
        let mut wider = example();
        wider.push(rate);
        assert_eq!(sample(&wider, BASE, 7, 2)["learning_rate"], json!(drawn[2]));
    }

    #[test]
    fn samples_of_log_int_and_steps_are_these_whatever_the_version() {
        let drawn = |distribution| -> Vec<Json> {
            let space = [("learning_rate".to_string(), distribution)];
            (0..3).map(|i| sample(&space, BASE, 7, i)["learning_rate"].clone()).collect()
        };
        // From u of the samples above, by hand: 0.5 * 129^u is 0.83, 0.87 and 7.09.
        assert_eq!(drawn(Distribution::LogInt(1, 64)), [json!(1), json!(1), json!(7)]);
        // The samples above, moved to the nearest thousandth.
        assert_eq!(drawn(Distribution::StepLogUniform(1e-3, 1e-1, 1e-3)), [json!(0.002), json!(0.002), json!(0.012)]);
    }

    #[test]
    fn a_grid_has_the_steps_of_a_range() {
        let space = [
            ("warmup".to_string(), Distribution::StepUniform(0.0, 0.3, 0.1)),
            ("batch".to_string(), Distribution::StepInt(8, 20, 6)),
        ];
        let all: Vec<_> =
            grid(&space, BASE).map(|o| (o["warmup"].as_f64().unwrap(), o["batch"].as_i64().unwrap())).collect();
        let expected = [0.0, 0.1, 0.2, 0.3].into_iter().flat_map(|w| [8, 14, 20].map(|b| (w, b)));
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert_eq!(grid_size(&space, BASE), 12);
    }

    #[test]
    fn fields_that_depend_on_the_method_are_searched_with_it_only() {
        let when = |methods: &[MethodName], of| Distribution::When(methods.to_vec(), Box::new(of));
        let rest = vec![
            ("batch".to_string(), when(&[MethodName::Mehl, MethodName::Hl], Distribution::Int(1, 2))),
            ("patience".to_string(), Distribution::Choice(vec![json!(7)])),
            ("inner_epochs".to_string(), when(&[MethodName::Hl], Distribution::Int(1, 3))),
        ];
        let with_method = |methods: &[&str]| {
            let mut space = rest.clone();
            space.insert(1, ("method".to_string(), Distribution::Choice(methods.iter().map(|m| json!(m)).collect())));
            space
        };
        let short = |overrides: Overrides| {
            overrides.values().map(|v| v.to_string().replace('"', "")).collect::<Vec<_>>().join(" ")
        };
        let space = with_method(&["hl", "best", "mehl"]);
        let combinations: Vec<String> = grid(&space, BASE).map(short).collect();
        // batch, inner_epochs, method, patience
        let expected =
            ["1 1 hl 7", "1 2 hl 7", "1 3 hl 7", "2 1 hl 7", "2 2 hl 7", "2 3 hl 7", "best 7", "1 mehl 7", "2 mehl 7"];
        assert_eq!(combinations, expected);
        assert_eq!(grid_size(&space, BASE), 9);
        // Without a method in the space, that of `[soup]` decides.
        assert_eq!(grid(&rest, MethodName::Mehl).map(short).collect::<Vec<_>>(), ["1 7", "2 7"]);
        assert_eq!(grid(&rest, BASE).map(short).collect::<Vec<_>>(), ["7"]);
        for index in 0..40 {
            let drawn = sample(&space, BASE, 3, index);
            let method = drawn["method"].as_str().unwrap();
            assert_eq!(drawn.contains_key("batch"), method != "best", "{drawn:?}");
            assert_eq!(drawn.contains_key("inner_epochs"), method == "hl", "{drawn:?}");
            // The values are those that the field has without a condition.
            let free: Vec<_> =
                space.iter().map(|(key, distribution)| (key.clone(), distribution.values().clone())).collect();
            let all = sample(&free, BASE, 3, index);
            assert!(drawn.iter().all(|(key, value)| all[key] == *value));
        }
        assert!(!sample(&rest, BASE, 3, 0).contains_key("batch"));
    }

    #[test]
    fn samples_are_spread_as_the_distribution_says() {
        let space = [
            ("a".to_string(), Distribution::LogUniform(1e-4, 1.0)),
            ("b".to_string(), Distribution::Int(0, 3)),
            ("c".to_string(), Distribution::Uniform(-1.0, 1.0)),
            ("d".to_string(), Distribution::LogInt(1, 64)),
            ("e".to_string(), Distribution::StepInt(8, 64, 8)),
            ("f".to_string(), Distribution::StepUniform(0.0, 0.7, 0.1)),
        ];
        let samples: Vec<_> = (0..4000).map(|i| sample(&space, BASE, 1, i)).collect();
        let part = |test: &dyn Fn(&Overrides) -> bool| samples.iter().filter(|s| test(s)).count() as f64 / 4000.0;
        // Five standard deviations of a part of 1/2 or 1/4 among 4000 are 0.04 and 0.034.
        assert!((part(&|s| s["a"].as_f64().unwrap() < 1e-2) - 0.5).abs() < 0.04);
        assert!((part(&|s| s["c"].as_f64().unwrap() < 0.0) - 0.5).abs() < 0.04);
        for value in 0..4 {
            assert!((part(&|s| s["b"] == json!(value)) - 0.25).abs() < 0.035);
            let pair = [2 * value, 2 * value + 1];
            assert!((part(&|s| pair.map(|i| json!(8 + 8 * i)).contains(&s["e"])) - 0.25).abs() < 0.035);
            assert!((part(&|s| pair.map(|i| json!(f64::from(i) / 10.0)).contains(&s["f"])) - 0.25).abs() < 0.035);
        }
        // In the logarithm, 1 to 5 are half of what lies between 0.5 and 64.5: ln(5.5 / 0.5) / ln(129) = 0.493.
        assert!((part(&|s| s["d"].as_i64().unwrap() <= 5) - 0.493).abs() < 0.04);
    }

    proptest! {
        #[test]
        fn samples_stay_within_their_ranges(
            seed: u64, index: u64,
            a in -1e300..1e300_f64, b in -1e300..1e300_f64,
            i: i64, j: i64,
            low in 1e-300..1e300_f64, factor in 1.001..1e8_f64, parts in 1.0..1e9_f64, step in 1..i64::MAX,
        ) {
            let (uniform, int) = ((a.min(b), a.max(b)), (i.min(j), i.max(j)));
            let space = [
                ("u".to_string(), Distribution::Uniform(uniform.0, uniform.1)),
                ("l".to_string(), Distribution::LogUniform(low, low * factor)),
                ("i".to_string(), Distribution::Int(int.0, int.1)),
                ("s".to_string(), Distribution::StepUniform(uniform.0, uniform.1, (uniform.1 - uniform.0) / parts)),
                ("t".to_string(), Distribution::StepLogUniform(low, low * factor, low * (factor - 1.0) / parts)),
                ("j".to_string(), Distribution::StepInt(int.0, int.1, step)),
                ("m".to_string(), Distribution::LogInt(step, step.max(int.1))),
                ("n".to_string(), Distribution::Int(i64::MIN, i64::MAX)),
                ("c".to_string(), Distribution::Choice(vec![json!(1), json!(2), json!(3)])),
            ];
            let drawn = sample(&space, BASE, seed, index);
            let u = drawn["u"].as_f64().unwrap();
            prop_assert!(uniform.0 <= u && u <= uniform.1);
            let l = drawn["l"].as_f64().unwrap();
            prop_assert!(low <= l && l <= low * factor);
            let s = drawn["s"].as_f64().unwrap();
            prop_assert!(uniform.0 <= s && s <= uniform.1);
            let t = drawn["t"].as_f64().unwrap();
            prop_assert!(low <= t && t <= low * factor);
            let j = drawn["j"].as_i64().unwrap();
            prop_assert!(int.0 <= j && j <= int.1 && j.abs_diff(int.0) % step.unsigned_abs() == 0);
            let m = drawn["m"].as_i64().unwrap();
            prop_assert!(step <= m && m <= step.max(int.1));
            let n = drawn["i"].as_i64().unwrap();
            prop_assert!(int.0 <= n && n <= int.1);
            prop_assert!((1..=3).contains(&drawn["c"].as_i64().unwrap()));
            prop_assert_eq!(sample(&space, BASE, seed, index), drawn);
        }
    }
}
