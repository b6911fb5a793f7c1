//! How far each ingredient is from the mean of all, and which stand out.

use rayon::prelude::*;
use serde::Serialize;

use super::ingredient::CHUNK;
use super::layer_groups::LayerGroups;
use super::layout::Layout;
use super::{Zoo, ZooError};
use crate::sweep::spec::Grouping;

/// Fewest ingredients of which one can stand out: of three, half are beyond any median.
pub const FEWEST: usize = 4;
/// Modified z-scores of larger magnitude stand out: Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993).
pub const THRESHOLD: f64 = 3.5;
/// Deviations from the median below this part of it are rounding, not distance.
const ROUNDING: f64 = 1e-6;
/// Elements in memory at once on one thread, of all ingredients together: 8 MiB of f64.
const ELEMENTS_A_THREAD: usize = 1 << 20;
/// Chunks of which sums are kept before they are added up.
const CHUNKS_AT_ONCE: usize = 256;

/// Distances of a zoo's ingredients from their mean, relative to its norm: `|theta_k - mean| / |mean|` with Euclidean norms over
/// all float tensors but running statistics, in f64. A group whose mean is zero has relative distances 0 where the ingredient is
/// zero too, and no distance (`null` in JSON) elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distances {
    /// What a group is: `model`, `tensor` or `block`.
    pub grouping: Grouping,
    /// Names of the layer groups.
    pub groups: Vec<String>,
    /// Magnitude of a modified z-score from which on an ingredient stands out.
    pub threshold: f64,
    /// One entry an ingredient, in order.
    pub ingredients: Vec<IngredientDistances>,
}

/// One ingredient's distances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IngredientDistances {
    /// Over all groups.
    pub overall: Distance,
    /// By group, in the order of [`Distances::groups`].
    pub groups: Vec<Distance>,
}

/// A distance beside those of the other ingredients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Distance {
    /// `|theta_k - mean| / |mean|`.
    pub relative: f64,
    /// Modified z-score, `0.6745 (x - median) / MAD` with MAD the median absolute deviation; where more than half of the
    /// distances are equal (MAD 0), `(x - median) / (1.2533 MeanAD)`. `None` with fewer than four ingredients.
    pub z: Option<f64>,
}

impl Distance {
    /// Whether the ingredient is much farther from the mean, or nearer, than the others.
    pub fn stands_out(&self) -> bool {
        self.z.is_some_and(|z| z.abs() > THRESHOLD)
    }
}

/// Reads every float tensor of every ingredient once, piece by piece: memory stays below some MB a thread whatever the zoo's size.
/// The result does not depend on the number of threads. `progress` hears (bytes done, bytes in all).
///
/// # Errors
/// [`ZooError::NotFinite`] where there is no distance, or if an ingredient cannot be read or changes meanwhile.
pub fn distances(zoo: &Zoo, grouping: Grouping, progress: &mut dyn FnMut(u64, u64)) -> Result<Distances, ZooError> {
    let layout = Layout::of_headers(zoo);
    let groups = LayerGroups::new(grouping, &layout);
    let (k, l) = (zoo.len(), groups.len());
    // Row-major, [L, K + 1]: squares of each ingredient's difference from the mean, then of the mean.
    let mut squares = vec![vec![0.0; k + 1]; l];
    let total: u64 = layout.mixed().map(|tensor| bytes(zoo, &tensor.name)).sum();
    let mut done = 0;
    for tensor in layout.mixed() {
        let sums = &mut squares[groups.of(&tensor.name).expect("a mixed tensor has a group")];
        add_tensor(zoo, &tensor.name, tensor.numel(), sums)?;
        done += bytes(zoo, &tensor.name);
        progress(done, total);
    }
    zoo.check_unchanged()?;

    let overall: Vec<f64> = (0..=k).map(|i| squares.iter().map(|sums| sums[i]).sum()).collect();
    let overall = beside_others(&relative(&overall));
    let by_group: Vec<Vec<Distance>> = squares.iter().map(|sums| beside_others(&relative(sums))).collect();
    let ingredient = |i: usize| IngredientDistances {
        overall: overall[i],
        groups: by_group.iter().map(|of_group| of_group[i]).collect(),
    };
    Ok(Distances {
        grouping,
        groups: groups.names,
        threshold: THRESHOLD,
        ingredients: (0..k).map(ingredient).collect(),
    })
}

fn bytes(zoo: &Zoo, name: &str) -> u64 {
    zoo.ingredients().iter().filter_map(|i| i.info(name)).map(|info| info.bytes() as u64).sum()
}

/// Adds one tensor's squares to `sums`, `[K + 1]`.
fn add_tensor(zoo: &Zoo, name: &str, numel: usize, sums: &mut [f64]) -> Result<(), ZooError> {
    let chunk = (ELEMENTS_A_THREAD / zoo.len()).clamp(1, CHUNK);
    let starts: Vec<usize> = (0..numel).step_by(chunk).collect();
    for some in starts.chunks(CHUNKS_AT_ONCE) {
        let parts: Vec<Result<Vec<f64>, ZooError>> =
            some.par_iter().map(|&start| chunk_squares(zoo, name, start, chunk.min(numel - start))).collect();
        // In their order: sums of floats depend on it.
        for part in parts {
            sums.iter_mut().zip(part?).for_each(|(sum, square)| *sum += square);
        }
    }
    Ok(())
}

fn chunk_squares(zoo: &Zoo, name: &str, start: usize, len: usize) -> Result<Vec<f64>, ZooError> {
    let k = zoo.len();
    let mut theta = vec![0.0; k * len];
    let mut mean = vec![0.0; len];
    for (ingredient, row) in zoo.ingredients().iter().zip(theta.chunks_mut(len)) {
        ingredient.read_range(name, start, row)?;
        if let Some(at) = row.iter().position(|value: &f64| !value.is_finite()) {
            return Err(ZooError::NotFinite {
                file: ingredient.file_of(name).to_path_buf(),
                tensor: name.to_string(),
                element: start + at,
                value: row[at],
            });
        }
    }
    // As the first and the mean difference from it, so that equal values have no distance at all.
    let (first, others) = theta.split_at(len);
    for row in others.chunks(len) {
        mean.iter_mut().zip(row).zip(first).for_each(|((mean, value), first)| *mean += value - first);
    }
    mean.iter_mut().zip(first).for_each(|(mean, first)| *mean = first + *mean / k as f64);
    let distance = |row: &[f64]| row.iter().zip(&mean).map(|(value, mean)| (value - mean).powi(2)).sum::<f64>();
    let mut squares: Vec<f64> = theta.chunks(len).map(distance).collect();
    squares.push(mean.iter().map(|mean| mean * mean).sum());
    Ok(squares)
}

/// From squares `[K + 1]` to relative distances `[K]`.
fn relative(squares: &[f64]) -> Vec<f64> {
    let (mean, differences) = squares.split_last().expect("the mean's square is there");
    let one = |square: &f64| if *square == 0.0 { 0.0 } else { (square / mean).sqrt() };
    differences.iter().map(one).collect()
}

fn beside_others(distances: &[f64]) -> Vec<Distance> {
    let z = modified_z(distances);
    distances.iter().enumerate().map(|(i, &relative)| Distance { relative, z: z.as_ref().map(|z| z[i]) }).collect()
}

/// Modified z-scores; `None` of fewer than [`FEWEST`] values, or if one is not finite.
fn modified_z(values: &[f64]) -> Option<Vec<f64>> {
    if values.len() < FEWEST || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let middle = median(values);
    let deviations: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    let rounding = ROUNDING * middle.abs();
    let mad = median(&deviations);
    let mean_deviation = deviations.iter().sum::<f64>() / deviations.len() as f64;
    let scale = if mad > rounding { mad / 0.6745 } else { 1.253_314 * mean_deviation };
    let score = |value: &f64| {
        let deviation = value - middle;
        if deviation.abs() <= rounding { 0.0 } else { deviation / scale }
    };
    Some(values.iter().map(score).collect())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zoo::testing::{f32s, open_zoo};

    const NAMES: [&str; 3] = ["layer.0.a", "layer.0.b", "head"];

    /// The definition, without a thought of memory: relative distance of each ingredient over the tensors of `names`.
    fn naive(models: &[Vec<Vec<f32>>], tensors: &[usize]) -> Vec<f64> {
        let flat: Vec<Vec<f64>> =
            models.iter().map(|m| tensors.iter().flat_map(|&t| m[t].iter().map(|&v| f64::from(v))).collect()).collect();
        let n = flat[0].len();
        let mean: Vec<f64> = (0..n).map(|i| flat.iter().map(|m| m[i]).sum::<f64>() / flat.len() as f64).collect();
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let below = norm(&mut mean.iter().copied());
        flat.iter().map(|m| norm(&mut m.iter().zip(&mean).map(|(x, c)| x - c)) / below).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn distances_are_those_of_the_definition(
            values in prop::collection::vec(prop::collection::vec(-4.0..4.0f32, 3 * 40), 2..7),
        ) {
            let models: Vec<Vec<Vec<f32>>> =
                values.iter().map(|v| v.chunks(40).map(<[f32]>::to_vec).collect()).collect();
            let tensors = |m: &Vec<Vec<f32>>| NAMES.iter().zip(m).map(|(name, v)| f32s(name, &[40], v)).collect::<Vec<_>>();
            let (_root, zoo) = open_zoo(&models.iter().map(tensors).collect::<Vec<_>>());
            let found = distances(&zoo, Grouping::Block, &mut |_, _| {}).unwrap();
            prop_assert_eq!(&found.groups, &["head", "layer.0"]);
            let expected = [naive(&models, &[0, 1, 2]), naive(&models, &[2]), naive(&models, &[0, 1])];
            for (k, of) in found.ingredients.iter().enumerate() {
                for (distance, expected) in [of.overall, of.groups[0], of.groups[1]].iter().zip(&expected) {
                    prop_assert!((distance.relative - expected[k]).abs() <= 1e-12 * expected[k], "{distance:?} {}", expected[k]);
                    prop_assert_eq!(distance.z.is_some(), zoo.len() >= FEWEST);
                }
            }
        }
    }

    #[test]
    fn pieces_add_up_and_threads_change_nothing() {
        let n = 3 * CHUNK + 17;
        let value = |k: usize, i: usize| ((i * 31 + k * 17) % 101) as f32 / 7.0 - 5.0;
        let models: Vec<Vec<Vec<f32>>> = (0..5).map(|k| vec![(0..n).map(|i| value(k, i)).collect()]).collect();
        let (_root, zoo) = open_zoo(&models.iter().map(|m| vec![f32s("w", &[n], &m[0])]).collect::<Vec<_>>());
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| distances(&zoo, Grouping::Model, &mut |_, _| {})).unwrap()
        };
        let found = on(1);
        assert_eq!(found, on(3));
        for (of, expected) in found.ingredients.iter().zip(naive(&models, &[0])) {
            assert!((of.overall.relative - expected).abs() < 1e-12 * expected);
        }
    }

    #[test]
    fn one_far_away_stands_out_and_equal_ones_do_not() {
        let mut values = vec![1.0, 1.1, 0.9, 1.05, 0.95, 1.02];
        assert!(modified_z(&values).unwrap().iter().all(|z| z.abs() <= THRESHOLD));
        values.push(3.0);
        let z = modified_z(&values).unwrap();
        assert_eq!(z.iter().filter(|z| z.abs() > THRESHOLD).count(), 1);
        // (3 - 1.02) / MAD * 0.6745, MAD of {0.02, 0.08, 0.12, 0.03, 0.07, 0, 1.98} = 0.07
        assert!((z[6] - 0.6745 * 1.98 / 0.07).abs() < 1e-9, "{}", z[6]);
        // More than half are equal.
        let z = modified_z(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]).unwrap();
        assert!(z[7] > THRESHOLD && z[0] == 0.0, "{z:?}");
        // Equal but for rounding, none of which may be blown up.
        assert_eq!(modified_z(&[1.0, 1.0 + 1e-15, 1.0 - 3e-15, 1.0, 1.0 + 9e-12]), Some(vec![0.0; 5]));
        assert_eq!(modified_z(&[1.0, 2.0, 3.0]), None);
        assert_eq!(modified_z(&[0.0; 4]), Some(vec![0.0; 4]));
    }

    #[test]
    fn what_is_not_finite_is_named_and_a_mean_of_zero_is_no_fault() {
        let (_root, zoo) = open_zoo(&[vec![f32s("w", &[2], &[1.0, f32::NAN])], vec![f32s("w", &[2], &[1.0, 1.0])]]);
        let error = distances(&zoo, Grouping::Block, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, ZooError::NotFinite { element: 1, .. }), "{error}");
        let (_root, zoo) = open_zoo(&[vec![f32s("w", &[1], &[1.0])], vec![f32s("w", &[1], &[-1.0])]]);
        let found = distances(&zoo, Grouping::Block, &mut |_, _| {}).unwrap();
        assert!(found.ingredients[0].overall.relative.is_infinite());
        assert!(serde_json::to_string(&found).unwrap().contains(r#""relative":null"#));
        let (_root, zoo) = open_zoo(&[vec![f32s("w", &[1], &[0.0])], vec![f32s("w", &[1], &[0.0])]]);
        assert_eq!(distances(&zoo, Grouping::Block, &mut |_, _| {}).unwrap().ingredients[1].overall.relative, 0.0);
    }
}
