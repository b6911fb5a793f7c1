//! Where a hyperplane method starts: `A` before the first model batch.

use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::spec::Init;

use super::{greedy, mean_of};
use crate::engine::TaskRun;
use crate::families::Precision;

/// The start that `soup.init` names, where `first` is the first model batch. The same in each attempt.
pub fn coefficients(run: &mut TaskRun<'_>, first: &[usize]) -> Result<Coefficients, EngineError> {
    // A base is no start: it lacks what fine-tuning has taught.
    let batch: Vec<usize> = first.iter().copied().filter(|k| run.members.contains(k)).collect();
    // The mean of a batch of one would make its own direction vanish.
    let batch = if batch.len() > 1 { batch } else { run.members.clone() };
    let members = match run.task.soup.init {
        Init::Auto => {
            if is_left(run, &batch)? {
                greedy::members(run)?
            } else {
                batch
            }
        }
        Init::BatchMean => batch,
        Init::Uniform => run.members.clone(),
        Init::Best => vec![run.best_member()?],
        Init::Greedy => greedy::members(run)?,
    };
    Ok(mean_of(run, &members))
}

/// Whether `auto` leaves the mean of a model batch for the greedy soup. Decided once: the greedy soup's state is in the checkpoint, and what has begun without it goes on
/// without it.
fn is_left(run: &mut TaskRun<'_>, batch: &[usize]) -> Result<bool, EngineError> {
    if run.state.greedy.is_some() {
        return Ok(true);
    }
    if run.state.current.is_some() || !run.state.finished.is_empty() {
        return Ok(false);
    }
    run.write_exact(&mean_of(run, batch))?;
    let found = match run.score_select(Precision::Full) {
        Ok(score) if !run.is_far(score)? => return Ok(false),
        Ok(score) => format!("{:.4}", score.loss),
        // Of models that do not fit together.
        Err(EngineError::Numerics(_)) => "no finite value".to_string(),
        Err(error) => return Err(error),
    };
    let best = run.ingredient_score(run.best_member()?)?;
    run.host.note(&format!(
        "task {}: the mean of {} ingredients has a select loss of {found}; the best ingredient has \
         {:.4}. \
         Some ingredients may be bad, so the task starts from the greedy soup",
        run.task.id,
        batch.len(),
        best.loss
    ));
    Ok(true)
}
