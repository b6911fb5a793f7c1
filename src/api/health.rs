//! Probes and metrics. They are answered without a token and name no sweep.

use std::sync::Arc;

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
use crate::store::{Store, StoreError};

pub(super) const OK: &str = "ok";

/// Answers as long as the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = String)))]
pub async fn healthz<S: Store, Q: TicketQueue>(State(_): State<Arc<Api<S, Q>>>) -> &'static str {
    OK
}

/// Tells whether the store answers and the broker takes messages.
#[utoipa::path(
    get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, body = ReadyBody), (status = 503, body = ReadyBody, description = "One of the two is not `ok`"))
)]
pub async fn readyz<S: Store, Q: TicketQueue>(State(api): State<Arc<Api<S, Q>>>) -> (StatusCode, Json<ReadyBody>) {
    let (store, broker) = (store(&api).await, broker(&api));
    let is_ready = store == OK && broker == OK;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyBody { store: store.to_string(), broker: broker.to_string() }))
}

async fn store<S: Store, Q>(api: &Api<S, Q>) -> &'static str {
    // Any question will do; this one costs next to nothing, as there is no sweep of this name.
    let word = match timeout(api.settings.probe_deadline, api.store.sweep("-")).await {
        Ok(Ok(_)) => OK,
        Ok(Err(StoreError::Unreachable(_))) => "unreachable",
        Ok(Err(StoreError::Full(_))) => "full",
        Ok(Err(StoreError::Setup(_))) => "cannot be used as it is set up",
        Ok(Err(StoreError::Protocol(_))) => "answers in an unexpected way",
        Err(_) => "no answer in time",
    };
    api.metrics.redis_connected.set(i64::from(word == OK));
    word
}

fn broker<S, Q: TicketQueue>(api: &Api<S, Q>) -> &'static str {
    let state = api.queue.state();
    let word = match state.fault {
        _ if state.is_blocked => "blocked",
        _ if state.is_connected => OK,
        Some(QueueError::Setup(_) | QueueError::Foreign(_)) => "cannot be used as it is set up",
        Some(QueueError::Closed) => "closed",
        _ => "unreachable",
    };
    api.metrics.broker_connected.set(i64::from(word == OK));
    word
}

/// Gives the metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics<S: Store, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
) -> Result<impl IntoResponse, ApiError> {
    // They tell of the moment in which they are asked for.
    store(&api).await;
    broker(&api);
    text(&api.registry)
}

/// All of a registry, in the format that Prometheus reads.
pub(super) fn text(registry: &Registry) -> Result<impl IntoResponse + use<>, ApiError> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&registry.gather(), &mut text).map_err(|e| ApiError::Internal(e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, encoder.format_type().to_string())], text))
}
