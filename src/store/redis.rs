//! The store of a pool, in Redis: one Lua script a transition, so that each happens whole or not at all, by the server's clock.

mod answers;
mod confirm;
mod connect;
mod line;
mod lists;
mod reading;
mod scripts;
mod sentinel;
mod sweeps;
mod tickets;
mod upkeep;

use std::time::Duration;

use redis::{AsyncCommands, FromRedisValue, Script};

use confirm::Confirming;
pub use confirm::Promise;
pub use connect::RedisSettings;
use line::ReconnectingConnection;
use scripts::Scripts;

use super::traits::Leases;
use super::{
    AfterRelease, ClaimAnswer, Claimant, Completed, Held, Hold, KeptUnits, Order, ReleaseReason, Saved, Standing,
    StoreError,
};
use crate::task::Ticket;

/// Most tasks that one script takes: Lua's stack holds some thousands of values.
const MOST_TASKS: usize = 500;
/// Most sweeps that one script looks at.
const MOST_SWEEPS: usize = 500;

/// Version of what this program writes: keys, records, and the JSON in them. A database without one has version 1.
const FORMAT: u32 = 1;

/// Sweeps and tasks in Redis. Clones share a connection, which is made anew whenever it breaks or falls silent.
#[derive(Clone)]
pub struct Redis {
    connection: ReconnectingConnection,
    confirming: Confirming,
    prefix: String,
    scripts: std::sync::Arc<Scripts>,
}

impl Redis {
    /// Connects, and looks whether the server keeps what it is given: `noeviction`, Lua, a primary.
    ///
    /// # Errors
    /// [`StoreError::Setup`] if it does not, or refuses the user; [`StoreError::Unreachable`] if there is no answer in time.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, StoreError> {
        let (connection, source, promise) = connect::connect(settings).await?;
        // The braces are a hash tag: all keys in one slot.
        let prefix = format!("{{{}}}:", settings.installation);
        state_format(&mut connection.clone(), &prefix).await?;
        let confirming = Confirming::start(promise, source, prefix.clone(), settings.timeout);
        Ok(Self { connection, confirming, prefix, scripts: std::sync::Arc::new(Scripts::new()) })
    }

    /// What the server promises about completed tasks.
    pub fn promise(&self) -> &Promise {
        &self.confirming.promise
    }

    /// Whom to tell, for each completion, whether the server has confirmed that it is on disk; the first that is given. Never told without [`Promise::Confirmed`].
    pub fn tell_confirmations(&self, told: impl Fn(bool) + Send + Sync + 'static) {
        self.confirming.tell(told);
    }

    fn key(&self, kind: &str, of: &str) -> String {
        format!("{}{kind}:{of}", self.prefix)
    }

    async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        fill: impl FnOnce(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, StoreError> {
        let mut invocation = script.prepare_invoke();
        invocation.key(&self.prefix);
        fill(&mut invocation);
        invocation.invoke_async(&mut self.connection.clone()).await.map_err(answers::error)
    }
}

/// Refuses what a newer program has written, and states the format where an older one has, or none.
async fn state_format(connection: &mut ReconnectingConnection, prefix: &str) -> Result<(), StoreError> {
    let key = format!("{prefix}format");
    let found: Option<u32> = connection.get(&key).await.map_err(answers::error)?;
    match found {
        Some(found) if found > FORMAT => Err(StoreError::Setup(format!(
            "it contains sweeps of format {found}, this program reads up to {FORMAT}: upgrade the program"
        ))),
        Some(FORMAT) => Ok(()),
        _ => {
            // A server that takes no writes now is found out by the probe for it; the next program states it then.
            let _: redis::RedisResult<()> = connection.set(&key, FORMAT).await;
            Ok(())
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().min(u128::from(u64::MAX / 4096)) as u64
}

impl Leases for Redis {
    async fn claim(&self, ticket: &Ticket, claimant: &Claimant, lease: Duration) -> Result<ClaimAnswer, StoreError> {
        let values: Vec<Vec<u8>> = self
            .call(&self.scripts.claim, |call| {
                call.arg(ticket.task_id.to_string()).arg(ticket.generation);
                call.arg(&claimant.worker).arg(&claimant.nonce).arg(millis(lease));
            })
            .await?;
        answers::claim(&ticket.task_id, &claimant.nonce, values)
    }

    async fn renew(&self, hold: &Hold, lease: Duration, progress: Option<&str>) -> Result<Held<Order>, StoreError> {
        let word: String = self
            .call(&self.scripts.renew, |call| {
                call.arg(hold.key.to_string()).arg(hold.epoch).arg(&hold.nonce);
                call.arg(millis(lease)).arg(progress.unwrap_or(""));
            })
            .await?;
        answers::order(&word)
    }

    async fn save(&self, hold: &Hold, lease: Duration, saved: Saved<'_>) -> Result<Held<Order>, StoreError> {
        let Saved { sequence, checkpoint, reached, progress } = saved;
        let word: String = self
            .call(&self.scripts.save, |call| {
                call.arg(hold.key.to_string()).arg(hold.epoch).arg(&hold.nonce);
                call.arg(millis(lease)).arg(sequence).arg(checkpoint).arg(progress.unwrap_or(""));
                call.arg(reached);
            })
            .await?;
        answers::order(&word)
    }

    async fn complete(&self, hold: &Hold, completed: &Completed) -> Result<Held<()>, StoreError> {
        let word: String = self
            .call(&self.scripts.complete, |call| {
                call.arg(hold.key.to_string()).arg(hold.epoch).arg(&hold.nonce);
                call.arg(&completed.result).arg(&completed.coefficients);
                if let Some(KeptUnits { bytes, cost, limit }) = &completed.units {
                    call.arg(bytes).arg(cost.map(|cost| format!("{cost:?}")).unwrap_or_default()).arg(*limit);
                }
            })
            .await?;
        match word.as_str() {
            "done" => {
                self.confirming.completed(&hold.key);
                Ok(Held::Yes(()))
            }
            "fenced" => Ok(Held::Fenced),
            other => Err(answers::unexpected(other)),
        }
    }

    async fn release(&self, hold: &Hold, why: &ReleaseReason) -> Result<Held<AfterRelease>, StoreError> {
        let (how, cause) = match why {
            ReleaseReason::Preempted => ("preempted", ""),
            ReleaseReason::Crashed(cause) => ("crashed", cause.as_str()),
            ReleaseReason::Hopeless(cause) => ("hopeless", cause.as_str()),
        };
        let words: Vec<String> = self
            .call(&self.scripts.release, |call| {
                call.arg(hold.key.to_string()).arg(hold.epoch).arg(&hold.nonce).arg(how).arg(cause);
            })
            .await?;
        answers::let_go(&hold.key, &words)
    }

    async fn wait(&self, hold: &Hold, standing: &Standing) -> Result<Held<AfterRelease>, StoreError> {
        let words: Vec<String> = self
            .call(&self.scripts.wait, |call| {
                call.arg(hold.key.to_string()).arg(hold.epoch).arg(&hold.nonce);
                call.arg(standing.rung).arg(answers::score_line(&standing.select)).arg(&standing.outcome);
            })
            .await?;
        answers::let_go(&hold.key, &words)
    }

    async fn beat(&self, worker: &str, lifetime: Duration, about: &str) -> Result<(), StoreError> {
        self.call(&self.scripts.beat, |call| {
            call.arg(worker).arg(millis(lifetime)).arg(about);
        })
        .await
    }
}
