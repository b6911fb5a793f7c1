//! A Sentinel of a test's own.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{free_port, until};

/// A Sentinel that decides alone. It gives up a primary after half a second.
pub struct SentinelServer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl SentinelServer {
    /// Watches the primary of this port under the name `primary`, with more lines of configuration if needed.
    pub fn start(primary: u16, lines: &[&str]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        // It writes to its file what it learns.
        let file = folder.path().join("sentinel.conf");
        let lines = lines.join("\n").replace("{port}", &port.to_string());
        let plain = if lines.contains("tls-port") { 0 } else { port };
        let text = format!(
            "port {plain}\nbind 127.0.0.1\nsentinel monitor primary 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds primary 500\nsentinel failover-timeout primary 2000\n{lines}\n"
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).args(["--sentinel", "--dir"]).arg(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the Sentinel", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, _folder: folder }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for SentinelServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
