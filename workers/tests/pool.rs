//! The programs of a pool, as they are deployed: scheduler and workers as processes, a real Redis and RabbitMQ between them. Whatever happens to them, the
//! coefficients are those of a run on one machine that nothing happened to.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

#[path = "../../tests/support/mod.rs"]
mod servers_support;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use servers_support::servers::{RabbitServer, RedisServer, free_port};
use servers_support::service::{Answer, request};
use support::fixture;
use support::programs::{Place, Running, sound_spec};

const PATIENCE: Duration = Duration::from_secs(100);

/// A pool of processes, in a place of its own.
struct Pool {
    place: Place,
    redis: RedisServer,
    rabbit: RabbitServer,
    server: String,
    scheduler: Option<Running>,
}

impl Pool {
    fn start() -> Self {
        let (redis, rabbit) = (RedisServer::start(&["--maxmemory-policy", "noeviction"]), RabbitServer::start(""));
        let server = format!("http://127.0.0.1:{}", free_port());
        let mut pool = Self { place: Place::new(), redis, rabbit, server, scheduler: None };
        pool.start_scheduler();
        pool
    }

    fn start_scheduler(&mut self) {
        let mut command = self.place.command();
        command.args(["serve", "--listen", self.server.trim_start_matches("http://")]);
        self.configure(&mut command);
        self.scheduler = Some(Running::start(command));
        let began = Instant::now();
        while std::net::TcpStream::connect(self.server.trim_start_matches("http://")).is_err() {
            assert!(began.elapsed() < PATIENCE, "the scheduler does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn configure(&self, command: &mut Command) {
        command
            .env("MEHL_SOUP__REDIS__URL", self.redis.url())
            .env("MEHL_SOUP__AMQP__URL", self.rabbit.url())
            .env("MEHL_SOUP__SCHEDULER__INTERVAL_SECONDS", "1");
    }

    /// A worker that reads the fixtures only, with one thread as the runs that it is compared with.
    fn worker(&self, name: &str, flags: &[&str]) -> Running {
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
        command.args(flags);
        self.configure(&mut command);
        command.env("MEHL_SOUP_CACHE_DIR", self.place.path("cache"));
        Running::start(command)
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        request(method, &format!("{}{path}", self.server), &[("content-type", "application/json")], bytes.as_bytes())
    }

    fn submit(&self, spec: &str) -> String {
        let body = json!({ "spec": spec, "format": "toml", "folder": self.place.path("").to_str().unwrap() });
        let answer = self.call("POST", "/v1/sweeps", Some(body));
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
        answer.json()["id"].as_str().unwrap().to_string()
    }

    fn sweep(&self, id: &str) -> Value {
        self.call("GET", &format!("/v1/sweeps/{id}"), None).json()
    }

    fn until(&self, what: &str, id: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
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
    fn task_of(&self, id: &str, worker: &str) -> Option<(String, u64, u64)> {
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
    fn until_computing(&self, id: &str, worker: &str) {
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
    fn events(&self, id: &str, task: &str) -> Vec<(String, String)> {
        let events = self.call("GET", &format!("/v1/sweeps/{id}/tasks/{task}/events"), None).json();
        let list = events["events"].as_array().unwrap();
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_string();
        list.iter().map(|event| (text(event, "what"), text(event, "detail"))).collect()
    }

    /// Asserts that a sweep's tasks ended as those of a run in `out`.
    fn assert_same(&self, id: &str, out: &str) {
        for (task, expected) in self.place.coefficients(out) {
            let found = self.call("GET", &format!("/v1/sweeps/{id}/tasks/{task}/coefficients"), None);
            assert_eq!(found.status, 200, "{task}");
            assert!(found.bytes == expected, "coefficients of {task} differ");
            let events = self.events(id, &task);
            assert_eq!(events.iter().filter(|(what, _)| what == "succeeded").count(), 1, "{task}: {events:?}");
        }
    }
}

/// Tasks of some seconds: long enough that a worker tells of its progress several times in each.
fn long_spec() -> String {
    let soup = "batch = 4\ninner_epochs = 700\npatience = 700\nmodel_batch = 2";
    sound_spec(soup, "[search.space]\nmethod = ['mehl+', 'mehl', 'hl+', 'hl']\n[compute]\nthreads = 1")
}

#[test]
fn workers_and_scheduler_come_and_go_and_the_bits_are_those_of_one_machine() {
    let mut pool = Pool::start();
    pool.place.spec("sweep.toml", &long_spec());
    let id = pool.submit(&long_spec());
    // While the pool is idle, the run to compare with.
    pool.place.run("sweep.toml", "whole").expect(0);

    let killed = pool.worker("killed", &[]);
    pool.until_computing(&id, "killed");
    assert_eq!(killed.kill().code, None);
    // The scheduler is killed too: it holds nothing.
    drop(pool.scheduler.take());
    let asked = pool.worker("asked", &[]);
    pool.start_scheduler();
    pool.until_computing(&id, "asked");
    asked.signal(libc::SIGTERM);
    let ended = asked.wait().expect(0);
    assert!(ended.stderr.contains("given back"), "{}", ended.stderr);

    // Stopped past its lease, then let go on: somebody else has its task by then.
    let stopped = pool.worker("stopped", &[]);
    pool.until_computing(&id, "stopped");
    stopped.signal(libc::SIGSTOP);
    let metrics = format!("127.0.0.1:{}", free_port());
    let other = pool.worker("other", &["--set", &format!("worker.listen={metrics}")]);
    pool.until("its task is taken from it", &id, |_| pool.task_of(&id, "stopped").is_none());
    stopped.signal(libc::SIGCONT);
    let sweep = pool.until("all tasks are done", &id, |sweep| sweep["outcome"] != Value::Null);
    assert_eq!((&sweep["outcome"], &sweep["counts"]["failed"]), (&json!("done"), &Value::Null), "{sweep}");
    pool.assert_same(&id, "whole");
    let scrape = |path: &str| request("GET", &format!("http://{metrics}{path}"), &[], b"");
    assert_eq!((scrape("/healthz").status, scrape("/readyz").status), (200, 200));
    let mut healthcheck = Command::new(env!("CARGO_BIN_EXE_mehl-soup-worker"));
    healthcheck.args(["healthcheck", "--ready", "--set", &format!("worker.listen={metrics}")]);
    Running::start(healthcheck).wait().expect(0);
    let listen = format!("scheduler.listen={}", pool.server.trim_start_matches("http://"));
    pool.place.mehl_soup(&["healthcheck", "--ready", "--set", &listen]).expect(0);
    let text = String::from_utf8(scrape("/metrics").bytes).unwrap();
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("mehl_soup_iterations_total") > 100.0);
    assert!(value("mehl_soup_iteration_samples_per_second") > 0.0);
    let (resident, peak) =
        ("mehl_soup_host_memory_bytes{kind=\"resident\"}", "mehl_soup_host_memory_bytes{kind=\"peak\"}");
    assert!(value(resident) > 1e7 && value(peak) >= value(resident));
    assert!(value("mehl_soup_attempts_total{outcome=\"succeeded\"}") >= 1.0);
    assert_eq!((value("mehl_soup_redis_connected"), value("mehl_soup_broker_connected")), (1.0, 1.0));
    other.signal(libc::SIGTERM);
    other.wait().expect(0);
    stopped.signal(libc::SIGTERM);
    stopped.wait().expect(0).says(&["another worker has it: nothing was written"]);
    let scheduler = pool.scheduler.take().unwrap();
    scheduler.signal(libc::SIGTERM);
    scheduler.wait().expect(0);
}

#[test]
fn a_worker_for_one_task_and_sweeps_that_it_must_not_or_cannot_read() {
    let pool = Pool::start();
    // Nothing to do.
    pool.worker("idle", &["--once"]).wait().expect(0);
    let short = sound_spec("method = 'uniform'", "");
    let id = pool.submit(&short);
    // The scores task, then best, then uniform: one each.
    for _ in 0..3 {
        pool.until("a ticket", &id, |_| pool.call("GET", "/v1/load", None).json()["runnable"] != 0);
        pool.worker("once", &["--once"]).wait().expect(0);
    }
    pool.until("done", &id, |sweep| sweep["outcome"] == "done");

    // A zoo outside of the worker's roots, and one that is not there.
    let worker = pool.worker("strict", &[]);
    pool.place.copy_zoo();
    for (zoo, says) in [
        (pool.place.path("zoo/*").to_str().unwrap().to_string(), "input roots"),
        (fixture("trajectories/none/*").to_str().unwrap().to_string(), "match"),
    ] {
        let learn = fixture("trajectories/learn.safetensors");
        let id = pool.submit(&support::programs::vit_spec(&zoo, &learn, "method = 'uniform'", ""));
        let sweep = pool.until("it fails", &id, |sweep| sweep["outcome"] != Value::Null);
        assert_eq!(sweep["outcome"], "failed", "{sweep}");
        let task = pool.call("GET", &format!("/v1/sweeps/{id}/tasks/scores"), None).json();
        assert!(task["cause"].as_str().unwrap().contains(says), "{task}");
    }
    // It goes on after that.
    let id = pool.submit(&short);
    pool.until("done", &id, |sweep| sweep["outcome"] == "done");
    worker.signal(libc::SIGINT);
    worker.wait().expect(0);
}

#[test]
fn a_module_runs_where_it_is_listed_only() {
    let pool = Pool::start();
    let text = |file: &str| fixture("text").join(file).display().to_string();
    let spec = format!(
        "[zoo]\ningredients = ['{}']\nfamily = 'torchscript'\narchitecture = '{}'\n\
         [data]\nlearn = '{}'\nselect = '{}'\ninputs = ['input_ids', 'attention_mask']\n[soup]\nmethod = 'uniform'\n",
        text("zoo/*"),
        text("model.pt"),
        text("learn.safetensors"),
        text("select.safetensors")
    );
    let hash = blake3::hash(&std::fs::read(fixture("text/model.pt")).unwrap()).to_hex().to_string();
    let wary = pool.worker("wary", &[]);
    let id = pool.submit(&spec);
    pool.until("it fails", &id, |sweep| sweep["outcome"] == "failed");
    let task = pool.call("GET", &format!("/v1/sweeps/{id}/tasks/scores"), None).json();
    let cause = task["cause"].as_str().unwrap();
    assert!(cause.contains("worker.torchscript_allow") && cause.contains(&hash), "{cause}");
    wary.signal(libc::SIGTERM);
    wary.wait().expect(0);

    let trusting = pool.worker("trusting", &["--set", &format!("worker.torchscript_allow={hash}")]);
    let answer = pool.call("POST", &format!("/v1/sweeps/{id}/retry"), None);
    assert_eq!(answer.status, 200);
    pool.until("it succeeds", &id, |sweep| sweep["outcome"] == "done");
    trusting.signal(libc::SIGTERM);
    trusting.wait().expect(0);
}

#[test]
fn programs_that_are_set_up_wrongly_say_so() {
    let place = Place::new();
    let worker = |set: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup-worker"));
        command.arg("serve");
        for set in set {
            command.args(["--set", set]);
        }
        Running::start(command).wait().expect(2)
    };
    worker(&[]).says(&["worker.input_roots"]);
    worker(&["worker.input_roots=/nothing/there"]).says(&["input root /nothing/there"]);
    // It takes no task that it would only fail.
    worker(&["worker.input_roots=/tmp", "worker.device=cuda:99"]).says(&["worker.device", "cuda:99"]);
    worker(&["worker.input_roots=/tmp", "worker.lease_second=3"]).says(&["lease_second", "lease_seconds"]);
    place.mehl_soup(&["serve", "--listen", "0.0.0.0:0"]).expect(2).says(&["scheduler.token"]);
    place.mehl_soup(&["serve", "--listen", "nowhere"]).expect(2).says(&["scheduler.listen"]);
}
