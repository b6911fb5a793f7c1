//! Prometheus and its promtool, on free ports, with their data in a temporary folder.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

use crate::servers_support::servers::free_port;
use crate::servers_support::service::request;

const PATIENCE: Duration = Duration::from_secs(30);
const MISSING: &str = "Debian has it in the package prometheus; `make setup-servers` installs it";

/// Runs promtool, which must find nothing.
pub fn promtool(arguments: &[&str], input: &[u8]) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect(MISSING);
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "promtool {arguments:?}: {said}");
}

/// A server that scrapes twice a second, with the chart's rules.
pub struct Prometheus {
    child: Child,
    address: String,
    began: f64,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    /// Starts one for these jobs, each with the address of its one target.
    pub fn start(jobs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/mehl-soup/rules/*.yaml");
        let mut config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 1s}}\nrule_files: ['{rules}']\nscrape_configs:\n"
        );
        for (job, address) in jobs {
            let target = address.trim_start_matches("http://");
            config += &format!(
                "  - {{job_name: {job}, static_configs: [{{targets: ['{target}'], labels: {{namespace: soups}}}}]}}\n"
            );
        }
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect(MISSING);
        let began = now();
        Self { child, address: format!("http://{address}"), began, _folder: folder }
    }

    /// Waits until it has scraped so many targets.
    pub fn until_up(&self, targets: usize) {
        let began = Instant::now();
        let address = self.address.trim_start_matches("http://");
        while std::net::TcpStream::connect(address).is_err() || self.values("query", "up == 1").len() < targets {
            assert!(began.elapsed() < PATIENCE, "it does not scrape {targets} targets");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Series that a query answers since the start, at every half second, or now.
    fn values(&self, how: &str, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = match how {
            "query" => format!("query={encoded}"),
            _ => format!("query={encoded}&start={}&end={}&step=0.5", self.began, now()),
        };
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = request("POST", &format!("{}/api/v1/{how}", self.address), &headers, body.as_bytes());
        if answer.status == 503 {
            return vec![];
        }
        let answer = answer.json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Titles of panels of these dashboards with a query that gave no number at any time since the start.
    pub fn empty_panels(&self, folder: &Path) -> Vec<String> {
        let mut empty = vec![];
        let mut queries = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let dashboard: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            for panel in dashboard["panels"].as_array().unwrap() {
                for target in panel["targets"].as_array().into_iter().flatten() {
                    let mut query = target["expr"].as_str().unwrap().to_string();
                    // As Grafana would put them in: the least rate interval is four scrapes.
                    for (variable, value) in
                        [("$__rate_interval", "2s"), ("$__range", "1m"), ("$namespace", "soups"), ("$job", ".*")]
                    {
                        query = query.replace(variable, value);
                    }
                    queries += 1;
                    let series = self.values("query_range", &query);
                    let finite = |point: &Value| point[1].as_str().unwrap().parse::<f64>().unwrap().is_finite();
                    if !series.iter().any(|one| one["values"].as_array().unwrap().iter().any(finite)) {
                        empty.push(panel["title"].as_str().unwrap().to_string());
                    }
                }
            }
        }
        assert!(queries > 40, "{queries}");
        empty
    }

    /// How many rules there are, and those that cannot be evaluated or fire.
    pub fn rules(&self) -> (usize, Vec<Value>) {
        let answer = request("GET", &format!("{}/api/v1/rules", self.address), &[], b"").json();
        let groups = answer["data"]["groups"].as_array().unwrap().clone();
        let rules: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        let (all, is_bad) = (rules.len(), |rule: &Value| rule["health"] != "ok" || rule["state"] != "inactive");
        (all, rules.into_iter().filter(is_bad).collect())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
