//! The programs of a pool, as they are deployed: scheduler and workers as processes, a real Redis and RabbitMQ between them. Whatever happens to them, the
//! coefficients are those of a run on one machine that nothing happened to.

use std::collections::BTreeSet;
use std::process::Command;

use crate::pool_support::Pool;
use crate::servers_support::servers::free_port;
use crate::servers_support::service::request;
use crate::support::fixture;
use crate::support::programs::{Place, Running, sound_spec, vit_spec};
use serde_json::{Value, json};

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
    // The scheduler is killed too: its state is in Redis.
    drop(pool.scheduler.take());
    let asked = pool.worker("asked", &[]);
    pool.start_scheduler();
    pool.until_computing(&id, "asked");
    asked.signal(libc::SIGTERM);
    let ended = asked.wait().expect(0);
    assert!(ended.stderr.contains("another worker can continue it"), "{}", ended.stderr);

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
    stopped.wait().expect(0).says(&["taken over by another worker; nothing was written"]);
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
        let id = pool.submit(&crate::support::programs::vit_spec(&zoo, &learn, "method = 'uniform'", ""));
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
fn a_sweep_with_a_base_ends_with_the_bits_of_one_machine() {
    let mut pool = Pool::start();
    // A fourth fine-tune stands for the model that the others come from.
    let spec = vit_spec(
        fixture("trajectories/zoo/k[012]").to_str().unwrap(),
        &fixture("trajectories/learn.safetensors"),
        "batch = 4\ninner_epochs = 700\npatience = 700\nmodel_batch = 2",
        "[search.space]\nmethod = ['steady', 'mehl+']\n[compute]\nthreads = 1",
    );
    let spec = spec.replace("[data]", &format!("base = '{}'\n[data]", fixture("trajectories/zoo/k3").display()));
    pool.place.spec("sweep.toml", &spec);
    pool.place.run("sweep.toml", "whole").expect(0);
    let found: BTreeSet<_> = pool.place.results("whole").tasks.iter().map(|row| row.method.to_string()).collect();
    assert_eq!(found, ["best", "mehl+", "model-stock", "steady", "uniform"].map(String::from).into());

    let id = pool.submit(&spec);
    let killed = pool.worker("killed", &[]);
    pool.until_computing(&id, "killed");
    assert_eq!(killed.kill().code, None);
    let worker = pool.worker("other", &[]);
    let sweep = pool.until("all tasks are done", &id, |sweep| sweep["outcome"] != Value::Null);
    assert_eq!((&sweep["outcome"], &sweep["counts"]["failed"]), (&json!("done"), &Value::Null), "{sweep}");
    pool.assert_same(&id, "whole");
    worker.signal(libc::SIGTERM);
    worker.wait().expect(0);
    let scheduler = pool.scheduler.take().unwrap();
    scheduler.signal(libc::SIGTERM);
    scheduler.wait().expect(0);
}

#[test]
fn a_module_runs_where_it_is_listed_only() {
    let pool = Pool::start();
    let text = |file: &str| fixture("text").join(file).display().to_string();
    let spec = format!(
        "[zoo]\nallow_chance = true\ningredients = ['{}']\nfamily = 'torchscript'\narchitecture = '{}'\n\
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
