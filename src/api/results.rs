//! What came of a sweep: the same rows as in the `results.json` of a run on one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Api;
use super::error::ApiError;
use super::known::Known;
use super::sweeps::record;
use super::types::ErrorBody;
use crate::queue::TicketQueue;
use crate::runner::engine::Effort;
use crate::runner::pool::PoolResult;
use crate::scheduler::SCORES;
use crate::store::{Completed, Store, StoreError, TaskRecord};
use crate::sweep::manifest::Manifest;
use crate::sweep::results::{SweepResults, TaskOutcome};
use crate::sweep::spec::{Family, Spec};
use crate::task::{TaskKey, TaskState};

/// Tasks that are read at once.
const PAGE: usize = 500;
/// Results that are asked for at once. Each brings its coefficients along, which may have megabytes.
const AT_ONCE: usize = 8;

/// Gives a sweep's results: every task, the best by select first. Unfinished tasks are in it with what there is.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/results", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses(
        (status = 200, body = Object, content_type = "application/json", description = "As `results.json` of `mehl-soup run`"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn results<S: Store, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<SweepResults>, ApiError> {
    so_far(&api, &id).await.map(|so_far| Json(so_far.results))
}

/// What there is of a sweep.
pub struct SoFar {
    /// Every task, with what came of it.
    pub results: SweepResults,
    /// Its specification and tasks.
    pub known: Arc<Known>,
    /// What the scores task found out, once it has.
    pub manifest: Option<Manifest>,
}

/// Gathers what there is of a sweep.
///
/// # Errors
/// If there is no such sweep, or the store does not tell.
pub async fn so_far<S: Store, Q>(api: &Api<S, Q>, id: &str) -> Result<SoFar, ApiError> {
    record(api, id).await?;
    let (spec, manifest) = api.store.documents(id).await?.ok_or_else(|| ApiError::no_sweep(id))?;
    let known = api.known.of(id, spec).await?;
    let manifest: Option<Manifest> = manifest
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|e| StoreError::Protocol(format!("the manifest of {id}: {e}")))?;
    let (mut outcomes, mut scores, mut from) = (BTreeMap::new(), None, 0);
    loop {
        let page = api.store.tasks(id, from, PAGE).await?;
        from += PAGE;
        let is_last = page.len() < PAGE;
        let (first, others): (Vec<TaskRecord>, Vec<TaskRecord>) =
            page.into_iter().partition(|record| record.key.task == SCORES);
        scores = scores.or(first.into_iter().next());
        let read = stream::iter(others).map(|record| outcome(&*api.store, &known, record)).buffer_unordered(AT_ONCE);
        outcomes.extend(read.try_collect::<Vec<_>>().await?);
        if is_last {
            break;
        }
    }
    let built = tokio::task::spawn_blocking(move || {
        let results = match &manifest {
            Some(manifest) => SweepResults::build(&known.spec, manifest, &known.tasks, &outcomes),
            None => {
                let mut results =
                    SweepResults::build(&known.spec, &nothing_known(&known.spec), &known.tasks, &outcomes);
                results.inputs_hash.clear();
                results.notes.push(unscored(scores.as_ref()));
                results
            }
        };
        SoFar { results, known, manifest }
    });
    built.await.map_err(|e| ApiError::Internal(format!("results were not built: {e}")))
}

async fn outcome(store: &impl Store, known: &Known, record: TaskRecord) -> Result<(String, TaskOutcome), ApiError> {
    let id = record.key.task.clone();
    if record.state == TaskState::Succeeded {
        if let Some(outcome) = known.outcome(&id) {
            return Ok((id, outcome));
        }
        if let Some(completed) = store.result(&record.key).await? {
            let outcome = result(&record.key, &completed)?.outcome;
            known.remember(&id, &outcome);
            return Ok((id, outcome));
        }
    }
    let attempts = u32::try_from(record.attempts).unwrap_or(u32::MAX);
    if matches!(record.state, TaskState::Waiting | TaskState::Pruned)
        && let Some(standing) = store.standing(&record.key).await?
    {
        let outcome: TaskOutcome = serde_json::from_str(&standing)
            .map_err(|e| StoreError::Protocol(format!("where {} stands: {e}", record.key)))?;
        return Ok((id, TaskOutcome { state: record.state, attempts, ..outcome }));
    }
    let outcome = TaskOutcome { state: record.state, attempts, ..TaskOutcome::queued() };
    Ok(match record.cause {
        Some(cause) if record.state == TaskState::Failed => {
            (id, TaskOutcome::failed(cause, Effort::default(), attempts))
        }
        _ => (id, outcome),
    })
}

/// A finished task's result.
///
/// # Errors
/// If the store holds something else.
pub fn result(key: &TaskKey, completed: &Completed) -> Result<PoolResult, StoreError> {
    serde_json::from_str(&completed.result).map_err(|e| StoreError::Protocol(format!("the result of {key}: {e}")))
}

/// In place of the manifest of a sweep whose scores task is not done.
fn nothing_known(spec: &Spec) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        family: spec.zoo.family.unwrap_or(Family::Vit),
        architecture: String::new(),
        ingredients: vec![],
        data: vec![],
        notes: vec![],
    }
}

fn unscored(scores: Option<&TaskRecord>) -> String {
    match scores {
        Some(TaskRecord { state: TaskState::Failed, cause, .. }) => {
            format!("the scores task failed: {}", cause.as_deref().unwrap_or("the cause is not known"))
        }
        Some(record) => format!("ingredients and data were not looked at yet: the scores task is {}", record.state),
        None => "ingredients and data were not looked at yet".to_string(),
    }
}
