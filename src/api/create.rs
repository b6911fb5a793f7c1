//! `POST /v1/sweeps`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::IntoResponse;

use super::Api;
use super::error::ApiError;
use super::extract::Body;
use super::types::{CreatedBody, ErrorBody, NewSweepBody};
use crate::queue::TicketQueue;
use crate::scheduler::{Terms, admit, scores_task, soup_task};
use crate::search::{Searches, first_tasks};
use crate::store::{ApiStore, NewTask};
use crate::sweep::parse::parse_spec_text;
use crate::sweep::spec::Spec;
use crate::sweep::task::Origin;
use crate::untrusted::LARGEST_SPEC;

/// Where a client may put its key too.
const KEY_HEADER: &str = "idempotency-key";
/// Highest priority, and lowest with its sign changed.
const HIGHEST_PRIORITY: i64 = 1000;
/// Most attempts of a task.
const MOST_ATTEMPTS: u32 = 100;
/// Longest key and name, in bytes.
const LONGEST_TEXT: usize = 200;

/// Creates a sweep.
#[utoipa::path(
    post, path = "/v1/sweeps", tag = "sweeps", request_body = NewSweepBody,
    params((
        "Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 200, pattern = "^[!-~]+$",
        description = "Idempotency key, the same as the field `key`. If both are sent and differ, the answer is 400",
    )),
    responses(
        (status = 201, body = CreatedBody, description = "Created. `Location` is its address"),
        (status = 200, body = CreatedBody, description = "The key was used before: this is its sweep, completed if it was incomplete"),
        (status = 400, body = ErrorBody, description = "Invalid request, for example an invalid specification, or a header `Idempotency-Key` that differs from the field `key`"),
        (status = 409, body = ErrorBody, description = "The key was used before with another specification"),
        (status = 413, body = ErrorBody, description = "The body or the specification is too large"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn create_sweep<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    headers: HeaderMap,
    Body(body): Body<NewSweepBody>,
) -> Result<impl IntoResponse, ApiError> {
    let key = key(&headers, body.key.as_deref())?;
    let terms = terms(&body, api.settings.attempts)?;
    let turn = api.creations.acquire().await.map_err(|e| ApiError::Internal(e.to_string()))?;
    let limit = api.settings.most_tasks;
    let read = tokio::task::spawn_blocking(move || read(&body, limit));
    let (spec, tasks) = read.await.map_err(|e| ApiError::Internal(format!("a specification was not read: {e}")))??;
    let admitted = admit(&*api.store, &spec, &tasks, terms, key.as_deref()).await?;
    drop(turn);
    api.changed.notify_one();
    tracing::info!(sweep = admitted.id, tasks = tasks.len(), is_new = admitted.is_new, "sweep admitted");
    let status = if admitted.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/sweeps/{}", admitted.id);
    Ok((status, [(header::LOCATION, location)], Json(CreatedBody { id: admitted.id })))
}

fn bad<T>(what: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::BadRequest(what.into()))
}

/// The client's key, from the header or the body.
fn key(headers: &HeaderMap, in_body: Option<&str>) -> Result<Option<String>, ApiError> {
    let in_header = headers.get(HeaderName::from_static(KEY_HEADER));
    let key = match (in_header.map(|value| value.to_str()), in_body) {
        (Some(Err(_)), _) => return bad("Idempotency-Key: expected printable ASCII"),
        (Some(Ok(in_header)), Some(in_body)) if in_header != in_body => {
            return bad("the header Idempotency-Key and the field `key` differ");
        }
        (Some(Ok(key)), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    if !(1..=LONGEST_TEXT).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return bad(format!("key: expected 1 to {LONGEST_TEXT} printable ASCII characters without spaces"));
    }
    Ok(Some(key.to_string()))
}

fn terms(body: &NewSweepBody, attempts: u32) -> Result<Terms, ApiError> {
    let default = Terms::default();
    let priority = body.priority.unwrap_or(default.priority);
    if !(-HIGHEST_PRIORITY..=HIGHEST_PRIORITY).contains(&priority) {
        return bad(format!(
            "priority: expected a number from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}, found {priority}"
        ));
    }
    let attempts = body.attempts.unwrap_or(attempts);
    if !(1..=MOST_ATTEMPTS).contains(&attempts) {
        return bad(format!("attempts: expected a number from 1 to {MOST_ATTEMPTS}, found {attempts}"));
    }
    if body.max_running == Some(0) {
        return bad("max_running: expected at least 1, found 0; omit it for no limit");
    }
    Ok(Terms { priority, cap: body.max_running.unwrap_or(default.cap), attempts, ..default })
}

/// The specification and its tasks. Takes seconds for the largest.
fn read(body: &NewSweepBody, limit: usize) -> Result<(Spec, Vec<NewTask>), ApiError> {
    if body.spec.len() as u64 > LARGEST_SPEC {
        let found = body.spec.len();
        return Err(ApiError::TooLarge(format!("spec: expected at most {LARGEST_SPEC} bytes, found {found}")));
    }
    let folder = PathBuf::from(body.folder.as_deref().unwrap_or("/"));
    if !folder.is_absolute() {
        return bad(format!("folder: expected an absolute path, found `{}`", cut(body.folder.as_deref())));
    }
    let mut spec = parse_spec_text(&body.spec, body.format.into(), Path::new(&folder)).map_err(ApiError::BadSpec)?;
    if let Some(name) = &body.name {
        spec.name = name.clone();
    }
    if !(1..=LONGEST_TEXT).contains(&spec.name.len()) || spec.name.chars().any(char::is_control) {
        return bad(format!("name: expected 1 to {LONGEST_TEXT} bytes of text without control characters"));
    }
    let first = first_tasks(&*Searches::default().of(&spec));
    // Scores task and baselines are not counted: nobody asked for them.
    let asked = first.iter().filter(|task| task.origin != Origin::Baseline).count();
    if asked > limit {
        return bad(format!("expected at most {limit} tasks, not counting baselines, found {asked}"));
    }
    let tasks = std::iter::once(scores_task()).chain(first.into_iter().map(|task| soup_task(&task))).collect();
    Ok((spec, tasks))
}

fn cut(text: Option<&str>) -> String {
    text.unwrap_or_default().chars().take(200).collect()
}
