//! What there is.

use redis::AsyncCommands;

use super::{MOST_SWEEPS, Redis, answers};
use crate::store::traits::Reading;
use crate::store::{
    Completed, Letters, Live, MOST_LETTERS, StoreError, SweepRecord, Sweeps, TaskEvent, TaskRecord, Tickets, Unreadable,
};
use crate::task::TaskKey;

impl Reading for Redis {
    async fn task(&self, key: &TaskKey) -> Result<Option<TaskRecord>, StoreError> {
        Ok(self.records(std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn tasks(&self, sweep: &str, from: usize, limit: usize) -> Result<Vec<TaskRecord>, StoreError> {
        let ids = self.range(self.key("tasks", sweep), from, limit).await?;
        let keys: Vec<TaskKey> = ids.iter().map(|id| answers::key(id)).collect::<Result<_, _>>()?;
        Ok(self.records(&keys).await?.into_iter().flatten().collect())
    }

    async fn bodies(&self, tasks: &[TaskKey]) -> Result<Vec<Option<String>>, StoreError> {
        let Some(first) = tasks.first() else { return Ok(vec![]) };
        let ids: Vec<String> = tasks.iter().map(ToString::to_string).collect();
        let key = self.key("bodies", &first.sweep);
        self.connection.clone().hmget(key, ids).await.map_err(answers::error)
    }

    async fn sweep(&self, sweep: &str) -> Result<Option<SweepRecord>, StoreError> {
        let mut found = self.summaries(&[sweep.to_string()]).await?;
        match found.unreadable.pop() {
            Some(Unreadable { id, why }) => Err(StoreError::Protocol(format!("the record of sweep {id}: {why}"))),
            None => Ok(found.records.pop()),
        }
    }

    async fn sweeps(&self) -> Result<Sweeps, StoreError> {
        let mut sweeps = Sweeps::default();
        for ids in self.range(format!("{}sweeps", self.prefix), 0, usize::MAX).await?.chunks(MOST_SWEEPS) {
            let part = self.summaries(ids).await?;
            sweeps.records.extend(part.records);
            sweeps.unreadable.extend(part.unreadable);
        }
        Ok(sweeps)
    }

    async fn live(&self) -> Result<Live, StoreError> {
        let mut sweeps = self.summaries(&[]).await?;
        sweeps.records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let counts: Vec<String> = redis::cmd("HGETALL")
            .arg(format!("{}ended-counts", self.prefix))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(answers::error)?;
        Ok(Live { sweeps, ended: answers::counts(&counts)? })
    }

    async fn probe(&self) -> Result<(), StoreError> {
        // A server that takes no writes still answers reads, and one that allows plain commands may
        // refuse scripts.
        self.call::<String>(&self.scripts.probe, |_| {}).await.map(drop)
    }

    async fn documents(&self, sweep: &str) -> Result<Option<(String, Option<String>)>, StoreError> {
        let (spec, manifest): (Option<String>, Option<String>) = self
            .connection
            .clone()
            .hmget(self.key("sweep", sweep), &["spec", "manifest"])
            .await
            .map_err(answers::error)?;
        Ok(spec.map(|spec| (spec, manifest)))
    }

    async fn events(&self, key: &TaskKey) -> Result<Vec<TaskEvent>, StoreError> {
        let lines: Vec<String> = self
            .connection
            .clone()
            .lrange(self.key("events", &key.to_string()), 0, -1)
            .await
            .map_err(answers::error)?;
        lines.iter().map(|line| serde_json::from_str(line).map_err(|_| answers::unexpected(line))).collect()
    }

    async fn progress(&self, key: &TaskKey) -> Result<Option<String>, StoreError> {
        self.connection.clone().hget(self.key("task", &key.to_string()), "progress").await.map_err(answers::error)
    }

    async fn workers(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.call(&self.scripts.workers, |_| {}).await
    }

    async fn letters(&self, limit: usize) -> Result<Letters, StoreError> {
        let last = isize::try_from(limit.min(MOST_LETTERS)).unwrap_or(0) - 1;
        let mut pipe = redis::pipe();
        pipe.get(format!("{}letters-total", self.prefix));
        if last >= 0 {
            pipe.lrange(format!("{}letters", self.prefix), 0, last);
        }
        let values = pipe.query_async(&mut self.connection.clone()).await.map_err(answers::error)?;
        answers::letters(values)
    }

    async fn tickets(&self) -> Result<Tickets, StoreError> {
        let mut tickets = Tickets {
            outbox: self.ticket_set("outbox", usize::MAX).await?,
            outstanding: self.ticket_set("outstanding", usize::MAX).await?,
        };
        for list in [&mut tickets.outbox, &mut tickets.outstanding] {
            list.sort_by(|a, b| (&a.task_id, a.generation).cmp(&(&b.task_id, b.generation)));
        }
        Ok(tickets)
    }

    async fn standing(&self, key: &TaskKey) -> Result<Option<String>, StoreError> {
        self.connection.clone().hget(self.key("task", &key.to_string()), "standing").await.map_err(answers::error)
    }

    async fn units(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.connection.clone().hget(self.key("units", &key.sweep), key.to_string()).await.map_err(answers::error)
    }

    async fn result(&self, key: &TaskKey) -> Result<Option<Completed>, StoreError> {
        let id = key.to_string();
        let (result, coefficients): (Option<String>, Option<Vec<u8>>) = redis::pipe()
            .get(self.key("result", &id))
            .get(self.key("coefficients", &id))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(answers::error)?;
        Ok(result.map(|result| Completed { result, coefficients: coefficients.unwrap_or_default(), units: None }))
    }
}
