//! `mehl-soup serve`, as it is deployed.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::servers::free_port;
use crate::support::service::request;

const PATIENCE: Duration = Duration::from_secs(60);

/// The program, ready to answer. It ends with the value.
pub struct Program {
    child: Child,
    server: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Program {
    pub fn start(redis: &str, rabbit: &str, installation: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mehl-soup"));
        command.args(["serve", "--listen", &address]).env_clear();
        for (name, value) in [("REDIS__URL", redis), ("AMQP__URL", rabbit), ("INSTALLATION", installation)] {
            command.env(format!("MEHL_SOUP__{name}"), value);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let program = Self { child, server: format!("http://{address}") };
        let began = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the scheduler does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        program.until("ready", || request("GET", &format!("{}/readyz", program.server), &[], b"").status == 200);
        program
    }

    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < 4 * PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn get(&self, path: &str) -> Value {
        request("GET", &format!("{}{path}", self.server), &[], b"").json()
    }

    /// Creates a sweep, and answers its id.
    pub fn submit(&self, spec: &str) -> String {
        let body = json!({"spec": spec, "format": "toml", "folder": "/base"}).to_string();
        let headers = [("content-type", "application/json")];
        let answer = request("POST", &format!("{}/v1/sweeps", self.server), &headers, body.as_bytes());
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
        answer.json()["id"].as_str().unwrap().to_string()
    }

    /// Resident memory in bytes: now, and the most that there ever was.
    pub fn resident(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let [now, most] = ["VmRSS:", "VmHWM:"].map(|name| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        });
        (now, most)
    }
}
