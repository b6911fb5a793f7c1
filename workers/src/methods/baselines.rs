//! The soups that nothing is learned for: the best ingredient, the plain mean, and Model Stock.

use mehl_soup::coefficients::{Coefficients, model_stock};
use mehl_soup::runner::engine::EngineError;

use super::{Method, mean_of};
use crate::engine::{TaskRun, zoo_error};

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

/// Model Stock (Jang et al. 2024, arXiv 2403.19522).
pub struct ModelStock;

impl Method for ModelStock {
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError> {
        let zoo = &run.inputs.zoo;
        if zoo.base().is_none() {
            return Err(EngineError::Input("method `model-stock` needs zoo.base".to_string()));
        }
        let names = run.mixed.names.iter().map(String::as_str);
        let tensors: Vec<(&str, usize)> = names.zip(run.mixed.groups.iter().copied()).collect();
        model_stock(zoo, &run.members, &tensors, run.mixed.group_count).map_err(zoo_error)
    }
}
