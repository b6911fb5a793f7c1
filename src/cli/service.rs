//! What the long-lived programs share: a runtime, signals, and waiting for servers that are not there yet.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::sleep;

use super::exit::{Exit, leave};
use crate::config::Config;
use crate::queue::RabbitMq;
use crate::retry::{Faults, pauses};
use crate::store::Redis;
use crate::untrusted::printable;

/// Waits between two tries to reach a server: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why a service ended without being asked to.
#[derive(Debug)]
pub(super) enum ServiceError {
    /// A person has to change something.
    Usage(String),
    /// Something failed.
    Failed(String),
}

impl ServiceError {
    pub(super) fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    pub(super) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A process that serves until it is asked to end.
pub(super) struct Service {
    name: &'static str,
    runtime: Runtime,
    stop: watch::Receiver<bool>,
}

impl Service {
    /// Starts the runtime, of one thread or more, and listens for SIGTERM and Ctrl-C. The second time either ends the process at once.
    ///
    /// # Errors
    /// If the system gives no threads or signals.
    pub(super) fn start(name: &'static str, threads: usize) -> Result<Self, String> {
        let mut builder = match threads {
            // Without handing anything from thread to thread.
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))?;
        let (asked, stop) = watch::channel(false);
        ctrlc::set_handler(move || {
            if asked.send_replace(true) {
                leave(Exit::Stopped);
            }
        })
        .map_err(|error| format!("cannot install signal handlers: {error}"))?;
        Ok(Self { name, runtime, stop })
    }

    /// True once the process is asked to end.
    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Runs to the end: 0 if that was asked for.
    pub(super) fn end(&self, work: impl Future<Output = Result<(), ServiceError>>) -> Exit {
        match self.runtime.block_on(work) {
            Ok(()) => {
                tracing::info!("{} has ended", self.name);
                Exit::Done
            }
            Err(ServiceError::Usage(error)) => ended_by(&error, Exit::Usage),
            Err(ServiceError::Failed(error)) => ended_by(&error, Exit::Failed),
        }
    }
}

fn ended_by(error: &str, exit: Exit) -> Exit {
    tracing::error!("{}", printable(error));
    exit
}

/// Connects to Redis, waiting for it as long as nobody wants to end. `None`: somebody did.
///
/// # Errors
/// If a person has to change something about it.
pub(super) async fn connect_store(
    config: &Config,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Redis>, ServiceError> {
    let settings = config.redis_settings().map_err(ServiceError::usage)?;
    let (mut faults, mut delays) = (Faults::default(), pauses(PAUSES.0, PAUSES.1));
    loop {
        match Redis::connect(&settings).await {
            Ok(store) => return Ok(Some(store)),
            Err(error) if !error.is_retryable() => return Err(ServiceError::usage(error)),
            Err(error) => faults.met(&error, |text| tracing::warn!("{}; retrying", printable(text))),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = sleep(delays.next().unwrap_or(PAUSES.1)) => {}
        }
    }
}

/// Begins to connect to RabbitMQ; it goes on trying for ever.
///
/// # Errors
/// If a person has to change something about the address.
pub(super) fn connect_queue(config: &Config, connection_name: &str) -> Result<RabbitMq, ServiceError> {
    let settings = config.rabbitmq_settings(connection_name).map_err(ServiceError::usage)?;
    RabbitMq::start(&settings).map_err(ServiceError::usage)
}
