//! What is answered before Redis is reached for the first time: probes can tell a scheduler that waits from one that is not there.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::Registry;
use tokio::sync::watch;
use tower::ServiceExt;

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

/// Each request is answered by what `current` holds when it comes, so that one may take over from another without a connection being closed.
pub fn handed_over(current: watch::Receiver<Router>) -> Router {
    Router::new().fallback(async move |request: Request| {
        let router = current.borrow().clone();
        router.oneshot(request).await
    })
}
