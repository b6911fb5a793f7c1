//! A whole service in one process: the HTTP API on a real socket, what a scheduler does, and workers with an engine without tensors.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use mehl_soup::api::{Api, ApiSettings, Token, router};
use mehl_soup::metrics::Metrics;
use mehl_soup::queue::{InProcess, TicketQueue};
use mehl_soup::runner::pool::{AttemptSettings, Compute, Lines, Worker, WorkerSettings};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings};
use mehl_soup::serving::{Limits, serve_within};
use mehl_soup::store::{Memory, Store};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::stub_engine::{Knobs, stub};

const PATIENCE: Duration = Duration::from_secs(10);

/// The token of services that have one.
pub const TOKEN: &str = "a-token-of-tests";

/// A sweep of three tasks and two baselines.
pub const SPEC: &str = "name = 'digits'\nzoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\nsoup.method = 'mehl+'\n[search.space]\nbatch = [1, 2, 3]\n";

/// The service. It ends with the value.
pub struct Service<S, Q> {
    pub store: Arc<S>,
    pub queue: Arc<Q>,
    pub knobs: Arc<Knobs>,
    pub metrics: Metrics,
    /// `http://127.0.0.1:port`
    pub server: String,
    token: Option<String>,
    stop: watch::Sender<bool>,
}

impl<S, Q> Drop for Service<S, Q> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The fault's code.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_string()
    }
}

/// One request, as any program would make it.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .allow_non_standard_methods(true)
        .proxy(None)
        .build();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = ureq::Agent::new_with_config(config).run(request.body(body).unwrap()).unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status, headers, bytes }
}

impl Service<Memory, InProcess> {
    /// In one process, without a token.
    pub async fn in_memory() -> Self {
        Self::start(Memory::default(), InProcess::default(), None, ApiSettings::default()).await
    }
}

impl<S: Store + 'static, Q: TicketQueue + 'static> Service<S, Q> {
    pub async fn start(store: S, queue: Q, token: Option<&str>, settings: ApiSettings) -> Self {
        Self::start_within(Limits::default(), store, queue, token, settings).await
    }

    /// With these limits of connections.
    pub async fn start_within(limits: Limits, store: S, queue: Q, token: Option<&str>, settings: ApiSettings) -> Self {
        let (store, queue) = (Arc::new(store), Arc::new(queue));
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let asked = token.map(|token| Token::new(token).unwrap());
        let api = Arc::new(Api::new(store.clone(), queue.clone(), asked, settings, registry, metrics.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (stop, mut stopped) = watch::channel(false);
        let until = async move { drop(stopped.wait_for(|stop| *stop).await) };
        tokio::spawn(serve_within(limits, listener, router(api.clone()), until, Duration::from_secs(1)));
        let token = token.map(str::to_string);
        let service = Self { store, queue, knobs: Arc::default(), metrics, server, token, stop };
        service.knobs.iterations.store(10, SeqCst);
        service.knobs.millis.store(1, SeqCst);
        service.schedule(api.changed());
        service
    }

    fn schedule(&self, wake: Arc<tokio::sync::Notify>) {
        let (store, queue, stopped) = (self.store.clone(), self.queue.clone(), self.stop.subscribe());
        tokio::spawn(async move {
            let settings = SchedulerSettings { interval: Duration::from_millis(20), ..SchedulerSettings::default() };
            Scheduler { store: &*store, queue: &*queue, settings: &settings, wake: &wake }.run(stopped, &()).await
        });
    }

    /// A worker at work until the service ends.
    pub fn work(&self, name: &str) {
        let attempt = AttemptSettings {
            lease: Duration::from_secs(3),
            checkpoint_interval: Duration::ZERO,
            stall: Duration::from_secs(60),
            orphan: Duration::from_secs(30),
        };
        let settings = WorkerSettings { name: name.into(), attempt, once: false, look: Duration::from_millis(20) };
        let (store, queue, stop) = (self.store.clone(), self.queue.clone(), self.stop.subscribe());
        let compute = Compute::start(stub(&self.knobs)).unwrap();
        tokio::spawn(async move {
            store.beat(&settings.name, Duration::from_secs(60), r#"{"device":"none"}"#).await.unwrap();
            Worker {
                store: &*store,
                queue: &*queue,
                compute: &compute,
                settings: &settings,
                watch: Arc::new(Lines),
                stop,
            }
            .serve()
            .await
        });
    }

    /// A request with the service's token.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    pub async fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let mut all: Vec<(String, String)> = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        if let Some(token) = &self.token {
            all.push(("authorization".into(), format!("Bearer {token}")));
        }
        if body.is_some() {
            all.push(("content-type".into(), "application/json".into()));
        }
        let (method, url) = (method.to_string(), format!("{}{path}", self.server));
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            request(&method, &url, &all, &bytes)
        })
        .await
        .unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.bytes));
        answer.json()
    }

    /// Submits [`SPEC`] and answers the id.
    pub async fn submit(&self) -> String {
        let body = serde_json::json!({"spec": SPEC, "format": "toml", "folder": "/base"});
        let answer = self.call("POST", "/v1/sweeps", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
        answer.json()["id"].as_str().unwrap().to_string()
    }

    /// Waits until a sweep is as asked.
    pub async fn until(&self, id: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let sweep = self.get(&format!("/v1/sweeps/{id}")).await;
            if done(&sweep) {
                return sweep;
            }
            assert!(began.elapsed() < PATIENCE * 3, "{what}: {sweep}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
