//! Probes and metrics. They are answered without a token and name no sweep.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::time::timeout;

use super::Api;
use super::error::ApiError;
use super::types::ReadyBody;
use crate::queue::{QueueError, TicketQueue};
use crate::store::{ApiStore, StoreError};

pub(super) const OK: &str = "ok";

/// Answers while the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
pub async fn healthz<S: ApiStore, Q: TicketQueue>(State(_): State<Arc<Api<S, Q>>>) -> &'static str {
    OK
}

/// Reports whether Redis accepts writes and RabbitMQ allows the needed operations. Each is asked at
/// most once a second.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = ReadyBody), (status = 503, body = ReadyBody, description = "Redis or RabbitMQ is not `ok`"))
)]
pub async fn readyz<S: ApiStore, Q: TicketQueue>(State(api): State<Arc<Api<S, Q>>>) -> (StatusCode, Json<ReadyBody>) {
    let (store, broker) = probed(&api).await;
    let is_ready = store == OK && broker == OK;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyBody { store: store.to_string(), broker: broker.to_string() }))
}

/// Store and broker, in a word each. Asked at most once in a while: anybody may ask for it.
async fn probed<S: ApiStore, Q: TicketQueue>(api: &Api<S, Q>) -> (&'static str, &'static str) {
    let mut last = api.probed.lock().await;
    if let Some((at, words)) = *last
        && at.elapsed() < api.settings.probe_age
    {
        return words;
    }
    let words = tokio::join!(store(api), broker(api));
    *last = Some((Instant::now(), words));
    words
}

async fn store<S: ApiStore, Q>(api: &Api<S, Q>) -> &'static str {
    // A write: a server whose disk is full still answers questions.
    let word = match timeout(api.settings.probe_deadline, api.store.probe()).await {
        Ok(Ok(())) => OK,
        Ok(Err(StoreError::Unreachable(_))) => "unreachable",
        Ok(Err(StoreError::Full(_))) => "full",
        Ok(Err(StoreError::Refused(_))) => "refuses",
        Ok(Err(StoreError::Setup(_))) => "not configured correctly",
        Ok(Err(StoreError::Protocol(_))) => "unexpected answer",
        Err(_) => "no answer in time",
    };
    api.metrics.redis_connected.set(i64::from(word == OK));
    word
}

async fn broker<S, Q: TicketQueue>(api: &Api<S, Q>) -> &'static str {
    // That it is connected says nothing of what it allows.
    let word = match api.queue.probe(api.settings.probe_deadline).await {
        _ if api.queue.state().is_blocked => "blocked",
        Ok(()) => OK,
        Err(QueueError::Refused(_)) => "refuses",
        Err(QueueError::Setup(_) | QueueError::Foreign(_)) => "not configured correctly",
        Err(QueueError::Closed) => "closed",
        Err(_) => "unreachable",
    };
    api.metrics.broker_connected.set(i64::from(word == OK));
    word
}

/// Returns the metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
) -> Result<impl IntoResponse, ApiError> {
    // They tell of the moment in which they are asked for.
    probed(&api).await;
    text(&api.registry)
}

/// All of a registry, in the format that Prometheus reads.
pub(super) fn text(registry: &Registry) -> Result<impl IntoResponse + use<>, ApiError> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&registry.gather(), &mut text).map_err(|e| ApiError::Internal(e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_string())], text))
}
