//! Sweeps are read and deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::Api;
use super::error::ApiError;
use super::extract::Asked;
use super::types::{ErrorBody, SweepBody, SweepPage, SweepsQuery};
use crate::queue::TicketQueue;
use crate::store::{ApiStore, SweepRecord};
use crate::task::is_id;

/// Sweeps of a page, unless another number is asked for.
const PAGE: usize = 50;
/// Most sweeps of a page.
const LARGEST_PAGE: usize = 500;
/// Tasks that are removed at once.
const REMOVED: usize = 500;

/// A sweep of the store.
///
/// # Errors
/// If there is none of this id.
pub async fn record<S: ApiStore, Q>(api: &Api<S, Q>, id: &str) -> Result<SweepRecord, ApiError> {
    if !is_id(id) {
        return Err(ApiError::no_sweep(id));
    }
    api.store.sweep(id).await?.ok_or_else(|| ApiError::no_sweep(id))
}

/// Lists sweeps, newest first.
#[utoipa::path(
    get, path = "/v1/sweeps", tag = "sweeps", params(SweepsQuery),
    responses((status = 200, body = SweepPage), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn sweeps<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Asked(query): Asked<SweepsQuery>,
) -> Result<Json<SweepPage>, ApiError> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(ApiError::BadRequest(format!("limit: expected 1 to {LARGEST_PAGE}, found {limit}")));
    }
    let after = query.after.as_deref().map(cursor).transpose()?;
    let mut sweeps = api.store.sweeps().await?.records;
    sweeps.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    // By place in time, not by sweep: the one that ended the last page may be gone.
    let mut rest =
        sweeps.iter().filter(|sweep| after.as_ref().is_none_or(|after| (sweep.created, &*sweep.id) < *after));
    let page: Vec<&SweepRecord> = rest.by_ref().take(limit).collect();
    let next = match (page.last(), rest.next()) {
        (Some(last), Some(_)) => Some(format!("{}.{}", last.created, last.id)),
        _ => None,
    };
    Ok(Json(SweepPage { sweeps: page.into_iter().map(SweepBody::from).collect(), next }))
}

fn cursor(text: &str) -> Result<(u64, &str), ApiError> {
    let is_number = |text: &str| (1..=19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split_once('.').filter(|(created, id)| is_number(created) && is_id(id));
    let parts = parts.and_then(|(created, id)| Some((created.parse().ok()?, id)));
    parts.ok_or_else(|| ApiError::BadRequest("after: expected the value of `next` from the previous page".to_string()))
}

/// Returns the state and progress of a sweep.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses((status = 200, body = SweepBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn sweep<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<Json<SweepBody>, ApiError> {
    Ok(Json(SweepBody::from(&record(&api, &id).await?)))
}

/// Returns the resolved specification, with absolute paths.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/spec", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses(
        (status = 200, body = Object, content_type = "application/json"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn spec<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    record(&api, &id).await?;
    let (spec, _) = api.store.documents(&id).await?.ok_or_else(|| ApiError::no_sweep(&id))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], spec))
}

/// Deletes a sweep whose tasks have all ended, with its results. Cancel an unfinished sweep first.
#[utoipa::path(
    delete, path = "/v1/sweeps/{id}", tag = "sweeps", params(("id" = String, Path, description = "The sweep")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 409, body = ErrorBody, description = "The sweep has unfinished tasks: cancel it first"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn delete_sweep<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let found = record(&api, &id).await?;
    if !found.is_final() {
        return Err(ApiError::Conflict(format!("sweep {id} has unfinished tasks: cancel it first")));
    }
    while !api.store.remove(&id, REMOVED).await? {}
    api.known.forget(&id);
    tracing::info!(sweep = id, "sweep deleted");
    Ok(StatusCode::NO_CONTENT)
}
