//! What the programs tell of themselves while they work: metrics, what Prometheus and the dashboards make of them, and logs.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::pool_support::Pool;
use crate::prometheus_support::{Prometheus, promtool};
use crate::scrape_support::Scrape;
use crate::servers_support::servers::free_port;
use crate::support::programs::{Running, sound_spec};
use mehl_soup::metrics::series::{Kind, Of, SERIES};
use serde_json::{Value, json};

/// Learn samples of the fixture, and of an iteration.
const BATCH: f64 = 8.0;

/// Tasks of every kind, of about ten seconds together. An epoch is three whole batches.
fn spec() -> String {
    let soup = "batch = 8\ninner_epochs = 400\npatience = 400\nmodel_batch = 2";
    sound_spec(soup, "[search.space]\nmethod = ['mehl+', 'learned', 'greedy', 'hl']\n[compute]\nthreads = 1")
}

#[test]
fn metrics_move_as_they_must_and_dashboards_show_them() {
    let pool = Pool::start();
    let metrics = format!("127.0.0.1:{}", free_port());
    let worker = pool.worker("told", &["--set", &format!("worker.listen={metrics}")]);
    let metrics = format!("http://{metrics}");
    let prometheus = Prometheus::start(&[("scheduler", &pool.server), ("worker", &metrics)]);
    prometheus.until_up(2);

    let id = pool.submit(&spec());
    let mut seen: Vec<Scrape> = vec![];
    let mut at = BTreeSet::new();
    pool.until("the sweep ends", &id, |sweep| {
        let scrape = Scrape::of(&metrics);
        assert!(scrape.by_label("task_info").len() <= 1, "{}", scrape.text);
        at.extend(scrape.by_label("task_info").into_keys().map(str::to_string));
        let memory = |kind: &str| scrape.value(&format!("host_memory_bytes{{kind=\"{kind}\"}}"));
        assert!(memory("peak") >= memory("resident") && memory("resident") >= memory("anonymous"), "{}", scrape.text);
        assert!(memory("limit") > memory("resident") && memory("anonymous") > 1e6, "{}", scrape.text);
        seen.push(scrape);
        sweep["outcome"] != Value::Null
    });
    assert!(seen.len() > 20 && at.len() >= 3, "{} {at:?}", seen.len());
    let told = Scrape::until(&metrics, "an idle worker has no task", |told| told.by_label("task_info").is_empty());
    let succeeded = told.value("attempts_total{outcome=\"succeeded\"}");
    // What a scheduler tells is as of its last turn.
    let scheduler = Scrape::until(&pool.server, "all tasks are counted", |scheduler| {
        scheduler.value("tasks{state=\"succeeded\"}") == succeeded && scheduler.sum("tickets") == 0.0
    });
    are_as_defined(&told, Of::Worker);
    are_as_defined(&scheduler, Of::Scheduler);
    only_rise(seen.iter().chain([&told]));

    let rows = pool.call("GET", &format!("/v1/sweeps/{id}/results"), None).json();
    agrees_with_results(&told, rows["tasks"].as_array().unwrap());
    assert_eq!(scheduler.sum("tasks"), succeeded, "nothing but succeeded tasks");
    assert!(scheduler.value("tickets_published_total") >= succeeded);
    assert_eq!((scheduler.value("workers"), scheduler.value("window_tickets")), (1.0, 18.0));
    for name in ["leases_expired_total", "dead_letters_total", "malformed_letters_total"] {
        assert_eq!(scheduler.value(name), 0.0, "{name}");
    }

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/mehl-soup/dashboards");
    // Their series need a GPU; the others are all there.
    let expected = BTreeSet::from(["Device memory", "GPU use", "GPU memory", "GPU power", "GPU temperature"]);
    let empty = prometheus.empty_panels(folder.as_ref());
    assert_eq!(empty.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    let (rules, unhealthy) = prometheus.rules();
    assert!(rules >= 9 && unhealthy.is_empty(), "{rules} {unhealthy:?}");

    worker.signal(libc::SIGTERM);
    worker.wait().expect(0);
}

/// Every series of a program is there with its kind, help and labels, and no other; promtool finds nothing.
fn are_as_defined(scrape: &Scrape, of: Of) {
    let mut names = BTreeSet::new();
    for series in SERIES.iter().filter(|series| series.of == of || series.of == Of::Both) {
        let full = format!("mehl_soup_{}", series.name);
        names.insert(full.clone());
        // A CPU has no memory of its own, and an idle worker no task.
        if ["device_memory_bytes", "task_info"].contains(&series.name) {
            continue;
        }
        let (kind, help) = scrape.families.get(&full).unwrap_or_else(|| panic!("{full}: not in\n{}", scrape.text));
        let (expected, sample) = match series.kind {
            Kind::Counter => ("counter", series.name.to_string()),
            Kind::Gauge => ("gauge", series.name.to_string()),
            Kind::Histogram(_) => ("histogram", format!("{}_sum", series.name)),
        };
        assert_eq!((kind.as_str(), help.as_str()), (expected, series.help), "{full}");
        let samples = scrape.by_label(&sample);
        assert!(!samples.is_empty(), "{full} has no value");
        for labels in samples.keys() {
            assert_eq!(labels.matches("=\"").count(), series.labels.len(), "{full}{labels}");
            assert!(series.labels.iter().all(|label| labels.contains(&format!("{label}=\""))), "{full}{labels}");
        }
    }
    let unknown: Vec<_> = scrape.families.keys().filter(|name| !names.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    promtool(&["check", "metrics"], scrape.text.as_bytes());
}

/// Counters, and parts of histograms, never fall.
fn only_rise<'a>(scrapes: impl Iterator<Item = &'a Scrape>) {
    let mut last: Option<&Scrape> = None;
    for scrape in scrapes {
        for (series, value) in last.iter().flat_map(|last| &last.samples) {
            let name = series.split('{').next().unwrap();
            if ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) {
                assert!(scrape.samples.get(series).is_some_and(|now| now >= value), "{series}");
            }
        }
        let progress = "last_progress_timestamp_seconds";
        assert!(last.is_none_or(|last| scrape.value(progress) >= last.value(progress)));
        last = Some(scrape);
    }
}

/// One worker has done everything: what it told adds up to what the results say.
fn agrees_with_results(told: &Scrape, rows: &[Value]) {
    let iterations: f64 = rows.iter().map(|row| row["iterations"].as_f64().unwrap()).sum();
    assert!(iterations > 1000.0, "{rows:?}");
    assert_eq!(told.value("iterations_total"), iterations);
    assert_eq!(told.value("samples_total"), BATCH * iterations);
    let seconds = |row: &Value| {
        let speed = row["samples_per_second"].as_f64()?;
        Some(row["iterations"].as_f64().unwrap() * BATCH / speed)
    };
    let within: f64 = rows.iter().filter_map(seconds).sum();
    let phase = |name: &str, part: &str| told.value(&format!("iteration_duration_seconds_{part}{{phase=\"{name}\"}}"));
    let phases = ["data", "mix", "forward", "backward", "project", "update"];
    let sum: f64 = phases.iter().map(|name| phase(name, "sum")).sum();
    assert!((sum / within - 1.0).abs() < 0.05, "phases add up to {sum} s, iterations took {within} s");
    for name in phases {
        assert_eq!(phase(name, "count"), iterations, "{name}");
    }
    assert!((1.0..iterations / 10.0).contains(&phase("snapshot", "count")), "{}", told.text);

    // Two model batches, all ingredients for `hl`, and for `learned`.
    assert_eq!(told.value("model_batch_load_seconds_count"), 4.0);
    assert!(told.value("ingredient_read_bytes_total") > 1e5);
    assert!(told.value("checkpoint_write_seconds_count") >= rows.len() as f64);
    assert!(told.value("checkpoint_bytes") > 100.0 && told.value("checkpoint_failures_total") == 0.0);
    assert!((0.0..=1.0).contains(&told.value("select_metric{metric=\"accuracy\"}")) && told.value("select_loss") > 0.0);
    assert!(told.value("learn_loss") > 0.0 && told.value("iteration_samples_per_second") > 0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&told.value("last_progress_timestamp_seconds")));
    assert_eq!((told.value("redis_connected"), told.value("broker_connected")), (1.0, 1.0));
    assert_eq!(told.value("fenced_writes_total"), 0.0);
}

/// Lines of a log, each of which has to be an object.
fn objects(log: &str) -> Vec<Value> {
    assert!(!log.is_empty());
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn logs_name_the_task_on_every_thread() {
    let mut pool = Pool::start_with(&["--log-format", "json"]);
    let spec = sound_spec("method = 'hl'\nbatch = 8\ninner_epochs = 40\npatience = 40\nmodel_batch = 2", "");
    let logging = |name: &str, flags: &[&str], filter: &str| pool.worker_with(name, flags, &[("RUST_LOG", filter)]);

    let id = pool.submit(&spec);
    let worker = logging("json", &["--log-format", "json"], "mehl_soup=debug");
    pool.until("done", &id, |sweep| sweep["outcome"] == "done");
    worker.signal(libc::SIGTERM);
    let lines = objects(&worker.wait().expect(0).stderr);
    let of = |thread: &str, message: &str| -> Vec<&Value> {
        let is_wanted =
            |line: &&Value| line["message"] == message && (line["threadName"] == "compute") == (thread == "compute");
        lines.iter().filter(is_wanted).collect()
    };
    for (thread, message) in [("compute", "learning"), ("compute", "model batch read"), ("main", "checkpoint written")]
    {
        let found = of(thread, message);
        assert!(!found.is_empty(), "{thread}: {message}: {lines:?}");
        for line in found {
            assert_eq!((&line["span"]["sweep"], &line["span"]["attempt"]), (&json!(id), &json!(1)), "{line}");
            assert!(line["span"]["task"].is_string() && line["timestamp"].is_string(), "{line}");
        }
    }
    assert_eq!(of("compute", "learning").len(), 120, "three batches in each of 40 epochs");
    let rows = pool.call("GET", &format!("/v1/sweeps/{id}/results"), None).json();
    let row = rows["tasks"].as_array().unwrap().iter().find(|row| row["method"] == "hl").unwrap();
    assert!(of("compute", "learning").iter().all(|line| line["span"]["task"] == row["task_id"]), "{row}");
    let scores = lines.iter().filter(|line| line["span"]["task"] == "scores").count();
    assert!(scores > 0 && lines.iter().any(|line| line["message"] == "worker has ended"), "{lines:?}");

    // Text for people, without what an iteration says; and what RUST_LOG leaves of it.
    let id = pool.submit(&spec);
    let worker = logging("text", &[], "");
    pool.until("done", &id, |sweep| sweep["outcome"] == "done");
    worker.signal(libc::SIGTERM);
    let text = worker.wait().expect(0).says(&["INFO", &format!("task{{sweep={id} task=scores attempt=1}}: ")]).stderr;
    assert!(!text.contains("learning") && !text.contains('\u{1b}'), "{text}");
    let worker = logging("quiet", &[], "mehl_soup=error");
    pool.until("there", &id, |_| pool.call("GET", "/v1/workers", None).json().to_string().contains("quiet"));
    worker.signal(libc::SIGTERM);
    assert_eq!(worker.wait().expect(0).stderr, "");
    logging("bad", &[], "mehl_soup=loud").wait().expect(2).says(&["RUST_LOG", "loud"]);

    let scheduler = pool.scheduler.take().unwrap();
    scheduler.signal(libc::SIGTERM);
    let lines = objects(&scheduler.wait().expect(0).stderr);
    assert!(
        lines.iter().any(|line| line["message"] == "sweep admitted" && line["span"]["route"] == "/v1/sweeps"),
        "{lines:?}"
    );
}

/// Formats are those that there are.
#[test]
fn an_unknown_format_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup-worker"));
    command.args(["serve", "--log-format", "xml"]);
    Running::start(command).wait().expect(2).says(&["log.format", "`text` or `json`", "xml"]);
}
