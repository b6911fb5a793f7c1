//! Probes and metrics of a worker over HTTP. No token guards them and nothing can be changed through them.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::serving::serve;
use crate::untrusted::printable;

/// Age of a heartbeat from which on a worker counts as hung. It beats every five seconds; one beat can take as long as Redis lets it wait.
const OLDEST_HEARTBEAT: Duration = Duration::from_secs(120);

/// What a worker can say about itself when it is probed.
pub trait Probed: Send + Sync + 'static {
    /// Time since it last went round its loop, whether Redis answered or not.
    fn heartbeat_age(&self) -> Duration;
    /// What keeps it from working, each in a few words; none if it is ready.
    fn faults(&self) -> impl Future<Output = Vec<String>> + Send;
}

/// Serves `/metrics`, `/healthz` and `/readyz` for ever. Faults are asked for before `/metrics` and `/readyz` are answered.
///
/// # Errors
/// If the listener fails.
pub async fn serve_metrics(listener: TcpListener, registry: Registry, worker: impl Probed) -> io::Result<()> {
    serve(listener, router(registry, Arc::new(worker)), std::future::pending(), Duration::ZERO).await
}

fn router<P: Probed>(registry: Registry, worker: Arc<P>) -> Router {
    let (alive, ready) = (worker.clone(), worker.clone());
    Router::new()
        .route("/healthz", get(async move || health(alive.heartbeat_age())))
        .route("/readyz", get(async move || readiness(&ready.faults().await)))
        .route(
            "/metrics",
            get(async move || {
                worker.faults().await;
                text(&registry)
            }),
        )
}

fn health(age: Duration) -> (StatusCode, String) {
    if age < OLDEST_HEARTBEAT {
        return (StatusCode::OK, "ok".to_string());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("no heartbeat for {} s", age.as_secs()))
}

fn readiness(faults: &[String]) -> (StatusCode, String) {
    if faults.is_empty() {
        return (StatusCode::OK, "ok".to_string());
    }
    (StatusCode::SERVICE_UNAVAILABLE, printable(&format!("not ready: {}", faults.join("; "))))
}

fn text(registry: &Registry) -> axum::response::Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_string())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_heartbeat_is_no_health() {
        assert_eq!(health(Duration::from_secs(119)), (StatusCode::OK, "ok".to_string()));
        let (status, said) = health(Duration::from_secs(120));
        assert_eq!((status, said.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no heartbeat for 120 s"));
    }

    #[test]
    fn what_keeps_it_from_working_is_said() {
        assert_eq!(readiness(&[]), (StatusCode::OK, "ok".to_string()));
        let (status, said) = readiness(&["input root /data: Permission denied".to_string(), "no broker".to_string()]);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said, "not ready: input root /data: Permission denied; no broker");
    }
}
