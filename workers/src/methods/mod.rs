//! Soup methods. Adding one means one file that implements [`Method`] and one line in [`by_name`].

mod baselines;
mod blocks;
mod greedy;
mod hyperplane;
mod learned;
mod start;
mod steady;

use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::MethodName;

use crate::engine::TaskRun;

pub use blocks::{Block, Blocks};
pub use hyperplane::model_batches;
pub use learned::Softmax;
pub use steady::{Steady, units};

/// Finds coefficients.
pub trait Method {
    /// Runs from wherever the task's state stands to the final coefficients, over all ingredients.
    ///
    /// Keeps `run.state` complete whenever it calls [`TaskRun::tick`], so that the task can be killed there and go on elsewhere.
    ///
    /// # Errors
    /// As [`mehl_soup::runner::engine::SoupEngine::run`].
    fn run(&self, run: &mut TaskRun<'_>) -> Result<Coefficients, EngineError>;
}

/// The method of a name.
pub fn by_name(name: MethodName) -> Box<dyn Method> {
    match name {
        MethodName::Best => Box::new(baselines::Best),
        MethodName::Uniform => Box::new(baselines::Uniform),
        MethodName::Greedy => Box::new(greedy::Greedy),
        MethodName::ModelStock => Box::new(baselines::ModelStock),
        MethodName::Learned | MethodName::LearnedPlus => Box::new(learned::Learned),
        MethodName::Hl | MethodName::HlPlus => Box::new(hyperplane::Hyperplane { all_in_one: true }),
        MethodName::Mehl | MethodName::MehlPlus | MethodName::Steady => {
            Box::new(hyperplane::Hyperplane { all_in_one: false })
        }
    }
}

/// The mean of some ingredients, over all of the zoo.
fn mean_of(run: &TaskRun<'_>, members: &[usize]) -> Coefficients {
    Coefficients::mean_of(run.inputs.zoo.rows(), run.mixed.group_count, members)
}
