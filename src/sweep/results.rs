//! `results.json`: one row a task, best first by select.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::{IngredientEntry, Manifest, SplitScore};
use super::spec::{Metric, Overrides, Spec};
use crate::runner::engine::{Completion, Effort, Scores};
use crate::task::{Origin, Task, TaskState};

/// How a task ended; kept beside its coefficients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// State.
    pub state: TaskState,
    /// Why it failed.
    pub cause: Option<String>,
    /// Scores of the exact soup.
    pub scores: Option<Scores>,
    /// What it took.
    pub effort: Option<Effort>,
    /// Whether the result is the bits that an uninterrupted task would have given.
    pub exact: Option<bool>,
    /// Resolved ingredients a model batch.
    pub model_batch: Option<usize>,
}

impl TaskOutcome {
    /// Not finished.
    pub fn queued() -> Self {
        Self { state: TaskState::Queued, cause: None, scores: None, effort: None, exact: None, model_batch: None }
    }

    /// Given up.
    pub fn failed(cause: String) -> Self {
        Self { state: TaskState::Failed, cause: Some(cause), ..Self::queued() }
    }

    /// Done.
    pub fn succeeded(completion: &Completion) -> Self {
        Self {
            state: TaskState::Succeeded,
            cause: None,
            scores: Some(completion.scores.clone()),
            effort: Some(completion.effort),
            exact: Some(completion.exact),
            model_batch: Some(completion.model_batch),
        }
    }
}

/// The content of `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResults {
    /// Version of this format.
    pub version: u32,
    /// Name of the sweep.
    pub name: String,
    /// Program and version that wrote it.
    pub generated_by: String,
    /// Hash of the specification.
    pub spec_identity: String,
    /// Hash of the zoo's and the data's content.
    pub inputs_hash: String,
    /// What ranks tasks.
    pub metric: Metric,
    /// What a person should know.
    pub notes: Vec<String>,
    /// The ingredients with their select scores.
    pub ingredients: Vec<IngredientEntry>,
    /// One row a task, best first by select; those without scores last.
    pub tasks: Vec<Row>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Task.
    pub task_id: String,
    /// Method.
    pub method: String,
    /// Where the task comes from.
    pub origin: Origin,
    /// All hyperparameters, resolved.
    pub hyperparameters: serde_json::Value,
    /// The searched ones.
    pub searched: Overrides,
    /// Score on learn.
    pub learn: Option<SplitScore>,
    /// Score on select.
    pub select: Option<SplitScore>,
    /// Score on test.
    pub test: Option<SplitScore>,
    /// Scores of the same sweep's `best`, `uniform` and, if computed, `greedy`.
    pub baselines: BTreeMap<String, Scores>,
    /// Optimizer steps.
    pub iterations: u64,
    /// Seconds of computation.
    pub seconds: f64,
    /// Learn samples a second within iterations; `None` without iterations.
    pub samples_per_second: Option<f64>,
    /// Largest use of device memory; `None` where the device is the host.
    pub peak_device_bytes: Option<u64>,
    /// Largest resident memory of the process, maps of ingredients included.
    pub peak_host_bytes: Option<u64>,
    /// Resolved ingredients a model batch.
    pub model_batch: Option<usize>,
    /// State.
    pub state: TaskState,
    /// Why it failed.
    pub cause: Option<String>,
    /// Whether resumption, if any, was bit-exact.
    pub exact: Option<bool>,
    /// Whether the soup is strictly better, by select, than the best ingredient.
    pub better_than_best_ingredient: Option<bool>,
}

/// Whether `a` is strictly better than `b`. By accuracy, equal accuracies go to the lower loss.
pub fn is_better(metric: Metric, a: &SplitScore, b: &SplitScore) -> bool {
    match metric {
        Metric::Loss => a.loss < b.loss,
        Metric::Accuracy => (a.accuracy, -a.loss) > (b.accuracy, -b.loss),
    }
}

/// Better scores first; equal ones are equal.
pub fn rank(metric: Metric, a: &SplitScore, b: &SplitScore) -> Ordering {
    match (is_better(metric, a, b), is_better(metric, b, a)) {
        (true, _) => Ordering::Less,
        (_, true) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

impl SweepResults {
    /// Version that this program writes.
    pub const VERSION: u32 = 1;

    /// Makes the table of all tasks.
    pub fn build(spec: &Spec, manifest: &Manifest, outcomes: &[(Task, TaskOutcome)]) -> Self {
        let metric = spec.data.metric;
        let baselines: BTreeMap<String, Scores> = outcomes
            .iter()
            .filter(|(task, _)| task.origin == Origin::Baseline)
            .filter_map(|(task, outcome)| Some((task.id.clone(), outcome.scores.clone()?)))
            .collect();
        let best = manifest
            .ingredients
            .iter()
            .filter_map(|entry| entry.select)
            .reduce(|a, b| if is_better(metric, &b, &a) { b } else { a });
        let mut tasks: Vec<Row> = outcomes
            .iter()
            .map(|(task, outcome)| {
                let scores = outcome.scores.as_ref();
                let effort = outcome.effort.unwrap_or_default();
                let select = scores.map(|s| s.select);
                Row {
                    task_id: task.id.clone(),
                    method: task.soup.method.to_string(),
                    origin: task.origin,
                    hyperparameters: serde_json::json!({ "soup": task.soup, "zoo.top": task.top }),
                    searched: task.overrides.clone(),
                    learn: scores.map(|s| s.learn),
                    select,
                    test: scores.and_then(|s| s.test),
                    baselines: baselines.clone(),
                    iterations: effort.iterations,
                    seconds: effort.seconds,
                    samples_per_second: (effort.iteration_seconds > 0.0)
                        .then(|| effort.samples as f64 / effort.iteration_seconds),
                    peak_device_bytes: effort.peak_device_bytes,
                    peak_host_bytes: outcome.effort.map(|effort| effort.peak_host_bytes),
                    model_batch: outcome.model_batch,
                    state: outcome.state,
                    cause: outcome.cause.clone(),
                    exact: outcome.exact,
                    better_than_best_ingredient: select.zip(best).map(|(s, b)| is_better(metric, &s, &b)),
                }
            })
            .collect();
        // Stable: of equals the earlier stays first, and baselines are the earliest, so that the best ingredient wins if nothing beats it.
        tasks.sort_by(|a, b| match (&a.select, &b.select) {
            (Some(a), Some(b)) => rank(metric, a, b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        Self {
            version: Self::VERSION,
            name: spec.name.clone(),
            generated_by: concat!("mehl-soup ", env!("CARGO_PKG_VERSION")).to_string(),
            spec_identity: spec.identity(),
            inputs_hash: manifest.inputs_hash(),
            metric,
            notes: manifest.notes.clone(),
            ingredients: manifest.ingredients.clone(),
            tasks,
        }
    }
}

/// The best task by select, if any succeeded.
pub fn winner(results: &SweepResults) -> Option<&Row> {
    results.tasks.iter().find(|row| row.state == TaskState::Succeeded && row.select.is_some())
}
