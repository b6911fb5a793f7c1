//! Load and workers of the pool, and messages that were no tickets.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::error::ApiError;
use super::extract::Asked;
use super::types::{ErrorBody, LetterBody, LettersBody, LettersQuery, LoadBody, WorkerBody, WorkersBody};
use crate::queue::TicketQueue;
use crate::store::{ApiStore, MOST_LETTERS, Order, SweepRecord};
use crate::task::TaskState;

/// Dead letters that are told, unless another number is asked for.
const LETTERS: usize = 100;

/// Returns the load: how many workers could be busy.
#[utoipa::path(
    get, path = "/v1/load", tag = "pool",
    responses((status = 200, body = LoadBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn load<S: ApiStore, Q: TicketQueue>(State(api): State<Arc<Api<S, Q>>>) -> Result<Json<LoadBody>, ApiError> {
    let sweeps = api.store.live().await?.sweeps.records;
    let workers = api.store.workers().await?.len();
    Ok(Json(LoadBody { workers, ..load_of(&sweeps) }))
}

fn load_of(sweeps: &[SweepRecord]) -> LoadBody {
    let mut load = LoadBody::default();
    for sweep in sweeps {
        let running = sweep.count(TaskState::Running);
        load.running += running;
        load.waiting += sweep.count(TaskState::Waiting);
        if sweep.order == Order::Continue {
            let room = match sweep.cap as usize {
                0 => usize::MAX,
                cap => cap.saturating_sub(running),
            };
            load.runnable += sweep.count(TaskState::Queued).saturating_sub(sweep.delayed).min(room);
        }
    }
    LoadBody { wanted: load.runnable + load.running, ..load }
}

/// Lists the live workers.
#[utoipa::path(
    get, path = "/v1/workers", tag = "pool",
    responses((status = 200, body = WorkersBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn workers<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
) -> Result<Json<WorkersBody>, ApiError> {
    let mut workers = api.store.workers().await?;
    workers.sort();
    let workers = workers.into_iter().map(|(name, about)| {
        // What is no JSON is told as text.
        let about = serde_json::from_str(&about).unwrap_or(serde_json::Value::String(about));
        WorkerBody { name, about }
    });
    Ok(Json(WorkersBody { workers: workers.collect() }))
}

/// Lists dead letters that are not tickets, newest first: messages that other programs published to
/// the ticket queue. The newest 1000 are kept.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "pool", params(LettersQuery),
    responses((status = 200, body = LettersBody), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub async fn dead_letters<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Asked(query): Asked<LettersQuery>,
) -> Result<Json<LettersBody>, ApiError> {
    let limit = query.limit.unwrap_or(LETTERS);
    if !(1..=MOST_LETTERS).contains(&limit) {
        return Err(ApiError::BadRequest(format!("limit: expected 1 to {MOST_LETTERS}, found {limit}")));
    }
    let letters = api.store.letters(limit).await?;
    Ok(Json(LettersBody { total: letters.total, letters: letters.newest.into_iter().map(LetterBody::from).collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stage;

    #[test]
    fn only_what_a_worker_could_take_counts_as_runnable() {
        let sweep = |order, cap, queued, running| SweepRecord {
            id: "s".into(),
            name: "s".into(),
            stage: Stage::Ready,
            order,
            created: 0,
            priority: 0,
            cap,
            attempts: 3,
            search_controlled: false,
            counts: [(TaskState::Queued, queued), (TaskState::Running, running), (TaskState::Waiting, 1)].into(),
            ready: 0,
            delayed: 0,
            may_grow: false,
        };
        let sweeps = [
            SweepRecord { delayed: 2, ..sweep(Order::Continue, 0, 9, 1) },
            sweep(Order::Continue, 3, 5, 2),
            sweep(Order::Continue, 2, 5, 2),
            sweep(Order::Pause, 0, 9, 1),
            sweep(Order::Cancel, 0, 9, 0),
        ];
        let expected = LoadBody { runnable: 8, running: 6, waiting: 5, wanted: 14, workers: 0 };
        assert_eq!(load_of(&sweeps), expected);
    }
}
