//! The commands against a scheduler, as a person types them: the program itself, a service on a real socket, workers with an engine without tensors.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::service::{SPEC, Service, TOKEN};
use mehl_soup::api::ApiSettings;
use mehl_soup::queue::InProcess;
use mehl_soup::store::Memory;
use serde_json::Value;

type Pool = Service<Memory, InProcess>;

/// The program's end.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "expected `{text}` in {self:?}");
        }
        self
    }

    fn shows(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text), "expected `{text}` in {self:?}");
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

fn command(server: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup"));
    command.args(arguments).current_dir(folder).env_clear().env("MEHL_SOUP_SERVER", server).stdin(Stdio::null());
    command
}

async fn run(mut command: Command) -> Ended {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } =
        tokio::time::timeout(Duration::from_secs(60), output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

struct Place {
    service: Pool,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sweep.toml"), SPEC).unwrap();
        Self { service: Pool::in_memory().await, folder }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        run(command(&self.service.server, self.folder.path(), arguments)).await
    }

    async fn submit(&self) -> String {
        let ended = self.run(&["submit", "sweep.toml"]).await.expect(0);
        let id = ended.stdout.trim_end().to_string();
        assert!(id.starts_with("digits-") && !id.contains('\n'), "stdout is the id alone: {ended:?}");
        id
    }

    async fn until(&self, id: &str, what: &str, done: impl Fn(&Value) -> bool) {
        for _ in 0..500 {
            let status = self.run(&["status", id, "--format", "json"]).await.expect(0).json();
            if done(&status) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_from_its_submission_to_its_removal() {
    let place = Place::new().await;
    place.service.work("a");
    let ended = place.run(&["submit", "sweep.toml", "--wait", "--name", "named", "--priority", "-3"]).await.expect(0);
    let id = ended.stdout.trim_end();
    assert!(id.starts_with("named-"), "{ended:?}");
    assert!(ended.stderr.contains("succeeded"), "{ended:?}");

    place.run(&["status"]).await.expect(0).shows(&[id, "named", "100 %", "done"]);
    let all = place.run(&["status", "--format", "json"]).await.expect(0).json();
    assert_eq!((&all[0]["id"], &all[0]["priority"]), (&Value::from(id), &Value::from(-3)));
    place.run(&["status", id]).await.expect(0).shows(&["scores", "uniform", "succeeded"]).says(&["100 %"]);
    place.run(&["status", id, "--watch"]).await.expect(0);

    place.run(&["results", id]).await.expect(0).shows(&["rank", "0001-mehl+", "uniform"]);
    let json = place.run(&["results", id, "--format", "json"]).await.expect(0).json();
    let rows = json["tasks"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "succeeded"), "{json}");
    let csv = place.run(&["results", id, "--format", "csv"]).await.expect(0).stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), rows.len() + 1, "{csv}");
    assert!(
        lines[0].starts_with("task_id,method,origin,state,select_loss") && lines[0].ends_with("searched.batch"),
        "{csv}"
    );
    for (line, row) in lines[1..].iter().zip(rows) {
        assert!(line.starts_with(row["task_id"].as_str().unwrap()), "the same order: {csv}");
    }

    // As the scheduler shows it, but for what only the scheduler knows of a sweep without coefficients.
    place.run(&["report", id, "--out", "report.html", "--plots", "plots"]).await.expect(0).shows(&["report.html"]);
    let page = std::fs::read_to_string(place.folder.path().join("report.html")).unwrap();
    assert!(page.contains("<h1>named</h1>") && page.contains("<svg") && page.contains("not a coefficients file"));
    assert!(std::fs::read_to_string(place.folder.path().join("plots/scores.svg")).unwrap().starts_with("<svg"));
    place.run(&["report", "unknown-abc23def", "--out", "x.html"]).await.expect(2);

    place.run(&["logs", id]).await.expect(0).shows(&["scores", "claimed", "succeeded"]);
    let one = place.run(&["logs", &format!("{id}/uniform"), "--format", "json"]).await.expect(0).json();
    let what: Vec<&str> = one.as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!((what.first(), what.last()), (Some(&"claimed"), Some(&"succeeded")));

    // The stub's coefficients are none: fetched, and refused as damaged.
    place.run(&["materialize", id, "--out", "model"]).await.expect(2).says(&["coefficients of task", "coefficients"]);
    place.run(&["materialize", id, "--task", "uniform", "--out", "model"]).await.expect(2).says(&["task uniform"]);
    place.run(&["materialize", id, "--task", "none", "--out", "model"]).await.expect(2).says(&["404"]);
    place.run(&["delete", id]).await.expect(0).says(&["deleted"]);
    place.run(&["status", id]).await.expect(2).says(&[id, "404"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_cancel_and_retry() {
    let place = Place::new().await;
    let id = place.submit().await;
    place.run(&["pause", &id]).await.expect(0).says(&["pause"]);
    place.run(&["delete", &id]).await.expect(2).says(&["409"]);
    place.service.work("a");
    place.until(&id, "it is paused", |sweep| sweep["order"] == "pause" && sweep["counts"]["paused"] == 1).await;
    place.run(&["resume", &id]).await.expect(0);
    place.run(&["status", &id, "--watch"]).await.expect(0);

    // A loss that is not a number ends each soup for good.
    place.service.knobs.fault.store(3, SeqCst);
    let failing = place.submit().await;
    place.run(&["status", &failing, "--watch"]).await.expect(1).says(&["no soup succeeded"]);
    place.run(&["logs", &failing]).await.expect(0).shows(&["failed", "loss is NaN"]);
    place.service.knobs.fault.store(0, SeqCst);
    place.run(&["retry", &failing]).await.expect(0);
    place.run(&["status", &failing, "--watch"]).await.expect(0);

    place.service.knobs.iterations.store(1_000_000, SeqCst);
    let long = place.submit().await;
    place.until(&long, "it runs", |sweep| sweep["counts"]["running"] == 1).await;
    place.run(&["cancel", &long]).await.expect(0);
    place.run(&["status", &long, "--watch"]).await.expect(1).says(&["cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_makes_one_sweep() {
    let place = Place::new().await;
    let first = place.run(&["submit", "sweep.toml", "--key", "mine"]).await.expect(0);
    let again = place.run(&["submit", "sweep.toml", "--key", "mine"]).await.expect(0);
    assert_eq!(first.stdout, again.stdout);
    let other = SPEC.replace("soup.method", "soup.patience = 9\nsoup.method");
    assert_ne!(other, SPEC);
    std::fs::write(place.folder.path().join("other.toml"), other).unwrap();
    place.run(&["submit", "other.toml", "--key", "mine"]).await.expect(2).says(&["409"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_specification_without_a_name_is_named_after_its_file() {
    let place = Place::new().await;
    let unnamed: String = SPEC.split_inclusive('\n').filter(|line| !line.starts_with("name")).collect();
    assert_ne!(unnamed, SPEC);
    std::fs::write(place.folder.path().join("my-search.toml"), unnamed).unwrap();
    let id = place.run(&["submit", "my-search.toml"]).await.expect(0).stdout;
    assert!(id.starts_with("my-search-"), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let place = Place::new().await;
    std::fs::write(place.folder.path().join("bad.toml"), "zoo.ingredient = 'x'\n[soup]\nmethod = 'mehl++'\n").unwrap();
    // All faults, with their places, before anything is sent.
    place.run(&["submit", "bad.toml"]).await.expect(2).says(&["bad.toml:1", "ingredients", "mehl++"]);
    place.run(&["submit", "none.toml"]).await.expect(2).says(&["none.toml"]);
    for arguments in [vec!["status", "a/b"], vec!["results", ".."], vec!["cancel"], vec!["logs", "a/b/c"]] {
        place.run(&arguments).await.expect(2);
    }
    place.run(&["report", "digits-aaaaaaaa", "--out", "x.html"]).await.expect(2);
    for command in ["status", "results", "logs", "cancel", "pause", "resume", "retry", "delete"] {
        place.run(&[command, "unknown-1"]).await.expect(2).says(&["unknown-1", "404"]);
    }
    let nobody = command("http://127.0.0.1:9", place.folder.path(), &["status"]);
    run(nobody).await.expect(1).says(&["http://127.0.0.1:9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_where_there_is_one() {
    let service = Service::start(Memory::default(), InProcess::default(), Some(TOKEN), ApiSettings::default()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    std::fs::write(folder.path().join("wrong"), "another-secret").unwrap();
    let status = |arguments: &[&str]| {
        let all: Vec<&str> = ["status"].iter().chain(arguments).copied().collect();
        command(&service.server, folder.path(), &all)
    };
    run(status(&[])).await.expect(2).says(&["401"]);
    let wrong = run(status(&["--token-file", "wrong"])).await.expect(2).says(&["401"]);
    assert!(!wrong.stderr.contains("another-secret"), "{wrong:?}");
    run(status(&["--token-file", "token"])).await.expect(0);
    let mut variable = status(&[]);
    variable.env("MEHL_SOUP__CLIENT__TOKEN", TOKEN);
    run(variable).await.expect(0);
}
