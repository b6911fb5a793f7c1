//! Configuration of the programs of a pool: defaults, then a file, then the environment, then flags.
//!
//! It is resolved once, in [`Config::load`], to one value that does not change. All faults are told at once, each with its key and where it came from.
//! Secrets are shown by nothing. `docs/configuration.md` lists the settings; it is tested to be [`SETTINGS`].

mod args;
pub mod env_names;
mod fault;
mod secret;
mod services;
mod settings;
mod sources;
mod value;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use args::{Assignment, ConfigArgs};
pub use fault::{ConfigError, Fault};
pub use secret::{HIDDEN, Secret, SecretSource};
pub use settings::{Preset, SETTINGS, Setting, markdown};
pub use sources::Origin;
pub use value::{Kind, Value};

use crate::logging::LogFormat;
use crate::operator_file::OperatorFile;
use sources::Layers;

/// Keys of all settings that name a file.
const FILES: [&str; 7] = [
    "redis.url_file",
    "redis.ca_file",
    "amqp.url_file",
    "amqp.ca_file",
    "scheduler.token_file",
    "client.token_file",
    "client.ca_file",
];

/// Where Redis is.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Address.
    pub url: SecretSource,
    /// Authorities to trust, in place of the well-known ones.
    pub ca_file: Option<OperatorFile>,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// Where RabbitMQ is.
#[derive(Debug, Clone)]
pub struct AmqpConfig {
    /// Address.
    pub url: SecretSource,
    /// Authorities to trust, in place of the well-known ones.
    pub ca_file: Option<OperatorFile>,
    /// A connection that is silent for twice this long is given up.
    pub heartbeat: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// How the scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    token: Option<SecretSource>,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Most tasks of one sweep.
    pub max_tasks: usize,
    /// Time between two looks at what is to be done.
    pub interval: Duration,
    /// Age of a ticket that is published again.
    pub republish_after: Duration,
    /// Age of a finished sweep that is removed; `None` keeps it for ever.
    pub retention: Option<Duration>,
    /// Attempts of a sweep that does not say.
    pub attempts: u32,
    /// Tickets in the queue for each live worker.
    pub window_per_worker: usize,
    /// Tickets in the queue besides these.
    pub window_extra: usize,
    /// Waiting that is worth one step of priority.
    pub ageing: Duration,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its name, unique in the installation.
    pub name: String,
    /// What it computes on.
    pub device: String,
    /// Threads of one task; `None` for all cores.
    pub threads: Option<usize>,
    input_roots: Vec<PathBuf>,
    /// TorchScript modules that may run.
    pub torchscript_allow: Vec<blake3::Hash>,
    /// How long it is not heard of before its task is taken from it.
    pub lease: Duration,
    /// Shortest time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// How long iterations stand still before the task is given back.
    pub stall: Duration,
    /// How long Redis is not there before the task is given up.
    pub orphan: Duration,
    /// Where metrics are served.
    pub listen: Option<SocketAddr>,
}

/// How client commands find the scheduler.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Its address, without a slash at the end.
    pub server: String,
    token: Option<SecretSource>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Authorities to trust for https, in place of the well-known ones.
    pub ca_file: Option<OperatorFile>,
}

/// The configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// First part of all names on the servers.
    pub installation: String,
    /// How the log is written.
    pub log_format: LogFormat,
    /// `[redis]`.
    pub redis: RedisConfig,
    /// `[amqp]`.
    pub amqp: AmqpConfig,
    /// `[scheduler]`.
    pub scheduler: SchedulerConfig,
    /// `[worker]`.
    pub worker: WorkerConfig,
    /// `[client]`.
    pub client: ClientConfig,
    /// Every file that the configuration names or comes from, in no order that matters.
    pub operator_files: Vec<OperatorFile>,
    /// What `mehl-soup config` shows.
    pub shown: Vec<Shown>,
}

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The key.
    pub key: &'static str,
    /// Its value; [`HIDDEN`] for a secret, null for none.
    pub value: serde_json::Value,
    /// Where it came from.
    pub from: Origin,
}

/// What a configuration is made from besides files and flags.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Variables of the environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The machine's name.
    pub host: String,
    /// The process's id.
    pub process: u32,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        Self {
            environment: std::env::vars_os().collect(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            process: std::process::id(),
        }
    }
}

impl Config {
    /// Resolves the configuration of this process. `flags` are dedicated ones of a command, as key and value; they win over `--set`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(args: &ConfigArgs, flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        Self::resolve(args, flags, &Surroundings::of_this_process())
    }

    /// The same for given surroundings. Reads the configuration file and nothing else.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn resolve(
        args: &ConfigArgs,
        flags: &[(&str, String)],
        surroundings: &Surroundings,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        let mut operator_files = Vec::new();
        let named = |(name, value): &(OsString, OsString)| {
            (name == env_names::FILE && !value.is_empty()).then(|| PathBuf::from(value))
        };
        if let Some(file) = args.config.clone().or_else(|| surroundings.environment.iter().find_map(named)) {
            layers.file(&OperatorFile::new(&file), &file);
            operator_files.push(OperatorFile::new(file));
        }
        layers.environment(surroundings.environment.iter().cloned());
        layers.flags(args.set.iter().map(Assignment::text), flags);
        for (given, file) in [
            ("redis.url", "redis.url_file"),
            ("amqp.url", "amqp.url_file"),
            ("scheduler.token", "scheduler.token_file"),
            ("client.token", "client.token_file"),
        ] {
            layers.settle(given, file);
        }
        layers.make("worker.name", Value::Text(worker_name(&surroundings.host, surroundings.process)));
        if let Some(Value::Number(lease)) = layers.get("worker.lease_seconds").map(|found| found.value.clone()) {
            layers.make("worker.orphan_seconds", Value::Number(5 * lease));
        }
        let mut reader = Reader { layers };
        let mut config = reader.config();
        config.operator_files.extend(operator_files);
        reader.check(&config);
        if reader.layers.faults.is_empty() { Ok(config) } else { Err(ConfigError(reader.layers.faults)) }
    }
}

/// From the machine's name, with what names may not hold replaced.
fn worker_name(host: &str, process: u32) -> String {
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "+-._".contains(c) { c } else { '-' })
        .skip_while(|c| *c == '.')
        .take(80)
        .collect();
    format!("{}-{process}", if host.is_empty() { "worker" } else { &host })
}

/// Reads the settings one by one. What is at fault reads as a default: that there are faults decides in the end.
struct Reader {
    layers: Layers,
}

impl Reader {
    fn text(&self, key: &str) -> String {
        match self.layers.get(key).map(|found| &found.value) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    fn number(&self, key: &str) -> u64 {
        match self.layers.get(key).map(|found| &found.value) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    fn size(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key))
    }

    fn list(&self, key: &str) -> Vec<String> {
        match self.layers.get(key).map(|found| &found.value) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    fn file(&self, key: &str) -> Option<OperatorFile> {
        self.layers.get(key).map(|found| OperatorFile::new(found.value.path()))
    }

    fn secret(&self, given: &'static str, file: &'static str) -> Option<SecretSource> {
        if let Some(found) = self.layers.get(given) {
            let secret = Secret::new(self.text(given));
            return Some(SecretSource::Given { key: given, origin: found.origin.clone(), secret });
        }
        let found = self.layers.get(file)?;
        Some(SecretSource::File {
            key: file,
            origin: found.origin.clone(),
            path: OperatorFile::new(found.value.path()),
        })
    }

    /// One that has a default.
    fn address(&self, given: &'static str, file: &'static str) -> SecretSource {
        self.secret(given, file).unwrap_or(SecretSource::Given {
            key: given,
            origin: Origin::Default,
            secret: Secret::new(""),
        })
    }

    fn config(&mut self) -> Config {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let retention = self.seconds("scheduler.retention_seconds");
        Config {
            installation: self.text("installation"),
            log_format: LogFormat::parse(&self.text("log.format")).unwrap_or(LogFormat::Text),
            redis: RedisConfig {
                url: self.address("redis.url", "redis.url_file"),
                ca_file: self.file("redis.ca_file"),
                timeout: self.seconds("redis.timeout_seconds"),
            },
            amqp: AmqpConfig {
                url: self.address("amqp.url", "amqp.url_file"),
                ca_file: self.file("amqp.ca_file"),
                heartbeat: self.seconds("amqp.heartbeat_seconds"),
                timeout: self.seconds("amqp.timeout_seconds"),
            },
            scheduler: SchedulerConfig {
                listen: self.text("scheduler.listen").parse().unwrap_or(nowhere),
                token: self.secret("scheduler.token", "scheduler.token_file"),
                max_body_bytes: self.size("scheduler.max_body_bytes"),
                max_tasks: self.size("scheduler.max_tasks"),
                interval: self.seconds("scheduler.interval_seconds"),
                republish_after: self.seconds("scheduler.republish_after_seconds"),
                retention: (!retention.is_zero()).then_some(retention),
                attempts: u32::try_from(self.number("scheduler.attempts")).unwrap_or(u32::MAX),
                window_per_worker: self.size("scheduler.window_per_worker"),
                window_extra: self.size("scheduler.window_extra"),
                ageing: self.seconds("scheduler.ageing_seconds"),
            },
            worker: WorkerConfig {
                name: self.text("worker.name"),
                device: self.text("worker.device"),
                threads: Some(self.size("worker.threads")).filter(|threads| *threads > 0),
                input_roots: self.list("worker.input_roots").into_iter().map(PathBuf::from).collect(),
                torchscript_allow: self
                    .list("worker.torchscript_allow")
                    .iter()
                    .filter_map(|hash| blake3::Hash::from_hex(hash).ok())
                    .collect(),
                lease: self.seconds("worker.lease_seconds"),
                checkpoint_interval: self.seconds("worker.checkpoint_interval_seconds"),
                stall: self.seconds("worker.stall_seconds"),
                orphan: self.seconds("worker.orphan_seconds"),
                listen: self.text("worker.listen").parse().ok(),
            },
            client: ClientConfig {
                server: self.text("client.server").trim_end_matches('/').to_string(),
                token: self.secret("client.token", "client.token_file"),
                timeout: self.seconds("client.timeout_seconds"),
                ca_file: self.file("client.ca_file"),
            },
            operator_files: FILES.iter().filter_map(|key| self.file(key)).collect(),
            shown: SETTINGS.iter().map(|setting| self.shown(setting)).collect(),
        }
    }

    fn shown(&self, setting: &Setting) -> Shown {
        let Some(found) = self.layers.get(setting.key) else {
            return Shown { key: setting.key, value: serde_json::Value::Null, from: Origin::Default };
        };
        // A default is no secret.
        let is_hidden = setting.kind.is_secret() && found.origin != Origin::Default;
        let value = if is_hidden { HIDDEN.into() } else { found.value.to_json() };
        Shown { key: setting.key, value, from: found.origin.clone() }
    }

    /// What no key can be asked about alone.
    fn check(&mut self, config: &Config) {
        let (lease, orphan) = (config.worker.lease, config.worker.orphan);
        if let Some(found) = self.layers.get("worker.orphan_seconds")
            && orphan < lease
        {
            self.layers.faults.push(Fault {
                key: "worker.orphan_seconds".to_string(),
                origin: Some(found.origin.clone()),
                problem: format!(
                    "expected at least the value of worker.lease_seconds ({}), found `{}`",
                    lease.as_secs(),
                    orphan.as_secs()
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests;
