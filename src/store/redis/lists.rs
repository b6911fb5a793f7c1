//! Lists of the store: what several questions have in common.

use redis::{AsyncCommands, Script};

use super::{Redis, answers};
use crate::store::{AtRung, StoreError, Sweeps, TaskRecord, Walked};
use crate::task::{TaskKey, Ticket};

impl Redis {
    pub(super) async fn walk(
        &self,
        script: &Script,
        sweep: &str,
        from: usize,
        limit: usize,
    ) -> Result<Walked, StoreError> {
        let (changed, next): (usize, i64) = self
            .call(script, |call| {
                call.arg(sweep).arg(from).arg(limit.max(1));
            })
            .await?;
        Ok(Walked { changed, next: usize::try_from(next).ok() })
    }

    pub(super) async fn decide(&self, script: &Script, tasks: &[AtRung]) -> Result<usize, StoreError> {
        self.call(script, |call| {
            for AtRung { key, rung } in tasks {
                call.arg(key.to_string()).arg(rung);
            }
        })
        .await
    }

    pub(super) async fn records(&self, keys: &[TaskKey]) -> Result<Vec<Option<TaskRecord>>, StoreError> {
        if keys.is_empty() {
            // The client takes no pipeline of nothing.
            return Ok(vec![]);
        }
        let mut pipe = redis::pipe();
        for key in keys {
            let id = key.to_string();
            pipe.cmd("HMGET").arg(self.key("task", &id)).arg(&answers::RECORD_FIELDS);
            pipe.exists(self.key("checkpoint", &id)).exists(self.key("result", &id));
        }
        let values: Vec<redis::Value> = pipe.query_async(&mut self.connection.clone()).await.map_err(answers::error)?;
        keys.iter().zip(values.chunks(3)).map(|(key, values)| answers::record(key, values)).collect()
    }

    /// Members of a sorted set, from place `from` on.
    pub(super) async fn range(&self, key: String, from: usize, limit: usize) -> Result<Vec<String>, StoreError> {
        if limit == 0 {
            // Redis takes the end before the beginning for "up to the last".
            return Ok(vec![]);
        }
        let last = isize::try_from(from.saturating_add(limit) - 1).unwrap_or(isize::MAX);
        self.connection.clone().zrange(key, from as isize, last).await.map_err(answers::error)
    }

    /// Tickets of a sorted set. A member that is none can never be published: it is removed, so
    /// that it is in no ticket's way.
    pub(super) async fn ticket_set(&self, name: &str, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        let key = format!("{}{name}", self.prefix);
        let mut tickets = Vec::new();
        for member in self.range(key.clone(), 0, limit).await? {
            match answers::ticket(&member) {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => {
                    tracing::warn!("{name} contained an entry that is not a ticket; it was removed: {error}");
                    let _: i64 = self.connection.clone().zrem(&key, &member).await.map_err(answers::error)?;
                }
            }
        }
        Ok(tickets)
    }

    /// Of these sweeps, or of all that are live. Those that are not there are left out.
    pub(super) async fn summaries(&self, ids: &[String]) -> Result<Sweeps, StoreError> {
        let lines: Vec<Vec<String>> = self
            .call(&self.scripts.sweep, |call| {
                call.arg(ids);
            })
            .await?;
        Ok(answers::sweeps(&lines))
    }
}
