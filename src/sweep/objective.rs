//! Facts of objectives: what their losses and metrics are called, which values are better, and how they are shown.
//!
//! The worker computes the values. Everything else (results, ranking, tables, the report, the API) goes by this
//! table, so a new objective needs one row here. `docs/add-an-objective.md` shows how.

/// Facts of an objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Its name.
    pub name: &'static str,
    /// Name of the loss with its unit, for people: `mean cross-entropy in nats`.
    pub loss: &'static str,
    /// What is measured besides the loss, in the order in which the worker computes it. At most [`MOST_METRICS`].
    pub metrics: &'static [&'static MetricFacts],
    /// Standard errors are taken over these.
    pub unit: Unit,
    /// Whether an inverse temperature on the outputs changes the loss in a sensible way.
    pub has_temperature: bool,
}

/// Most metrics of an objective besides its loss.
pub const MOST_METRICS: usize = 3;

/// Facts of a loss or metric.
#[derive(Debug, PartialEq)]
pub struct MetricFacts {
    /// Its name, in lower case: the field in JSON, the column in CSV, the value of `data.metric`.
    pub name: &'static str,
    /// What it measures and its unit, for people.
    pub meaning: &'static str,
    /// Which values are better.
    pub higher_is_better: bool,
    /// Whether every unit counts 0 or 1, so that the mean is a share: its standard error is `sqrt(p (1 - p) / n)`.
    pub is_share: bool,
    /// How people see it.
    pub shown: Shown,
}

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// Multiplied with the value first.
    pub factor: f64,
    /// Digits after the point.
    pub digits: usize,
    /// Put behind a value.
    pub unit: &'static str,
    /// Put behind a difference of two values.
    pub difference_unit: &'static str,
    /// Head of a narrow column.
    pub heading: &'static str,
}

/// The independent parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// One sample.
    Sample,
    /// One sequence of tokens.
    Sequence,
    /// One pair of samples.
    Pair,
    /// One batch: samples of a batch are compared with each other, so their losses depend on each other.
    Batch,
}

impl Unit {
    /// Whether two models may be compared unit by unit. The units of a batch objective depend on how batches were cut.
    pub fn can_be_paired(self) -> bool {
        self != Self::Batch
    }

    /// Its plural, for people.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Sample => "samples",
            Self::Sequence => "sequences",
            Self::Pair => "pairs",
            Self::Batch => "batches",
        }
    }
}

/// The loss, which every objective has.
pub const LOSS: MetricFacts = MetricFacts {
    name: "loss",
    meaning: "mean loss",
    higher_is_better: false,
    is_share: false,
    shown: Shown { factor: 1.0, digits: 4, unit: "", difference_unit: "", heading: "loss" },
};

const ACCURACY: MetricFacts = MetricFacts {
    name: "accuracy",
    meaning: "share of samples whose largest logit is that of their label, in [0, 1]",
    higher_is_better: true,
    is_share: true,
    shown: Shown { factor: 100.0, digits: 2, unit: " %", difference_unit: " points", heading: "acc. %" },
};

/// One class of several, by cross-entropy.
pub const CLASSIFICATION: Facts = Facts {
    name: "classification",
    loss: "mean cross-entropy in nats",
    metrics: &[&ACCURACY],
    unit: Unit::Sample,
    has_temperature: true,
};

/// Every objective.
pub const OBJECTIVES: [&Facts; 1] = [&CLASSIFICATION];

const _: () = {
    let mut at = 0;
    while at < OBJECTIVES.len() {
        assert!(OBJECTIVES[at].metrics.len() <= MOST_METRICS);
        at += 1;
    }
};
