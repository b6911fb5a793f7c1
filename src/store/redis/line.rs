//! A connection that is left behind when the server falls silent on it, or may not be the primary any more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value};

use super::answers::is_refused_login;
use super::connect::{Source, check};
use super::sentinel::passing;
use crate::store::StoreError;

/// A fault of Sentinels holds for so long: they are not asked by everybody at once.
const PAUSE: Duration = Duration::from_millis(200);

/// As a [`ConnectionManager`], which makes its connection anew once it has broken; and besides, once an answer did not come in time. A connection that the
/// network has forgotten (the server's machine is gone, a firewall has lost its state) breaks by itself only after a quarter of an hour.
///
/// Where Sentinels tell the server, they are asked anew once a connection has broken, or the server says that it is not the primary.
#[derive(Clone)]
pub struct ReconnectingConnection {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    config: ConnectionManagerConfig,
    current: Mutex<Numbered>,
    /// Held by who makes the next connection; when that failed last, and why.
    renewal: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

/// The number tells whether somebody else has replaced it already.
#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
    /// Not to be used any more.
    is_left: bool,
}

impl ReconnectingConnection {
    /// Connects.
    pub async fn open(source: Source, config: ConnectionManagerConfig) -> RedisResult<Self> {
        let manager = source.client().await?.get_connection_manager_with_config(config.clone()).await?;
        let current = Mutex::new(Numbered { number: 0, manager, is_left: false });
        Ok(Self { shared: Arc::new(Shared { source, config, current, renewal: Default::default() }) })
    }

    fn current(&self) -> Numbered {
        // What is behind the lock is whole at any moment.
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection to be used: another than the last if that was left.
    async fn usable(&self) -> RedisResult<Numbered> {
        let current = self.current();
        if !current.is_left {
            return Ok(current);
        }
        let mut failed = self.shared.renewal.lock().await;
        let current = self.current();
        if !current.is_left {
            return Ok(current);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match self.renewed().await {
            Ok(manager) => {
                let next = Numbered { number: current.number + 1, manager, is_left: false };
                *self.shared.current.lock().unwrap_or_else(PoisonError::into_inner) = next.clone();
                *failed = None;
                Ok(next)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn renewed(&self) -> RedisResult<ConnectionManager> {
        let Shared { source, config, .. } = &*self.shared;
        // A Sentinel that does not know the name now has known it once.
        let client = source.client().await.map_err(|error| match error.kind() {
            ErrorKind::MasterNameNotFoundBySentinel => passing(error.to_string()),
            _ => error,
        })?;
        // It connects when it is first used.
        let mut manager = ConnectionManager::new_lazy_with_config(client, config.clone())?;
        if source.may_move() {
            check(&mut manager, source).await.map_err(|error| match error {
                StoreError::Setup(what) => RedisError::from((ErrorKind::InvalidClientConfig, "the new primary", what)),
                other => passing(other.to_string()),
            })?;
        }
        Ok(manager)
    }

    /// Looks at an answer of the connection of this number, and leaves the connection if it should not be used again.
    fn look<T>(&self, number: u64, answer: RedisResult<T>) -> RedisResult<T> {
        let may_move = self.shared.source.may_move();
        let is_useless = |error: &RedisError| {
            // One that refuses the login is made anew, with the password as it is by then.
            error.is_timeout() || is_refused_login(error) || (may_move && is_gone(error))
        };
        if answer.as_ref().is_err_and(is_useless) {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.number == number {
                current.is_left = true;
            }
        }
        answer
    }
}

/// Whether the server is not there any more, or not the primary: it may be elsewhere by now.
pub fn is_gone(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "NOREPLICAS" | "LOADING"))
}

/// The error among a pipeline's answers.
fn refusal(value: &Value) -> Option<RedisError> {
    match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for ReconnectingConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let Numbered { number, mut manager, .. } = self.usable().await?;
            let answer = manager.req_packed_command(command).await;
            // The caller makes an error of a refusal, later.
            let refused = answer.as_ref().ok().and_then(refusal);
            self.look(number, refused.map_or(answer, Err))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let Numbered { number, mut manager, .. } = self.usable().await?;
            let answer = manager.req_packed_commands(pipeline, offset, count).await;
            // A pipeline is answered even if each of its commands is refused.
            let refused = answer.as_ref().ok().and_then(|values| values.iter().find_map(refusal));
            if let Some(error) = refused {
                drop(self.look::<()>(number, Err(error)));
            }
            self.look(number, answer)
        })
    }

    fn get_db(&self) -> i64 {
        self.current().manager.get_db()
    }
}
