//! What is answered before Redis is reached for the first time: probes can tell a scheduler that waits from one that is not there.

use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::Registry;

use super::error::ApiError;
use super::guard;
use super::health::{OK, text};
use super::types::ReadyBody;
use crate::store::StoreError;

/// It lives, is not ready, tells its metrics, and refuses everything else with what a store that cannot be reached is answered with.
pub fn waiting(registry: Registry) -> Router {
    let ready = || async {
        let body = ReadyBody { store: "not reached yet".to_string(), broker: "not asked yet".to_string() };
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    };
    Router::new()
        .route("/healthz", get(|| async { OK }))
        .route("/readyz", get(ready))
        .route("/metrics", get(async move || text(&registry)))
        .fallback(|| async { ApiError::Store(StoreError::Unreachable("not reached yet".to_string())) })
        .layer(from_fn(guard::no_store))
}
