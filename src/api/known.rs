//! What is read from the store once: the tasks that a sweep's specification spans, and what came of
//! tasks that have ended. The memory for it is bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;

use super::error::ApiError;
use super::snapshot::Snapshot;
use crate::store::traits::Reading;
use crate::store::{StoreError, TaskRecord};
use crate::sweep::expand::Expansion;
use crate::sweep::results::TaskOutcome;
use crate::sweep::spec::Spec;
use crate::sweep::task::Task;
use crate::task::TaskState;

/// Bytes that remembered sweeps may take together. One of a hundred thousand tasks takes some 12 MB
/// at first, and up to 50 MB once all its tasks have ended. The sweep that was asked for last is
/// kept in any case.
const BUDGET: usize = 64 << 20;

/// Bytes that a remembered outcome takes, its place in the map and its allocation included. Causes
/// are counted beside it.
const OUTCOME: usize = size_of::<TaskOutcome>() + 80;

/// A sweep.
#[derive(Debug)]
pub struct Known {
    /// Its tasks in order, the scores task left out.
    pub tasks: Expansion,
    outcomes: Mutex<Outcomes>,
    clock: AtomicU64,
    latest: tokio::sync::Mutex<Option<Latest>>,
}

/// What came of tasks, by their places.
#[derive(Debug, Default)]
struct Outcomes {
    map: HashMap<usize, Remembered>,
    /// Bytes of their causes.
    causes: usize,
}

/// What came of a task in an attempt.
#[derive(Debug)]
struct Remembered {
    epoch: u64,
    outcome: Arc<TaskOutcome>,
}

/// The latest snapshot, as long as somebody reads it.
#[derive(Debug)]
struct Latest {
    began: u64,
    snapshot: Weak<Snapshot>,
}

impl Known {
    fn new(spec: Spec) -> Self {
        let tasks = Expansion::new(spec);
        Self { tasks, outcomes: Mutex::default(), clock: AtomicU64::new(0), latest: tokio::sync::Mutex::default() }
    }

    /// The specification.
    pub fn spec(&self) -> &Spec {
        self.tasks.spec()
    }

    /// A task by its id.
    pub fn task(&self, id: &str) -> Option<Task> {
        self.tasks.task(self.tasks.place_of(id)?)
    }

    /// What came of the task at a place, if it was remembered for this record. The outcome of a
    /// task that has ended, or waits at a rung, does not change within an attempt.
    pub fn outcome(&self, place: usize, record: &TaskRecord) -> Option<Arc<TaskOutcome>> {
        let outcomes = locked(&self.outcomes);
        let Remembered { epoch, outcome } = outcomes.map.get(&place)?;
        let same_cause = record.state != TaskState::Failed || outcome.cause == record.cause;
        (*epoch == record.epoch && outcome.state == record.state && same_cause).then(|| outcome.clone())
    }

    /// Remembers what came of the task at a place.
    pub fn remember(&self, place: usize, record: &TaskRecord, outcome: &Arc<TaskOutcome>) {
        let mut outcomes = locked(&self.outcomes);
        let bytes = |outcome: &TaskOutcome| outcome.cause.as_ref().map_or(0, String::len);
        outcomes.causes += bytes(outcome);
        let new = Remembered { epoch: record.epoch, outcome: outcome.clone() };
        if let Some(old) = outcomes.map.insert(place, new) {
            outcomes.causes -= bytes(&old.outcome);
        }
    }

    /// A snapshot that begins after this call. Whoever waits while one is made shares the next:
    /// however many ask at once, two are made, one after the other.
    ///
    /// # Errors
    /// As `make`.
    pub async fn snapshot(
        &self,
        make: impl Future<Output = Result<Snapshot, ApiError>>,
    ) -> Result<Arc<Snapshot>, ApiError> {
        let asked = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut latest = self.latest.lock().await;
        let shared = latest.as_ref().filter(|latest| latest.began > asked).and_then(|latest| latest.snapshot.upgrade());
        if let Some(shared) = shared {
            return Ok(shared);
        }
        let began = self.clock.fetch_add(1, Ordering::SeqCst);
        let snapshot = Arc::new(make.await?);
        *latest = Some(Latest { began, snapshot: Arc::downgrade(&snapshot) });
        Ok(snapshot)
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        let outcomes = locked(&self.outcomes);
        self.tasks.bytes() + outcomes.map.len() * OUTCOME + outcomes.causes
    }
}

/// Where a sweep is, or will be once it was read.
type Cell = Arc<OnceCell<Arc<Known>>>;

/// The sweeps that were asked for last.
#[derive(Debug)]
pub struct KnownSweeps {
    /// The latest first.
    sweeps: Mutex<VecDeque<(String, Cell)>>,
    budget: usize,
}

impl Default for KnownSweeps {
    fn default() -> Self {
        Self { sweeps: Mutex::default(), budget: BUDGET }
    }
}

impl KnownSweeps {
    /// A sweep. `None` if the store has none of this id. Requests for the same sweep wait for the
    /// first one to read it.
    ///
    /// # Errors
    /// If the store does not answer, or its text is no specification.
    pub async fn find_or_read(&self, store: &impl Reading, id: &str) -> Result<Option<Arc<Known>>, ApiError> {
        let cell = self.cell(id);
        let read = async {
            let (spec, _) = store.documents(id).await?.ok_or(Missing::Sweep)?;
            // Some seconds for a hundred thousand tasks.
            let made = tokio::task::spawn_blocking(move || {
                let spec: Spec = serde_json::from_str(&spec).map_err(|e| StoreError::Protocol(e.to_string()))?;
                Ok::<_, StoreError>(Arc::new(Known::new(spec)))
            });
            let made = made.await.map_err(|e| ApiError::Internal(format!("a specification was not read: {e}")))?;
            Ok(made?)
        };
        let found = cell.get_or_try_init(|| read).await.cloned();
        drop(cell);
        self.trim();
        match found {
            Ok(known) => Ok(Some(known)),
            Err(Missing::Sweep) => Ok(None),
            Err(Missing::Answer(error)) => Err(error),
        }
    }

    /// The place of a sweep, which becomes the first.
    fn cell(&self, id: &str) -> Cell {
        let mut sweeps = locked(&self.sweeps);
        let place = sweeps.iter().position(|(known, _)| known == id);
        let found = place.and_then(|place| sweeps.remove(place)).unwrap_or_else(|| (id.to_string(), Arc::default()));
        let cell = found.1.clone();
        sweeps.push_front(found);
        cell
    }

    /// Forgets the sweeps beyond the budget, and those that nobody reads and that could not be read.
    pub fn trim(&self) {
        let mut sweeps = locked(&self.sweeps);
        let (mut bytes, mut kept) = (0, 0);
        sweeps.retain(|(_, cell)| match cell.get() {
            Some(known) => {
                bytes += known.bytes();
                kept += 1;
                kept == 1 || bytes <= self.budget
            }
            None => Arc::strong_count(cell) > 1,
        });
    }

    /// A sweep is deleted.
    pub fn forget(&self, id: &str) {
        locked(&self.sweeps).retain(|(known, _)| known != id);
    }
}

/// Why a sweep was not read.
enum Missing {
    /// There is none.
    Sweep,
    /// The store did not give it.
    Answer(ApiError),
}

impl From<ApiError> for Missing {
    fn from(error: ApiError) -> Self {
        Self::Answer(error)
    }
}

impl From<StoreError> for Missing {
    fn from(error: StoreError) -> Self {
        Self::Answer(error.into())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks here is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;

    use super::*;
    use crate::scheduler::{Terms, admit, new_tasks};
    use crate::store::traits::Owner;
    use crate::store::{Memory, Order};
    use crate::sweep::parse::{Format, parse_spec_text};

    /// A sweep of so many tasks, and its id.
    async fn admitted(store: &Memory, tasks: usize) -> String {
        let text = format!(
            "zoo.ingredients = 'z'\ndata.learn = 'l'\nsearch.strategy = 'random'\nsearch.tasks = {tasks}\n\
             search.space.learning_rate = {{ uniform = [0.01, 0.9] }}"
        );
        let spec = parse_spec_text(&text, Format::Toml, Path::new("/base")).unwrap();
        admit(store, &spec, &new_tasks(&spec), Terms::default(), None).await.unwrap().id
    }

    #[tokio::test]
    async fn readers_at_once_share_two_snapshots_and_none_is_older_than_its_reader() {
        let (store, sweeps, made) = (Memory::default(), KnownSweeps::default(), AtomicUsize::new(0));
        let id = admitted(&store, 20).await;
        let known = sweeps.find_or_read(&store, &id).await.unwrap().unwrap();
        let snapshot = || {
            known.snapshot(async {
                made.fetch_add(1, Ordering::SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                Snapshot::read(&store, &id, known.clone()).await
            })
        };
        let read: Vec<Arc<Snapshot>> =
            join_all((0..30).map(|_| snapshot())).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert!(read[2..].iter().all(|other| Arc::ptr_eq(other, &read[1])));
        assert!(store.order(&id, Order::Cancel).await.unwrap());
        while store.settle(&id, 0, 1000).await.unwrap().next.is_some() {}
        let after = snapshot().await.unwrap().results();
        assert!(after.tasks.iter().all(|row| row.state == TaskState::Cancelled), "{after:?}");
        assert!(read[1].results().tasks.iter().all(|row| row.state == TaskState::Pending));
    }

    #[tokio::test]
    async fn sweeps_beyond_the_budget_are_forgotten_and_read_again() {
        let store = Memory::default();
        let ids = [admitted(&store, 1000).await, admitted(&store, 1000).await, admitted(&store, 1000).await];
        let sweeps = KnownSweeps { budget: 300_000, ..KnownSweeps::default() };
        let kept = || locked(&sweeps.sweeps).iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        for id in &ids {
            let known = sweeps.find_or_read(&store, id).await.unwrap().unwrap();
            assert!((100_000..150_000).contains(&known.bytes()), "{}", known.bytes());
        }
        assert_eq!(kept(), [ids[2].clone(), ids[1].clone()]);
        assert!(sweeps.find_or_read(&store, &ids[0]).await.unwrap().is_some());
        assert_eq!(kept(), [ids[0].clone(), ids[2].clone()]);
        assert!(sweeps.find_or_read(&store, "none").await.unwrap().is_none());
        assert_eq!(kept().len(), 2, "what is not there takes no place");
        // One is kept whatever it takes: it would be read anew for each request.
        let sweeps = KnownSweeps { budget: 1, ..KnownSweeps::default() };
        let first = sweeps.find_or_read(&store, &ids[0]).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &sweeps.find_or_read(&store, &ids[0]).await.unwrap().unwrap()));
    }
}
