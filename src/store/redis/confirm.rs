//! Whether completions are on the server's disk. Redis and Valkey from 7.2 on can say so, by `WAITAOF`.
//!
//! `WAITAOF` waits for the last write of its own connection, and holds up what else is asked on it. So it has a connection of its own, on which a small
//! write goes before it: the append-only file is in order, and what was written before is on disk with it. Nobody waits for the answer; it is counted, and said
//! if it is not the one that is hoped for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult, Value};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use super::connect::Source;
use super::line::is_gone;
use crate::task::{TaskKey, TaskState};
use crate::untrusted::printable;

/// The wait for the disk, in times that one waits for an answer: with `appendfsync everysec` a write may be two seconds away from it.
const PATIENCE: u32 = 5;
/// Most completions that one wait is for.
const TOGETHER: usize = 256;
/// Wait before another try on a new connection.
const PAUSE: Duration = Duration::from_millis(50);

/// What a server promises about completed tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// Each is asked for: whether it is on disk is known, and counted.
    Confirmed,
    /// It is on disk as soon as `appendfsync` says, and whether it is cannot be asked, for this reason.
    Unconfirmed(String),
}

type Told = Box<dyn Fn(bool) + Send + Sync>;

/// Asks for the completions that it is given, and goes when it is dropped with all its clones.
#[derive(Clone)]
pub struct Confirming {
    pub promise: Promise,
    completed: Option<UnboundedSender<TaskKey>>,
    told: Arc<OnceLock<Told>>,
}

impl Confirming {
    /// Connects with the first completion.
    pub fn start(promise: Promise, source: Source, prefix: String, answer_within: Duration) -> Self {
        let told: Arc<OnceLock<Told>> = Arc::default();
        let completed = (promise == Promise::Confirmed).then(|| {
            let (sender, receiver) = unbounded_channel();
            let asker = Asker { source, prefix, answer_within, connection: None, fault: None };
            tokio::spawn(asker.run(receiver, told.clone()));
            sender
        });
        Self { promise, completed, told }
    }

    /// A task has been completed. Does not wait.
    pub fn completed(&self, key: &TaskKey) {
        if let Some(completed) = &self.completed {
            // Its receiver is there as long as the runtime is.
            drop(completed.send(key.clone()));
        }
    }

    /// Whom to tell whether a completion was confirmed; the first that is given.
    pub fn tell(&self, told: impl Fn(bool) + Send + Sync + 'static) {
        drop(self.told.set(Box::new(told)));
    }
}

struct Asker {
    source: Source,
    prefix: String,
    answer_within: Duration,
    connection: Option<MultiplexedConnection>,
    /// Why the last connection broke.
    fault: Option<String>,
}

impl Asker {
    async fn run(mut self, mut completed: UnboundedReceiver<TaskKey>, told: Arc<OnceLock<Told>>) {
        let (mut keys, mut said) = (Vec::new(), None);
        while completed.recv_many(&mut keys, TOGETHER).await > 0 {
            let deadline = self.patience() + self.answer_within;
            let answer = timeout(deadline, self.ask(&keys)).await;
            let answer = answer.unwrap_or_else(|_| {
                let why = self.fault.take().unwrap_or_else(|| "no answer".to_string());
                Err(format!("{why}, for {} s", deadline.as_secs_f64()))
            });
            self.fault = None;
            if answer.is_err() {
                // Whatever still comes on it would be taken for the next answer.
                self.connection = None;
            }
            let (confirmed, fault) = match answer {
                Ok(confirmed) if confirmed == keys.len() => (confirmed, None),
                Ok(confirmed) => (confirmed, Some("the server has lost it meanwhile".to_string())),
                Err(fault) => (0, Some(fault)),
            };
            if let Some(told) = told.get() {
                (0..keys.len()).for_each(|place| told(place < confirmed));
            }
            // A fault that lasts is said once.
            if fault != said
                && let (Some(fault), [first, ..]) = (&fault, keys.as_slice())
            {
                tracing::warn!("Redis has not confirmed that the result of {first} is on disk: {}", printable(fault));
            }
            said = fault;
            keys.clear();
        }
    }

    fn patience(&self) -> Duration {
        self.answer_within * PATIENCE
    }

    /// How many of these tasks are on disk as completed. A connection that breaks is made anew, until the caller's deadline: servers that are started
    /// anew are asked as well, so it is looked at whether they still know of the completion.
    async fn ask(&mut self, keys: &[TaskKey]) -> Result<usize, String> {
        loop {
            match self.ask_once(keys).await {
                Ok(answer) => return answer,
                Err(error) if is_gone(&error) => {
                    (self.connection, self.fault) = (None, Some(error.to_string()));
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn ask_once(&mut self, keys: &[TaskKey]) -> RedisResult<Result<usize, String>> {
        let patience = self.patience();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let client = self.source.client().await?;
                // The caller has a deadline for the whole of it.
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.answer_within))
                    .set_response_timeout(None);
                none.insert(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
        };
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.cmd("HGET").arg(format!("{}task:{key}", self.prefix)).arg("state");
        }
        pipe.cmd("SET").arg(format!("{}confirmed", self.prefix)).arg("").ignore();
        pipe.cmd("WAITAOF").arg(1).arg(0).arg(patience.as_millis() as u64);
        let mut values: Vec<Value> = pipe.query_async(connection).await?;
        let (local, _): (u64, u64) =
            redis::from_redis_value(values.pop().unwrap_or(Value::Nil)).map_err(RedisError::from)?;
        if local == 0 {
            return Ok(Err(format!("not within {} s", patience.as_secs_f64())));
        }
        let succeeded = TaskState::Succeeded.as_str().as_bytes();
        let is_kept = |value: &&Value| matches!(value, Value::BulkString(word) if word == succeeded);
        Ok(Ok(values.iter().filter(is_kept).count()))
    }
}
