//! The store of a pool, in Redis: one Lua script a transition, so that each happens whole or not at all, by the server's clock.

mod answers;
mod confirm;
mod connect;
mod line;
mod lists;
mod scripts;
mod sentinel;

use std::time::Duration;

use redis::{AsyncCommands, FromRedisValue, Script};

use confirm::Confirming;
pub use confirm::Promise;
pub use connect::RedisSettings;
use line::ReconnectingConnection;
use scripts::Scripts;

use super::{
    AfterRelease, AtRung, ClaimAnswer, Claimant, Completed, Created, Expiries, Extended, Findings, Held, Hold, Letter,
    Letters, Live, MOST_LETTERS, NewSweep, NewTask, Order, ReleaseReason, Saved, Standing, Store, StoreError,
    SweepRecord, Sweeps, TaskEvent, TaskRecord, Tickets, Unreadable, Walked,
};
use crate::task::{TaskKey, Ticket};

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
            "it holds sweeps of format {found}, this program reads up to {FORMAT}: upgrade it"
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

impl Store for Redis {
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

    async fn confirmed(&self, tickets: &[Ticket]) -> Result<usize, StoreError> {
        self.call(&self.scripts.confirmed, |call| {
            for ticket in tickets {
                call.arg(ticket.task_id.to_string()).arg(ticket.generation);
            }
        })
        .await
    }

    async fn republish(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.call(&self.scripts.republish, |call| {
            call.arg(millis(age)).arg(limit);
        })
        .await
    }

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

    async fn promote(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        self.decide(&self.scripts.promote, tasks).await
    }

    async fn prune(&self, tasks: &[AtRung]) -> Result<usize, StoreError> {
        self.decide(&self.scripts.prune, tasks).await
    }

    async fn expire(&self, limit: usize, gap: Duration) -> Result<Expiries, StoreError> {
        let words: Vec<String> = self
            .call(&self.scripts.expire, |call| {
                call.arg(limit).arg(millis(gap));
            })
            .await?;
        answers::expiries(&words)
    }

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

    async fn retire(&self, sweeps: &[String]) -> Result<usize, StoreError> {
        let mut retired = 0;
        for ids in sweeps.chunks(MOST_SWEEPS) {
            retired += self
                .call::<usize>(&self.scripts.retire, |call| {
                    call.arg(ids);
                })
                .await?;
        }
        Ok(retired)
    }

    async fn adopt(&self) -> Result<usize, StoreError> {
        self.call(&self.scripts.adopt, |_| {}).await
    }

    async fn ended(&self, age: Duration, limit: usize) -> Result<Vec<String>, StoreError> {
        self.call(&self.scripts.ended, |call| {
            call.arg(millis(age)).arg(limit);
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        // A server that takes no writes still answers reads, and one that allows plain commands may
        // refuse scripts.
        self.call::<String>(&self.scripts.probe, |_| {}).await.map(drop)
    }

    async fn examine(&self, sweep: &str, repair: bool) -> Result<Findings, StoreError> {
        self.call(&self.scripts.examine, |call| {
            call.arg(sweep).arg(u8::from(repair));
        })
        .await
    }

    async fn examine_pool(&self, repair: bool) -> Result<Findings, StoreError> {
        self.call(&self.scripts.examine_pool, |call| {
            call.arg(u8::from(repair));
        })
        .await
    }

    async fn discard(&self, sweep: &str, limit: usize) -> Result<bool, StoreError> {
        let left: usize = self
            .call(&self.scripts.discard, |call| {
                call.arg(sweep).arg(limit.max(1));
            })
            .await?;
        Ok(left == 0)
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

    async fn beat(&self, worker: &str, lifetime: Duration, about: &str) -> Result<(), StoreError> {
        self.call(&self.scripts.beat, |call| {
            call.arg(worker).arg(millis(lifetime)).arg(about);
        })
        .await
    }

    async fn workers(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.call(&self.scripts.workers, |_| {}).await
    }

    async fn keep_letter(&self, letter: &Letter) -> Result<(), StoreError> {
        let text = serde_json::to_string(letter).expect("plain data serializes");
        self.call(&self.scripts.keep_letter, |call| {
            call.arg(MOST_LETTERS).arg(text);
        })
        .await
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

    async fn result(&self, key: &TaskKey) -> Result<Option<Completed>, StoreError> {
        let id = key.to_string();
        let (result, coefficients): (Option<String>, Option<Vec<u8>>) = redis::pipe()
            .get(self.key("result", &id))
            .get(self.key("coefficients", &id))
            .query_async(&mut self.connection.clone())
            .await
            .map_err(answers::error)?;
        Ok(result.map(|result| Completed { result, coefficients: coefficients.unwrap_or_default() }))
    }
}
