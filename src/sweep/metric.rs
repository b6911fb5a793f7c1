//! Metrics: the loss, or what an objective measures besides it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::objective::{Facts, LOSS, MetricFacts, OBJECTIVES, Shown};

/// A mean over units and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

/// The loss, or a metric of an objective. Written as its name.
#[derive(Debug, Clone, Copy)]
pub struct Metric(&'static MetricFacts);

impl Metric {
    /// The loss, which every objective has.
    pub const LOSS: Self = Self(&LOSS);

    /// One of an objective's metrics.
    pub const fn of(facts: &'static MetricFacts) -> Self {
        Self(facts)
    }

    /// The metric of this name, of any objective.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|metric| metric.name() == name)
    }

    /// The loss, and all metrics of all objectives.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut metrics: Vec<Self> = vec![];
        for metric in OBJECTIVES.into_iter().flat_map(|facts| facts.metrics).copied().map(Self) {
            // Several objectives may measure the same.
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        std::iter::once(Self::LOSS).chain(metrics)
    }

    /// The loss, and the metrics of an objective.
    pub fn all_of(objective: &Facts) -> impl Iterator<Item = Self> {
        std::iter::once(Self::LOSS).chain(objective.metrics.iter().copied().map(Self))
    }

    /// Its facts.
    pub fn facts(self) -> &'static MetricFacts {
        self.0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The value as a cost: lower is better.
    pub fn cost(self, value: f64) -> f64 {
        if self.0.higher_is_better { -value } else { value }
    }

    /// A value with its standard error, for a column whose head names the unit: `0.1234 ±0.0100`. There is no space
    /// behind the sign, so that a narrow column wraps before it.
    pub fn shown(self, estimate: Estimate) -> String {
        let Shown { factor, digits, .. } = self.0.shown;
        format!("{:.digits$} ±{:.digits$}", factor * estimate.value, factor * estimate.standard_error)
    }

    /// The value alone.
    pub fn shown_value(self, value: f64) -> String {
        let Shown { factor, digits, .. } = self.0.shown;
        format!("{:.digits$}", factor * value)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Metric {}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::named(&name).ok_or_else(|| {
            let known: Vec<&str> = Self::all().map(Self::name).collect();
            de::Error::custom(format!("expected a metric ({}), found `{name}`", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_as_its_name() {
        assert_eq!(serde_json::to_string(&Metric::named("accuracy").unwrap()).unwrap(), "\"accuracy\"");
        assert_eq!(serde_json::from_str::<Metric>("\"loss\"").unwrap(), Metric::LOSS);
        let error = serde_json::from_str::<Metric>("\"f1\"").unwrap_err().to_string();
        assert!(error.contains("expected a metric (loss, accuracy, ") && error.contains("), found `f1`"), "{error}");
    }

    #[test]
    fn a_metric_of_two_objectives_is_listed_once() {
        let names: Vec<&str> = Metric::all().map(Metric::name).collect();
        let expected = ["loss", "accuracy", "label_accuracy", "exact_match", "pearson", "spearman", "accuracy_at_1"];
        assert_eq!(names, expected);
    }
}
