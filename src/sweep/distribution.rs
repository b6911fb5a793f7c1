//! Values of one searched field, and when it is searched.

use serde::{Deserialize, Serialize};

use super::spec::MethodName;

/// Values of one searched field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// One of these.
    Choice(Vec<serde_json::Value>),
    /// Uniform in [low, high].
    Uniform(f64, f64),
    /// Uniform in the logarithm.
    LogUniform(f64, f64),
    /// Whole numbers in [low, high].
    Int(i64, i64),
    /// Whole numbers in [low, high], uniform in the logarithm; low is at least 1.
    LogInt(i64, i64),
    /// low, low + step, ... up to high, each as likely as the others.
    StepUniform(f64, f64, f64),
    /// The same values; each drawn as often as it is the nearest to what is uniform in the logarithm.
    StepLogUniform(f64, f64, f64),
    /// low, low + step, ... up to high, whole, each as likely as the others.
    StepInt(i64, i64, i64),
    /// The field is searched in tasks of these methods only; the others take it from `[soup]`, or its default. Never within another one.
    When(Vec<MethodName>, Box<Distribution>),
}

impl Distribution {
    /// The values, whenever they are searched.
    pub fn values(&self) -> &Self {
        match self {
            Self::When(_, values) => values,
            values => values,
        }
    }

    /// The methods whose tasks it is searched in; `None` for all.
    pub fn methods(&self) -> Option<&[MethodName]> {
        match self {
            Self::When(methods, _) => Some(methods),
            _ => None,
        }
    }

    /// Whether it is searched in tasks of a method.
    pub fn applies_to(&self, method: MethodName) -> bool {
        self.methods().is_none_or(|methods| methods.contains(&method))
    }

    /// Number of its values; `None` where they are too many to be gone through, or not meant to be.
    pub fn count(&self) -> Option<u128> {
        let whole = |low: i64, high: i64| (i128::from(high) - i128::from(low)).unsigned_abs();
        match self.values() {
            Self::Choice(values) => Some(values.len() as u128),
            Self::Int(low, high) => Some(whole(*low, *high) + 1),
            Self::StepInt(low, high, step) => Some(whole(*low, *high) / u128::from(step.unsigned_abs().max(1)) + 1),
            Self::StepUniform(low, high, step) | Self::StepLogUniform(low, high, step) => {
                Some(u128::from(last_step(*low, *high, *step)) + 1)
            }
            Self::Uniform(..) | Self::LogUniform(..) | Self::LogInt(..) | Self::When(..) => None,
        }
    }
}

/// Number of the last step from `low` that is not beyond `high`, as far as rounding lets one tell.
pub(super) fn last_step(low: f64, high: f64, step: f64) -> u64 {
    ((high - low) / step * (1.0 + 1e-12)).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted() {
        assert_eq!(Distribution::Int(i64::MIN, i64::MAX).count(), Some(1 << 64));
        assert_eq!(Distribution::StepInt(8, 64, 8).count(), Some(8));
        assert_eq!(Distribution::StepInt(8, 63, 8).count(), Some(7));
        // 0.3 / 0.1 is less than 3 in binary.
        assert_eq!(Distribution::StepUniform(0.0, 0.3, 0.1).count(), Some(4));
        assert_eq!(Distribution::StepUniform(0.0, 1.0, 0.3).count(), Some(4));
        assert_eq!(Distribution::StepLogUniform(1e-3, 1e-1, 1e-3).count(), Some(100));
        assert_eq!(Distribution::LogInt(1, 64).count(), None);
    }

    #[test]
    fn what_was_stored_before_there_were_steps_and_conditions_is_written_as_it_was() {
        let json = |distribution: &Distribution| serde_json::to_string(distribution).unwrap();
        assert_eq!(json(&Distribution::LogUniform(0.5, 1.0)), r#"{"log_uniform":[0.5,1.0]}"#);
        assert_eq!(json(&Distribution::Int(1, 2)), r#"{"int":[1,2]}"#);
    }
}
