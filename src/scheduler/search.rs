//! Carries out what a search decides. Whatever the search, a step is safe to repeat, and to be done
//! by two schedulers at once: the store drops a decision about a task that is not there any more.

use std::ops::AddAssign;

use super::admit::soup_task;
use super::histories::Histories;
use crate::search::{AtRung, Decision, Searches};
use crate::store::traits::Steering;
use crate::store::{self, Extended, NewTask, Order, SchedulerStore, Stage, StoreError, SweepRecord};
use crate::sweep::spec::Spec;
use crate::task::TaskState;

/// Tasks that are added, or decided about, in one call of the store.
const MOST: usize = 500;

/// States of tasks that take a slot. A task that a user has set aside goes on when the sweep is
/// resumed.
const BUSY: [TaskState; 3] = [TaskState::Queued, TaskState::Running, TaskState::Paused];

/// What a step has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Tasks that the sweep did not have.
    pub opened: usize,
    /// Tasks that go on past their rung.
    pub promoted: usize,
    /// Pending tasks that became runnable.
    pub released: usize,
    /// Tasks that ended at their rung.
    pub pruned: usize,
}

impl AddAssign for Stepped {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.promoted += other.promoted;
        self.released += other.released;
        self.pruned += other.pruned;
    }
}

/// How many tasks of a sweep a step may make runnable; `None` if it has nothing to decide. Known
/// without reading a task: a sweep that fills its slots costs nothing.
pub(super) fn wanted(sweep: &SweepRecord, slots: usize) -> Option<usize> {
    if sweep.stage != Stage::Ready || sweep.order != Order::Continue {
        return None;
    }
    let open = sweep.count(TaskState::Pending) + sweep.count(TaskState::Waiting);
    let busy: usize = BUSY.iter().map(|&state| sweep.count(state)).sum();
    ((open > 0 || sweep.takes_tasks()) && slots > busy).then(|| open.min(slots - busy))
}

/// One step of a sweep that a search controls: promotes, adds, begins and ends tasks so that no
/// more than `slots` of them are runnable or run at once. Promoted tasks come before pending ones.
/// It takes the place of [`Steering::release_pending`]. What becomes runnable is to be chosen for a
/// ticket afterwards, as ever. `sweep` is what the store has just said of it.
///
/// # Errors
/// If the store does not answer, or holds a specification that cannot be read; what was done before
/// is done.
pub(super) async fn step_search(
    store: &impl SchedulerStore,
    searches: &Searches,
    histories: &Histories,
    sweep: &SweepRecord,
    slots: usize,
) -> Result<Stepped, StoreError> {
    let mut stepped = Stepped::default();
    let Some(wanted) = wanted(sweep, slots) else { return Ok(stepped) };
    if sweep.count(TaskState::Waiting) == 0 && !sweep.takes_tasks() {
        stepped.released = store.release_pending(&sweep.id, wanted).await?;
        return Ok(stepped);
    }
    let Some((spec, _)) = store.documents(&sweep.id).await? else { return Ok(stepped) };
    let unreadable = |e| StoreError::Protocol(format!("the specification of sweep {}: {e}", sweep.id));
    let spec: Spec = serde_json::from_str(&spec).map_err(unreadable)?;
    let search = searches.of(&spec);
    let (keys, history) = histories.read(store, &sweep.id, search.reads_results()).await?;
    let named = |at: AtRung| keys.get(at.place).map(|key| store::AtRung { key: key.clone(), rung: at.rung });
    let (mut promote, mut prune, mut open, mut closes) = (Vec::new(), Vec::new(), Vec::new(), false);
    for decision in search.decide(&history) {
        match decision {
            Decision::Promote(at) => promote.extend(named(at)),
            Decision::Prune(at) => prune.extend(named(at)),
            Decision::Open(task) => open.push(soup_task(&task)),
            Decision::Close => closes = true,
        }
    }
    let free = slots.saturating_sub(history.count(&BUSY));
    promote.truncate(free);
    for part in promote.chunks(MOST) {
        stepped.promoted += store.promote(part).await?;
    }
    if sweep.takes_tasks() {
        // The scores task has the first place.
        stepped.opened = add(store, &sweep.id, keys.len() + 1, &open, closes).await?;
    }
    let pending = history.count(&[TaskState::Pending]) + stepped.opened;
    let released = pending.min(free - promote.len());
    if released > 0 {
        stepped.released = store.release_pending(&sweep.id, released).await?;
    }
    for part in prune.chunks(MOST) {
        stepped.pruned += store.prune(part).await?;
    }
    Ok(stepped)
}

/// Adds tasks to an open sweep, the first at this place, and closes it if its search opens no more.
/// Answers how many are new.
async fn add(
    store: &impl Steering,
    sweep: &str,
    place: usize,
    tasks: &[NewTask],
    mut closes: bool,
) -> Result<usize, StoreError> {
    let mut added = 0;
    for (i, part) in tasks.chunks(MOST).enumerate() {
        match store.extend(sweep, place + i * MOST, part).await? {
            Extended::Added(new) => added += new,
            Extended::Full(limit) => {
                tracing::warn!(sweep, "its search wants more than {limit} tasks, the limit: it gets no more");
                closes = true;
                break;
            }
            // Another scheduler has seen another history, and was quicker: its decision holds.
            // What follows from it is decided next time.
            Extended::Taken(_) | Extended::Closed => return Ok(added),
        }
    }
    if closes {
        store.close(sweep).await?;
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::contract::{claimant, completed, key, standing};
    use crate::store::traits::*;
    use crate::store::{AfterRelease, ClaimAnswer, Held, Memory, NewSweep, ReleaseReason};
    use crate::sweep::parse::{Format, parse_spec_text};
    use crate::task::Ticket;

    async fn claimed(store: &Memory, id: &str) -> crate::store::Hold {
        let record = store.task(&key(id)).await.unwrap().unwrap();
        let ticket = Ticket::new(record.key, record.generation);
        let nonce = format!("{id} {}", record.generation);
        match store.claim(&ticket, &claimant(&nonce), Duration::from_secs(100)).await.unwrap() {
            ClaimAnswer::Claimed(claimed) => claimed.hold,
            refused => panic!("{refused:?}"),
        }
    }

    #[tokio::test]
    async fn steps_act_on_the_store_and_two_schedulers_decide_alike() {
        let store = Memory::default();
        let text = "zoo.ingredients = 'z'\ndata.learn = 'l'\nsoup.outer_epochs = 9\n\
                    search = { strategy = 'asha', tasks = 9, eta = 2 }";
        let spec = parse_spec_text(text, Format::Toml, std::path::Path::new("/")).unwrap();
        let spec = serde_json::to_string(&spec).unwrap();
        let new = NewSweep { spec, search_controlled: true, ..crate::store::contract::sweep("s") };
        store.create_sweep(&new, None).await.unwrap();
        let task = crate::store::contract::task;
        let tasks = [task("scores", true), task("t0", false), task("t1", false), task("t2", false)];
        store.add_tasks("s", 0, &tasks).await.unwrap();
        store.open_sweep("s").await.unwrap();
        let step = async |slots| {
            let sweep = store.sweep("s").await.unwrap().unwrap();
            step_search(&store, &Searches::default(), &Histories::default(), &sweep, slots).await.unwrap()
        };
        assert_eq!(step(2).await, Stepped::default(), "its scores are not there");
        let scores = claimed(&store, "s/scores").await;
        store.complete(&scores, &completed("{}")).await.unwrap();
        assert_eq!(step(2).await, Stepped { released: 2, ..Stepped::default() });
        assert_eq!(step(2).await, Stepped::default(), "its slots are full");
        for (id, loss) in [("s/t0", 0.5), ("s/t1", 0.4)] {
            store.wait(&claimed(&store, id).await, &standing(0, loss)).await.unwrap();
        }
        let snapshot = store.sweep("s").await.unwrap().unwrap();
        assert_eq!(step(1).await, Stepped { promoted: 1, ..Stepped::default() });
        // Another scheduler that has seen the same.
        let second = step_search(&store, &Searches::default(), &Histories::default(), &snapshot, 1).await.unwrap();
        assert_eq!(second, Stepped::default());
        assert_eq!(store.ready("s", 9).await.unwrap(), [key("s/t1")]);
        assert!(store.order("s", Order::Pause).await.unwrap());
        assert_eq!(step(9).await, Stepped::default(), "it is paused");
        assert!(store.order("s", Order::Continue).await.unwrap());
        assert_eq!(step(9).await, Stepped { released: 1, ..Stepped::default() });
        let hold = claimed(&store, "s/t1").await;
        store.complete(&hold, &completed("{}")).await.unwrap();
        let hold = claimed(&store, "s/t2").await;
        let fails = store.release(&hold, &ReleaseReason::Hopeless("no".into())).await.unwrap();
        assert_eq!(fails, Held::Yes(AfterRelease::State(TaskState::Failed)));
        assert_eq!(step(9).await, Stepped { pruned: 1, ..Stepped::default() });
        let sweep = store.sweep("s").await.unwrap().unwrap();
        assert!(sweep.is_final());
        assert_eq!((sweep.count(TaskState::Pruned), sweep.count(TaskState::Succeeded)), (1, 2));
    }
}
