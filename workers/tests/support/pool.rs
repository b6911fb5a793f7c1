//! A pool of the programs as they are deployed, in a place of its own. A test that uses it has `servers_support`, the root's, beside `support`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::process::Command;
use std::time::{Duration, Instant};

use mehl_soup::sweep::results::SweepResults;
use serde_json::{Value, json};

use crate::servers_support::servers::{RabbitServer, RedisServer, free_port};
use crate::servers_support::service::{Answer, request};
use crate::support::fixture;
use crate::support::programs::{Place, Running};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// A pool of processes, in a place of its own.
pub struct Pool {
    pub place: Place,
    pub redis: RedisServer,
    pub rabbit: RabbitServer,
    /// `http://127.0.0.1:port`
    pub server: String,
    pub scheduler: Option<Running>,
    flags: Vec<String>,
}

impl Pool {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with these flags for the scheduler.
    pub fn start_with(flags: &[&str]) -> Self {
        let (redis, rabbit) = (RedisServer::start(&["--maxmemory-policy", "noeviction"]), RabbitServer::start(""));
        let server = format!("http://127.0.0.1:{}", free_port());
        let mut pool = Self {
            place: Place::new(),
            redis,
            rabbit,
            server,
            scheduler: None,
            flags: flags.iter().map(|flag| flag.to_string()).collect(),
        };
        pool.start_scheduler();
        pool
    }

    pub fn start_scheduler(&mut self) {
        let mut command = self.place.command();
        command.args(["serve", "--listen", self.server.trim_start_matches("http://")]).args(&self.flags);
        self.configure(&mut command);
        self.scheduler = Some(Running::start(command));
        let began = Instant::now();
        // It listens before it has reached Redis, and refuses what it cannot do yet.
        while !self.is_ready() {
            assert!(began.elapsed() < PATIENCE, "the scheduler is not ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ready(&self) -> bool {
        let address = self.server.trim_start_matches("http://");
        std::net::TcpStream::connect(address).is_ok() && self.call("GET", "/readyz", None).status == 200
    }

    pub fn configure(&self, command: &mut Command) {
        command
            .env("MEHL_SOUP__REDIS__URL", self.redis.url())
            .env("MEHL_SOUP__AMQP__URL", self.rabbit.url())
            .env("MEHL_SOUP__SCHEDULER__INTERVAL_SECONDS", "1");
    }

    /// A worker that reads the fixtures only, with one thread as the runs that it is compared with.
    pub fn worker(&self, name: &str, flags: &[&str]) -> Running {
        self.worker_with(name, flags, &[])
    }

    /// The same, with these variables too.
    pub fn worker_with(&self, name: &str, flags: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup-worker"));
        command.arg("serve");
        let roots = format!("worker.input_roots={},{}", fixture("trajectories").display(), fixture("text").display());
        let name = format!("worker.name={name}");
        for set in [&roots, &name, "worker.threads=1", "worker.lease_seconds=2", "worker.checkpoint_interval_seconds=1"]
        {
            command.args(["--set", set]);
        }
        if !flags.iter().any(|flag| flag.starts_with("worker.listen=")) {
            command.args(["--set", "worker.listen="]);
        }
        command.args(flags).envs(variables.iter().copied());
        self.configure(&mut command);
        command.env("MEHL_SOUP_CACHE_DIR", self.place.path("cache"));
        Running::start(command)
    }

    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        request(method, &format!("{}{path}", self.server), &[("content-type", "application/json")], bytes.as_bytes())
    }

    pub fn submit(&self, spec: &str) -> String {
        let body = json!({ "spec": spec, "format": "toml", "folder": self.place.path("").to_str().unwrap() });
        let answer = self.call("POST", "/v1/sweeps", Some(body));
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
        answer.json()["id"].as_str().unwrap().to_string()
    }

    pub fn sweep(&self, id: &str) -> Value {
        self.call("GET", &format!("/v1/sweeps/{id}"), None).json()
    }

    pub fn until(&self, what: &str, id: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let sweep = self.sweep(id);
            if done(&sweep) {
                return sweep;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {sweep}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The task that a worker has, and the iterations that it has told of: so many, of so many.
    pub fn task_of(&self, id: &str, worker: &str) -> Option<(String, u64, u64)> {
        let running = self.call("GET", &format!("/v1/sweeps/{id}/tasks?state=running"), None).json();
        running["tasks"].as_array()?.iter().find_map(|task| {
            let task = task["id"].as_str()?;
            let (_, claimant) = self.events(id, task).into_iter().rfind(|(what, _)| what == "claimed")?;
            let detail = self.call("GET", &format!("/v1/sweeps/{id}/tasks/{task}"), None).json();
            let told = |field: &str| detail["progress"][field].as_u64();
            let (iterations, planned) = (told("iterations")?, told("planned_iterations")?);
            (claimant == worker).then(|| (task.to_string(), iterations, planned))
        })
    }

    /// Waits until a worker has told of more iterations of a task than when it was first seen, and has a quarter of it or more before it: what is done to it next is done
    /// in the middle of that task.
    pub fn until_computing(&self, id: &str, worker: &str) {
        let mut first: Option<(String, u64, u64)> = None;
        self.until(&format!("{worker} computes"), id, |_| {
            let now = self.task_of(id, worker);
            match (&first, &now) {
                (Some((task, before, _)), Some((same, iterations, planned))) if task == same => {
                    iterations > before && iterations * 4 < planned * 3
                }
                _ => {
                    first = now;
                    false
                }
            }
        });
    }

    /// What happened to a task, and the detail of it.
    pub fn events(&self, id: &str, task: &str) -> Vec<(String, String)> {
        let events = self.call("GET", &format!("/v1/sweeps/{id}/tasks/{task}/events"), None).json();
        let list = events["events"].as_array().unwrap();
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_string();
        list.iter().map(|event| (text(event, "what"), text(event, "detail"))).collect()
    }

    /// Asserts that a sweep's tasks ended as those of a run in `out`.
    pub fn assert_same(&self, id: &str, out: &str) {
        for (task, expected) in self.place.coefficients(out) {
            let found = self.call("GET", &format!("/v1/sweeps/{id}/tasks/{task}/coefficients"), None);
            assert_eq!(found.status, 200, "{task}");
            assert!(found.bytes == expected, "coefficients of {task} differ");
            let events = self.events(id, &task);
            assert_eq!(events.iter().filter(|(what, _)| what == "succeeded").count(), 1, "{task}: {events:?}");
        }
        // From values of single samples in Redis, and in the run folder.
        let found: SweepResults =
            serde_json::from_slice(&self.call("GET", &format!("/v1/sweeps/{id}/results"), None).bytes).unwrap();
        let expected = self.place.results(out).comparisons;
        assert!(!expected.is_empty() && expected.iter().all(|one| one.paired), "{expected:?}");
        assert_eq!(found.comparisons, expected);
    }
}
