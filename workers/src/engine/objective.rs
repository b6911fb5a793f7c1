//! What a sweep's coefficients are learned for: by its specification, or by the configurations of
//! its ingredients.

use mehl_soup::runner::engine::EngineError;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::objective::{Objective, ObjectiveName};
use mehl_soup::sweep::spec::{DataSpec, Spec};
use mehl_soup::zoo::{Zoo, resolve_objective};

/// The objective of a sweep, and a note if it was found and not stated.
///
/// # Errors
/// If ingredients or keys of the specification contradict each other.
pub(super) fn resolve(spec: &Spec, zoo: &Zoo) -> Result<(Objective, Option<String>), EngineError> {
    let found = resolve_objective(zoo.ingredients(), spec.data.objective);
    let hint = if spec.data.objective.is_none() { " (set data.objective)" } else { "" };
    let found = found.map_err(|fault| EngineError::Input(format!("{fault}{hint}")))?;
    let (name, data) = (found.objective, &spec.data);
    let fault = |what: String| Err(EngineError::Input(what));
    if Metric::all_of(name.facts()).all(|metric| metric != data.metric) {
        let known: Vec<&str> = Metric::all_of(name.facts()).map(Metric::name).collect();
        let (found, expected) = (data.metric, known.join(", "));
        return fault(format!("data.metric: expected one of {expected} with objective `{name}`, found `{found}`"));
    }
    if let Some(scale) = data.scale.filter(|_| name != ObjectiveName::Pairs) {
        return fault(format!(
            "data.scale = {scale}: can only be used with objective `pairs`, found objective `{name}`"
        ));
    }
    let objective = match name {
        ObjectiveName::Classification => Objective::Classification,
        ObjectiveName::MultiLabel => Objective::MultiLabel,
        ObjectiveName::Regression => Objective::Regression,
        ObjectiveName::Score => Objective::Score,
        ObjectiveName::Pairs => {
            check_batch(name, spec.soup.batch)?;
            let scale = data.scale.unwrap_or(DataSpec::SCALE);
            Objective::Pairs { scale, batch: spec.soup.batch, seed: spec.seed }
        }
    };
    Ok((objective, found.note))
}

/// That a batch has samples to compare, where the objective compares them.
///
/// # Errors
/// For a batch of one with `pairs`.
pub(super) fn check_batch(objective: ObjectiveName, batch: usize) -> Result<(), EngineError> {
    if objective == ObjectiveName::Pairs && batch < 2 {
        let what =
            "soup.batch = 1: objective `pairs` compares each pair with the others of its batch, expected 2 or more";
        return Err(EngineError::Input(what.to_string()));
    }
    Ok(())
}
