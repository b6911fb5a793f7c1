//! What came of a sweep: the content of `results.json`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::metric::Metric;
use super::objective::{ObjectiveName, Unit};
use super::outcome::{Completion, Effort, RungReached, Scores};
use super::paired::Comparison;
use super::rows::{Rows, by_select};
use super::score::SplitScore;
use super::spec::{ComputeDtype, MethodName, Overrides, SoupSpec, Spec};
use crate::sweep::task::{Origin, Task};
use crate::task::TaskState;

/// What came of one task so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// State.
    pub state: TaskState,
    /// Why it failed.
    pub cause: Option<String>,
    /// Scores of the exact soup, once succeeded.
    pub scores: Option<Scores>,
    /// Score of the exact soup on select at the last rung that it reached, until it has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_rung: Option<SplitScore>,
    /// What it took, over all attempts.
    pub effort: Effort,
    /// Whether the result is bit-exact, once succeeded; see [`Completion::exact`].
    pub exact: Option<bool>,
    /// Resolved number of ingredients a model batch, once succeeded.
    pub model_batch: Option<usize>,
    /// Resolved dtype that it was learned in, once succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<ComputeDtype>,
    /// Attempts begun.
    pub attempts: u32,
}

impl TaskOutcome {
    /// A task that has not begun.
    pub fn queued() -> Self {
        Self {
            state: TaskState::Queued,
            cause: None,
            scores: None,
            at_rung: None,
            effort: Effort::default(),
            exact: None,
            model_batch: None,
            dtype: None,
            attempts: 0,
        }
    }

    /// A task that is done.
    pub fn succeeded(completion: &Completion, attempts: u32) -> Self {
        Self {
            state: TaskState::Succeeded,
            cause: None,
            scores: Some(completion.scores.clone()),
            at_rung: None,
            effort: completion.effort,
            exact: Some(completion.exact),
            model_batch: Some(completion.model_batch),
            dtype: Some(completion.dtype),
            attempts,
        }
    }

    /// A task that was stopped at a rung.
    pub fn waiting(rung: &RungReached) -> Self {
        Self {
            state: TaskState::Waiting,
            at_rung: Some(rung.select),
            effort: rung.effort,
            model_batch: Some(rung.model_batch),
            attempts: rung.attempts,
            ..Self::queued()
        }
    }

    /// A task that was given up because of `cause`.
    pub fn failed(cause: String, effort: Effort, attempts: u32) -> Self {
        Self { state: TaskState::Failed, cause: Some(cause), effort, attempts, ..Self::queued() }
    }
}

/// `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResults {
    /// Version of this format.
    pub version: u32,
    /// Name of the sweep.
    pub name: String,
    /// Program and version.
    pub generated_by: String,
    /// [`Spec::identity`].
    pub spec_identity: String,
    /// [`Manifest::inputs_hash`].
    pub inputs_hash: String,
    /// What coefficients were learned for. Not written for classification.
    #[serde(default, skip_serializing_if = "ObjectiveName::is_default")]
    pub objective: ObjectiveName,
    /// What ranks the tasks.
    pub metric: Metric,
    /// Things a person should know about the zoo and the data.
    pub notes: Vec<String>,
    /// The ingredients, in order.
    pub ingredients: Vec<IngredientResult>,
    /// The baselines that are done.
    pub baselines: Baselines<BaselineResult>,
    /// The winner against each baseline that is done and against the runner-up, on each split and by each metric.
    /// Empty before a task has succeeded, and in results of earlier programs.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// Every task, baselines among them: the best by select first, then the unfinished, then the failed.
    pub tasks: Vec<Row>,
}

/// One ingredient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngredientResult {
    /// Short name.
    pub name: String,
    /// Content hash.
    pub hash: String,
    /// Score on select.
    pub select: Option<SplitScore>,
}

/// Something about each baseline that is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines<T> {
    /// The best ingredient by select.
    pub best: Option<T>,
    /// The plain mean.
    pub uniform: Option<T>,
    /// The greedy soup, if it is a baseline of the sweep.
    #[serde(skip_serializing_if = "Option::is_none", default = "Option::default")]
    pub greedy: Option<T>,
    /// Model Stock, if the zoo has a base.
    #[serde(skip_serializing_if = "Option::is_none", default = "Option::default")]
    pub model_stock: Option<T>,
}

impl<T> Baselines<T> {
    /// What `about` knows of each.
    pub fn of(about: impl Fn(MethodName) -> Option<T>) -> Self {
        Self {
            best: about(MethodName::Best),
            uniform: about(MethodName::Uniform),
            greedy: about(MethodName::Greedy),
            model_stock: about(MethodName::ModelStock),
        }
    }

    /// The same baselines with something else about each.
    pub(super) fn map<U>(&self, about: impl Fn(&T) -> U) -> Baselines<U> {
        Baselines {
            best: self.best.as_ref().map(&about),
            uniform: self.uniform.as_ref().map(&about),
            greedy: self.greedy.as_ref().map(&about),
            model_stock: self.model_stock.as_ref().map(&about),
        }
    }
}

/// A baseline and its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineResult {
    /// Its row.
    pub task_id: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the task, and of its folder.
    pub task_id: String,
    /// Method.
    pub method: MethodName,
    /// Where the task comes from.
    pub origin: Origin,
    /// All hyperparameters.
    pub hyperparameters: Hyperparameters,
    /// The searched ones among them, as they were drawn.
    pub searched: Overrides,
    /// Score on the data that coefficients were learned on.
    pub learn: Option<SplitScore>,
    /// Score on the data that chooses: of the finished soup, or at the last rung that the task reached.
    pub select: Option<SplitScore>,
    /// Score on the data that is only reported.
    pub test: Option<SplitScore>,
    /// Select scores of the sweep's baselines, to compare with.
    pub baselines: Baselines<SplitScore>,
    /// Optimizer steps, over all attempts.
    pub iterations: u64,
    /// Seconds of computation, over all attempts.
    pub seconds: f64,
    /// Learn samples over the seconds spent within iterations; `None` without iterations.
    pub samples_per_second: Option<f64>,
    /// Largest use of device memory in bytes, where the device is not the host.
    pub peak_device_bytes: Option<u64>,
    /// Largest resident memory in bytes.
    pub peak_host_bytes: u64,
    /// Resolved number of ingredients a model batch, once succeeded.
    pub model_batch: Option<usize>,
    /// Resolved dtype that it was learned in, once succeeded; its scores are in f32, or f64 with `f64`.
    #[serde(default)]
    pub dtype: Option<ComputeDtype>,
    /// State.
    pub state: TaskState,
    /// Why it failed.
    pub cause: Option<String>,
    /// Whether the result is bit-exact, once succeeded.
    pub exact: Option<bool>,
    /// Whether it is strictly better than the best ingredient, by select and the sweep's metric.
    pub better_than_best_ingredient: Option<bool>,
    /// Attempts begun.
    pub attempts: u32,
}

/// Resolved hyperparameters of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// The fields of `[soup]`.
    #[serde(flatten)]
    pub soup: SoupSpec,
    /// Number of ingredients used, the best by select; `None` for all.
    #[serde(rename = "zoo.top")]
    pub top: Option<usize>,
}

impl SweepResults {
    /// Version that this program writes.
    pub const VERSION: u32 = 1;

    /// The results of `tasks` (all of the sweep, in the order of [`expand`](super::expand::expand)). `outcomes` is by task id; a task without one has not begun.
    pub fn build(spec: &Spec, manifest: &Manifest, tasks: &[Task], outcomes: &BTreeMap<String, TaskOutcome>) -> Self {
        let baselines = Baselines::of(|method| {
            let task = tasks.iter().find(|task| task.origin == Origin::Baseline && task.soup.method == method)?;
            let scores = outcomes.get(&task.id)?.scores.clone()?;
            Some(BaselineResult { task_id: task.id.clone(), scores })
        });
        let mut results = Self::head(spec, manifest, baselines);
        let rows = Rows::new(&results);
        let queued = TaskOutcome::queued();
        let row = |task: &Task| rows.row(task.clone(), outcomes.get(&task.id).unwrap_or(&queued));
        results.tasks = tasks.iter().map(row).collect();
        results.tasks.sort_by(|a, b| rows.compare((a.state, a.select.as_ref()), (b.state, b.select.as_ref())));
        results.compare(|_| None);
        results
    }

    /// The results of a sweep without its rows, which [`Rows`] makes.
    pub fn head(spec: &Spec, manifest: &Manifest, baselines: Baselines<BaselineResult>) -> Self {
        let ingredients = manifest.ingredients.iter();
        Self {
            version: Self::VERSION,
            name: spec.name.clone(),
            generated_by: concat!("mehl-soup ", env!("CARGO_PKG_VERSION")).into(),
            spec_identity: spec.identity(),
            inputs_hash: manifest.inputs_hash(),
            objective: manifest.objective.name(),
            metric: spec.data.metric,
            notes: manifest.notes.clone(),
            ingredients: ingredients
                .map(|entry| IngredientResult {
                    name: entry.name.clone(),
                    hash: entry.hash.clone(),
                    select: entry.select,
                })
                .collect(),
            baselines,
            tasks: vec![],
            comparisons: vec![],
        }
    }

    /// The loss, then the metrics that any score has.
    pub fn metrics(&self) -> Vec<Metric> {
        let rows = self.tasks.iter().filter_map(|row| row.select.or(row.test));
        let score = rows.chain(self.ingredients.iter().filter_map(|ingredient| ingredient.select)).next();
        score.map_or_else(|| vec![Metric::LOSS], |score| score.all().map(|(metric, _)| metric).collect())
    }

    /// What scores are taken over.
    pub fn unit(&self) -> Unit {
        self.objective.facts().unit
    }

    /// The best ingredient by select; `None` before the ingredients were scored.
    pub fn best_ingredient(&self) -> Option<&IngredientResult> {
        best_of(&self.ingredients, self.metric)
    }
}

/// The best task that succeeded, by select: a soup only if it is strictly better than the best ingredient, whose baseline it is otherwise.
/// `None` if no task succeeded.
pub fn winner(results: &SweepResults) -> Option<&Row> {
    let succeeded = || results.tasks.iter().filter(|row| row.state == TaskState::Succeeded);
    let best_ingredient = succeeded().find(|row| row.origin == Origin::Baseline && row.method == MethodName::Best);
    let mut winner = best_ingredient.or_else(|| succeeded().next())?;
    for row in succeeded() {
        if by_select(results.metric, row.select.as_ref(), winner.select.as_ref()) == Ordering::Less {
            winner = row;
        }
    }
    Some(winner)
}

pub(super) fn best_of(ingredients: &[IngredientResult], metric: Metric) -> Option<&IngredientResult> {
    let scored = ingredients.iter().filter_map(|ingredient| Some((ingredient, ingredient.select?)));
    // `min_by` keeps the first of equals.
    scored.min_by(|(_, a), (_, b)| metric.compare(a, b)).map(|(ingredient, _)| ingredient)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::super::expand::expand;
    use super::super::manifest::IngredientEntry;
    use super::super::metric::Estimate;
    use super::super::parse::{Format, parse_spec_text};
    use super::super::spec::Family;
    use super::*;

    pub(in crate::sweep) fn score(loss: f64, accuracy: f64) -> SplitScore {
        let estimate = |value, standard_error| Estimate { value, standard_error };
        let accuracy = (Metric::named("accuracy").unwrap(), estimate(accuracy, 0.02));
        SplitScore::new(50, estimate(loss, 0.01), [accuracy])
    }

    fn outcome(loss: f64, accuracy: f64) -> TaskOutcome {
        let completion = Completion {
            attempts: 1,
            coefficients: Vec::new(),
            scores: Scores {
                learn: score(loss / 2.0, accuracy),
                select: score(loss, accuracy),
                test: Some(score(loss + 0.1, accuracy - 0.1)),
            },
            effort: Effort { iterations: 4, samples: 100, seconds: 9.0, iteration_seconds: 2.0, ..Effort::default() },
            exact: true,
            model_batch: 2,
            dtype: ComputeDtype::F32,
            units: crate::sweep::paired::UnitScores::default(),
        };
        TaskOutcome::succeeded(&completion, 1)
    }

    /// A sweep of `best`, `uniform`, `0001-mehl+` and so on, with scores (loss, accuracy) on select; the fourth task never began.
    pub(in crate::sweep) fn results(metric: &str, scores: &[(&str, f64, f64)]) -> SweepResults {
        let text = format!(
            "zoo.ingredients = 'z'\ndata = {{ learn = 'l', metric = '{metric}' }}\nsoup.method = 'mehl+'\nsearch.space.batch = [1, 2, 3, 4]"
        );
        let spec = parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap();
        let ingredient = |name: &str, loss| IngredientEntry {
            name: name.into(),
            path: name.into(),
            hash: format!("hash-{name}"),
            select: Some(score(loss, 0.8)),
        };
        let manifest = Manifest {
            objective: Default::default(),
            version: Manifest::VERSION,
            family: Family::Vit,
            architecture: serde_json::Value::Null,
            ingredients: vec![ingredient("cat", 0.6), ingredient("dog", 0.5)],
            base: None,
            data: Vec::new(),
            notes: vec!["select is a part of learn".into()],
        };
        let mut outcomes: BTreeMap<_, _> =
            scores.iter().map(|(id, loss, accuracy)| (id.to_string(), outcome(*loss, *accuracy))).collect();
        outcomes.insert("0003-mehl+".into(), TaskOutcome::failed("loss is NaN".into(), Effort::default(), 1));
        SweepResults::build(&spec, &manifest, &expand(&spec), &outcomes)
    }

    fn order(results: &SweepResults) -> Vec<&str> {
        results.tasks.iter().map(|row| row.task_id.as_str()).collect()
    }

    #[test]
    fn rows_are_best_first_by_the_metric_and_those_without_scores_last() {
        let scores = [("best", 0.5, 0.8), ("uniform", 0.7, 0.6), ("0001-mehl+", 0.4, 0.7), ("0002-mehl+", 0.6, 0.9)];
        let by_loss = results("loss", &scores);
        assert_eq!(order(&by_loss), ["0001-mehl+", "best", "0002-mehl+", "uniform", "0004-mehl+", "0003-mehl+"]);
        assert_eq!(winner(&by_loss).unwrap().task_id, "0001-mehl+");
        let better: Vec<_> = by_loss.tasks.iter().map(|row| row.better_than_best_ingredient).collect();
        assert_eq!(better, [Some(true), Some(false), Some(false), Some(false), None, None]);
        assert_eq!(by_loss.tasks[0].samples_per_second, Some(50.0));
        assert_eq!(by_loss.tasks[0].baselines.uniform.unwrap().loss, 0.7);
        assert_eq!(by_loss.tasks[5].cause.as_deref(), Some("loss is NaN"));
        let by_accuracy = results("accuracy", &scores);
        assert_eq!(order(&by_accuracy)[..2], ["0002-mehl+", "best"]);
        assert_eq!(winner(&by_accuracy).unwrap().task_id, "0002-mehl+");
    }

    #[test]
    fn a_soup_that_only_equals_the_best_ingredient_does_not_win() {
        let results = results("loss", &[("0001-mehl+", 0.5, 0.8), ("best", 0.5, 0.8), ("0002-mehl+", 0.5, 0.8)]);
        assert_eq!(winner(&results).unwrap().task_id, "best");
        assert!(results.tasks.iter().all(|row| row.better_than_best_ingredient != Some(true)));
    }

    #[test]
    fn without_the_baseline_the_ingredients_own_score_is_to_beat() {
        let results = results("loss", &[("0001-mehl+", 0.45, 0.8), ("0002-mehl+", 0.55, 0.8)]);
        assert_eq!(results.tasks[0].better_than_best_ingredient, Some(true));
        assert_eq!(results.tasks[1].better_than_best_ingredient, Some(false));
        assert_eq!(results.best_ingredient().unwrap().name, "dog");
        assert!(results.baselines.best.is_none());
    }

    #[test]
    fn a_sweep_without_a_success_has_no_winner() {
        assert!(winner(&results("loss", &[])).is_none());
    }

    #[test]
    fn what_was_stopped_at_a_rung_shows_its_score_there_and_cannot_win() {
        let mut results = results("loss", &[("best", 0.5, 0.8), ("0001-mehl+", 0.4, 0.8)]);
        assert_eq!(winner(&results).unwrap().task_id, "0001-mehl+");
        let rung = RungReached {
            select: score(0.3, 0.9),
            effort: Effort { iterations: 7, seconds: 3.0, ..Effort::default() },
            model_batch: 2,
            attempts: 1,
        };
        let pruned = TaskOutcome { state: TaskState::Pruned, ..TaskOutcome::waiting(&rung) };
        let json = serde_json::to_string(&pruned).unwrap();
        assert_eq!(serde_json::from_str::<TaskOutcome>(&json).unwrap(), pruned);
        let text = "zoo.ingredients = 'z'\ndata.learn = 'l'";
        let spec = parse_spec_text(text, Format::Toml, Path::new("/base")).unwrap();
        let task = expand(&spec).pop().unwrap();
        let mut head = SweepResults { tasks: vec![], ..results.clone() };
        head.baselines = Baselines::of(|_| None);
        let found = Rows::new(&head).row(task, &pruned);
        assert_eq!((found.state, found.select, found.iterations), (TaskState::Pruned, Some(score(0.3, 0.9)), 7));
        assert_eq!((found.better_than_best_ingredient, found.test, found.cause.as_deref()), (None, None, None));
        results.tasks.push(found);
        assert_eq!(winner(&results).unwrap().task_id, "0001-mehl+");
    }

    #[test]
    fn results_come_back_from_json_and_hyperparameters_are_flat() {
        let results = results("loss", &[("best", 0.5, 0.8)]);
        let json = serde_json::to_string_pretty(&results).unwrap();
        assert_eq!(serde_json::from_str::<SweepResults>(&json).unwrap(), results);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let last = value["tasks"].as_array().unwrap().last().unwrap();
        assert_eq!(last["hyperparameters"]["inner_epochs"], 5);
        assert_eq!(last["hyperparameters"]["model_batch"], "auto");
        assert_eq!(last["hyperparameters"]["zoo.top"], serde_json::Value::Null);
        assert_eq!(value["baselines"]["best"]["select"]["loss"], 0.5);
        assert!(value["baselines"].get("greedy").is_none());
    }
}
