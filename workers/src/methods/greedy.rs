//! Greedy soup: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1.

use std::time::Instant;

use mehl_soup::checkpoint::GreedyState;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::score::SplitScore;

use super::{Method, mean_of};
use crate::engine::{Inputs, TaskRun, span_error, torch_error};
use crate::families::Precision;
use crate::hyperplane::RunningMean;

/// Ingredients from the best to the worst on select; one is kept if the mean with it is not worse than without.
///
/// By accuracy for classification, as published; equal ingredients are ranked by loss. By loss for other objectives: a
/// correlation, for example, does not change with the scale of the outputs.
pub struct Greedy;

impl Method for Greedy {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let members = members(run)?;
        Ok(mean_of(run, &members))
    }
}

/// The kept ingredients, in the order in which they were added. Resumes after the last candidate that was tried.
///
/// A candidate is scored as the running mean of the kept ingredients with one more: each file is read once, and a
/// resumed task computes the same bits from the kept ingredients in their order.
pub fn members(run: &mut TaskRun<'_>) -> Result<Vec<usize>, EngineError> {
    let ranking = ranking(run)?;
    let mut state = match run.state.greedy.clone() {
        Some(state) => state,
        None => {
            let select = run.ingredient_score(ranking[0])?;
            GreedyState { members: vec![ranking[0]], tried: 1, select: Some(select) }
        }
    };
    if state.tried < ranking.len() {
        let Inputs { zoo, device, kind, .. } = run.inputs;
        let mut mean = RunningMean::new(zoo, &state.members, &run.mixed, *device, *kind).map_err(span_error)?;
        let leaves = run.inputs.leaves(&run.mixed.names, Precision::Full)?.tensors;
        while let Some(&next) = ranking.get(state.tried) {
            let began = Instant::now();
            mean.write_with(zoo, next, &run.mixed, &leaves).map_err(span_error)?;
            let score = run.score_select(Precision::Full)?;
            if state.select.is_none_or(|best| cost(run, &score) <= cost(run, &best)) {
                mean.take(&leaves).map_err(torch_error)?;
                state.members.push(next);
                state.select = Some(score);
            }
            state.tried += 1;
            run.state.greedy = Some(state.clone());
            let rate = run.inputs.data.select.samples() as f64 / began.elapsed().as_secs_f64();
            run.tick("greedy", score.loss, rate)?;
        }
    }
    let members = state.members.clone();
    run.state.greedy = Some(state);
    Ok(members)
}

/// By the objective's first metric if it is a share of samples, else by the loss: lower is better.
fn cost(run: &TaskRun<'_>, score: &SplitScore) -> f64 {
    let share = run.inputs.objective.facts().metrics.first().filter(|facts| facts.is_share);
    let metric = share.map_or(Metric::LOSS, |facts| Metric::of(facts));
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
