//! The settings: one table, from which they are read, shown and documented.

use super::value::Kind;
use crate::logging::LogFormat;

/// Default value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Not there.
    Absent,
    /// This, written as in the environment.
    Is(&'static str),
    /// Made from other things; in words.
    Made(&'static str),
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key, with its section.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Default value.
    pub default: Preset,
    /// What it does, in one or two sentences without a full stop at the end.
    pub help: &'static str,
}

const fn setting(key: &'static str, kind: Kind, default: Preset, help: &'static str) -> Setting {
    Setting { key, kind, default, help }
}

const REDIS: &[&str] = &["redis", "rediss", "redis+sentinel", "rediss+sentinel"];
const AMQP: &[&str] = &["amqp", "amqps"];
const DAY: u64 = 86_400;

use Preset::{Absent, Is, Made};

/// Every setting there is, section by section.
pub const SETTINGS: &[Setting] = &[
    setting(
        "installation",
        Kind::Name,
        Is("mehl-soup"),
        "begins all keys in Redis and all names of queues. Installations on the same servers do not see each other",
    ),
    setting(
        "log.format",
        Kind::Word(&LogFormat::WORDS),
        Is("text"),
        "how scheduler and workers write their log to stderr. `RUST_LOG` chooses what is in it",
    ),
    setting(
        "redis.url",
        Kind::Url(REDIS),
        Is("redis://127.0.0.1:6379/"),
        "address of Redis, or of the Sentinels that know it and its name there: `redis+sentinel://host:26379,host:26379/name`",
    ),
    setting("redis.url_file", Kind::Path, Absent, "file that holds the address, in place of `redis.url`"),
    setting(
        "redis.ca_file",
        Kind::Path,
        Absent,
        "PEM file of the authorities to trust for TLS, in place of the well-known ones",
    ),
    setting("redis.timeout_seconds", Kind::Seconds(1, 300), Is("2"), "longest wait for an answer of Redis"),
    setting("amqp.url", Kind::Url(AMQP), Is("amqp://127.0.0.1:5672/"), "address of RabbitMQ"),
    setting("amqp.url_file", Kind::Path, Absent, "file that holds the address, in place of `amqp.url`"),
    setting(
        "amqp.ca_file",
        Kind::Path,
        Absent,
        "PEM file of the authorities to trust for TLS, in place of the well-known ones",
    ),
    setting(
        "amqp.heartbeat_seconds",
        Kind::Seconds(1, 3600),
        Is("10"),
        "a connection that is silent for twice this long is given up",
    ),
    setting("amqp.timeout_seconds", Kind::Seconds(1, 300), Is("10"), "longest wait for an answer of RabbitMQ"),
    setting(
        "scheduler.listen",
        Kind::Address,
        Is("127.0.0.1:7070"),
        "where the HTTP API listens. Any address but a loopback one needs a token",
    ),
    setting("scheduler.token", Kind::Secret, Absent, "bearer token that every request has to carry"),
    setting("scheduler.token_file", Kind::Path, Absent, "file that holds the token, in place of `scheduler.token`"),
    setting(
        "scheduler.max_body_bytes",
        Kind::Bytes(1 << 10, 64 << 20),
        Is("2162688"),
        "largest body of a request. A specification is at most 1 MiB, whose escapes may double it",
    ),
    setting(
        "scheduler.max_tasks",
        Kind::Count(1, 10_000_000),
        Is("100000"),
        "most tasks of one sweep, besides its baselines",
    ),
    setting(
        "scheduler.interval_seconds",
        Kind::Seconds(1, 60),
        Is("1"),
        "time between two looks at what is to be done",
    ),
    setting(
        "scheduler.republish_after_seconds",
        Kind::Seconds(1, DAY),
        Is("60"),
        "a ticket that nobody claimed for so long, while the queue is empty, is published again",
    ),
    setting(
        "scheduler.retention_seconds",
        Kind::Seconds(0, 10 * 366 * DAY),
        Is("0"),
        "a finished sweep is removed so long after its end; 0 keeps it for ever",
    ),
    setting(
        "scheduler.attempts",
        Kind::Count(1, 100),
        Is("3"),
        "attempts without progress after which a task fails, for sweeps that do not say",
    ),
    setting(
        "scheduler.window_per_worker",
        Kind::Count(1, 1000),
        Is("2"),
        "tickets in the queue for each live worker. Few keep the order of priorities, many keep workers busy",
    ),
    setting("scheduler.window_extra", Kind::Count(0, 100_000), Is("16"), "tickets in the queue besides these"),
    setting(
        "scheduler.ageing_seconds",
        Kind::Seconds(1, 366 * DAY),
        Is("600"),
        "waiting so long is worth one step of priority",
    ),
    setting("worker.name", Kind::Name, Made("host name and process id"), "its name, unique in the installation"),
    setting("worker.device", Kind::Device, Is("cpu"), "what it computes on"),
    setting("worker.threads", Kind::Count(0, 4096), Is("0"), "threads of one task on the CPU; 0 for all cores"),
    setting(
        "worker.input_roots",
        Kind::Folders,
        Absent,
        "folders whose files sweeps may name, zoos and data. Nothing outside is read; without one a served worker does not start",
    ),
    setting(
        "worker.torchscript_allow",
        Kind::Hashes,
        Absent,
        "BLAKE3 hashes (64 hexadecimal digits) of the TorchScript modules that may run",
    ),
    setting(
        "worker.lease_seconds",
        Kind::Seconds(2, 3600),
        Is("30"),
        "a task is taken from a worker that was not heard of for so long",
    ),
    setting(
        "worker.checkpoint_interval_seconds",
        Kind::Seconds(1, DAY),
        Is("10"),
        "shortest time between two checkpoints of a task",
    ),
    setting(
        "worker.stall_seconds",
        Kind::Seconds(1, 30 * DAY),
        Is("600"),
        "a task whose iterations stand still for so long is given back, and the worker's process ends",
    ),
    setting(
        "worker.orphan_seconds",
        Kind::Seconds(2, 30 * DAY),
        Made("5 x `worker.lease_seconds`"),
        "without Redis for so long, a worker gives its task up. At least the lease",
    ),
    setting("worker.listen", Kind::MaybeAddress, Is("127.0.0.1:9464"), "where metrics are served; empty for nowhere"),
    setting(
        "client.server",
        Kind::Server,
        Is("http://127.0.0.1:7070"),
        "address of the scheduler. `MEHL_SOUP_SERVER` sets it too",
    ),
    setting("client.token", Kind::Secret, Absent, "bearer token of the scheduler"),
    setting("client.token_file", Kind::Path, Absent, "file that holds the token, in place of `client.token`"),
    setting("client.timeout_seconds", Kind::Seconds(1, 3600), Is("30"), "longest wait for an answer of the scheduler"),
    setting(
        "client.ca_file",
        Kind::Path,
        Absent,
        "PEM file of the authorities to trust for https, in place of the well-known ones",
    ),
];

/// The setting of a key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The table of the documentation, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| key | takes | default | what |\n|---|---|---|---|\n");
    for Setting { key, kind, default, help } in SETTINGS {
        let default = match default {
            Absent => String::new(),
            Is(text) => format!("`{text}`"),
            Made(words) => (*words).to_string(),
        };
        text.push_str(&format!("| `{key}` | {} | {default} | {help} |\n", kind.expected()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_documented_as_it_is() {
        let document = include_str!("../../docs/configuration.md");
        let table = markdown();
        assert!(
            document.contains(&table),
            "docs/configuration.md: its table is not that of `mehl-soup config --format markdown`, which is\n{table}"
        );
    }

    #[test]
    fn keys_are_unique_and_defaults_are_what_the_keys_take() {
        for (i, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..i].iter().all(|other| other.key != setting.key), "{}", setting.key);
            if let Is(text) = setting.default {
                setting.kind.of_text(text).unwrap_or_else(|e| panic!("{}: {e}", setting.key));
            }
        }
    }
}
