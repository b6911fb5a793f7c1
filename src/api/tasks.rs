//! Tasks are read.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::Api;
use super::error::ApiError;
use super::extract::Asked;
use super::results::result;
use super::sweeps::record as sweep_record;
use super::types::{ErrorBody, EventsBody, HistoryBody, TaskBody, TaskDetail, TaskPage, TasksQuery};
use crate::queue::TicketQueue;
use crate::scheduler::SCORES;
use crate::store::{ApiStore, StoreError, TaskRecord};
use crate::sweep::results::Hyperparameters;
use crate::task::{TaskKey, TaskState};

/// Tasks of a page, unless another number is asked for.
const PAGE: usize = 100;
/// Most tasks of a page.
const LARGEST_PAGE: usize = 1000;
/// Most tasks that are looked through for one page of those in a state.
const SEARCHED: usize = 10_000;

/// A task of the store.
async fn record<S: ApiStore, Q>(api: &Api<S, Q>, sweep: &str, task: &str) -> Result<TaskRecord, ApiError> {
    let Ok(key) = TaskKey::new(sweep, task) else {
        return Err(ApiError::no_task(task));
    };
    match api.store.task(&key).await? {
        Some(record) => Ok(record),
        // Which of the two is not there?
        None => Err(sweep_record(api, sweep).await.err().unwrap_or_else(|| ApiError::no_task(task))),
    }
}

/// Lists the tasks of a sweep, in the order of the sweep.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/tasks", tag = "tasks", params(("id" = String, Path, description = "The sweep"), TasksQuery),
    responses((status = 200, body = TaskPage), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn tasks<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
    Asked(query): Asked<TasksQuery>,
) -> Result<Json<TaskPage>, ApiError> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(ApiError::BadRequest(format!("limit: expected 1 to {LARGEST_PAGE}, found {limit}")));
    }
    let state = query.state.as_deref().map(|word| {
        let words = TaskState::ALL.map(TaskState::as_str).join(", ");
        TaskState::parse(word).ok_or_else(|| ApiError::BadRequest(format!("state: expected one of {words}")))
    });
    let state = state.transpose()?;
    let begin = query.from.unwrap_or(0);
    if begin > u32::MAX as usize {
        return Err(ApiError::BadRequest(format!("from: expected at most {}, found {begin}", u32::MAX)));
    }
    sweep_record(&api, &id).await?;
    let (mut found, mut from) = (Vec::new(), begin);
    // Without a state one look is enough; with one, a look is as wide as a page can be.
    let wide = if state.is_some() { LARGEST_PAGE } else { limit };
    while from - begin < SEARCHED {
        let records = api.store.tasks(&id, from, wide).await?;
        for (place, record) in records.iter().enumerate() {
            if state.is_none_or(|state| record.state == state) {
                found.push(TaskBody::from(record));
            }
            if found.len() == limit {
                let is_last = place + 1 == records.len() && records.len() < wide;
                return Ok(Json(TaskPage { tasks: found, next: (!is_last).then_some(from + place + 1) }));
            }
        }
        from += wide;
        if records.len() < wide {
            return Ok(Json(TaskPage { tasks: found, next: None }));
        }
    }
    Ok(Json(TaskPage { tasks: found, next: Some(from) }))
}

/// Returns a task: state, hyperparameters, last iteration.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/tasks/{task}", tag = "tasks",
    params(("id" = String, Path, description = "The sweep"), ("task" = String, Path, description = "The task")),
    responses((status = 200, body = TaskDetail), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn task<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path((id, task)): Path<(String, String)>,
) -> Result<Json<TaskDetail>, ApiError> {
    let record = record(&api, &id, &task).await?;
    let progress = api.store.progress(&record.key).await?;
    let known = api.known.find_or_read(&*api.store, &id).await?.ok_or_else(|| ApiError::no_sweep(&id))?;
    let spanned = known.task(&task);
    let hyperparameters = spanned
        .as_ref()
        .map(|task| serde_json::to_value(Hyperparameters { soup: task.soup.clone(), top: task.top }))
        .transpose()
        .map_err(|e| ApiError::Internal(e.to_string()))?;
    Ok(Json(TaskDetail {
        task: TaskBody::from(&record),
        // A worker of another version may say what this one does not understand: it is for people.
        progress: progress.and_then(|text| serde_json::from_str(&text).ok()),
        hyperparameters,
        searched: spanned.map(|task| task.overrides).unwrap_or_default(),
    }))
}

/// Lists the events of a task.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/tasks/{task}/events", tag = "tasks",
    params(("id" = String, Path, description = "The sweep"), ("task" = String, Path, description = "The task")),
    responses((status = 200, body = EventsBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn events<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path((id, task)): Path<(String, String)>,
) -> Result<Json<EventsBody>, ApiError> {
    let record = record(&api, &id, &task).await?;
    let events = api.store.events(&record.key).await?;
    Ok(Json(EventsBody { events: events.into_iter().map(Into::into).collect() }))
}

/// Returns the iterations of a finished task, for plots.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/tasks/{task}/history", tag = "tasks",
    params(("id" = String, Path, description = "The sweep"), ("task" = String, Path, description = "The task")),
    responses((status = 200, body = HistoryBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn history<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path((id, task)): Path<(String, String)>,
) -> Result<Json<HistoryBody>, ApiError> {
    let record = record(&api, &id, &task).await?;
    let completed = if record.has_result && task != SCORES { api.store.result(&record.key).await? } else { None };
    let points = completed.map(|completed| result(&record.key, &completed)).transpose()?.map(|result| result.history);
    Ok(Json(HistoryBody { points: points.unwrap_or_default() }))
}

/// Returns the coefficients of a finished task: the file that `mehl-soup materialize` reads.
#[utoipa::path(
    get, path = "/v1/sweeps/{id}/tasks/{task}/coefficients", tag = "tasks",
    params(("id" = String, Path, description = "The sweep"), ("task" = String, Path, description = "The task")),
    responses(
        (status = 200, body = [u8], content_type = "application/octet-stream"),
        (status = 404, body = ErrorBody, description = "No such task, or it has no result yet"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn coefficients<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path((id, task)): Path<(String, String)>,
) -> Result<impl IntoResponse, ApiError> {
    let record = record(&api, &id, &task).await?;
    let completed = if task == SCORES { None } else { api.store.result(&record.key).await? };
    let Some(completed) = completed else {
        let why = if task == SCORES { "computes no coefficients".to_string() } else { format!("is {}", record.state) };
        return Err(ApiError::NotFound(format!("no coefficients: task {task} {why}")));
    };
    if completed.coefficients.is_empty() {
        return Err(StoreError::Protocol(format!("the coefficients of {} are empty", record.key)).into());
    }
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], completed.coefficients))
}
