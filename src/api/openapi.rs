//! The OpenAPI document, made from the handlers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{Api, actions, create, health, page, pool, results, sweeps, tasks};
use crate::queue::TicketQueue;
use crate::store::ApiStore;

#[derive(OpenApi)]
#[openapi(
    info(title = "mehl-soup scheduler", description = "Submit, read and control sweeps of model soups"),
    paths(
        create::create_sweep,
        sweeps::sweeps,
        sweeps::sweep,
        sweeps::delete_sweep,
        sweeps::spec,
        results::results,
        actions::cancel,
        actions::pause,
        actions::resume,
        actions::retry,
        tasks::tasks,
        tasks::task,
        tasks::events,
        tasks::history,
        tasks::coefficients,
        page::page,
        pool::load,
        pool::workers,
        pool::dead_letters,
        document,
        health::healthz,
        health::readyz,
        health::metrics,
    ),
    modifiers(&Schemes),
    security(("token" = []))
)]
struct Document;

/// `token` everywhere; for pages in a browser `password` too.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        for (name, scheme) in [("token", HttpAuthScheme::Bearer), ("password", HttpAuthScheme::Basic)] {
            components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
        }
    }
}

/// The document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Returns this document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", security(()), responses((status = 200, body = Object)))]
pub async fn document<S: ApiStore, Q: TicketQueue>(State(_): State<Arc<Api<S, Q>>>) -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}
