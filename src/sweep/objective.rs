//! Facts of objectives: what their losses and metrics are called, which values are better, and how they are shown.
//!
//! The worker computes the values. Everything else (results, ranking, tables, the report, the API) goes by this
//! table, so a new objective needs one row here. `docs/add-an-objective.md` shows how.

use serde::{Deserialize, Serialize};

/// Objectives, by the names that `data.objective` has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveName {
    /// One class of several.
    #[default]
    Classification,
    /// Any number of several labels.
    MultiLabel,
    /// One number.
    Regression,
    /// One share in [0, 1], such as the relevance that a cross-encoder gives a pair of texts.
    Score,
    /// Embeddings of texts that belong together.
    Pairs,
}

impl ObjectiveName {
    /// Every objective, by its name.
    pub const NAMED: [(&str, Self); 5] = [
        (CLASSIFICATION.name, Self::Classification),
        (MULTI_LABEL.name, Self::MultiLabel),
        (REGRESSION.name, Self::Regression),
        (SCORE.name, Self::Score),
        (PAIRS.name, Self::Pairs),
    ];

    /// Its row.
    pub const fn facts(self) -> &'static Facts {
        match self {
            Self::Classification => &CLASSIFICATION,
            Self::MultiLabel => &MULTI_LABEL,
            Self::Regression => &REGRESSION,
            Self::Score => &SCORE,
            Self::Pairs => &PAIRS,
        }
    }

    /// Whether it is [`Classification`](Self::Classification), which files do not write.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for ObjectiveName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.facts().name)
    }
}

/// The objective of a sweep, with all besides the data that its scores depend on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Objective {
    /// See [`ObjectiveName::Classification`].
    #[default]
    Classification,
    /// See [`ObjectiveName::MultiLabel`].
    MultiLabel,
    /// See [`ObjectiveName::Regression`].
    Regression,
    /// See [`ObjectiveName::Score`].
    Score,
    /// See [`ObjectiveName::Pairs`].
    Pairs {
        /// Factor on cosines.
        scale: f64,
        /// Samples of a batch in which a split is scored.
        batch: usize,
        /// Decides which samples are in which of these batches.
        seed: u64,
    },
}

impl Objective {
    /// Its name.
    pub fn name(&self) -> ObjectiveName {
        match self {
            Self::Classification => ObjectiveName::Classification,
            Self::MultiLabel => ObjectiveName::MultiLabel,
            Self::Regression => ObjectiveName::Regression,
            Self::Score => ObjectiveName::Score,
            Self::Pairs { .. } => ObjectiveName::Pairs,
        }
    }

    /// Whether it is [`Classification`](Self::Classification), which files do not write.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

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
    /// Whether the loss is in nats: it then has the same scale for all data.
    pub is_in_nats: bool,
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
    /// One batch: samples of a batch are compared with each other, so their losses depend on each other. Batches of a
    /// split are the same for all tasks of a sweep.
    Batch,
}

impl Unit {
    /// Its name, for people.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Sequence => "sequence",
            Self::Pair => "pair",
            Self::Batch => "batch",
        }
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
    is_in_nats: true,
    has_temperature: true,
};

const LABEL_ACCURACY: MetricFacts = MetricFacts {
    name: "label_accuracy",
    meaning: "share of labels of a sample that are right, where a probability above 0.5 means yes, in [0, 1]",
    higher_is_better: true,
    is_share: false,
    shown: Shown { factor: 100.0, digits: 2, unit: " %", difference_unit: " points", heading: "label acc. %" },
};

const EXACT_MATCH: MetricFacts = MetricFacts {
    name: "exact_match",
    meaning: "share of samples all of whose labels are right, in [0, 1]",
    higher_is_better: true,
    is_share: true,
    shown: Shown { factor: 100.0, digits: 2, unit: " %", difference_unit: " points", heading: "exact %" },
};

const PEARSON: MetricFacts = MetricFacts {
    name: "pearson",
    meaning: "correlation of predictions and targets after Pearson, in [-1, 1]; 0 where one of them is constant",
    higher_is_better: true,
    is_share: false,
    shown: Shown { factor: 1.0, digits: 4, unit: "", difference_unit: "", heading: "Pearson" },
};

const SPEARMAN: MetricFacts = MetricFacts {
    name: "spearman",
    meaning: "correlation of the ranks of predictions and targets after Spearman, in [-1, 1]; 0 where one of them is \
              constant",
    higher_is_better: true,
    is_share: false,
    shown: Shown { factor: 1.0, digits: 4, unit: "", difference_unit: "", heading: "Spearman" },
};

const ACCURACY_AT_1: MetricFacts = MetricFacts {
    name: "accuracy_at_1",
    meaning: "share of anchors whose nearest candidate of the batch is their positive, in [0, 1]",
    higher_is_better: true,
    is_share: false,
    shown: Shown { factor: 100.0, digits: 2, unit: " %", difference_unit: " points", heading: "acc.@1 %" },
};

/// Any number of several labels, by binary cross-entropy of each.
pub const MULTI_LABEL: Facts = Facts {
    name: "multi-label",
    loss: "mean binary cross-entropy of a label in nats",
    metrics: &[&LABEL_ACCURACY, &EXACT_MATCH],
    unit: Unit::Sample,
    is_in_nats: true,
    has_temperature: true,
};

/// One number, by squared error.
pub const REGRESSION: Facts = Facts {
    name: "regression",
    loss: "mean squared error",
    metrics: &[&PEARSON, &SPEARMAN],
    unit: Unit::Sample,
    is_in_nats: false,
    has_temperature: false,
};

/// One share in [0, 1], by binary cross-entropy of one logit.
pub const SCORE: Facts = Facts {
    name: "score",
    loss: "mean binary cross-entropy in nats",
    metrics: &[&PEARSON, &SPEARMAN],
    unit: Unit::Sample,
    is_in_nats: true,
    has_temperature: true,
};

/// Embeddings of texts that belong together, by cross-entropy over the candidates of a batch.
pub const PAIRS: Facts = Facts {
    name: "pairs",
    loss: "mean InfoNCE in nats, over the candidates of a batch",
    metrics: &[&ACCURACY_AT_1],
    unit: Unit::Batch,
    is_in_nats: true,
    has_temperature: false,
};

/// Every objective.
pub const OBJECTIVES: [&Facts; 5] = [&CLASSIFICATION, &MULTI_LABEL, &REGRESSION, &SCORE, &PAIRS];

const _: () = {
    let mut at = 0;
    while at < OBJECTIVES.len() {
        assert!(OBJECTIVES[at].metrics.len() <= MOST_METRICS);
        at += 1;
    }
};
