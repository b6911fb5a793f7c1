//! Tickets, from a runnable task to the broker.

use std::time::Duration;

use super::{Redis, answers, millis};
use crate::store::traits::{Outbox, Publishing};
use crate::store::{AfterRelease, Letter, MOST_LETTERS, StoreError};
use crate::task::{TaskKey, Ticket};

impl Outbox for Redis {
    async fn due(&self, sweep: &str, limit: usize) -> Result<usize, StoreError> {
        self.call(&self.scripts.due, |call| {
            call.arg(sweep).arg(limit);
        })
        .await
    }

    async fn ready(&self, sweep: &str, limit: usize) -> Result<Vec<TaskKey>, StoreError> {
        let ids = self.range(self.key("ready", sweep), 0, limit).await?;
        ids.iter().map(|id| answers::key(id)).collect()
    }

    async fn choose(&self, tasks: &[TaskKey]) -> Result<usize, StoreError> {
        self.call(&self.scripts.choose, |call| {
            for task in tasks {
                call.arg(task.to_string());
            }
        })
        .await
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        self.ticket_set("outbox", limit).await
    }

    async fn republish(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.call(&self.scripts.republish, |call| {
            call.arg(millis(age)).arg(limit);
        })
        .await
    }

    async fn dead(&self, ticket: &Ticket, limit: u32) -> Result<Option<AfterRelease>, StoreError> {
        let word: String = self
            .call(&self.scripts.dead, |call| {
                call.arg(ticket.task_id.to_string()).arg(ticket.generation).arg(limit);
            })
            .await?;
        match word.as_str() {
            "worthless" => Ok(None),
            "again" => Ok(Some(AfterRelease::Queued(ticket.clone()))),
            state => answers::onward(&ticket.task_id, state, None).map(Some),
        }
    }

    async fn keep_letter(&self, letter: &Letter) -> Result<(), StoreError> {
        let text = serde_json::to_string(letter).expect("plain data serializes");
        self.call(&self.scripts.keep_letter, |call| {
            call.arg(MOST_LETTERS).arg(text);
        })
        .await
    }
}

impl Publishing for Redis {
    async fn confirmed(&self, tickets: &[Ticket]) -> Result<usize, StoreError> {
        self.call(&self.scripts.confirmed, |call| {
            for ticket in tickets {
                call.arg(ticket.task_id.to_string()).arg(ticket.generation);
            }
        })
        .await
    }
}
