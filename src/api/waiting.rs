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
        .method_not_allowed_fallback(|| async { ApiError::Method })
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::task::spawn_blocking;

    use super::*;

    /// The status of a request without a body, on a connection that is open.
    async fn status(mut connection: TcpStream) -> (TcpStream, String) {
        let ask = move || {
            connection.write_all(b"HEAD /elsewhere HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
            let (mut answer, mut piece) = (String::new(), [0; 4096]);
            while !answer.contains("\r\n\r\n") {
                let n = connection.read(&mut piece).unwrap();
                assert!(n > 0, "the connection was closed after `{answer}`");
                answer += std::str::from_utf8(&piece[..n]).unwrap();
            }
            (connection, answer[9..12].to_string())
        };
        spawn_blocking(ask).await.unwrap()
    }

    /// A probe's connection, open since before Redis was reached, is answered by the API afterwards.
    #[tokio::test]
    async fn connections_live_on_when_another_takes_over() {
        let (take_over, current) = watch::channel(waiting(Registry::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let server = super::super::serve(listener, handed_over(current), std::future::pending(), Duration::ZERO);
        let server = tokio::spawn(server);
        let (connection, before) = status(connection).await;
        drop(take_over.send_replace(Router::new().route("/elsewhere", get(|| async { StatusCode::NO_CONTENT }))));
        let (_, after) = status(connection).await;
        assert_eq!((before.as_str(), after.as_str()), ("503", "204"));
        server.abort();
    }
}
