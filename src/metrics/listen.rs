//! Probes and metrics of a worker over HTTP. No token guards them and nothing can be changed through them.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

/// Serves `/metrics`, `/healthz` and `/readyz` for ever. `is_ready` is asked before `/metrics` and `/readyz` are answered.
///
/// # Errors
/// If the listener fails.
pub async fn serve_metrics<F: Future<Output = bool> + Send>(
    listener: TcpListener,
    registry: Registry,
    is_ready: impl Fn() -> F + Send + Sync + 'static,
) -> io::Result<()> {
    let is_ready = Arc::new(is_ready);
    let asked = is_ready.clone();
    let router =
        Router::new()
            .route("/healthz", get(async || "ok"))
            .route(
                "/readyz",
                get(async move || {
                    if asked().await { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
                }),
            )
            .route(
                "/metrics",
                get(async move || {
                    is_ready().await;
                    text(&registry)
                }),
            );
    axum::serve(listener, router).await
}

fn text(registry: &Registry) -> axum::response::Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_string())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
