//! A sweep's report as a page, for people with a browser.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{Html, IntoResponse};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Api;
use super::error::ApiError;
use super::results::{result, so_far};
use super::types::ErrorBody;
use crate::queue::TicketQueue;
use crate::report::{Detail, POLICY, Report, chosen, render};
use crate::store::ApiStore;
use crate::store::traits::Reading;
use crate::task::TaskKey;

/// Results that are asked for at once. Each brings its coefficients along.
const AT_ONCE: usize = 4;

/// Shows the report of a sweep: a self-contained page, as `mehl-soup report` writes it. Browsers ask
/// for a user name (any) and a password (the token).
#[utoipa::path(
    get, path = "/sweeps/{id}", tag = "pages", params(("id" = String, Path, description = "The sweep")),
    security(("token" = []), ("password" = [])),
    responses(
        (status = 200, body = String, content_type = "text/html"),
        (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody),
    )
)]
pub async fn page<S: ApiStore, Q: TicketQueue>(
    State(api): State<Arc<Api<S, Q>>>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let permit = api.pages.clone().acquire_owned().await;
    let permit = permit.map_err(|e| ApiError::Internal(format!("no page can be made: {e}")))?;
    let snapshot = so_far(&api, &id).await?;
    let fault = |e: &dyn std::fmt::Display| ApiError::Internal(format!("the page of {id} was not made: {e}"));
    let all = snapshot.clone();
    let results = tokio::task::spawn_blocking(move || all.results()).await.map_err(|e| fault(&e))?;
    let details = stream::iter(chosen(&results)).map(|task| detail(&*api.store, &id, task)).buffered(AT_ONCE);
    let details = details.try_collect().await?;
    let made = tokio::task::spawn_blocking(move || {
        // Until it is made, whoever asked for it may be gone.
        let _permit = permit;
        let (spec, manifest) = (snapshot.spec().clone(), snapshot.manifest().cloned());
        render(&Report::new(results, Some(spec), manifest, details))
    });
    let page = made.await.map_err(|e| fault(&e))?.map_err(|e| fault(&e))?;
    let policy = format!("{POLICY}; frame-ancestors 'none'");
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_string()));
    Ok((headers, Html(page)))
}

async fn detail(store: &impl Reading, sweep: &str, task: String) -> Result<Detail, ApiError> {
    let mut detail = Detail::new(&task);
    let Ok(key) = TaskKey::new(sweep, &task) else { return Ok(detail) };
    let Some(completed) = store.result(&key).await? else { return Ok(detail) };
    detail.history = result(&key, &completed)?.history;
    detail.read_soup(&completed.coefficients);
    Ok(detail)
}
