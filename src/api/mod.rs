//! The scheduler's HTTP API: how sweeps are submitted and read. JSON under `/v1`, described at `/v1/openapi.json`; probes and metrics beside it.
//!
//! | file | holds |
//! |---|---|
//! | `types` | bodies of requests and answers |
//! | `error` | what a request is answered with when it is not done |
//! | `extract` | bodies and queries of requests |
//! | `guard` | token, deadline, count |
//! | `create` | a sweep is submitted |
//! | `sweeps` | sweeps are read and deleted |
//! | `actions` | cancel, pause, resume, retry |
//! | `results` | what came of a sweep |
//! | `page` | the same as a page for a browser |
//! | `tasks` | tasks are read |
//! | `pool` | load, workers and strange messages |
//! | `health` | probes and metrics |
//! | `known` | tasks of sweeps, and results, which do not change any more |
//! | `snapshot` | results at a moment, for those who read them |
//! | `openapi` | the document |
//! | `waiting` | what is answered before Redis is reached |
//!
//! Nothing is held here: a second server beside this one does no harm. Handlers that change something tell [`Api::changed`], so that the scheduler need not
//! wait for its next turn.

mod actions;
mod create;
mod error;
mod extract;
mod guard;
mod health;
mod known;
mod openapi;
mod page;
mod pool;
mod results;
mod snapshot;
mod sweeps;
mod tasks;
pub use crate::api_types as types;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post};
use tokio::sync::{Notify, Semaphore};

use self::actions::{cancel, pause, resume, retry};
use self::create::create_sweep;
use self::error::ApiError;
use self::health::{healthz, metrics, readyz};
use self::known::KnownSweeps;
use self::openapi::document;
use self::page::page;
use self::pool::{dead_letters, load, workers};
use self::results::results;
use self::sweeps::{delete_sweep, spec, sweep, sweeps};
use self::tasks::{coefficients, events, history, task, tasks};
use crate::metrics::Metrics;
use crate::queue::TicketQueue;
use crate::scheduler::Terms;
use crate::store::ApiStore;
use crate::untrusted::LARGEST_SPEC;

pub use crate::serving::serve;
pub use guard::Token;
pub use openapi::openapi;
pub use waiting::{handed_over, waiting};

/// Largest body of a request: a specification as JSON text, whose escapes may double it, and the fields beside it.
const LARGEST_BODY: usize = 2 * LARGEST_SPEC as usize + (64 << 10);
/// Specifications that are read and stored at once: a large one takes a hundred megabytes meanwhile.
const CREATIONS: usize = 4;
/// Pages that are made at once: each is some work, and pages in a browser are loaded again and again.
const PAGES: usize = 2;

/// How requests are served.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Longest time until a request is answered.
    pub deadline: Duration,
    /// The same for the creation of a sweep, and for all of its results.
    pub creation_deadline: Duration,
    /// Longest time for a probe of store and broker.
    pub probe_deadline: Duration,
    /// So long the answer of a probe holds.
    pub probe_age: Duration,
    /// Most tasks of a sweep.
    pub most_tasks: usize,
    /// Attempts without progress after which a task fails, for sweeps that do not say.
    pub attempts: u32,
    /// Largest body of a request, in bytes.
    pub largest_body: usize,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            creation_deadline: Duration::from_secs(120),
            probe_deadline: Duration::from_secs(2),
            probe_age: Duration::from_secs(1),
            most_tasks: 100_000,
            attempts: Terms::default().attempts,
            largest_body: LARGEST_BODY,
        }
    }
}

/// What handlers work with.
pub struct Api<S, Q> {
    store: Arc<S>,
    queue: Arc<Q>,
    token: Option<Token>,
    settings: ApiSettings,
    metrics: Metrics,
    registry: prometheus::Registry,
    changed: Arc<Notify>,
    known: KnownSweeps,
    creations: Semaphore,
    pages: Arc<Semaphore>,
    /// What store and broker were found to be, and when.
    probed: tokio::sync::Mutex<Option<(Instant, (&'static str, &'static str))>>,
}

impl<S: ApiStore, Q: TicketQueue> Api<S, Q> {
    /// Without a `token`, whoever reaches it is served: only for listeners on loopback, which the caller sees to. `registry` is what `/metrics` tells;
    /// `metrics` are defined in it.
    pub fn new(
        store: Arc<S>,
        queue: Arc<Q>,
        token: Option<Token>,
        settings: ApiSettings,
        registry: prometheus::Registry,
        metrics: Metrics,
    ) -> Self {
        let (changed, known) = (Arc::default(), KnownSweeps::default());
        let (creations, pages) = (Semaphore::new(CREATIONS), Arc::new(Semaphore::new(PAGES)));
        let probed = Default::default();
        Self { store, queue, token, settings, metrics, registry, changed, known, creations, pages, probed }
    }

    /// Told whenever a request has changed something that the scheduler acts on.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }
}

/// One list for the router, and for the test that the document has all of it.
macro_rules! routes {
    ($($method:ident $path:literal $handler:ident;)*) => {
        /// Method and address of every route.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn routes<S: ApiStore + 'static, Q: TicketQueue + 'static>() -> Router<Arc<Api<S, Q>>> {
            Router::new()$(.route($path, $method($handler::<S, Q>)))*
        }
    };
}

routes! {
    post "/v1/sweeps" create_sweep;
    get "/v1/sweeps" sweeps;
    get "/v1/sweeps/{id}" sweep;
    delete "/v1/sweeps/{id}" delete_sweep;
    get "/v1/sweeps/{id}/spec" spec;
    get "/v1/sweeps/{id}/results" results;
    post "/v1/sweeps/{id}/cancel" cancel;
    post "/v1/sweeps/{id}/pause" pause;
    post "/v1/sweeps/{id}/resume" resume;
    post "/v1/sweeps/{id}/retry" retry;
    get "/v1/sweeps/{id}/tasks" tasks;
    get "/v1/sweeps/{id}/tasks/{task}" task;
    get "/v1/sweeps/{id}/tasks/{task}/events" events;
    get "/v1/sweeps/{id}/tasks/{task}/history" history;
    get "/v1/sweeps/{id}/tasks/{task}/coefficients" coefficients;
    get "/sweeps/{id}" page;
    get "/v1/load" load;
    get "/v1/workers" workers;
    get "/v1/dead-letters" dead_letters;
    get "/v1/openapi.json" document;
    get "/healthz" healthz;
    get "/readyz" readyz;
    get "/metrics" metrics;
}

/// Everything that is served.
pub fn router<S: ApiStore + 'static, Q: TicketQueue + 'static>(api: Arc<Api<S, Q>>) -> Router {
    routes()
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .fallback(|| async { ApiError::NotFound("no such address; see /v1/openapi.json".to_string()) })
        .layer(DefaultBodyLimit::max(api.settings.largest_body))
        // The last is the outermost.
        .layer(from_fn(guard::in_json))
        .layer(from_fn_with_state(api.clone(), guard::hear_out))
        .layer(from_fn_with_state(api.clone(), guard::check_token))
        .layer(from_fn_with_state(api.clone(), guard::watch))
        .layer(from_fn(guard::no_store))
        .with_state(api)
}
