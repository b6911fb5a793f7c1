//! The tasks that a sweep spans.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::parse::resolve_soup;
use super::spec::{Distribution, MethodName, Overrides, SoupSpec, Spec, Strategy};
use crate::task::{Origin, Task};

/// All tasks, in the order in which they begin: baselines, points, then the grid in the file's order or the samples in the order they are drawn;
/// without a search space the one task that the specification describes. No task is there twice.
///
/// The same specification always gives the same tasks, and more samples leave the first ones as they are.
pub fn expand(spec: &Spec) -> Vec<Task> {
    let mut candidates: Vec<(Overrides, Origin)> = Vec::new();
    candidates.extend(spec.search.points.iter().map(|point| (point.clone(), Origin::Point)));
    let drawn: Vec<Overrides> = match (spec.search.space.is_empty(), spec.search.strategy) {
        (true, _) if spec.search.points.is_empty() => vec![Overrides::new()],
        (true, _) => vec![],
        (false, Strategy::Grid) => grid(&spec.search.space),
        (false, Strategy::Random) => (0..spec.search.tasks).map(|i| sample(&spec.search.space, spec.seed, i)).collect(),
    };
    candidates.extend(drawn.into_iter().map(|overrides| (overrides, Origin::Search)));

    let top_of = |overrides: &Overrides| {
        overrides.get("zoo.top").and_then(serde_json::Value::as_u64).map(|top| top as usize).or(spec.zoo.top)
    };
    let resolved: Vec<(Overrides, Origin, SoupSpec)> = candidates
        .into_iter()
        .map(|(overrides, origin)| {
            let soup = resolve_soup(&spec.soup_given, &overrides, spec.seed);
            (overrides, origin, soup)
        })
        .collect();
    let greedy = spec.search.greedy_baseline || resolved.iter().any(|(_, _, soup)| soup.method == MethodName::Greedy);
    let mut baselines = vec![MethodName::Best, MethodName::Uniform];
    if greedy {
        baselines.push(MethodName::Greedy);
    }
    let mut seen = BTreeSet::new();
    let mut tasks = Vec::new();
    for method in baselines {
        let overrides = Overrides::from([("method".to_string(), method.as_str().into())]);
        let soup = resolve_soup(&spec.soup_given, &overrides, spec.seed);
        seen.insert(essence(&soup, spec.zoo.top));
        tasks.push(Task {
            id: method.to_string(),
            soup,
            top: spec.zoo.top,
            origin: Origin::Baseline,
            overrides: Overrides::new(),
        });
    }
    let mut number = 0;
    for (overrides, origin, soup) in resolved {
        let top = top_of(&overrides);
        if seen.insert(essence(&soup, top)) {
            number += 1;
            tasks.push(Task { id: format!("{number:04}-{}", soup.method), soup, top, origin, overrides });
        }
    }
    tasks
}

/// What two tasks have in common if they give the same soup.
fn essence(soup: &SoupSpec, top: Option<usize>) -> String {
    if soup.method.learns() {
        serde_json::to_string(&(soup, top)).unwrap_or_default()
    } else {
        format!("{} {top:?}", soup.method)
    }
}

/// Every combination; the last field changes fastest.
fn grid(space: &[(String, Distribution)]) -> Vec<Overrides> {
    let mut combinations = vec![Overrides::new()];
    for (key, distribution) in space {
        let values: Vec<serde_json::Value> = match distribution {
            Distribution::Choice(values) => values.clone(),
            Distribution::Int(low, high) => (*low..=*high).map(serde_json::Value::from).collect(),
            Distribution::Uniform(low, high) | Distribution::LogUniform(low, high) => {
                vec![(*low).into(), (*high).into()]
            }
        };
        combinations = combinations
            .iter()
            .flat_map(|overrides| {
                values.iter().map(|value| {
                    let mut next = overrides.clone();
                    next.insert(key.clone(), value.clone());
                    next
                })
            })
            .collect();
    }
    combinations
}

/// The `index`-th sample; depends on nothing but the space, the seed and its own number.
fn sample(space: &[(String, Distribution)], seed: u64, index: usize) -> Overrides {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(b"search").update(&(index as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes());
    space
        .iter()
        .map(|(key, distribution)| {
            let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let value: serde_json::Value = match distribution {
                Distribution::Choice(values) => values[(unit * values.len() as f64) as usize].clone(),
                Distribution::Uniform(low, high) => (low + (high - low) * unit).clamp(*low, *high).into(),
                Distribution::LogUniform(low, high) => {
                    (low.ln() + (high.ln() - low.ln()) * unit).exp().clamp(*low, *high).into()
                }
                Distribution::Int(low, high) => (low + (unit * ((high - low) as f64 + 1.0)) as i64).min(*high).into(),
            };
            (key.clone(), value)
        })
        .collect()
}
