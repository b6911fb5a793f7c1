//! The soups that nothing is learned for: the best ingredient, and the plain mean.

use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;

use super::{Method, mean_of};
use crate::engine::TaskRun;

/// The best ingredient by select.
pub struct Best;

impl Method for Best {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let best = run.best_member()?;
        Ok(mean_of(run, &[best]))
    }
}

/// The mean of all ingredients (Wortsman et al. 2022, arXiv 2203.05482, table 1).
pub struct Uniform;

impl Method for Uniform {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let members = run.members.clone();
        Ok(mean_of(run, &members))
    }
}
