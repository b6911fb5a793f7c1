//! What the parts of the programs need, out of the configuration. Files of secrets are read here, so only by who needs them.

use std::path::PathBuf;
use std::time::Duration;

use super::{ClientConfig, Config, ConfigError, Fault, SchedulerConfig, Secret, WorkerConfig};
use crate::queue::RabbitMqSettings;
use crate::runner::pool::{AttemptSettings, WorkerSettings};
use crate::store::RedisSettings;

/// Longest wait of a worker for a ticket before it looks around.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl Config {
    /// How Redis is reached.
    ///
    /// # Errors
    /// If the file of its address cannot be read.
    pub fn redis_settings(&self) -> Result<RedisSettings, ConfigError> {
        Ok(RedisSettings {
            url: self.redis.url.address()?,
            ca_file: self.redis.ca_file.clone(),
            installation: self.installation.clone(),
            timeout: self.redis.timeout,
        })
    }

    /// How RabbitMQ is reached; its tools show the connections under this name.
    ///
    /// # Errors
    /// If the file of its address cannot be read.
    pub fn rabbitmq_settings(&self, connection_name: &str) -> Result<RabbitMqSettings, ConfigError> {
        Ok(RabbitMqSettings {
            url: self.amqp.url.address()?,
            ca_file: self.amqp.ca_file.clone(),
            installation: self.installation.clone(),
            connection_name: connection_name.to_string(),
            heartbeat: self.amqp.heartbeat,
            timeout: self.amqp.timeout,
        })
    }
}

impl SchedulerConfig {
    /// The token that requests have to carry; `None` where none is needed.
    ///
    /// # Errors
    /// If its file cannot be read, or there is none though others than this machine can reach the API.
    pub fn token(&self) -> Result<Option<Secret>, ConfigError> {
        match &self.token {
            Some(source) => source.read().map(Some),
            None if self.listen.ip().is_loopback() => Ok(None),
            None => Err(ConfigError::one(Fault {
                key: "scheduler.token".to_string(),
                origin: None,
                problem: format!(
                    "missing. Other machines can reach scheduler.listen ({}), so a token is \
                     required: set scheduler.token_file, or listen on a loopback address",
                    self.listen
                ),
            })),
        }
    }
}

impl WorkerConfig {
    /// Folders whose files sweeps may name.
    ///
    /// # Errors
    /// If there are none: such a worker could read nothing.
    pub fn input_roots(&self) -> Result<&[PathBuf], ConfigError> {
        if self.input_roots.is_empty() {
            return Err(ConfigError::one(Fault {
                key: "worker.input_roots".to_string(),
                origin: None,
                problem: "missing. Set it to the folders with the zoos and data that sweeps can use; \
                     files outside of them are not read"
                    .to_string(),
            }));
        }
        Ok(&self.input_roots)
    }

    /// How it takes tasks, for ever or `once`.
    pub fn settings(&self, once: bool) -> WorkerSettings {
        let attempt = AttemptSettings {
            lease: self.lease,
            checkpoint_interval: self.checkpoint_interval,
            stall: self.stall,
            orphan: self.orphan,
        };
        WorkerSettings { name: self.name.clone(), attempt, once, look: POLL_INTERVAL }
    }
}

impl ClientConfig {
    /// The token that requests carry.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn token(&self) -> Result<Option<Secret>, ConfigError> {
        self.token.as_ref().map(super::SecretSource::read).transpose()
    }
}
