//! Servers of the tests' own: on free ports, with their data in a temporary folder, gone with the test.
//!
//! `MEHL_SOUP_TEST_REDIS_URL` names a server to be used instead; tests keep to installations of their own in it.

mod rabbit;
mod sentinel;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use mehl_soup::store::{Redis, RedisSettings};
#[allow(unused_imports, reason = "each test binary uses its part of this")]
pub use rabbit::{RabbitServer, new_queue, rabbit_settings, shared_rabbit};
#[allow(unused_imports, reason = "each test binary uses its part of this")]
pub use sentinel::SentinelServer;
use tempfile::TempDir;

/// Longest wait for a server to come up or to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `done`, looking again and again.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A Redis server.
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    /// A file system of its own, which can be filled.
    disk: Option<SmallDisk>,
}

/// A file system in memory, mounted over a folder.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(folder: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m", "none"]).arg(folder).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(folder.to_path_buf()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

impl RedisServer {
    /// Starts one that keeps every write on disk, with more settings if needed.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments: Vec<String> = arguments.iter().map(|a| a.to_string()).collect();
        let child = Self::spawn(port, &folder, &arguments);
        Self { child, port, folder, arguments, disk: None }
    }

    /// The same with a disk of its own, where this user may mount one. Its append-only file is
    /// written as `everysec` does, as a server that writes always ends when its disk is full.
    pub fn start_on_small_disk() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let disk = SmallDisk::mount(folder.path());
        let arguments = ["--appendfsync", "everysec", "--auto-aof-rewrite-min-size", "16mb"].map(String::from).to_vec();
        let child = Self::spawn(port, &folder, &arguments);
        Self { child, port, folder, arguments, disk }
    }

    /// Fills the disk: nothing more can be written. False without a disk of its own.
    pub fn fill_disk(&self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let mut filler = std::fs::File::create(disk.filler()).unwrap();
        let block = vec![0; 1 << 20];
        while std::io::Write::write_all(&mut filler, &block).is_ok() {}
        true
    }

    /// There is room again.
    pub fn free_disk(&self) {
        if let Some(disk) = &self.disk {
            std::fs::remove_file(disk.filler()).unwrap();
        }
    }

    /// One command, by the server's own tool.
    pub fn command(&self, words: &[&str]) -> String {
        redis_command(&self.url(), words)
    }

    fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--dir"]).arg(folder.path()).args(arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: Debian has it as a package of that name; `make setup-servers` installs it");
        until("redis-server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it at once.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A copy of what it has on disk, as a backup would make it.
    pub fn copy_data(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let from = format!("{}/.", self.folder.path().display());
        assert!(Command::new("cp").args(["-r", &from]).arg(copy.path()).status().unwrap().success());
        copy
    }

    /// Starts it, stopped before, with such a copy in place of what it has.
    pub fn start_with(&mut self, copy: &TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let from = format!("{}/.", copy.path().display());
        assert!(Command::new("cp").args(["-r", &from]).arg(folder.path()).status().unwrap().success());
        self.folder = folder;
        self.child = Self::spawn(self.port, &self.folder, &self.arguments);
    }

    /// Kills it at once, and starts it anew with what it has on disk.
    pub fn kill_and_restart(&mut self) {
        self.stop();
        self.child = Self::spawn(self.port, &self.folder, &self.arguments);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A certificate for 127.0.0.1 and localhost, signed by an authority of its own: authority, key, certificate.
pub fn certificates(folder: &Path) -> [PathBuf; 3] {
    let [ca, key, certificate] = ["ca.pem", "key.pem", "certificate.pem"].map(|name| folder.join(name));
    let script = "set -e; cd \"$1\"; k='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $k -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
        openssl req $k -keyout key.pem -out request.pem -subj /CN=localhost
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' >extensions
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out certificate.pem";
    let made = Command::new("sh").args(["-c", script, "sh"]).arg(folder).output().expect("a shell");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    [ca, key, certificate]
}

/// The server that tests share which do it no harm.
fn shared_redis() -> String {
    static SHARED: OnceLock<Option<Mutex<RedisServer>>> = OnceLock::new();
    if let Ok(url) = std::env::var("MEHL_SOUP_TEST_REDIS_URL") {
        return url;
    }
    let server = SHARED.get_or_init(|| {
        let server = RedisServer::start(&[]);
        // Statics are not dropped: the server goes with the process that started it.
        end_with_us(server.child.id());
        Some(Mutex::new(server))
    });
    server.as_ref().unwrap().lock().unwrap().url()
}

/// Starts a shell that kills `child` as soon as this process is gone, however it ends.
fn end_with_us(child: u32) {
    end_all_with_us(&child.to_string());
}

/// The same for groups of processes.
fn end_groups_with_us(leaders: &[u32]) {
    let groups: Vec<_> = leaders.iter().map(|leader| format!("-{leader}")).collect();
    end_all_with_us(&groups.join(" "));
}

fn end_all_with_us(processes: &str) {
    let script =
        format!("while kill -0 {} 2>/dev/null; do sleep 0.2; done; kill -s KILL -- {processes}", std::process::id());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.spawn().unwrap());
}

/// Settings of a new, empty installation on a server.
pub fn settings(url: String) -> RedisSettings {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let installation = format!("test-{}-{number}", std::process::id());
    RedisSettings { url: url.into(), ca_file: None, installation, timeout: Duration::from_secs(10) }
}

/// A new, empty store on the shared server.
pub async fn new_store() -> Redis {
    Redis::connect(&settings(shared_redis())).await.unwrap()
}

/// The same, with the server's address and the installation's name.
pub async fn new_store_at() -> (Redis, String, String) {
    let url = shared_redis();
    let settings = settings(url.clone());
    (Redis::connect(&settings).await.unwrap(), url, settings.installation)
}

/// One command to a server, beside the store: what a person would do by hand.
pub fn redis_command(url: &str, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-u", url, "-e"]).args(words).output().expect("redis-cli");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
    assert!(output.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
