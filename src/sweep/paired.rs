//! Paired comparisons: two models that were scored on the same units, compared unit by unit.
//!
//! With `d_i` the difference of both models' values at unit i, the comparison is the mean of d and its standard
//! error `sd(d) / sqrt(n)`. Both models err on the same hard samples, so this error is smaller than that of two
//! independent means.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::metric::{Estimate, Metric};
use super::outcome::Scores;
use super::score::SplitScore;

/// Standard errors that a difference must exceed.
const ERRORS: f64 = 2.0;

/// Most units of a split whose values are kept; of more, a seeded subset is.
pub const MOST_UNITS: usize = 65_536;

/// From this N on, people are not shown a number.
const MOST_NEEDED: u64 = 10_000_000;

/// Split names, in the order in which they count: test chose nothing.
pub const SPLITS: [&str; 2] = ["test", "select"];

/// Values of every unit of one task's exact soup.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnitScores {
    /// By split and metric, f32: `("test", loss)` and so on.
    values: BTreeMap<(String, String), Vec<f32>>,
    /// The task's value on select of the sweep's metric, as a cost: the lowest are kept. `None` for a baseline, which is
    /// kept in any case.
    pub cost: Option<f64>,
}

const META_KEY: &str = "mehl_soup_units";

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    #[serde(default)]
    cost: Option<f64>,
}

impl Meta {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let meta = header.metadata().as_ref().and_then(|meta| meta.get(META_KEY)).ok_or("no scores of units")?;
        let meta: Meta = serde_json::from_str(meta).map_err(|e| e.to_string())?;
        if meta.version != UnitScores::VERSION {
            let (found, expected) = (meta.version, UnitScores::VERSION);
            return Err(format!("scores of units have version {found}, this program reads {expected}"));
        }
        Ok(meta)
    }
}

impl UnitScores {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;

    /// Adds the values of a split.
    pub fn add(&mut self, split: &str, values: impl IntoIterator<Item = (Metric, Vec<f32>)>) {
        for (metric, values) in values {
            self.values.insert((split.to_string(), metric.name().to_string()), values);
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The bytes of `units.safetensors`: tensors `SPLIT.METRIC` `[units]`, f32; those of 0 and 1 only are u8.
    pub fn to_bytes(&self) -> Vec<u8> {
        let tensors: Vec<(String, Dtype, Vec<u8>)> = self
            .values
            .iter()
            .map(|((split, metric), values)| {
                let name = format!("{split}.{metric}");
                match values.iter().all(|&value| value == 0.0 || value == 1.0) {
                    true => (name, Dtype::U8, values.iter().map(|&value| u8::from(value == 1.0)).collect()),
                    false => (name, Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
                }
            })
            .collect();
        let meta = Meta { version: Self::VERSION, cost: self.cost };
        let json = serde_json::to_string(&meta).expect("plain data serializes");
        let views = tensors.iter().map(|(name, dtype, data)| {
            let width = if *dtype == Dtype::U8 { 1 } else { 4 };
            let view = TensorView::new(*dtype, vec![data.len() / width], data).expect("length is that of the shape");
            (name.as_str(), view)
        });
        safetensors::serialize(views, Some(HashMap::from([(META_KEY.to_string(), json)])))
            .expect("well-formed tensors serialize")
    }

    /// Reads `units.safetensors`.
    ///
    /// # Errors
    /// What is wrong with the bytes, for a person.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let meta = Meta::read(bytes)?;
        let mut values = BTreeMap::new();
        for (name, tensor) in SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?.iter() {
            let (split, metric) = name.split_once('.').ok_or_else(|| format!("unexpected tensor `{name}`"))?;
            let read = match tensor.dtype() {
                Dtype::U8 => tensor.data().iter().map(|&byte| f32::from(byte)).collect(),
                Dtype::F32 => tensor.data().chunks_exact(4).map(f32_of).collect(),
                other => return Err(format!("tensor `{name}`: expected f32 or u8, found {other:?}")),
            };
            values.insert((split.to_string(), metric.to_string()), read);
        }
        Ok(Self { values, cost: meta.cost })
    }

    /// Its [`cost`](Self::cost), read without the values.
    ///
    /// # Errors
    /// What is wrong with the bytes, for a person.
    pub fn cost_of(bytes: &[u8]) -> Result<Option<f64>, String> {
        Meta::read(bytes).map(|meta| meta.cost)
    }

    fn get(&self, split: &str, metric: Metric) -> Option<&[f32]> {
        self.values.get(&(split.to_string(), metric.name().to_string())).map(Vec::as_slice)
    }
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// What to make of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Better by more than two standard errors.
    Better,
    /// Worse by more than two standard errors.
    Worse,
    /// Within two standard errors: other samples could turn it round.
    CannotBeTold,
}

/// One task against another, on one split and by one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The task.
    pub task_id: String,
    /// The task that it is compared with.
    pub other: String,
    /// `test` or `select`.
    pub split: String,
    /// What is compared.
    pub metric: Metric,
    /// Mean of the task's value less the other's.
    pub difference: f64,
    /// Standard error of the difference.
    pub standard_error: f64,
    /// Units that are compared.
    pub units: usize,
    /// Units of the split: more than are compared where values are kept of a subset only.
    pub units_of_split: usize,
    /// Whether units were compared one by one. Otherwise the error is taken as if the units were not the same, which
    /// is larger as a rule.
    pub paired: bool,
    /// Seen from the task.
    pub verdict: Verdict,
    /// About how many units would tell the two apart, if the difference and its spread are as measured. `None` where
    /// the verdict is clear, or no number of units would do.
    pub units_needed: Option<u64>,
}

impl Comparison {
    fn new(
        (task_id, other): (&str, &str),
        split: &str,
        metric: Metric,
        Estimate { value: difference, standard_error }: Estimate,
        (units, units_of_split): (usize, usize),
        paired: bool,
    ) -> Self {
        let cost = metric.cost(difference);
        let bound = ERRORS * standard_error;
        // A difference that is not a number tells nothing.
        let verdict = if cost < -bound {
            Verdict::Better
        } else if cost > bound {
            Verdict::Worse
        } else {
            Verdict::CannotBeTold
        };
        let needed = units as f64 * (bound / difference.abs()).powi(2);
        let units_needed =
            (verdict == Verdict::CannotBeTold && needed.is_finite() && needed < 1e15).then(|| rounded_up(needed));
        let (task_id, other, split) = (task_id.to_string(), other.to_string(), split.to_string());
        Self {
            task_id,
            other,
            split,
            metric,
            difference,
            standard_error,
            units,
            units_of_split,
            paired,
            verdict,
            units_needed,
        }
    }

    /// The verdict in words: `better`, `worse`, or `cannot be told (about N samples would tell)`. N is left out from
    /// 10 million on.
    pub fn words(&self, units: &str) -> String {
        match (self.verdict, self.units_needed) {
            (Verdict::Better, _) => "better".to_string(),
            (Verdict::Worse, _) => "worse".to_string(),
            (Verdict::CannotBeTold, Some(needed)) if needed < MOST_NEEDED => {
                format!("cannot be told (about {needed} {units} would tell)")
            }
            (Verdict::CannotBeTold, _) => "cannot be told".to_string(),
        }
    }

    /// The difference in words: `loss 0.0317 ±0.0120 lower`.
    pub fn amount(&self) -> String {
        let shown = self.metric.facts().shown;
        let digits = shown.digits;
        let (difference, error) = (shown.factor * self.difference, shown.factor * self.standard_error);
        let way = match difference {
            d if d < 0.0 => " lower",
            d if d > 0.0 => " higher",
            _ => "",
        };
        format!("{} {:.digits$} ±{error:.digits$}{}{way}", self.metric, difference.abs(), shown.difference_unit)
    }
}

/// Two significant digits, upwards.
fn rounded_up(number: f64) -> u64 {
    let step = 10f64.powi((number.max(1.0).log10().floor() as i32 - 1).max(0));
    ((number / step).ceil() * step) as u64
}

/// What is known of a task's scores.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The task.
    pub task_id: &'a str,
    /// Its scores.
    pub scores: &'a Scores,
    /// Values of its units, if they are kept.
    pub units: Option<&'a UnitScores>,
}

/// A task against another on every split and by every metric that both have, test first, the loss first.
pub fn compare(task: Known<'_>, other: Known<'_>) -> Vec<Comparison> {
    let mut found = vec![];
    for split in SPLITS {
        let (Some(a), Some(b)) = (of_split(task.scores, split), of_split(other.scores, split)) else { continue };
        let scored = a.samples.min(b.samples);
        for (metric, is) in a.all() {
            let Some(was) = b.get(metric) else { continue };
            let names = (task.task_id, other.task_id);
            let values = |known: Known<'_>| known.units.and_then(|units| units.get(split, metric).map(<[f32]>::to_vec));
            let both = values(task).zip(values(other)).filter(|(a, b)| a.len() == b.len() && a.len() > 1);
            found.push(match both {
                Some((a, b)) => Comparison::new(names, split, metric, paired(&a, &b), (a.len(), scored), true),
                None => {
                    let standard_error = is.standard_error.hypot(was.standard_error);
                    let apart = Estimate { value: is.value - was.value, standard_error };
                    Comparison::new(names, split, metric, apart, (scored, scored), false)
                }
            });
        }
    }
    found
}

fn of_split<'a>(scores: &'a Scores, split: &str) -> Option<&'a SplitScore> {
    match split {
        "test" => scores.test.as_ref(),
        _ => Some(&scores.select),
    }
}

/// Mean of `a - b` and its standard error, in f64.
fn paired(a: &[f32], b: &[f32]) -> Estimate {
    let n = a.len() as f64;
    let differences = || a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let mean = differences().sum::<f64>() / n;
    let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Estimate { value: mean, standard_error: (variance / n).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy() -> Metric {
        Metric::named("accuracy").unwrap()
    }

    fn scores(losses: &[f32]) -> (Scores, UnitScores) {
        let n = losses.len();
        let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / n as f64;
        let right: Vec<f32> = losses.iter().map(|&loss| f32::from(u8::from(loss < 0.7))).collect();
        let share = f64::from(right.iter().sum::<f32>()) / n as f64;
        let estimate = |value| Estimate { value, standard_error: 0.5 };
        let score = SplitScore::new(n, estimate(mean), [(accuracy(), estimate(share))]);
        let mut units = UnitScores::default();
        units.add("select", [(Metric::LOSS, losses.to_vec()), (accuracy(), right)]);
        (Scores { learn: score, select: score, test: None }, units)
    }

    fn compared(a: &[f32], b: &[f32], kept: bool) -> Vec<Comparison> {
        let ((a, a_units), (b, b_units)) = (scores(a), scores(b));
        let of = |task_id, scores, units| Known { task_id, scores, units: Some(units).filter(|_| kept) };
        compare(of("a", &a, &a_units), of("b", &b, &b_units))
    }

    #[test]
    fn the_error_is_that_of_the_differences() {
        // Differences -0.1, -0.2, -0.3, -0.2: mean -0.2, sd sqrt(0.02 / 3), se sd / 2.
        let found = compared(&[0.1, 0.5, 1.0, 2.0], &[0.2, 0.7, 1.3, 2.2], true);
        let loss = &found[0];
        assert_eq!((loss.split.as_str(), loss.metric, loss.units, loss.paired), ("select", Metric::LOSS, 4, true));
        assert!((loss.difference + 0.2).abs() < 1e-6, "{loss:?}");
        assert!((loss.standard_error - (0.02f64 / 3.0).sqrt() / 2.0).abs() < 1e-6, "{loss:?}");
        assert_eq!((loss.verdict, loss.units_needed), (Verdict::Better, None));
        assert_eq!(loss.words("samples"), "better");
        assert_eq!(loss.amount(), "loss 0.2000 ±0.0408 lower");
        // One of four was right and is not in b: 0.25 higher, se 0.25.
        let share = &found[1];
        assert_eq!((share.metric, share.difference, share.standard_error), (accuracy(), 0.25, 0.25));
        assert_eq!((share.verdict, share.units_needed), (Verdict::CannotBeTold, Some(16)));
        assert_eq!(share.words("samples"), "cannot be told (about 16 samples would tell)");
        assert_eq!(share.amount(), "accuracy 25.00 ±25.00 points higher");
        let other_way = compared(&[0.2, 0.7, 1.3, 2.2], &[0.1, 0.5, 1.0, 2.0], true);
        assert_eq!(other_way[0].verdict, Verdict::Worse);
    }

    #[test]
    fn without_units_the_error_is_that_of_independent_scores() {
        let found = compared(&[0.1, 0.5, 1.0, 2.0], &[0.2, 0.7, 1.3, 2.2], false);
        assert!(!found[0].paired);
        assert!((found[0].standard_error - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(found[0].verdict, Verdict::CannotBeTold);
        // Of another length: not the same units.
        assert!(!compared(&[0.1, 0.5, 1.0], &[0.2, 0.7, 1.3, 2.2], true)[0].paired);
    }

    #[test]
    fn equal_models_and_lost_ones_cannot_be_told_apart() {
        let equal = compared(&[0.1, 0.5], &[0.1, 0.5], true);
        assert_eq!((equal[0].verdict, equal[0].units_needed), (Verdict::CannotBeTold, None));
        assert_eq!(equal[0].words("samples"), "cannot be told");
        let lost = compared(&[f32::NAN, 0.5], &[0.1, 0.5], true);
        assert_eq!((lost[0].verdict, lost[0].units_needed), (Verdict::CannotBeTold, None));
    }

    #[test]
    fn units_come_back_from_their_bytes() {
        let (_, units) = scores(&[0.1, 0.5, 1.0]);
        let bytes = units.to_bytes();
        assert_eq!(UnitScores::from_bytes(&bytes).unwrap(), units);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("select.accuracy").unwrap().dtype(), Dtype::U8);
        assert!(UnitScores::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(UnitScores::from_bytes(b"").is_err());
    }

    #[test]
    fn numbers_of_samples_are_rounded_upwards() {
        assert_eq!([0.2, 9.1, 16.0, 16.1, 104.0, 1234.0].map(rounded_up), [1, 10, 16, 17, 110, 1300]);
    }
}
