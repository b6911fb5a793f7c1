//! Cancel, pause, resume, retry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::Api;
use super::error::ApiError;
use super::sweeps::record;
use super::types::{ChangedBody, ErrorBody, order_word};
use crate::queue::TicketQueue;
use crate::scheduler::{SCORES, scores_task};
use crate::store::{ApiStore, Order, Stage, StoreError, Walked};

/// Tasks that are looked at at once.
const WALKED: usize = 500;

/// Cancels a sweep permanently. Running tasks stop within an iteration; results are kept.
#[utoipa::path(
    post, path = "/v1/sweeps/{id}/cancel", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses((status = 200, body = ChangedBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn cancel<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<ChangedBody>, ApiError> {
    order(&api, &id, Order::Cancel).await
}

/// Pauses a sweep until it is resumed. Running tasks save a checkpoint and stop within an iteration.
#[utoipa::path(
    post, path = "/v1/sweeps/{id}/pause", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses((status = 200, body = ChangedBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn pause<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<ChangedBody>, ApiError> {
    order(&api, &id, Order::Pause).await
}

/// Resumes a paused sweep from its checkpoints.
#[utoipa::path(
    post, path = "/v1/sweeps/{id}/resume", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses((status = 200, body = ChangedBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn resume<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<ChangedBody>, ApiError> {
    order(&api, &id, Order::Continue).await
}

/// Starts the failed tasks of a sweep again, and those cancelled because the scores task failed.
#[utoipa::path(
    post, path = "/v1/sweeps/{id}/retry", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses((status = 200, body = ChangedBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn retry<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<ChangedBody>, ApiError> {
    let found = record(&api, &id).await?;
    if found.order == Order::Cancel {
        return Err(ended(&id));
    }
    let changed = walk(|from| api.store.retry(&id, from, WALKED)).await?;
    api.changed.notify_one();
    tracing::info!(sweep = id, changed, "failed tasks start again");
    Ok(Json(ChangedBody { order: order_word(found.order).to_string(), id, changed }))
}

fn ended(id: &str) -> ApiError {
    ApiError::Conflict(format!("sweep {id} is cancelled or out of time: submit it again"))
}

async fn order<S: ApiStore, Q: TicketQueue>(
    api: &Api<S, Q>,
    id: &str,
    asked: Order,
) -> Result<Json<ChangedBody>, ApiError> {
    let found = record(api, id).await?;
    if !api.store.order(id, asked).await? {
        return Err(ended(id));
    }
    if asked == Order::Cancel && found.stage == Stage::Creating {
        finish_creation(api, id).await?;
    }
    // The scheduler does this too; here it is done when the answer says so.
    let changed = walk(|from| api.store.settle(id, from, WALKED)).await?;
    api.changed.notify_one();
    let order = record(api, id).await?.order;
    tracing::info!(sweep = id, changed, "{asked:?}");
    Ok(Json(ChangedBody { id: id.to_string(), order: order_word(order).to_string(), changed }))
}

/// A sweep whose creation was cut off could be neither worked on nor deleted: with its scores task it is whole enough to be cancelled.
async fn finish_creation<S: ApiStore, Q>(api: &Api<S, Q>, id: &str) -> Result<(), ApiError> {
    let added = api.store.add_tasks(id, 0, &[scores_task()]).await;
    match added {
        Ok(_) => {}
        // Whoever creates it was quicker: it is open.
        Err(StoreError::Protocol(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    tracing::debug!(sweep = id, task = SCORES, "opened to be cancelled");
    Ok(api.store.open_sweep(id).await.map(drop)?)
}

/// From place to place until all tasks were looked at.
async fn walk<F: Future<Output = Result<Walked, StoreError>>>(
    mut step: impl FnMut(usize) -> F,
) -> Result<usize, StoreError> {
    let (mut changed, mut from) = (0, Some(0));
    while let Some(place) = from {
        let walked = step(place).await?;
        changed += walked.changed;
        from = walked.next;
    }
    Ok(changed)
}
