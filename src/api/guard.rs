//! What stands before every handler: the token, the deadline, the count.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::StreamExt;
use tracing::Instrument;

use super::Api;
use super::error::ApiError;
use crate::queue::TicketQueue;
use crate::store::ApiStore;

/// Addresses that are answered without a token: they hold no name of a sweep, and probes have no token.
pub const OPEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"];

/// Begins the addresses of pages: what is below them is only read, by people with a browser.
const PAGES: &str = "/sweeps/";

/// Addresses whose answers take as long as the creation of a sweep: all of its tasks are read.
const LARGE: [&str; 2] = ["/v1/sweeps/{id}/results", "/sweeps/{id}"];

/// Longest message of axum's that is passed on, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// Times the largest body that a larger one is listened to.
const HEARD: u64 = 16;

/// Why a body is refused.
pub const LARGER: &str = "the body is larger than this server allows (scheduler.max_body_bytes)";

/// A bearer token. Only its hash is kept.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Of these letters, spaces around them left out; `None` if there are none.
    pub fn new(token: &str) -> Option<Self> {
        let token = token.trim();
        (!token.is_empty()).then(|| Self(blake3::hash(token.as_bytes())))
    }

    /// Whether it is the same, in a time that does not depend on how much of it is.
    pub fn is(&self, candidate: &str) -> bool {
        // Comparing two `blake3::Hash` takes constant time.
        self.0 == blake3::hash(candidate.as_bytes())
    }
}

/// Lets only those in who have the token; without one, only programs on this machine that speak to it by a name of its own.
pub async fn check_token<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    request: Request,
    next: Next,
) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let refused = match &api.token {
        Some(token) => {
            let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let is_page = request.uri().path().starts_with(PAGES);
            let is_right = given.is_some_and(|given| {
                bearer(given).is_some_and(|given| token.is(given))
                    // A browser sends a password again by itself, whichever site makes it ask: nothing that changes anything takes one.
                    || (is_page && password(given).is_some_and(|given| token.is(&given)))
            });
            (!is_right).then_some(if is_page { ApiError::SignIn } else { ApiError::Unauthorized })
        }
        None => foreign(&request).map(ApiError::Forbidden),
    };
    let Some(refused) = refused else { return next.run(request).await };
    // The path tells who asked for what; headers, with whatever token was tried, are not told.
    let path: String = request.uri().path().chars().take(200).collect();
    tracing::warn!(method = %request.method(), path, "refused: {refused}");
    refused.into_response()
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The password of HTTP's basic authentication; the user name does not matter.
fn password(value: &str) -> Option<String> {
    let (scheme, pair) = value.split_once(' ')?;
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(pair.trim()).ok())??;
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(password.trim().to_string())
}

/// Why a request to a server without a token is refused: a web page in a browser on this machine can reach loopback too. Browsers name the page's origin in what it
/// writes, and the page's host name where that was made to point here.
fn foreign(request: &Request) -> Option<String> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if request.headers().contains_key(header::ORIGIN) && !is_read {
        return Some("a server without a token accepts no writes from web pages".to_string());
    }
    let host = request.headers().get(header::HOST)?.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_here = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    (!is_here).then(|| "a server without a token must be addressed as localhost or 127.0.0.1".to_string())
}

/// Hears a body out that is larger than this server takes, up to a bound, and refuses it then. A client that is still writing when the connection is closed would be told
/// of a broken pipe, and never why.
pub async fn hear_out<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    request: Request,
    next: Next,
) -> Response {
    let limit = api.settings.largest_body as u64;
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_none_or(|length| length <= limit) {
        return next.run(request).await;
    }
    let mut left = limit.saturating_mul(HEARD);
    let mut body = request.into_body().into_data_stream();
    // What goes on is read and dropped piece by piece; the deadline holds for this too.
    while let Some(Ok(piece)) = body.next().await {
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            break;
        }
    }
    ApiError::TooLarge(LARGER.to_string()).into_response()
}

/// Answers instead of a handler that takes too long, and counts answers.
pub async fn watch<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    request: Request,
    next: Next,
) -> Response {
    // Only addresses that there are: others could be any number.
    let route = request.extensions().get::<MatchedPath>().map_or("other".to_string(), |path| path.as_str().to_string());
    let is_large = match *request.method() {
        Method::POST => route == "/v1/sweeps",
        _ => LARGE.contains(&route.as_str()),
    };
    let deadline: Duration = if is_large { api.settings.creation_deadline } else { api.settings.deadline };
    let span = tracing::error_span!("request", method = %request.method(), route);
    let response = match tokio::time::timeout(deadline, next.run(request).instrument(span)).await {
        Ok(response) => response,
        Err(_) => ApiError::Deadline(deadline.as_secs()).into_response(),
    };
    api.metrics.http_requests.with_label_values(&[route.as_str(), response.status().as_str()]).inc();
    response
}

/// Makes faults of what axum refuses itself: requests whose address or body it cannot read. Its own
/// answers are plain text.
pub async fn in_json(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_fault = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !is_fault || kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return response;
    }
    let message = axum::body::to_bytes(response.into_body(), LONGEST_MESSAGE).await.unwrap_or_default();
    ApiError::Refused(status, String::from_utf8_lossy(&message).into_owned()).into_response()
}

/// Answers change all the time, and are for whoever asked: nobody on the way keeps them.
pub async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_only_itself() {
        let token = Token::new(" secret\n").unwrap();
        assert!(token.is("secret"));
        for other in ["", "secre", "secret ", "secrets", "SECRET"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(Token::new(" \n").is_none());
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(bearer("bearer  secret"), Some("secret"));
        assert_eq!(bearer("Basic secret"), None);
        // "name:sec:ret", ":secret", "secret", two bytes that are no UTF-8.
        for (pair, expected) in [
            ("bmFtZTpzZWM6cmV0", Some("sec:ret")),
            ("OnNlY3JldA==", Some("secret")),
            ("c2VjcmV0", None),
            ("/zo=", None),
        ] {
            assert_eq!(password(&format!("basic {pair}")).as_deref(), expected, "{pair}");
        }
        assert_eq!((password("Basic !"), password("Bearer OnNlY3JldA==")), (None, None));
    }
}
