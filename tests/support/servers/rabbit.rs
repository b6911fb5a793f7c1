//! RabbitMQ nodes of the tests' own. Each has its own port mapper, cookie, users and data, so nothing of it meets a broker that the machine may have.
//!
//! `MEHL_SOUP_TEST_AMQP_URL` names a broker to be used where it is not harmed; the tests leave their queues, named `test-...`, in it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mehl_soup::queue::{RabbitMq, RabbitMqSettings};
use tempfile::TempDir;

use super::{end_groups_with_us, free_port, until};

/// Where Debian has the scripts that do not insist on a user of their own.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// A RabbitMQ node.
pub struct RabbitServer {
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
    ports: Ports,
    mapper: Child,
    node: Child,
}

/// Of the port mapper, and of the node for its tools.
#[derive(Clone, Copy)]
struct Ports {
    mapper: u16,
    distribution: u16,
}

impl RabbitServer {
    /// Starts one, with more lines of configuration if needed.
    pub fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports { mapper: free_port(), distribution: free_port() };
        let port = free_port();
        // What little a machine of tests has must not put it in need.
        let configuration = format!("disk_free_limit.absolute = 1MB\nloopback_users = none\n{configuration}\n");
        fs::write(folder.path().join("rabbitmq.conf"), configuration).unwrap();
        // In front, and not as the daemon that a node would leave behind.
        let mut mapper = Command::new("epmd");
        mapper.args(["-address", "127.0.0.1", "-port", &ports.mapper.to_string()]);
        let mapper = quiet(&mut mapper).process_group(0).spawn().expect(MISSING);
        until("epmd", || TcpStream::connect(("127.0.0.1", ports.mapper)).is_ok());
        let node = spawn(folder.path(), port, ports);
        end_groups_with_us(&[mapper.id(), node.id()]);
        let server = Self { folder, port, tls_port: None, ports, mapper, node };
        server.await_up();
        server
    }

    /// Starts one that speaks TLS too, with this certificate and key.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let port = free_port();
        let (certificate, key) = (certificate.display(), key.display());
        let mut server = Self::start(&format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
        ));
        server.tls_port = Some(port);
        server
    }

    fn await_up(&self) {
        let began = std::time::Instant::now();
        until("rabbitmq-server", || answers(self.port));
        eprintln!("rabbitmq-server on port {} was up after {:?}", self.port, began.elapsed());
    }

    /// Port of plain AMQP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Port of AMQP over TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with TLS")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/", self.port)
    }

    /// Asks it to stop, as an operator does, and waits until it has.
    pub fn stop(&mut self) {
        let group = format!("-{}", self.node.id());
        drop(quiet(Command::new("kill").args(["-TERM", "--", &group])).status());
        until("rabbitmq-server to stop", || self.node.try_wait().unwrap().is_some() && !answers(self.port));
        kill_group(&mut self.node);
    }

    /// Kills it at once. A queue that was declared a moment ago does not survive that.
    pub fn kill(&mut self) {
        kill_group(&mut self.node);
    }

    /// Starts it again, with what it has on disk.
    pub fn start_again(&mut self) {
        self.node = spawn(self.folder.path(), self.port, self.ports);
        end_groups_with_us(&[self.node.id()]);
        self.await_up();
    }

    /// Forgets all that it has on disk, once it is stopped.
    pub fn wipe(&mut self) {
        fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    /// Runs the node's own tool.
    pub fn rabbitmqctl(&self, arguments: &[&str]) {
        drop(self.rabbitmqctl_output(arguments));
    }

    /// The same, for what it prints.
    pub fn rabbitmqctl_output(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("{PROGRAMS}/rabbitmqctl"));
        let output = environment(&mut command, self.folder.path(), self.port, self.ports)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect(MISSING);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        kill_group(&mut self.node);
        kill_group(&mut self.mapper);
    }
}

const MISSING: &str = "RabbitMQ: Debian has it as the package rabbitmq-server; `make setup-servers` installs it";

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn environment<'a>(command: &'a mut Command, folder: &Path, port: u16, ports: Ports) -> &'a mut Command {
    for name in ["data", "log"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let inside = |name: &str| folder.join(name);
    command
        // The cookie lies in the home folder.
        .env("HOME", folder)
        .env("ERL_EPMD_PORT", ports.mapper.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("test-{port}@localhost"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", port.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", inside("data"))
        .env("RABBITMQ_LOG_BASE", inside("log"))
        .env("RABBITMQ_PID_FILE", inside("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins"))
        .env("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf"))
        .env("RABBITMQ_CONF_ENV_FILE", inside("none"))
        // Two schedulers: many nodes run at once on few cores. And no busy waiting.
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none")
}

fn spawn(folder: &Path, port: u16, ports: Ports) -> Child {
    let mut command = Command::new(format!("{PROGRAMS}/rabbitmq-server"));
    // A group of its own: the script, the machine and its helpers are killed together.
    quiet(environment(&mut command, folder, port, ports)).process_group(0).spawn().expect(MISSING)
}

/// Whether a broker says hello: a node opens its port before it can be used, so the port alone says little.
fn answers(port: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut start = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read_exact(&mut start).is_ok()
}

fn kill_group(leader: &mut Child) {
    let group = format!("-{}", leader.id());
    drop(quiet(Command::new("kill").args(["-9", "--", &group])).status());
    drop(leader.wait());
}

/// The address of a broker that tests share which do it no harm.
pub fn shared_rabbit() -> String {
    static SHARED: OnceLock<RabbitServer> = OnceLock::new();
    // Statics are not dropped: the node goes with the process that started it.
    std::env::var("MEHL_SOUP_TEST_AMQP_URL").unwrap_or_else(|_| SHARED.get_or_init(|| RabbitServer::start("")).url())
}

/// Settings of a new, empty installation on a broker.
pub fn rabbit_settings(url: String) -> RabbitMqSettings {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    RabbitMqSettings {
        url: url.into(),
        ca_file: None,
        installation: format!("test-{}-{number}", std::process::id()),
        connection_name: "test".to_string(),
        heartbeat: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
    }
}

/// A new, empty queue on the shared broker.
pub async fn new_queue() -> RabbitMq {
    let url = tokio::task::spawn_blocking(shared_rabbit).await.unwrap();
    RabbitMq::start(&rabbit_settings(url)).unwrap()
}
