//! The tasks that a specification spans.

use std::collections::HashSet;

use super::parse::{SpecError, TOP, resolve_soup};
use super::space;
use super::spec::{MethodName, Overrides, SoupSpec, Spec, Strategy};
use crate::sweep::task::{Origin, Task};

/// The tasks of a sweep, in the order in which they run: the baselines `best`, `uniform`, if asked for or among the tasks `greedy`, and where the zoo has a base `model-stock`;
/// then `search.points`; then the grid, lexicographic in the order of the file, or the random samples; without a space, the one task that `[soup]` describes.
///
/// A task that computes the same as an earlier one is left out, so a search may have fewer tasks than it draws. The others are numbered
/// without gaps: `0001-mehl+`.
///
/// # Panics
/// As [`Expansion::new`].
pub fn expand(spec: &Spec) -> Vec<Task> {
    Expansion::new(spec.clone()).iter().collect()
}

/// The tasks of a sweep, as [`expand`] lists them, in about a hundred bytes each. A [`Task`] takes
/// ten times as much, and is made when it is asked for.
#[derive(Debug, Clone)]
pub struct Expansion {
    spec: Spec,
    drafts: Vec<Draft>,
    baselines: usize,
}

impl Expansion {
    /// Spans the tasks of a specification. Takes seconds for a hundred thousand.
    ///
    /// # Panics
    /// If the specification does not come from [`parse_spec`](super::parse::parse_spec), or from
    /// what that returned, and an override in it is not valid.
    pub fn new(spec: Spec) -> Self {
        let points = (0..spec.search.points.len()).map(Source::Point);
        let searched = (0..searched(&spec)).map(Source::Search);
        let given = given(&spec);
        let draft = |source| Draft::new(&spec, &given, source);
        let drawn: Vec<(Draft, Key)> = points.chain(searched).map(draft).collect();

        let baseline = |method| draft(Source::Baseline(method));
        let mut baselines = vec![baseline(MethodName::Best), baseline(MethodName::Uniform)];
        let greedy = baseline(MethodName::Greedy);
        if spec.search.greedy_baseline || drawn.iter().any(|(_, key)| *key == greedy.1) {
            baselines.push(greedy);
        }
        if spec.zoo.base.is_some() {
            baselines.push(baseline(MethodName::ModelStock));
        }

        let count = baselines.len();
        let mut seen = HashSet::with_capacity(count + drawn.len());
        let all = baselines.into_iter().chain(drawn);
        let mut drafts: Vec<Draft> = all.filter(|(_, key)| seen.insert(*key)).map(|(draft, _)| draft).collect();
        drafts.shrink_to_fit();
        Self { spec, drafts, baselines: count }
    }

    /// The specification.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Number of tasks, baselines included.
    pub fn len(&self) -> usize {
        self.drafts.len()
    }

    /// Whether there is no task. There always is one: the baselines.
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// Number of baselines. They are the first tasks.
    pub fn baselines(&self) -> usize {
        self.baselines
    }

    /// The tasks in order.
    pub fn iter(&self) -> impl Iterator<Item = Task> + '_ {
        (0..self.len()).filter_map(|place| self.task(place))
    }

    /// The task at a place, from 0.
    pub fn task(&self, place: usize) -> Option<Task> {
        let Draft { source, soup } = self.drafts.get(place)?;
        let overrides = source.overrides(&self.spec);
        Some(Task {
            id: self.id(place)?,
            soup: soup.clone(),
            top: top(&self.spec, &overrides),
            origin: source.origin(),
            // What tells a baseline from the rest is its method, which nobody searched.
            overrides: if matches!(source, Source::Baseline(_)) { Overrides::new() } else { overrides },
        })
    }

    /// The place of the task of this id, from 0.
    pub fn place_of(&self, id: &str) -> Option<usize> {
        let place = match id.split_once('-').and_then(|(number, _)| number.parse::<usize>().ok()) {
            Some(number) => self.baselines.checked_add(number)?.checked_sub(1)?,
            None => (0..self.baselines).find(|&place| self.id(place).as_deref() == Some(id))?,
        };
        // The method is a part of the id, and a number can be written in other ways.
        (self.id(place)? == id).then_some(place)
    }

    /// Bytes of memory that the tasks take.
    pub fn bytes(&self) -> usize {
        self.drafts.capacity() * size_of::<Draft>()
    }

    fn id(&self, place: usize) -> Option<String> {
        let method = self.drafts.get(place)?.soup.method;
        Some(match (place + 1).checked_sub(self.baselines) {
            None | Some(0) => method.to_string(),
            Some(number) => numbered(number, method),
        })
    }
}

/// A task with these values in place of those of `[soup]`, for searches that choose values
/// themselves. `number` counts the tasks besides the baselines, from 1.
///
/// # Errors
/// If a key or a value is not one that can be searched.
pub fn chosen_task(spec: &Spec, number: usize, overrides: Overrides) -> Result<Task, SpecError> {
    let soup = resolve_soup(&given(spec), &overrides, spec.seed)?;
    Ok(Task { id: numbered(number, soup.method), soup, top: top(spec, &overrides), origin: Origin::Search, overrides })
}

/// Id of a task that is no baseline.
fn numbered(number: usize, method: MethodName) -> String {
    format!("{number:04}-{method}")
}

/// The fields of `[soup]`, the method among them: what was stored keeps it, whatever the default
/// is now.
fn given(spec: &Spec) -> Overrides {
    let mut given = spec.soup_given.clone();
    given.entry("method".to_string()).or_insert_with(|| spec.soup.method.as_str().into());
    given
}

/// Number of tasks that the search draws.
fn searched(spec: &Spec) -> usize {
    if is_sampled(spec) {
        return spec.search.tasks;
    }
    // An empty space has one combination: no override at all.
    usize::try_from(space::grid_size(&spec.search.space, spec.soup.method)).unwrap_or(usize::MAX)
}

/// Whether tasks are drawn at random. Nothing can be drawn from an empty space.
fn is_sampled(spec: &Spec) -> bool {
    matches!(spec.search.strategy, Strategy::Random | Strategy::Asha) && !spec.search.space.is_empty()
}

/// Number of ingredients of a task with these overrides.
fn top(spec: &Spec, overrides: &Overrides) -> Option<usize> {
    overrides.get(TOP).and_then(serde_json::Value::as_u64).map(|top| top as usize).or(spec.zoo.top)
}

/// Hash of what a task computes: equal for two tasks that give the same soup by the same steps.
type Key = [u8; 32];

/// A task without what its specification tells.
#[derive(Debug, Clone)]
struct Draft {
    source: Source,
    soup: SoupSpec,
}

impl Draft {
    /// `given` are the fields of `[soup]`, the method among them.
    fn new(spec: &Spec, given: &Overrides, source: Source) -> (Self, Key) {
        let overrides = source.overrides(spec);
        let soup = resolve_soup(given, &overrides, spec.seed)
            .expect("overrides of a specification were validated when it was read");
        let top = top(spec, &overrides);
        let computes = if soup.method.learns() {
            serde_json::to_vec(&(top, &soup))
        } else {
            // These have no hyperparameters.
            serde_json::to_vec(&(top, soup.method))
        };
        let key = blake3::hash(&computes.expect("plain data serializes"));
        (Self { source, soup }, *key.as_bytes())
    }
}

/// Where a task's overrides are found.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A baseline: the method is all that it overrides.
    Baseline(MethodName),
    /// One of `search.points`.
    Point(usize),
    /// A combination of the grid, or a sample.
    Search(usize),
}

impl Source {
    fn origin(self) -> Origin {
        match self {
            Self::Baseline(_) => Origin::Baseline,
            Self::Point(_) => Origin::Point,
            Self::Search(_) => Origin::Search,
        }
    }

    fn overrides(self, spec: &Spec) -> Overrides {
        let (space, method) = (&spec.search.space, spec.soup.method);
        match self {
            Self::Baseline(method) => Overrides::from([("method".to_string(), method.as_str().into())]),
            Self::Point(index) => spec.search.points.get(index).cloned().unwrap_or_default(),
            Self::Search(index) if is_sampled(spec) => space::sample(space, method, spec.seed, index as u64),
            Self::Search(index) => space::combination(space, method, index as u128).unwrap_or_default(),
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
    fn a_chosen_task_is_the_one_that_a_grid_would_list() {
        let spec = spec("search.space = { batch = [64], zoo.top = [3] }");
        let listed = expand(&spec).pop().unwrap();
        assert_eq!(chosen_task(&spec, 1, listed.overrides.clone()).unwrap(), listed);
        let unknown = Overrides::from([("batches".to_string(), 1.into())]);
        assert!(chosen_task(&spec, 2, unknown).is_err());
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
        assert_eq!(ids(&spec("search.greedy_baseline = true")), ["best", "uniform", "greedy", "0001-steady"]);
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
    fn a_task_is_found_by_its_id_and_by_no_other_spelling_of_it() {
        let expansion = Expansion::new(spec(
            "[search]\ngreedy_baseline = true\npoints = [{ method = 'hl' }]\n[search.space]\nbatch = [1, 2]",
        ));
        assert_eq!((expansion.len(), expansion.baselines()), (6, 3));
        for (place, task) in expansion.iter().enumerate() {
            assert_eq!(expansion.place_of(&task.id), Some(place), "{}", task.id);
        }
        for other in ["", "hl", "scores", "1-hl", "00001-hl", "0001-steady", "0000-hl", "0004-steady", "-1-hl"] {
            assert_eq!(expansion.place_of(other), None, "{other}");
        }
        assert_eq!(expansion.task(6), None);
    }

    /// A scheduler keeps the tasks of many large sweeps in memory.
    #[test]
    fn a_task_takes_about_a_hundred_bytes() {
        let expansion = Expansion::new(spec("[search.space]\nseed = { int = [1, 1000] }"));
        assert_eq!(expansion.len(), 1002);
        assert!(expansion.bytes() <= 1002 * 144, "{} bytes", expansion.bytes());
    }

    /// A sweep of a pool may have begun when another method was the default.
    #[test]
    fn a_stored_spec_keeps_the_method_that_was_the_default() {
        let mut stored = spec("search.space.batch = [1, 2]");
        stored.soup = spec("soup.method = 'mehl+'").soup;
        assert_eq!(ids(&stored), ["best", "uniform", "0001-mehl+", "0002-mehl+"]);
        assert_eq!(expand(&stored)[2].soup.learning_rate, 0.01);
    }

    #[test]
    fn a_spec_that_was_stored_spans_the_same_tasks() {
        let spec = spec("[search.space]\nmodel_batch = ['auto', 2]\nlearning_rate = [1, 0.1]");
        let stored: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!(stored, spec);
        assert_eq!(expand(&stored), expand(&spec));
    }
}
