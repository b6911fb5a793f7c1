//! How each training run of a zoo goes: hyperparameters drawn from ranges by a seed, and which runs are bad on purpose.

use mehl_soup::cli::{Ends, Ranges};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::rng::{below, generator, permutation, unit};

/// How one training run goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recipe {
    /// Peak learning rate of AdamW; cosine to 0, linear warm-up over a tenth.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples a step.
    pub batch: usize,
    /// Part of the target spread over all classes.
    pub label_smoothing: f64,
    /// Part of the images shifted by an eighth of their side in a random direction.
    pub shift: f64,
    /// Standard deviation of noise added to pixels.
    pub noise: f64,
    /// Seed of order and noise.
    pub seed: u64,
    /// What is wrong with the run on purpose, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<Bad>,
}

/// What is wrong with a run on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Bad {
    /// Trained for many times the epochs drawn, at the highest learning rate, without augmentation or label smoothing.
    OverTrained {
        /// How many times the epochs.
        factor: usize,
    },
    /// Trained with many times the highest learning rate.
    WrongLearningRate {
        /// How many times that.
        factor: f64,
    },
    /// Trained on labels of which some were replaced.
    LabelNoise {
        /// Part of the labels that were replaced by another class at random.
        part: f64,
    },
}

impl Bad {
    /// The kinds, in the order in which they are taken.
    pub const KINDS: [Self; 3] =
        [Self::OverTrained { factor: 8 }, Self::WrongLearningRate { factor: 25.0 }, Self::LabelNoise { part: 0.5 }];

    /// Its name, as in `training.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OverTrained { .. } => "over-trained",
            Self::WrongLearningRate { .. } => "wrong-learning-rate",
            Self::LabelNoise { .. } => "label-noise",
        }
    }
}

impl Recipe {
    /// From nothing to a base model.
    pub fn base(seed: u64, epochs: usize) -> Self {
        Self {
            learning_rate: 2e-3,
            weight_decay: 0.05,
            epochs,
            batch: 50,
            label_smoothing: 0.0,
            shift: 0.5,
            noise: 0.2,
            seed,
            bad: None,
        }
    }

    /// A random search as people do it: some of these runs end badly even so.
    pub fn random(seed: u64, index: usize, ranges: &Ranges) -> Self {
        let mut rng: ChaCha8Rng = generator(seed, "recipe", &[index]);
        let uniform = |rng: &mut ChaCha8Rng, ends: Ends<f64>| ends.low + (ends.high - ends.low) * unit(rng);
        Self {
            learning_rate: log_uniform(&mut rng, ranges.learning_rate),
            weight_decay: log_uniform(&mut rng, ranges.weight_decay),
            epochs: (ranges.epochs.low + below(&mut rng, u64::from(ranges.epochs.high - ranges.epochs.low) + 1) as u32)
                as usize,
            batch: [25, 50, 100][below(&mut rng, 3) as usize],
            label_smoothing: uniform(&mut rng, ranges.label_smoothing),
            shift: uniform(&mut rng, ranges.shift),
            noise: uniform(&mut rng, ranges.noise),
            seed: seed.wrapping_mul(1_000_003).wrapping_add(index as u64),
            bad: None,
        }
    }

    /// The same run, spoiled.
    fn spoiled(self, bad: Bad, ranges: &Ranges) -> Self {
        let highest = ranges.learning_rate.high;
        let bad = Some(bad);
        match bad {
            Some(Bad::OverTrained { factor }) => Self {
                learning_rate: highest,
                epochs: self.epochs * factor,
                label_smoothing: 0.0,
                shift: 0.0,
                noise: 0.0,
                bad,
                ..self
            },
            Some(Bad::WrongLearningRate { factor }) => Self { learning_rate: highest * factor, bad, ..self },
            Some(Bad::LabelNoise { .. }) | None => Self { bad, ..self },
        }
    }

    /// The labels that the run is trained on, for those of the data and the number of classes: the same, or with some replaced by a class other than
    /// the right one, each as likely, as the run's seed decides.
    pub fn labels(&self, right: &[i64], classes: usize) -> Vec<i64> {
        let mut labels = right.to_vec();
        if let Some(Bad::LabelNoise { part }) = self.bad
            && classes > 1
        {
            let replaced = (part * right.len() as f64).round() as usize;
            let mut rng = generator(self.seed, "label noise", &[]);
            for &i in &permutation(self.seed, "noisy labels", &[], right.len())[..replaced] {
                let other = below(&mut rng, classes as u64 - 1) as i64;
                labels[i] = other + i64::from(other >= right[i]);
            }
        }
        labels
    }
}

/// Uniform in the logarithm; the same number of draws whatever the ends.
fn log_uniform(rng: &mut ChaCha8Rng, ends: Ends<f64>) -> f64 {
    let at = unit(rng);
    if ends.low == ends.high { ends.low } else { ends.low * (ends.high / ends.low).powf(at) }
}

/// The recipes of all ingredients. `bad` is the share of them that are spoiled, rounded to whole ingredients; the seed decides which, and kinds are taken in
/// turn. The others are what they would be without bad ones.
pub fn recipes(seed: u64, ingredients: usize, ranges: &Ranges, bad: f64) -> Vec<Recipe> {
    let mut recipes: Vec<Recipe> = (0..ingredients).map(|index| Recipe::random(seed, index, ranges)).collect();
    let spoiled = ((bad * ingredients as f64).round() as usize).min(ingredients);
    let mut chosen = permutation(seed, "bad ingredients", &[], ingredients)[..spoiled].to_vec();
    chosen.sort_unstable();
    for (index, kind) in chosen.into_iter().zip(Bad::KINDS.into_iter().cycle()) {
        recipes[index] = recipes[index].spoiled(kind, ranges);
    }
    recipes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let ends = |low, high| Ends { low, high };
        Ranges {
            learning_rate: ends(1e-3, 1e-2),
            weight_decay: ends(0.0, 0.0),
            epochs: Ends { low: 2, high: 4 },
            label_smoothing: ends(0.1, 0.3),
            shift: ends(0.2, 0.2),
            noise: ends(0.5, 1.0),
        }
    }

    #[test]
    fn hyperparameters_are_within_their_ends_and_reach_them() {
        let all = recipes(1, 200, &ranges(), 0.0);
        for r in &all {
            assert!((1e-3..=1e-2).contains(&r.learning_rate) && r.weight_decay == 0.0 && r.shift == 0.2, "{r:?}");
            assert!((0.1..=0.3).contains(&r.label_smoothing) && (0.5..=1.0).contains(&r.noise), "{r:?}");
        }
        let mut epochs: Vec<usize> = all.iter().map(|r| r.epochs).collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(epochs, [2, 3, 4]);
        // Uniform in the logarithm: as many below the geometric mean as above it.
        let below = all.iter().filter(|r| r.learning_rate < 10f64.powf(-2.5)).count();
        assert!((75..=125).contains(&below), "{below}");
        assert!(all.iter().all(|r| r.bad.is_none()));
    }

    #[test]
    fn the_seed_decides_and_every_run_has_its_own() {
        assert_eq!(recipes(1, 5, &ranges(), 0.4), recipes(1, 5, &ranges(), 0.4));
        assert_ne!(recipes(1, 5, &ranges(), 0.0), recipes(2, 5, &ranges(), 0.0));
        let seeds: std::collections::BTreeSet<u64> = recipes(1, 50, &ranges(), 0.5).iter().map(|r| r.seed).collect();
        assert_eq!(seeds.len(), 50);
    }

    #[test]
    fn a_share_is_bad_in_three_kinds_in_turn_and_the_others_are_as_they_were() {
        let (sound, some) = (recipes(3, 10, &ranges(), 0.0), recipes(3, 10, &ranges(), 0.4));
        let bad: Vec<&str> = some.iter().filter_map(|r| r.bad).map(Bad::name).collect();
        assert_eq!(bad, ["over-trained", "wrong-learning-rate", "label-noise", "over-trained"]);
        for (before, after) in sound.iter().zip(&some) {
            match after.bad {
                None => assert_eq!(before, after),
                Some(Bad::OverTrained { factor }) => {
                    assert_eq!(after.epochs, before.epochs * factor);
                    assert_eq!((after.label_smoothing, after.shift, after.noise), (0.0, 0.0, 0.0));
                }
                Some(Bad::WrongLearningRate { factor }) => assert_eq!(after.learning_rate, 1e-2 * factor),
                Some(bad) => assert_eq!(&Recipe { bad: Some(bad), ..*before }, after),
            }
        }
        let count = |share| recipes(3, 7, &ranges(), share).iter().filter(|r| r.bad.is_some()).count();
        assert_eq!([count(0.0), count(0.05), count(0.5), count(1.0)], [0, 0, 4, 7]);
        let which = |seed| recipes(seed, 20, &ranges(), 0.3).iter().map(|r| r.bad.is_some()).collect::<Vec<_>>();
        assert_ne!(which(1), which(2));
    }

    #[test]
    fn noisy_labels_are_wrong_for_the_part_stated_and_only_there() {
        let right: Vec<i64> = (0..100).map(|i| i % 4).collect();
        let recipe = Recipe { bad: Some(Bad::LabelNoise { part: 0.3 }), ..Recipe::base(5, 1) };
        let noisy = recipe.labels(&right, 4);
        assert_eq!(noisy.iter().zip(&right).filter(|(a, b)| a != b).count(), 30);
        assert!(noisy.iter().all(|label| (0..4).contains(label)));
        assert_eq!(noisy, recipe.labels(&right, 4));
        assert_ne!(noisy, Recipe { seed: 6, ..recipe }.labels(&right, 4));
        assert_eq!(Recipe::base(5, 1).labels(&right, 4), right);
    }
}
