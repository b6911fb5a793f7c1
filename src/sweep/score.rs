//! Scores of a model on one split: loss and named metrics, each with its standard error.

use std::cmp::Ordering;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::metric::{Estimate, Metric};
use super::objective::MOST_METRICS;

/// Loss and metrics on one split.
///
/// In JSON each is two fields, `NAME` and `NAME_standard_error`, next to `samples`:
/// `{"loss": 0.2, "loss_standard_error": 0.01, "accuracy": 0.9, "accuracy_standard_error": 0.02, "samples": 50}`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitScore {
    /// Mean loss.
    pub loss: f64,
    /// Standard error of the loss.
    pub loss_standard_error: f64,
    /// The metrics, without gaps, in the objective's order.
    metrics: [Option<(Metric, Estimate)>; MOST_METRICS],
    /// Independent units that were scored; samples, unless the objective says otherwise.
    pub samples: usize,
}

impl SplitScore {
    /// Of a loss and metrics over `samples` units. Metrics past [`MOST_METRICS`] are left out; no objective has them.
    pub fn new(samples: usize, loss: Estimate, metrics: impl IntoIterator<Item = (Metric, Estimate)>) -> Self {
        let mut kept = [None; MOST_METRICS];
        for (place, metric) in kept.iter_mut().zip(metrics) {
            *place = Some(metric);
        }
        Self { loss: loss.value, loss_standard_error: loss.standard_error, metrics: kept, samples }
    }

    /// The loss, or a metric if it was measured.
    pub fn get(&self, metric: Metric) -> Option<Estimate> {
        self.all().find(|(found, _)| *found == metric).map(|(_, estimate)| estimate)
    }

    /// The loss, then the metrics.
    pub fn all(&self) -> impl Iterator<Item = (Metric, Estimate)> {
        let loss = Estimate { value: self.loss, standard_error: self.loss_standard_error };
        std::iter::once((Metric::LOSS, loss)).chain(self.metrics())
    }

    /// The metrics, without the loss.
    pub fn metrics(&self) -> impl Iterator<Item = (Metric, Estimate)> {
        self.metrics.into_iter().flatten()
    }

    /// All values, with all their digits.
    pub fn exact(&self) -> String {
        let parts: Vec<String> =
            self.all().map(|(metric, estimate)| format!("{metric} {:?}", estimate.value)).collect();
        parts.join(", ")
    }

    /// A short line for people: `loss 0.1234, accuracy 0.9000`, in the units of JSON.
    pub fn short(&self) -> String {
        let parts: Vec<String> =
            self.all().map(|(metric, estimate)| format!("{metric} {:.4}", estimate.value)).collect();
        parts.join(", ")
    }
}

impl Metric {
    /// Orders scores, the better one first. Equal ones are ordered by their loss. A missing value or a NaN is worse
    /// than any number.
    pub fn compare(self, a: &SplitScore, b: &SplitScore) -> Ordering {
        let loss = lower(a.loss, b.loss);
        if self == Self::LOSS {
            return loss;
        }
        let value = |score: &SplitScore| score.get(self).map_or(f64::NAN, |estimate| self.cost(estimate.value));
        lower(value(a), value(b)).then(loss)
    }
}

/// `total_cmp` alone would rank a NaN by its sign bit.
fn lower(a: f64, b: f64) -> Ordering {
    a.is_nan().cmp(&b.is_nan()).then(a.partial_cmp(&b).unwrap_or(Ordering::Equal))
}

const SAMPLES: &str = "samples";
const ERROR: &str = "_standard_error";

impl Serialize for SplitScore {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (metric, estimate) in self.all() {
            map.serialize_entry(metric.name(), &estimate.value)?;
            map.serialize_entry(&format!("{metric}{ERROR}"), &estimate.standard_error)?;
        }
        map.serialize_entry(SAMPLES, &self.samples)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for SplitScore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = SplitScore;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a score: `loss`, metrics, their standard errors, and `samples`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SplitScore, A::Error> {
        let mut samples = None;
        // Fields may come in any order: a value and its error are put together at the end.
        let mut found: Vec<(Metric, Option<f64>, Option<f64>)> = vec![];
        while let Some(name) = map.next_key::<String>()? {
            if name == SAMPLES {
                samples = Some(map.next_value()?);
                continue;
            }
            let (base, is_error) = name.strip_suffix(ERROR).map_or((name.as_str(), false), |base| (base, true));
            let metric = Metric::named(base).ok_or_else(|| A::Error::custom(format!("unknown metric `{base}`")))?;
            let place = match found.iter().position(|(known, ..)| *known == metric) {
                Some(place) => place,
                None => {
                    found.push((metric, None, None));
                    found.len() - 1
                }
            };
            let value = Some(map.next_value::<f64>()?);
            if is_error {
                found[place].2 = value;
            } else {
                found[place].1 = value;
            }
        }
        let mut loss = None;
        let mut metrics = vec![];
        for (metric, value, standard_error) in found {
            let (Some(value), Some(standard_error)) = (value, standard_error) else {
                return Err(A::Error::custom(format!("expected both `{metric}` and `{metric}{ERROR}`")));
            };
            let estimate = Estimate { value, standard_error };
            if metric == Metric::LOSS {
                loss = Some(estimate);
            } else {
                metrics.push((metric, estimate));
            }
        }
        if metrics.len() > MOST_METRICS {
            return Err(A::Error::custom(format!("expected at most {MOST_METRICS} metrics, found {}", metrics.len())));
        }
        let loss = loss.ok_or_else(|| A::Error::missing_field("loss"))?;
        Ok(SplitScore::new(samples.ok_or_else(|| A::Error::missing_field(SAMPLES))?, loss, metrics))
    }
}

/// Scores for tests.
#[cfg(any(test, feature = "test-support"))]
pub mod testing {
    use super::*;

    /// A score of a classifier over 50 samples, with standard errors 0.01 and 0.02.
    pub fn score(loss: f64, accuracy: f64) -> SplitScore {
        with_errors((loss, 0.01), (accuracy, 0.02), 50)
    }

    /// A score of a classifier: loss and accuracy, each with its standard error.
    pub fn with_errors(loss: (f64, f64), accuracy: (f64, f64), samples: usize) -> SplitScore {
        let estimate = |(value, standard_error)| Estimate { value, standard_error };
        let metric = Metric::named("accuracy").expect("it is a metric");
        SplitScore::new(samples, estimate(loss), [(metric, estimate(accuracy))])
    }
}

#[cfg(test)]
mod tests {
    use super::testing::score;
    use super::*;

    fn accuracy() -> Metric {
        Metric::named("accuracy").unwrap()
    }

    #[test]
    fn the_better_score_comes_first_and_a_nan_is_worse_than_any_number() {
        assert_eq!(Metric::LOSS.compare(&score(0.1, 0.5), &score(0.2, 0.9)), Ordering::Less);
        assert_eq!(accuracy().compare(&score(0.1, 0.5), &score(0.2, 0.9)), Ordering::Greater);
        assert_eq!(accuracy().compare(&score(0.2, 0.9), &score(0.1, 0.9)), Ordering::Greater);
        for metric in [Metric::LOSS, accuracy()] {
            for nan in [f64::NAN, -f64::NAN] {
                assert_eq!(metric.compare(&score(nan, nan), &score(9.0, 0.0)), Ordering::Greater);
                assert_eq!(metric.compare(&score(9.0, 0.0), &score(nan, nan)), Ordering::Less);
            }
        }
        let without = SplitScore::new(50, Estimate { value: 0.0, standard_error: 0.0 }, []);
        assert_eq!(accuracy().compare(&without, &score(9.0, 0.0)), Ordering::Greater);
    }

    const JSON: &str =
        r#"{"loss":0.2,"loss_standard_error":0.01,"accuracy":0.9,"accuracy_standard_error":0.02,"samples":50}"#;

    #[test]
    fn a_score_is_written_as_before_metrics_had_names() {
        let score: SplitScore = serde_json::from_str(JSON).unwrap();
        assert_eq!((score.loss, score.loss_standard_error, score.samples), (0.2, 0.01, 50));
        let accuracy = score.get(Metric::named("accuracy").unwrap()).unwrap();
        assert_eq!(accuracy, Estimate { value: 0.9, standard_error: 0.02 });
        assert_eq!(serde_json::to_string(&score).unwrap(), JSON);
        assert_eq!(score.short(), "loss 0.2000, accuracy 0.9000");
    }

    #[test]
    fn fields_come_in_any_order_and_none_may_be_missing_or_unknown() {
        let other = r#"{"samples":5,"loss_standard_error":0.5,"loss":1.5}"#;
        let score: SplitScore = serde_json::from_str(other).unwrap();
        assert_eq!((score.loss, score.loss_standard_error, score.samples), (1.5, 0.5, 5));
        assert_eq!(score.metrics().count(), 0);
        for (json, part) in [
            (r#"{"loss":1.0,"samples":5}"#, "expected both `loss` and `loss_standard_error`"),
            (r#"{"loss":1.0,"loss_standard_error":0.1}"#, "missing field `samples`"),
            (r#"{"samples":5}"#, "missing field `loss`"),
            (r#"{"f1":1.0,"samples":5}"#, "unknown metric `f1`"),
        ] {
            let error = serde_json::from_str::<SplitScore>(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
