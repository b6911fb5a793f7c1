//! Greedy soup: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1.

use mehl_soup::checkpoint::GreedyState;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::score::SplitScore;

use super::{Method, mean_of};
use crate::engine::TaskRun;
use crate::families::Precision;

/// Ingredients from the best to the worst on select; one is kept if the mean with it is not worse than without.
///
/// Always by the objective's first metric: accuracy for classification, as published. Equal ingredients are ranked by
/// loss.
pub struct Greedy;

impl Method for Greedy {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let members = members(run)?;
        Ok(mean_of(run, &members))
    }
}

/// The kept ingredients, in the order in which they were added. Resumes after the last candidate that was tried.
pub fn members(run: &mut TaskRun<'_>) -> Result<Vec<usize>, EngineError> {
    let ranking = ranking(run)?;
    if run.state.greedy.is_none() {
        let select = run.ingredient_score(ranking[0])?;
        run.state.greedy = Some(GreedyState { members: vec![ranking[0]], tried: 1, select: Some(select) });
    }
    while let Some(state) = run.state.greedy.clone().filter(|state| state.tried < ranking.len()) {
        let mut candidate = state.members.clone();
        candidate.push(ranking[state.tried]);
        // The mean is taken of the files each time: no running sum, so that nothing depends on where the task was resumed.
        let began = std::time::Instant::now();
        run.write_exact(&mean_of(run, &candidate))?;
        let score = run.score_select(Precision::Full)?;
        let keep = state.select.is_none_or(|best| cost(run, &score) <= cost(run, &best));
        run.state.greedy = Some(GreedyState {
            members: if keep { candidate } else { state.members },
            tried: state.tried + 1,
            select: if keep { Some(score) } else { state.select },
        });
        let rate = run.inputs.data.select.samples() as f64 / began.elapsed().as_secs_f64();
        run.tick("greedy", score.loss, rate)?;
    }
    Ok(run.state.greedy.as_ref().map(|state| state.members.clone()).unwrap_or_default())
}

/// By the objective's first metric, or by the loss if it has none: lower is better.
fn cost(run: &TaskRun<'_>, score: &SplitScore) -> f64 {
    let metric = run.inputs.objective.facts().metrics.first().map_or(Metric::LOSS, |facts| Metric::of(facts));
    score.get(metric).map_or(f64::NAN, |estimate| metric.cost(estimate.value))
}

fn ranking(run: &TaskRun<'_>) -> Result<Vec<usize>, EngineError> {
    let mut ranked = Vec::new();
    for &k in &run.members {
        ranked.push((k, run.ingredient_score(k)?));
    }
    ranked.sort_by(|(_, a), (_, b)| cost(run, a).total_cmp(&cost(run, b)).then(a.loss.total_cmp(&b.loss)));
    Ok(ranked.into_iter().map(|(k, _)| k).collect())
}
