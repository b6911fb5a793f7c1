//! A connection that is left behind when the server falls silent on it.

use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value};

/// As a [`ConnectionManager`], which makes its connection anew once it has broken; and besides, once an answer did not come in time. A connection that the
/// network has forgotten (the server's machine is gone, a firewall has lost its state) breaks by itself only after a quarter of an hour.
#[derive(Clone)]
pub struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    config: ConnectionManagerConfig,
    current: Mutex<Numbered>,
}

/// The number tells whether somebody else has replaced it already.
#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
}

impl Line {
    /// Connects.
    pub async fn open(client: Client, config: ConnectionManagerConfig) -> RedisResult<Self> {
        let manager = client.get_connection_manager_with_config(config.clone()).await?;
        let current = Mutex::new(Numbered { number: 0, manager });
        Ok(Self { shared: Arc::new(Shared { client, config, current }) })
    }

    fn current(&self) -> Numbered {
        // What is behind the lock is whole at any moment.
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at an answer of the connection of this number: if it did not come in time, the next ones are asked for on another.
    fn look<T>(&self, number: u64, answer: RedisResult<T>) -> RedisResult<T> {
        if answer.as_ref().is_err_and(RedisError::is_timeout) {
            let Shared { client, config, current } = &*self.shared;
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            // It connects when it is first used.
            if current.number == number
                && let Ok(manager) = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())
            {
                *current = Numbered { number: number + 1, manager };
            }
        }
        answer
    }
}

impl ConnectionLike for Line {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let Numbered { number, mut manager } = self.current();
            let answer = manager.req_packed_command(command).await;
            self.look(number, answer)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let Numbered { number, mut manager } = self.current();
            let answer = manager.req_packed_commands(pipeline, offset, count).await;
            self.look(number, answer)
        })
    }

    fn get_db(&self) -> i64 {
        self.current().manager.get_db()
    }
}
