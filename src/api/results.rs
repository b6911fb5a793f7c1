//! What came of a sweep: the same rows as in the `results.json` of a run on one machine.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use futures_util::stream::{self, StreamExt};

use super::Api;
use super::error::ApiError;
use super::snapshot::Snapshot;
use super::sweeps::record;
use super::types::ErrorBody;
use crate::queue::TicketQueue;
use crate::runner::pool::PoolResult;
use crate::store::{ApiStore, Completed, StoreError};
use crate::task::TaskKey;

/// Returns the results of a sweep: every task, ranked by select. Unfinished tasks have partial rows.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/results", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses(
        (status = 200, body = Object, content_type = "application/json", description = "As `results.json` of `mehl-soup run`"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn results<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let pieces = so_far(&api, &id).await?.pieces()?;
    // A piece is made when the client has taken the one before. Others have their turn in between.
    let pieces = stream::iter(pieces).then(async |piece| {
        tokio::task::yield_now().await;
        piece
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)))
}

/// What there is of a sweep.
///
/// # Errors
/// If there is no such sweep, or the store does not tell.
pub async fn so_far<S: ApiStore, Q>(api: &Api<S, Q>, id: &str) -> Result<Arc<Snapshot>, ApiError> {
    record(api, id).await?;
    let known = api.known.find_or_read(&*api.store, id).await?.ok_or_else(|| ApiError::no_sweep(id))?;
    let snapshot = known.snapshot(Snapshot::read(&*api.store, id, known.clone())).await;
    api.known.trim();
    snapshot
}

/// A finished task's result.
///
/// # Errors
/// If the store holds something else.
pub fn result(key: &TaskKey, completed: &Completed) -> Result<PoolResult, StoreError> {
    serde_json::from_str(&completed.result).map_err(|e| StoreError::Protocol(format!("the result of {key}: {e}")))
}
