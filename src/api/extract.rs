//! Bodies and queries of requests, with faults as [`ApiError`]s.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::guard::LARGER;
use crate::serving::SlowBody;

/// A body of JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let fault = match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => return Ok(Self(body)),
            Err(fault) => fault,
        };
        Err(match (slow(&fault), fault.status()) {
            (Some(slow), _) => ApiError::SlowBody(slow),
            (None, StatusCode::UNSUPPORTED_MEDIA_TYPE) => ApiError::MediaType,
            (None, StatusCode::PAYLOAD_TOO_LARGE) => ApiError::TooLarge(LARGER.to_string()),
            (None, _) => ApiError::BadRequest(cut(fault.body_text())),
        })
    }
}

/// Whether a body was refused because it took too long.
fn slow(fault: &(dyn std::error::Error + 'static)) -> Option<SlowBody> {
    std::iter::successors(Some(fault), |fault| fault.source()).find_map(|fault| fault.downcast_ref().copied())
}

/// The query of an address.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let asked: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        asked.map(|Query(query)| Self(query)).map_err(|fault| ApiError::BadRequest(cut(fault.body_text())))
    }
}

/// Messages quote what was sent.
fn cut(message: String) -> String {
    message.chars().take(500).collect()
}
