//! One claimed task, from its claim to its end: the lease is renewed, checkpoints are written, orders are heard, and the result is handed over once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep};

use super::compute::{Compute, Job, Output, Work};
use super::link::{Link, PoolResult};
use super::watch::WorkerObserver;
use crate::checkpoint::Checkpoint;
use crate::retry::{Faults, pauses};
use crate::runner::engine::{Completion, EngineError, RungReached};
use crate::search::Searches;
use crate::store::{
    AfterRelease, Claimed, Completed, Held, Hold, KeptUnits, Order, ReleaseReason, Saved, Standing, StoreError,
    WorkerStore,
};
use crate::sweep::metric::Metric;
use crate::sweep::results::TaskOutcome;
use crate::sweep::spec::Spec;
use crate::sweep::task::{Origin, Task};
use crate::task::TaskState;

/// Waits between two tries of a write that the store did not answer.
const RETRY: Duration = Duration::from_millis(200);
/// Longest wait between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// How a worker holds its tasks.
#[derive(Debug, Clone)]
pub struct AttemptSettings {
    /// A task is taken from a worker that was not heard of for so long.
    pub lease: Duration,
    /// Shortest time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// A task whose iterations stand still for so long is given up, and the process with it.
    pub stall: Duration,
    /// Without the store for so long, a worker gives its task up: another one has it by then.
    pub orphan: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The store has the result.
    Completed,
    /// The task went on without a result; a ticket in it is to be published.
    LetGo(AfterRelease),
    /// The engine failed in a way that another attempt may not, and the task is to be tried again, later.
    Crashed,
    /// The task was somebody else's by then: nothing of this attempt was written.
    Fenced,
    /// The store was not there for too long.
    Orphaned,
    /// The engine stands still: its thread cannot be used any more, and the process has to end. What became of the task, if the store said.
    Stalled(Option<AfterRelease>),
}

/// One attempt.
pub struct Attempt<'a, S> {
    /// The store.
    pub store: &'a S,
    /// The compute thread.
    pub compute: &'a Compute,
    /// How tasks are held.
    pub settings: &'a AttemptSettings,
    /// Told of what happens.
    pub watch: Arc<dyn WorkerObserver>,
    /// True once the worker is asked to end.
    pub stop: watch::Receiver<bool>,
}

/// When the store was heard of last, and what was said of it since.
#[derive(Debug)]
struct Heard {
    at: Instant,
    faults: Faults,
}

impl Heard {
    fn now() -> Self {
        Self { at: Instant::now(), faults: Faults::default() }
    }
}

/// Why the loop below ended before the engine did.
enum Interruption {
    Fenced,
    Orphaned,
    Stalled,
}

/// What decides whether a task's units are kept.
#[derive(Debug, Clone, Copy)]
struct Ranking {
    metric: Metric,
    is_baseline: bool,
    limit: usize,
}

impl Ranking {
    fn of(spec: &Spec, work: &Work) -> Self {
        let is_baseline = match work {
            Work::Scores(_) => false,
            Work::Task { task, .. } => task.origin == Origin::Baseline,
        };
        Self { metric: spec.data.metric, is_baseline, limit: spec.compute.paired_tasks }
    }

    fn kept_units(self, completion: &Completion) -> Option<KeptUnits> {
        let cost = match self.is_baseline {
            true => None,
            // Without a value it ranks behind all others, which need not be kept.
            false => {
                let value = completion.scores.select.get(self.metric)?.value;
                Some(self.metric.cost(value)).filter(|cost| cost.is_finite())
            }
        };
        let is_wanted = !completion.units.is_empty() && self.limit > 0 && (self.is_baseline || cost.is_some());
        is_wanted.then(|| {
            let mut units = completion.units.clone();
            units.cost = cost;
            KeptUnits { bytes: units.to_bytes(), cost, limit: self.limit }
        })
    }
}

impl<S: WorkerStore> Attempt<'_, S> {
    /// Computes a claimed task to its end, whatever that is.
    pub async fn run(mut self, claimed: Claimed) -> Ended {
        let hold = claimed.hold.clone();
        let mut claimed = claimed;
        loop {
            let (spec, work) = match read(&claimed) {
                Ok(parts) => parts,
                Err(Unreadable::Checkpoint(why)) => {
                    self.watch.checkpoint_refused(&hold.key, &why);
                    claimed.checkpoint = None;
                    continue;
                }
                Err(Unreadable::Task(why)) => return self.let_go(&hold, ReleaseReason::Hopeless(why)).await,
            };
            let link = Arc::new(Link::new());
            let (done, ended) = oneshot::channel();
            let ranking = Ranking::of(&spec, &work);
            self.compute.submit(Job {
                spec,
                work,
                sequence: claimed.sequence,
                checkpoint_interval: self.settings.checkpoint_interval,
                link: link.clone(),
                key: hold.key.clone(),
                watch: self.watch.clone(),
                span: tracing::Span::current(),
                done,
            });
            let output = match self.accompany(&hold, &link, ended).await {
                Ok(output) => output,
                Err(Interruption::Fenced) => return Ended::Fenced,
                Err(Interruption::Orphaned) => return Ended::Orphaned,
                Err(Interruption::Stalled) => {
                    let cause = format!("no progress for {} s", self.settings.stall.as_secs());
                    return match self.let_go(&hold, ReleaseReason::Crashed(cause)).await {
                        Ended::LetGo(onward) => Ended::Stalled(Some(onward)),
                        _ => Ended::Stalled(None),
                    };
                }
            };
            if let Err(error) = &output
                && !matches!(error, EngineError::AtRung(_))
            {
                self.watch.gave_up(&hold.key, error);
            }
            return match output {
                Ok(output) => self.complete(&hold, &link, output, ranking).await,
                Err(EngineError::ForeignCheckpoint(why)) if claimed.checkpoint.is_some() => {
                    self.watch.checkpoint_refused(&hold.key, &why);
                    claimed.checkpoint = None;
                    continue;
                }
                Err(EngineError::Stopped) => self.let_go(&hold, ReleaseReason::Preempted).await,
                Err(EngineError::AtRung(reached)) => self.wait(&hold, claimed.rungs, &reached).await,
                Err(error @ (EngineError::Input(_) | EngineError::Numerics(_) | EngineError::ForeignCheckpoint(_))) => {
                    self.let_go(&hold, ReleaseReason::Hopeless(error.to_string())).await
                }
                Err(error) => match self.let_go(&hold, ReleaseReason::Crashed(error.to_string())).await {
                    Ended::LetGo(AfterRelease::State(TaskState::Queued)) => Ended::Crashed,
                    ended => ended,
                },
            };
        }
    }

    /// Renews, saves and listens until the engine ends, and until its last checkpoint is written.
    async fn accompany(
        &mut self,
        hold: &Hold,
        link: &Link,
        mut ended: oneshot::Receiver<Result<Output, EngineError>>,
    ) -> Result<Result<Output, EngineError>, Interruption> {
        let mut renewal = every(self.settings.lease / 3);
        let mut heard = Heard::now();
        let mut may_stop = true;
        let output = loop {
            tokio::select! {
                // The end first: what is written after it is written below.
                biased;
                output = &mut ended => {
                    // The thread is gone only if it panicked outside of an engine.
                    break output.unwrap_or_else(|_| Err(EngineError::Internal("the compute thread ended".to_string())));
                }
                _ = wanted(&mut self.stop), if may_stop => {
                    may_stop = false;
                    link.stop();
                }
                () = link.changed.notified() => self.save(hold, link, &mut heard).await?,
                _ = renewal.tick() => {
                    let (progress, advanced) = link.progress();
                    if advanced.elapsed() >= self.settings.stall {
                        return Err(Interruption::Stalled);
                    }
                    let answer = self.ask(self.store.renew(hold, self.settings.lease, progress.as_deref())).await;
                    self.obey(answer, link, &mut heard)?;
                    // One that the store did not take when it came: the next may be long in coming.
                    self.save(hold, link, &mut heard).await?;
                }
            }
        };
        while link.take().map(|snapshot| link.put_back(snapshot)).is_some() {
            self.save(hold, link, &mut heard).await?;
            if heard.at.elapsed() > RETRY {
                sleep(RETRY).await;
            }
        }
        Ok(output)
    }

    /// Writes the newest checkpoint, if there is one that was not.
    async fn save(&self, hold: &Hold, link: &Link, heard: &mut Heard) -> Result<(), Interruption> {
        let Some(snapshot) = link.take() else { return Ok(()) };
        let (progress, _) = link.progress();
        let (lease, began) = (self.settings.lease, Instant::now());
        let saved = Saved {
            sequence: snapshot.sequence,
            checkpoint: &snapshot.bytes,
            reached: snapshot.reached,
            progress: progress.as_deref(),
        };
        let answer = self.ask(self.store.save(hold, lease, saved)).await;
        match &answer {
            Ok(Held::Yes(_)) => self.watch.saved(snapshot.bytes.len(), began.elapsed()),
            Ok(Held::Fenced) => {}
            Err(_) => {
                self.watch.not_saved();
                link.put_back(snapshot);
            }
        }
        self.obey(answer, link, heard)
    }

    fn obey(
        &self,
        answer: Result<Held<Order>, StoreError>,
        link: &Link,
        heard: &mut Heard,
    ) -> Result<(), Interruption> {
        match answer {
            Ok(Held::Yes(order)) => {
                *heard = Heard::now();
                if order != Order::Continue {
                    link.stop();
                }
                Ok(())
            }
            Ok(Held::Fenced) => {
                // The engine ends within one iteration; nobody waits for it.
                link.stop();
                Err(Interruption::Fenced)
            }
            Err(error) => {
                // A worker that is to end waits for a lease at most: by then another one has the task.
                let patience = if *self.stop.borrow() { self.settings.lease } else { self.settings.orphan };
                if heard.at.elapsed() >= patience.min(self.settings.orphan) {
                    link.stop();
                    return Err(Interruption::Orphaned);
                }
                heard.faults.met(&error, |fault| self.watch.say(fault));
                Ok(())
            }
        }
    }

    async fn complete(&self, hold: &Hold, link: &Link, output: Output, ranking: Ranking) -> Ended {
        let completed = match output {
            Output::Scores(manifest) => {
                serde_json::to_string(&manifest).map(|result| Completed { result, coefficients: vec![], units: None })
            }
            Output::Task(completion) => {
                let outcome = TaskOutcome::succeeded(&completion, completion.attempts);
                let units = ranking.kept_units(&completion);
                serde_json::to_string(&PoolResult { outcome, history: link.history() }).map(|result| Completed {
                    result,
                    coefficients: completion.coefficients,
                    units,
                })
            }
        };
        let completed = match completed {
            Ok(completed) => completed,
            Err(error) => {
                return self.let_go(hold, ReleaseReason::Hopeless(format!("cannot store its result: {error}"))).await;
            }
        };
        match self.retry_write(|| self.store.complete(hold, &completed)).await {
            Some(Held::Yes(())) => Ended::Completed,
            Some(Held::Fenced) => Ended::Fenced,
            None => Ended::Orphaned,
        }
    }

    /// Leaves a task at its rung; its checkpoint is with the store by now.
    async fn wait(&self, hold: &Hold, rung: u32, reached: &RungReached) -> Ended {
        match serde_json::to_string(&TaskOutcome::waiting(reached)) {
            Ok(outcome) => {
                let standing = Standing { rung, select: reached.select, outcome };
                left(self.retry_write(|| self.store.wait(hold, &standing)).await)
            }
            Err(error) => self.let_go(hold, ReleaseReason::Hopeless(format!("cannot store its score: {error}"))).await,
        }
    }

    async fn let_go(&self, hold: &Hold, why: ReleaseReason) -> Ended {
        left(self.retry_write(|| self.store.release(hold, &why)).await)
    }

    /// Repeats a write, which is safe, until the store answers; `None` once it is too late to matter.
    async fn retry_write<T, F: Future<Output = Result<T, StoreError>>>(&self, write: impl Fn() -> F) -> Option<T> {
        let began = Instant::now();
        let mut is_asked = None;
        let mut faults = Faults::default();
        let mut delays = pauses(RETRY, LONGEST_RETRY);
        loop {
            let error = match self.ask(write()).await {
                Ok(answer) => return Some(answer),
                Err(error) => error,
            };
            faults.met(&error, |fault| self.watch.say(fault));
            if *self.stop.borrow() {
                is_asked = is_asked.or(Some(Instant::now()));
            }
            let is_late = is_asked.is_some_and(|asked: Instant| asked.elapsed() >= self.settings.lease);
            if is_late || began.elapsed() >= self.settings.orphan {
                return None;
            }
            let mut stop = self.stop.clone();
            tokio::select! {
                () = sleep(delays.next().unwrap_or(LONGEST_RETRY)) => {}
                // At once the first time: this may be the last try.
                () = wanted(&mut stop), if is_asked.is_none() => {}
            }
        }
    }

    /// The store's answer. Once the worker is to end, it is waited for at most as long as a lease.
    async fn ask<T>(&self, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut stop = self.stop.clone();
        let late = async {
            wanted(&mut stop).await;
            sleep(self.settings.lease).await;
        };
        tokio::select! {
            answer = asked => answer,
            () = late => Err(StoreError::Unreachable("no answer before this worker ended".to_string())),
        }
    }
}

/// The end of an attempt that leaves its task without a result.
fn left(answer: Option<Held<AfterRelease>>) -> Ended {
    match answer {
        Some(Held::Yes(onward)) => Ended::LetGo(onward),
        Some(Held::Fenced) => Ended::Fenced,
        None => Ended::Orphaned,
    }
}

/// A claimed task that cannot be worked on.
enum Unreadable {
    /// Its checkpoint is another version's, or damaged.
    Checkpoint(String),
    /// Everything else.
    Task(String),
}

fn read(claimed: &Claimed) -> Result<(Spec, Work), Unreadable> {
    let task = |what: &str, error: serde_json::Error| Unreadable::Task(format!("cannot read {what}: {error}"));
    let spec: Spec = serde_json::from_str(&claimed.spec).map_err(|e| task("its sweep's specification", e))?;
    if claimed.is_scores {
        let known = claimed.checkpoint.as_deref().map(serde_json::from_slice).transpose();
        return Ok((spec, Work::Scores(known.map_err(|e| Unreadable::Checkpoint(e.to_string()))?)));
    }
    let manifest = claimed.manifest.as_deref().unwrap_or("null");
    let resume = claimed.checkpoint.as_deref().map(Checkpoint::from_bytes).transpose();
    let soup: Task = serde_json::from_str(&claimed.body).map_err(|e| task("it", e))?;
    let work = Work::Task {
        rung: Searches::default().of(&spec).stop(claimed.rungs, &soup.soup),
        task: Box::new(soup),
        manifest: serde_json::from_str(manifest).map_err(|e| task("its sweep's manifest", e))?,
        resume: resume.map_err(|e| Unreadable::Checkpoint(e.to_string()))?.map(Box::new),
    };
    Ok((spec, work))
}

/// Ticks after each period: what claims has just begun a lease.
fn every(period: Duration) -> Interval {
    let period = period.max(Duration::from_millis(10));
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Until the worker is asked to end; for ever if nobody can ask any more.
async fn wanted(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}
