//! Sweeps: their beginning, what a search adds and decides, what their owner wants, and their end.

use redis::AsyncCommands;

use super::{MOST_TASKS, Redis, answers};
use crate::store::traits::{Admission, Owner, Steering};
use crate::store::{AtRung, Created, Extended, NewSweep, NewTask, Order, StoreError, Walked};
use crate::task::Ticket;

impl Admission for Redis {
    async fn create_sweep(&self, sweep: &NewSweep, request: Option<&str>) -> Result<Created, StoreError> {
        let (id, word): (String, String) = self
            .call(&self.scripts.create_sweep, |call| {
                call.arg(&sweep.id).arg(request.unwrap_or("")).arg(&sweep.name).arg(&sweep.spec);
                call.arg(sweep.attempts).arg(sweep.cap).arg(sweep.priority).arg(sweep.max_seconds);
                call.arg(u8::from(sweep.search_controlled)).arg(sweep.backoff.first_ms).arg(sweep.task_limit);
            })
            .await?;
        Ok(Created { id, is_new: word == "new" })
    }

    async fn add_tasks(&self, sweep: &str, order: usize, tasks: &[NewTask]) -> Result<usize, StoreError> {
        let mut all = 0;
        // Once without any: whether the sweep takes tasks is answered all the same.
        let pieces = tasks.chunks(MOST_TASKS).chain(tasks.is_empty().then_some(tasks));
        for (i, piece) in pieces.enumerate() {
            let new: i64 = self
                .call(&self.scripts.add_tasks, |call| {
                    call.arg(sweep).arg(order + i * MOST_TASKS);
                    for task in piece {
                        call.arg(&task.id).arg(&task.body).arg(u8::from(task.is_scores));
                    }
                })
                .await?;
            all += usize::try_from(new).map_err(|_| {
                let what = if new == -1 { "no such sweep" } else { "the sweep is open: it takes no more tasks" };
                StoreError::Protocol(what.to_string())
            })?;
        }
        Ok(all)
    }

    async fn open_sweep(&self, sweep: &str) -> Result<Option<Ticket>, StoreError> {
        let generation: i64 = self
            .call(&self.scripts.open_sweep, |call| {
                call.arg(sweep);
            })
            .await?;
        match generation {
            0 => Ok(None),
            1.. => {
                let scores: Option<String> =
                    self.connection.clone().hget(self.key("sweep", sweep), "scores").await.map_err(answers::error)?;
                let key = answers::key(&scores.unwrap_or_default())?;
                Ok(Some(Ticket::new(key, generation as u64)))
            }
            _ => Err(StoreError::Protocol("no such sweep, or one without its scores task".to_string())),
        }
    }
}

impl Steering for Redis {
    async fn extend(&self, sweep: &str, place: usize, tasks: &[NewTask]) -> Result<Extended, StoreError> {
        let words: Vec<String> = self
            .call(&self.scripts.extend, |call| {
                call.arg(sweep).arg(place);
                for task in tasks {
                    call.arg(&task.id).arg(&task.body);
                }
            })
            .await?;
        answers::extended(&words)
    }

    async fn close(&self, sweep: &str) -> Result<bool, StoreError> {
        self.call(&self.scripts.close, |call| {
            call.arg(sweep);
        })
        .await
    }

    async fn release_pending(&self, sweep: &str, limit: usize) -> Result<usize, StoreError> {
        if limit == 0 {
            return Ok(0);
        }
        self.call(&self.scripts.release_pending, |call| {
            call.arg(sweep).arg(limit);
        })
        .await
    }

    async fn promote(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        self.decide(&self.scripts.promote, tasks).await
    }

    async fn prune(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        self.decide(&self.scripts.prune, tasks).await
    }
}

impl Owner for Redis {
    async fn order(&self, sweep: &str, order: Order) -> Result<bool, StoreError> {
        let word = match order {
            Order::Cancel => "cancel",
            Order::Pause => "pause",
            Order::Continue => "resume",
        };
        let done: i64 = self
            .call(&self.scripts.request, |call| {
                call.arg(sweep).arg(word);
            })
            .await?;
        Ok(done == 1)
    }

    async fn settle(&self, sweep: &str, from: usize, limit: usize) -> Result<Walked, StoreError> {
        self.walk(&self.scripts.settle, sweep, from, limit).await
    }

    async fn retry(&self, sweep: &str, from: usize, limit: usize) -> Result<Walked, StoreError> {
        self.walk(&self.scripts.retry, sweep, from, limit).await
    }

    async fn remove(&self, sweep: &str, limit: usize) -> Result<bool, StoreError> {
        let left: i64 = self
            .call(&self.scripts.remove, |call| {
                call.arg(sweep).arg(limit.max(1));
            })
            .await?;
        match left {
            -1 => Err(StoreError::Protocol(
                "the sweep has tasks that are not final, or its search may open more".to_string(),
            )),
            left => Ok(left == 0),
        }
    }
}
