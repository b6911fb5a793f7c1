//! The part of a soak that real programs have: a scheduler and workers with the real engine, under
//! the same faults as the others, with users of their own whose passwords and permissions change.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mehl_soup::api_types::{CreatedBody, NewSweepBody, SpecFormat};
use mehl_soup::client::{Client, ClientSettings};

use crate::support::servers::{RabbitServer, RedisServer, free_port};

/// The installation of these programs, and the user's name on both servers.
pub const NAME: &str = "real";
const WORKERS: usize = 2;
/// How long a server does not accept a user, or a permission is missing.
const REFUSED: Duration = Duration::from_secs(2);
/// Where the programs are.
const PROGRAMS: &str = "MEHL_SOUP_SOAK_PROGRAMS";

/// A program, and what it says.
struct Program {
    child: Child,
    log: PathBuf,
    /// Whether its end was wanted.
    is_to_end: bool,
}

impl Program {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let said = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        Self { child, log, is_to_end: false }
    }

    /// Whether it has ended. Nothing that a server does may end it.
    fn has_ended(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(15).collect();
        assert!(self.is_to_end, "{} ended by itself ({status}): {last:?}", self.log.display());
        true
    }
}

/// The programs, and what they are to have done.
pub struct Real {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    /// Ports of the ways to Redis and to the broker.
    ways: [u16; 2],
    scheduler: Program,
    workers: Vec<Program>,
    passwords: u32,
    client: Client,
    /// Sweeps that were submitted, and whether their time may have been over before their end.
    pub sweeps: Vec<(String, bool)>,
    submitted: u32,
    /// Coefficients of each task in an undisturbed run.
    pub reference: BTreeMap<String, Vec<u8>>,
}

impl Drop for Real {
    fn drop(&mut self) {
        for program in self.workers.iter_mut().chain([&mut self.scheduler]) {
            drop(program.child.kill());
            drop(program.child.wait());
        }
    }
}

impl Real {
    /// Starts them, if the environment says where they are.
    pub fn start(folder: &Path, ways: [u16; 2], redis: &RedisServer, rabbit: &RabbitServer) -> Option<Self> {
        let programs = PathBuf::from(std::env::var_os(PROGRAMS)?).canonicalize().unwrap();
        let folder = folder.join(NAME);
        std::fs::create_dir(&folder).unwrap();
        let run = |words: &[&str]| {
            let output = Command::new(programs.join("mehl-soup")).args(words).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["demo", "--make-zoo", "demo", "--ingredients", "4", "--base-epochs", "4", "--epochs", "1"]);
        std::fs::write(folder.join("sweep.toml"), specification(&folder, None)).unwrap();
        run(&["run", "sweep.toml", "--out", "reference"]);
        let mut reference = BTreeMap::new();
        for task in std::fs::read_dir(folder.join("reference/tasks")).unwrap() {
            let task = task.unwrap();
            let coefficients = std::fs::read(task.path().join("coefficients.safetensors")).unwrap();
            reference.insert(task.file_name().into_string().unwrap(), coefficients);
        }
        rabbit.rabbitmqctl(&["add_user", NAME, "p0"]);
        permit(rabbit);
        let port = free_port();
        let server = format!("http://127.0.0.1:{port}");
        let settings = ClientSettings { server, token: None, timeout: Duration::from_secs(5), ca_file: None };
        let client = Client::new(settings).unwrap();
        accept(redis, "p0");
        for (which, _) in FILES.iter().enumerate() {
            write_address(&folder, ways, which, 0);
        }
        let scheduler = scheduler(&programs, &folder, port);
        let workers = (0..WORKERS).map(|i| worker(&programs, &folder, i)).collect();
        let (sweeps, passwords, submitted) = (vec![], 0, 0);
        Some(Self { folder, programs, port, ways, scheduler, workers, passwords, client, sweeps, submitted, reference })
    }

    /// Starts anew what was made to end.
    pub fn mend(&mut self) {
        for (i, program) in self.workers.iter_mut().enumerate() {
            if program.has_ended() {
                *program = worker(&self.programs, &self.folder, i);
            }
        }
        if self.scheduler.has_ended() {
            self.scheduler = scheduler(&self.programs, &self.folder, self.port);
        }
    }

    /// Signals a worker, or with an index beyond them the scheduler.
    pub fn signal(&mut self, which: usize, signal: &str) {
        let program = self.workers.get_mut(which).unwrap_or(&mut self.scheduler);
        program.is_to_end = matches!(signal, "-KILL" | "-TERM");
        super::signal(&program.child, signal);
    }

    /// Submits a sweep; every third one has so little time that it may be over before the sweep is.
    pub fn submit(&mut self) -> Result<(), String> {
        let is_limited = self.submitted % 3 == 2;
        let body = self.body(is_limited);
        match self.client.post::<CreatedBody>("/v1/sweeps", Some(&body)) {
            Ok(created) => {
                self.submitted += 1;
                self.sweeps.push((created.id, is_limited));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the scheduler wrote last.
    pub fn said_last(&self) -> String {
        let said = std::fs::read_to_string(&self.scheduler.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(15).collect();
        last.join("\n")
    }

    /// The next submission. Repeated, it has the same key.
    fn body(&self, is_limited: bool) -> NewSweepBody {
        NewSweepBody {
            spec: specification(&self.folder, is_limited.then_some(2)),
            format: SpecFormat::Toml,
            folder: None,
            name: None,
            priority: None,
            max_running: None,
            attempts: Some(50),
            key: Some(format!("soak-{}", self.submitted)),
        }
    }

    /// A client that goes away within its request: before its body is whole, or before the answer.
    pub fn lose_client(&mut self, is_whole: bool) {
        let body = serde_json::to_vec(&self.body(self.submitted % 3 == 2)).unwrap();
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", self.port)) else { return };
        let head = format!(
            "POST /v1/sweeps HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let sent = if is_whole { body.len() } else { body.len() / 2 };
        // The server may be away.
        drop(connection.write_all(head.as_bytes()));
        drop(connection.write_all(&body[..sent]));
    }

    /// Another password for the user on one of the servers, which ends its connections; a while
    /// later the programs' file has it, too.
    pub fn rotate(&mut self, which: usize, redis: &RedisServer, rabbit: &RabbitServer) {
        self.passwords += 1;
        let password = format!("p{}", self.passwords);
        if which == 0 {
            accept(redis, &password);
            redis.command(&["CLIENT", "KILL", "USER", NAME]);
        } else {
            rabbit.rabbitmqctl(&["change_password", NAME, &password]);
            rabbit.rabbitmqctl(&["close_all_user_connections", NAME, "rotated"]);
        }
        std::thread::sleep(REFUSED);
        write_address(&self.folder, self.ways, which, self.passwords);
    }

    /// The user of the broker has no permissions for a while.
    pub fn revoke(&self, rabbit: &RabbitServer) {
        rabbit.rabbitmqctl(&["clear_permissions", NAME]);
        std::thread::sleep(REFUSED);
        permit(rabbit);
    }

    /// After the broker was wiped, its user is there again.
    pub fn after_wipe(&self, rabbit: &RabbitServer) {
        rabbit.rabbitmqctl(&["add_user", NAME, &self.password(1)]);
        permit(rabbit);
    }

    /// Redis keeps users in its memory: after a restart, its user is there again.
    pub fn after_restart(&self, redis: &RedisServer) {
        accept(redis, &self.password(0));
    }

    /// The password that the programs read.
    fn password(&self, which: usize) -> String {
        let address = std::fs::read_to_string(self.folder.join(FILES[which])).unwrap();
        address.rsplit(['@', ':']).nth(2).unwrap().to_string()
    }
}

/// Addresses of Redis and of the broker.
const FILES: [&str; 2] = ["redis-url", "amqp-url"];

fn accept(redis: &RedisServer, password: &str) {
    let (password, keys) = (format!(">{password}"), format!("~{{{NAME}}}:*"));
    let rights = ["resetchannels", "+@all", "-@dangerous", "+info"];
    redis.command(&[&["ACL", "SETUSER", NAME, "on", "resetpass", &password, &keys][..], &rights].concat());
}

fn permit(rabbit: &RabbitServer) {
    let all = format!("^{NAME}\\..*");
    rabbit.rabbitmqctl(&["set_permissions", NAME, &all, &all, &all]);
}

fn write_address(folder: &Path, ways: [u16; 2], which: usize, password: u32) {
    let scheme = ["redis", "amqp"][which];
    let address = format!("{scheme}://{NAME}:p{password}@127.0.0.1:{}/", ways[which]);
    mehl_soup::files::write_atomic(&folder.join(FILES[which]), address.as_bytes()).unwrap();
}

/// Some tasks of about a second each.
fn specification(folder: &Path, max_seconds: Option<u32>) -> String {
    let demo = folder.join("demo").display().to_string();
    let limit = max_seconds.map_or(String::new(), |seconds| format!("max_seconds = {seconds}\n"));
    format!(
        r#"seed = 5
[zoo]
ingredients = ["{demo}/zoo/*"]
[data]
learn = "{demo}/data/learn.safetensors"
select = "{demo}/data/select.safetensors"
[soup]
model_batch = 2
batch = 64
inner_epochs = 4
early_stopping = false
[compute]
threads = 1
memory = "4GiB"
[search]
strategy = "grid"
{limit}[search.space]
method = ["mehl+", "hl", "mehl"]
"#
    )
}

fn command(program: &Path, folder: &Path, settings: &[String]) -> Command {
    let mut command = Command::new(program);
    command.arg("serve").current_dir(folder).env("MEHL_SOUP_CACHE_DIR", folder.join("cache"));
    let common = [
        format!("installation={NAME}"),
        "redis.url_file=redis-url".to_string(),
        "amqp.url_file=amqp-url".to_string(),
        "redis.timeout_seconds=2".to_string(),
        "amqp.timeout_seconds=5".to_string(),
    ];
    for setting in common.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

fn scheduler(programs: &Path, folder: &Path, port: u16) -> Program {
    let settings = [format!("scheduler.listen=127.0.0.1:{port}"), "scheduler.republish_after_seconds=2".to_string()];
    Program::start(&mut command(&programs.join("mehl-soup"), folder, &settings), folder.join("scheduler.log"))
}

fn worker(programs: &Path, folder: &Path, i: usize) -> Program {
    let settings = [
        format!("worker.name=real-{i}"),
        format!("worker.input_roots={}", folder.join("demo").display()),
        "worker.threads=1".to_string(),
        "worker.lease_seconds=2".to_string(),
        "worker.checkpoint_interval_seconds=1".to_string(),
        "worker.listen=".to_string(),
    ];
    let program = programs.join("mehl-soup-worker");
    Program::start(&mut command(&program, folder, &settings), folder.join(format!("worker-{i}.log")))
}
