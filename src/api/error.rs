//! What a request is answered with when it is not done: always JSON, by whose fault it is, and never with what only the log should hold.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::types::{ErrorBody, ErrorDetail, FaultBody};
use crate::scheduler::AdmitError;
use crate::serving::SlowBody;
use crate::store::StoreError;
use crate::sweep::parse::SpecError;

/// Faults of a specification that are told; the rest is counted.
const MOST_FAULTS: usize = 1000;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It cannot be understood, or asks for something that cannot be.
    #[error("{0}")]
    BadRequest(String),
    /// Its specification is faulty.
    #[error("the specification has {} errors", .0.faults.len())]
    BadSpec(SpecError),
    /// No token, or another one.
    #[error("expected the header `Authorization: Bearer TOKEN` with this server's token")]
    Unauthorized,
    /// The same for a page, whose reader has a browser.
    #[error("expected this server's token, as the password of any user name")]
    SignIn,
    /// Without a token, only programs of this machine are served, and no web page.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The address takes other methods.
    #[error("this address does not support that method")]
    Method,
    /// It does not fit what is there.
    #[error("{0}")]
    Conflict(String),
    /// Its body, or the specification in it, is too large.
    #[error("{0}")]
    TooLarge(String),
    /// Its body is not JSON by its header.
    #[error("expected a body of content-type application/json")]
    MediaType,
    /// Its body did not come in time.
    #[error(transparent)]
    SlowBody(#[from] SlowBody),
    /// It was refused before a handler saw it, with this status.
    #[error("{}", if .1.is_empty() { "the request cannot be read" } else { .1 })]
    Refused(StatusCode, String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of this program.
    #[error("{0}")]
    Internal(String),
    /// It took too long.
    #[error("no answer within {0} s. The request may have been carried out in part; it is safe to repeat it")]
    Deadline(u64),
}

impl ApiError {
    /// No sweep of this id.
    pub fn no_sweep(id: &str) -> Self {
        Self::NotFound(format!("no sweep `{}`", id.chars().take(100).collect::<String>()))
    }

    /// No task of this id.
    pub fn no_task(task: &str) -> Self {
        Self::NotFound(format!("no task `{}` in this sweep", task.chars().take(100).collect::<String>()))
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::BadSpec(_) => (StatusCode::BAD_REQUEST, "bad_spec"),
            Self::Unauthorized | Self::SignIn => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::SlowBody(_) => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Refused(status, _) => (*status, if status.is_client_error() { "bad_request" } else { "internal" }),
            Self::Store(StoreError::Unreachable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store_unreachable"),
            Self::Store(StoreError::Full(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store_full"),
            Self::Store(StoreError::Refused(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store_refused"),
            Self::Store(StoreError::Setup(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store_setup"),
            Self::Store(StoreError::Protocol(_)) | Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::Deadline(_) => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        }
    }

    /// What the answer says. Details of the server's own surroundings stay in its log.
    fn message(&self) -> String {
        match self {
            Self::Store(StoreError::Unreachable(_)) => "Redis is unreachable; repeat the request later".to_string(),
            Self::Store(StoreError::Full(_)) => "Redis is full; repeat the request when it has free memory".to_string(),
            Self::Store(StoreError::Refused(_)) => {
                "Redis accepts no writes now; the scheduler's log has the reason; repeat the request later".to_string()
            }
            Self::Store(StoreError::Setup(_)) => {
                "Redis is not configured correctly; the scheduler's log has the reason".to_string()
            }
            Self::Store(StoreError::Protocol(_)) | Self::Internal(_) => {
                "internal error; the scheduler's log has details".to_string()
            }
            Self::BadSpec(error) if error.faults.len() > MOST_FAULTS => {
                format!("{self}; the first {MOST_FAULTS} are listed")
            }
            Self::BadSpec(error) if error.faults.len() == 1 => "the specification has an error".to_string(),
            other => other.to_string(),
        }
    }

    /// Seconds after which the same request may succeed.
    fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::Store(StoreError::Unreachable(_)) | Self::Deadline(_) => Some("2"),
            Self::Store(StoreError::Full(_) | StoreError::Refused(_) | StoreError::Setup(_)) => Some("30"),
            _ => None,
        }
    }

    fn faults(&self) -> Vec<FaultBody> {
        match self {
            Self::BadSpec(error) => error.faults.iter().take(MOST_FAULTS).map(FaultBody::from).collect(),
            _ => vec![],
        }
    }
}

impl From<AdmitError> for ApiError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Store(error) => Self::Store(error),
            taken @ AdmitError::KeyTaken { .. } => Self::Conflict(taken.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), "{self}");
        }
        let error = ErrorDetail { code: code.to_string(), message: self.message(), faults: self.faults() };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        let challenge = match self {
            Self::Unauthorized => Some("Bearer realm=\"mehl-soup\""),
            Self::SignIn => Some("Basic realm=\"mehl-soup: any user name, the token as password\", charset=\"UTF-8\""),
            _ => None,
        };
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
