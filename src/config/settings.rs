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
        "prefix of all Redis keys and queue names. Installations that share servers need different \
         prefixes",
    ),
    setting(
        "log.format",
        Kind::Word(&LogFormat::WORDS),
        Is("text"),
        "log format of scheduler and workers on stderr. `RUST_LOG` is the filter",
    ),
    setting(
        "redis.url",
        Kind::Url(REDIS),
        Is("redis://127.0.0.1:6379/"),
        "address of Redis; with Sentinel, the addresses of the Sentinels and the name of the \
         master: `redis+sentinel://host:26379,host:26379/name`",
    ),
    setting("redis.url_file", Kind::Path, Absent, "file with the address, instead of `redis.url`"),
    setting(
        "redis.ca_file",
        Kind::Path,
        Absent,
        "PEM file with the CA certificates to trust for TLS, instead of the public CAs",
    ),
    setting("redis.timeout_seconds", Kind::Seconds(1, 300), Is("2"), "timeout of a Redis command"),
    setting("amqp.url", Kind::Url(AMQP), Is("amqp://127.0.0.1:5672/"), "address of RabbitMQ"),
    setting("amqp.url_file", Kind::Path, Absent, "file with the address, instead of `amqp.url`"),
    setting(
        "amqp.ca_file",
        Kind::Path,
        Absent,
        "PEM file with the CA certificates to trust for TLS, instead of the public CAs",
    ),
    setting(
        "amqp.heartbeat_seconds",
        Kind::Seconds(1, 3600),
        Is("10"),
        "a connection without traffic for twice this time is closed and opened again",
    ),
    setting("amqp.timeout_seconds", Kind::Seconds(1, 300), Is("10"), "timeout of a RabbitMQ operation"),
    setting(
        "scheduler.listen",
        Kind::Address,
        Is("127.0.0.1:7070"),
        "listen address of the HTTP API. An address that is not loopback needs a token",
    ),
    setting("scheduler.token", Kind::Secret, Absent, "bearer token that every request must contain"),
    setting("scheduler.token_file", Kind::Path, Absent, "file with the token, instead of `scheduler.token`"),
    setting(
        "scheduler.max_body_bytes",
        Kind::Bytes(1 << 10, 64 << 20),
        Is("2162688"),
        "largest request body. A specification has at most 1 MiB; JSON escapes can double it",
    ),
    setting(
        "scheduler.max_tasks",
        Kind::Count(1, 10_000_000),
        Is("100000"),
        "largest number of tasks in a sweep, not counting baselines",
    ),
    setting("scheduler.interval_seconds", Kind::Seconds(1, 60), Is("1"), "time between two passes of the scheduler"),
    setting(
        "scheduler.republish_after_seconds",
        Kind::Seconds(1, DAY),
        Is("60"),
        "a ticket that no worker claims for this time while the queue is empty is published again",
    ),
    setting(
        "scheduler.retention_seconds",
        Kind::Seconds(0, 10 * 366 * DAY),
        Is("0"),
        "a finished sweep is deleted after this time; 0 keeps it",
    ),
    setting(
        "scheduler.attempts",
        Kind::Count(1, 100),
        Is("3"),
        "a task fails after this many attempts without progress. A sweep can set its own number",
    ),
    setting(
        "scheduler.window_per_worker",
        Kind::Count(1, 1000),
        Is("2"),
        "tickets in the queue per live worker. A small number respects priorities more closely; a \
         large number keeps workers busy",
    ),
    setting(
        "scheduler.window_extra",
        Kind::Count(0, 100_000),
        Is("16"),
        "tickets in the queue in addition to those per worker",
    ),
    setting(
        "scheduler.ageing_seconds",
        Kind::Seconds(1, 366 * DAY),
        Is("600"),
        "a waiting sweep gains one step of priority per this time",
    ),
    setting(
        "worker.name",
        Kind::Name,
        Made("host name and process id"),
        "name of the worker, unique in the installation",
    ),
    setting("worker.device", Kind::Device, Is("cpu"), "device of the worker"),
    setting("worker.threads", Kind::Count(0, 4096), Is("0"), "CPU threads of a task; 0 means all cores"),
    setting(
        "worker.input_roots",
        Kind::Folders,
        Absent,
        "folders with the zoos and data that sweeps can use. Sweeps cannot read files outside of \
         them. Required: `mehl-soup-worker serve` does not start without one",
    ),
    setting(
        "worker.torchscript_allow",
        Kind::Hashes,
        Absent,
        "BLAKE3 hashes (64 hexadecimal digits) of the TorchScript modules that the worker may run",
    ),
    setting(
        "worker.lease_seconds",
        Kind::Seconds(2, 3600),
        Is("30"),
        "a task is taken from a worker that has not renewed its lease for this time",
    ),
    setting(
        "worker.checkpoint_interval_seconds",
        Kind::Seconds(1, DAY),
        Is("10"),
        "minimum time between two checkpoints of a task",
    ),
    setting(
        "worker.stall_seconds",
        Kind::Seconds(1, 30 * DAY),
        Is("600"),
        "a worker whose task makes no progress for this time returns the task and exits",
    ),
    setting(
        "worker.orphan_seconds",
        Kind::Seconds(2, 30 * DAY),
        Made("5 x `worker.lease_seconds`"),
        "a worker that cannot reach Redis for this time abandons its task. At least \
         `worker.lease_seconds`",
    ),
    setting(
        "worker.listen",
        Kind::MaybeAddress,
        Is("127.0.0.1:9464"),
        "listen address of metrics and health checks; empty for none",
    ),
    setting(
        "client.server",
        Kind::Server,
        Is("http://127.0.0.1:7070"),
        "address of the scheduler. `MEHL_SOUP_SERVER` also sets it",
    ),
    setting("client.token", Kind::Secret, Absent, "bearer token of the scheduler"),
    setting("client.token_file", Kind::Path, Absent, "file with the token, instead of `client.token`"),
    setting("client.timeout_seconds", Kind::Seconds(1, 3600), Is("30"), "timeout of a request to the scheduler"),
    setting(
        "client.ca_file",
        Kind::Path,
        Absent,
        "PEM file with the CA certificates to trust for https, instead of the public CAs",
    ),
];

/// The setting of a key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The table of the documentation, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
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
