//! The tasks that a specification spans.

use std::collections::HashSet;

use super::parse::{TOP, resolve_soup};
use super::space;
use super::spec::{MethodName, Overrides, SoupSpec, Spec, Strategy};
use crate::task::{Origin, Task};

/// The tasks of a sweep, in the order in which they run: the baselines `best`, `uniform` and, if asked for or among the tasks, `greedy`;
/// then `search.points`; then the grid, lexicographic in the order of the file, or the random samples; without a space, the one task that `[soup]` describes.
///
/// A task that computes the same as an earlier one is left out, so a search may have fewer tasks than it draws. The others are numbered
/// without gaps: `0001-mehl+`.
///
/// # Panics
/// If the specification does not come from [`parse_spec`](super::parse::parse_spec), or from what that returned, and an override in it is not valid.
pub fn expand(spec: &Spec) -> Vec<Task> {
    let mut drawn: Vec<Draft> =
        spec.search.points.iter().map(|overrides| Draft::new(spec, overrides.clone(), Origin::Point)).collect();
    let (space, method) = (&spec.search.space, spec.soup.method);
    let search = |overrides| Draft::new(spec, overrides, Origin::Search);
    match spec.search.strategy {
        Strategy::Random | Strategy::Asha if !space.is_empty() => {
            drawn.extend((0..spec.search.tasks as u64).map(|i| search(space::sample(space, method, spec.seed, i))));
        }
        // An empty space has one combination: no override at all.
        Strategy::Random | Strategy::Asha | Strategy::Grid => drawn.extend(space::grid(space, method).map(search)),
    }

    let mut baselines = vec![Draft::baseline(spec, MethodName::Best), Draft::baseline(spec, MethodName::Uniform)];
    let greedy = Draft::baseline(spec, MethodName::Greedy);
    let greedy_is_drawn = drawn.iter().any(|draft| draft.computes() == greedy.computes());
    if spec.search.greedy_baseline || greedy_is_drawn {
        baselines.push(greedy);
    }

    let mut seen = HashSet::new();
    let mut tasks = Vec::new();
    let mut number = 0;
    for draft in baselines.into_iter().chain(drawn) {
        if !seen.insert(draft.computes()) {
            continue;
        }
        let id = match draft.origin {
            Origin::Baseline => draft.soup.method.to_string(),
            Origin::Point | Origin::Search => {
                number += 1;
                format!("{number:04}-{}", draft.soup.method)
            }
        };
        tasks.push(Task { id, soup: draft.soup, top: draft.top, origin: draft.origin, overrides: draft.overrides });
    }
    tasks
}

/// A task without its id.
struct Draft {
    soup: SoupSpec,
    top: Option<usize>,
    origin: Origin,
    overrides: Overrides,
}

impl Draft {
    fn new(spec: &Spec, overrides: Overrides, origin: Origin) -> Self {
        let soup = resolve_soup(&spec.soup_given, &overrides, spec.seed)
            .expect("overrides of a specification were validated when it was read");
        let top = overrides.get(TOP).and_then(serde_json::Value::as_u64).map(|top| top as usize).or(spec.zoo.top);
        Self { soup, top, origin, overrides }
    }

    fn baseline(spec: &Spec, method: MethodName) -> Self {
        let method = Overrides::from([("method".to_string(), method.as_str().into())]);
        Self { overrides: Overrides::new(), ..Self::new(spec, method, Origin::Baseline) }
    }

    /// What the task computes, as a text: equal for two tasks that give the same soup by the same steps.
    fn computes(&self) -> String {
        let soup = &self.soup;
        if soup.method.learns() {
            format!("{:?} {soup:?}", self.top)
        } else {
            // These have no hyperparameters.
            format!("{:?} {}", self.top, soup.method)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse::{Format, parse_spec_text};
    use super::super::spec::Grouping;
    use super::*;

    fn spec(rest: &str) -> Spec {
        let text = format!("zoo = {{ ingredients = 'z/*', top = 9 }}\ndata.learn = 'l'\n{rest}");
        parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap()
    }

    fn ids(spec: &Spec) -> Vec<String> {
        expand(spec).into_iter().map(|task| task.id).collect()
    }

    #[test]
    fn without_a_search_there_are_the_baselines_and_one_task() {
        let spec = spec("soup.method = 'hl'");
        let tasks = expand(&spec);
        assert_eq!(tasks.iter().map(|t| t.id.as_str()).collect::<Vec<_>>(), ["best", "uniform", "0001-hl"]);
        assert_eq!(tasks[2].soup, spec.soup);
        assert_eq!((tasks[0].top, tasks[0].soup.method), (Some(9), MethodName::Best));
        assert_eq!((tasks[0].origin, tasks[2].origin), (Origin::Baseline, Origin::Search));
    }

    #[test]
    fn points_come_first_and_duplicates_go() {
        let spec = spec(
            "[search]\npoints = [{ method = 'mehl', batch = 64 }, { method = 'uniform' }, { zoo.top = 3, method = 'uniform' }]\n\
             [search.space]\nbatch = [64, 128, 64]\nmethod = ['mehl', 'mehl+']",
        );
        let expected = ["best", "uniform", "0001-mehl", "0002-uniform", "0003-mehl+", "0004-mehl", "0005-mehl+"];
        assert_eq!(ids(&spec), expected);
        let tasks = expand(&spec);
        assert_eq!(tasks[2].origin, Origin::Point);
        assert_eq!((tasks[3].top, tasks[4].top), (Some(3), Some(9)));
        assert_eq!(tasks[5].overrides["batch"], serde_json::json!(128));
    }

    #[test]
    fn a_greedy_task_on_the_whole_zoo_is_the_greedy_baseline() {
        assert_eq!(ids(&spec("soup.method = 'greedy'")), ["best", "uniform", "greedy"]);
        assert_eq!(ids(&spec("search.greedy_baseline = true")), ["best", "uniform", "greedy", "0001-mehl+"]);
        let restricted = spec("soup.method = 'greedy'\nsearch.space.zoo.top = [3]");
        assert_eq!(ids(&restricted), ["best", "uniform", "0001-greedy"]);
    }

    #[test]
    fn methods_that_do_not_learn_have_no_hyperparameters_but_the_number_of_ingredients() {
        let spec =
            spec("search.space = { method = ['best', 'uniform', 'greedy', 'hl'], batch = [1, 2], zoo.top = [9, 3] }");
        let expected = [
            "best",
            "uniform",
            "greedy",
            "0001-best",
            "0002-uniform",
            "0003-greedy",
            "0004-hl",
            "0005-hl",
            "0006-hl",
            "0007-hl",
        ];
        assert_eq!(ids(&spec), expected);
    }

    #[test]
    fn defaults_follow_the_searched_method() {
        let spec = spec("soup.layer_groups = 'block'\nsearch.space.method = ['mehl', 'learned+']");
        let tasks = expand(&spec);
        assert_eq!((tasks[2].soup.layer_groups, tasks[2].soup.learning_rate), (Grouping::Model, 0.01));
        assert_eq!((tasks[3].soup.layer_groups, tasks[3].soup.learning_rate), (Grouping::Block, 0.05));
    }

    #[test]
    fn more_random_tasks_leave_the_first_ones_as_they_are_and_the_seed_changes_them() {
        let with = |tasks: usize, seed: u64| {
            expand(&spec(&format!(
                "seed = {seed}\n[search]\nstrategy = 'random'\ntasks = {tasks}\n[search.space]\n\
                 learning_rate = {{ log_uniform = [1e-3, 1e-1] }}\nbatch = {{ int = [1, 9] }}"
            )))
        };
        assert_eq!(with(4, 1).len(), 6);
        assert_eq!(with(4, 1), with(9, 1)[..6]);
        assert_ne!(with(4, 1)[2].overrides, with(4, 2)[2].overrides);
    }

    #[test]
    fn a_spec_that_was_stored_spans_the_same_tasks() {
        let spec = spec("[search.space]\nmodel_batch = ['auto', 2]\nlearning_rate = [1, 0.1]");
        let stored: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(stored, spec);
        assert_eq!(expand(&stored), expand(&spec));
    }
}
