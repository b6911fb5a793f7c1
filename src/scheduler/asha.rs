//! Successive halving without waiting for a rung to fill (ASHA; Li et al. 2020, arXiv 1810.05934): who goes on past a rung, when another sample is begun,
//! and who ends.
//!
//! [`decide`] is a pure function of what the store holds; [`step_asha`] reads, decides, and writes. A decision names the rung that it is about, and the
//! store drops it if the task is not there any more: a second scheduler, or an old snapshot, does no harm. Tasks keep their checkpoints at rungs, so
//! nothing is computed twice.

use std::ops::AddAssign;

use crate::store::{AtRung, Order, Stage, Store, StoreError, SweepRecord, TaskRecord};
use crate::sweep::metric::Metric;
use crate::sweep::score::SplitScore;
use crate::sweep::spec::Spec;
use crate::task::TaskState;

/// Tasks that are read, or decided about, in one call of the store.
const MOST: usize = 500;

/// States of tasks that take a slot. A task that a user has set aside goes on when the sweep is resumed.
const BUSY: [TaskState; 3] = [TaskState::Queued, TaskState::Running, TaskState::Paused];

/// What decides in a sweep with strategy `asha`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halving {
    /// Of n tasks that reached a rung, floor(n / eta) go on.
    pub eta: usize,
    /// What "better" means.
    pub metric: Metric,
}

impl Halving {
    /// From a sweep's specification; `None` with another strategy.
    pub fn of(spec: &Spec) -> Option<Self> {
        spec.search.asha.map(|asha| Self { eta: asha.eta.max(2), metric: spec.data.metric })
    }
}

/// A task, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskAt {
    /// State.
    pub state: TaskState,
    /// Scores on select at the rungs that it has reached.
    pub rungs: Vec<SplitScore>,
}

impl TaskAt {
    /// Whether it is at this rung, or ended there.
    fn is_at(&self, rung: usize) -> bool {
        self.rungs.len() == rung + 1 && matches!(self.state, TaskState::Waiting | TaskState::Pruned)
    }
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Places of waiting tasks that go on, and their rungs, from 0.
    pub promote: Vec<(usize, u32)>,
    /// Pending tasks to be begun, the first ones first.
    pub release: usize,
    /// Places of waiting tasks that end, and their rungs.
    pub prune: Vec<(usize, u32)>,
}

/// What to do with a sweep's tasks, given in their order, so that no more than `slots` are runnable or run at once.
///
/// A rung that n tasks have reached promotes floor(n / eta) of them and no more, the best ones: those that wait there and are among the floor(n / eta) best of
/// all that reached it. Equal scores are in the order of the tasks, and a NaN is worse than any number. Higher rungs come first, then pending tasks. When nothing is
/// runnable or runs, nothing is pending, and no rung promotes, those that wait end.
pub fn decide(tasks: &[TaskAt], slots: usize, halving: Halving) -> Decision {
    let count = |states: &[TaskState]| tasks.iter().filter(|task| states.contains(&task.state)).count();
    let (busy, pending) = (count(&BUSY), count(&[TaskState::Pending]));
    let promotable = promotable(tasks, halving);
    let free = slots.saturating_sub(busy);
    let mut decision = Decision::default();
    if busy == 0 && pending == 0 && promotable.is_empty() {
        let waiting = tasks.iter().enumerate().filter(|(_, task)| task.state == TaskState::Waiting);
        decision.prune = waiting.map(|(place, task)| (place, (task.rungs.len().max(1) - 1) as u32)).collect();
    }
    decision.promote = promotable.into_iter().take(free).collect();
    decision.release = pending.min(free - decision.promote.len());
    decision
}

/// Waiting tasks that their rungs promote, those of the highest rung first, the best of each first.
fn promotable(tasks: &[TaskAt], halving: Halving) -> Vec<(usize, u32)> {
    let height = tasks.iter().map(|task| task.rungs.len()).max().unwrap_or(0);
    let mut promotable = Vec::new();
    for rung in (0..height).rev() {
        let mut reached: Vec<usize> = (0..tasks.len()).filter(|&place| tasks[place].rungs.len() > rung).collect();
        let limit = reached.len() / halving.eta;
        let gone_on = reached.iter().filter(|&&place| !tasks[place].is_at(rung)).count();
        reached.sort_by(|&a, &b| halving.metric.compare(&tasks[a].rungs[rung], &tasks[b].rungs[rung]).then(a.cmp(&b)));
        let waiting = reached
            .into_iter()
            .take(limit)
            .filter(|&place| tasks[place].is_at(rung) && tasks[place].state == TaskState::Waiting);
        promotable.extend(waiting.take(limit.saturating_sub(gone_on)).map(|place| (place, rung as u32)));
    }
    promotable
}

/// What a step has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Tasks that go on past their rung.
    pub promoted: usize,
    /// Pending tasks that became runnable.
    pub released: usize,
    /// Tasks that ended at their rung.
    pub pruned: usize,
}

impl AddAssign for Stepped {
    fn add_assign(&mut self, other: Self) {
        self.promoted += other.promoted;
        self.released += other.released;
        self.pruned += other.pruned;
    }
}

/// How many tasks of a sweep a step may make runnable; `None` if it has nothing to decide. Known without reading a task: a sweep that fills its slots costs nothing.
pub(super) fn wanted(sweep: &SweepRecord, slots: usize) -> Option<usize> {
    if sweep.stage != Stage::Ready || sweep.order != Order::Continue {
        return None;
    }
    let open = sweep.count(TaskState::Pending) + sweep.count(TaskState::Waiting);
    let busy: usize = BUSY.iter().map(|&state| sweep.count(state)).sum();
    (open > 0 && slots > busy).then(|| open.min(slots - busy))
}

/// One step of a sweep with strategy `asha`: promotes, begins and ends tasks so that no more than `slots` of them are runnable or run at once. It takes the
/// place of [`Store::release_pending`]. What becomes runnable is to be chosen for a ticket afterwards, as ever. `sweep` is what the store has just said of it.
///
/// # Errors
/// If the store does not answer, or holds a specification that cannot be read; what was done before is done.
pub async fn step_asha(store: &impl Store, sweep: &SweepRecord, slots: usize) -> Result<Stepped, StoreError> {
    let mut stepped = Stepped::default();
    let Some(wanted) = wanted(sweep, slots) else { return Ok(stepped) };
    if sweep.count(TaskState::Waiting) == 0 {
        stepped.released = store.release_pending(&sweep.id, wanted).await?;
        return Ok(stepped);
    }
    let Some((spec, _)) = store.documents(&sweep.id).await? else { return Ok(stepped) };
    let unreadable = |what: String| StoreError::Protocol(format!("the specification of sweep {}: {what}", sweep.id));
    let spec: Spec = serde_json::from_str(&spec).map_err(|e| unreadable(e.to_string()))?;
    let halving = Halving::of(&spec).ok_or_else(|| unreadable("its strategy is not `asha`".to_string()))?;
    let (mut keys, mut tasks) = (Vec::new(), Vec::new());
    for record in all_tasks(store, &sweep.id).await? {
        keys.push(record.key);
        tasks.push(TaskAt { state: record.state, rungs: record.rungs });
    }
    let decision = decide(&tasks, slots, halving);
    let named = |places: &[(usize, u32)]| -> Vec<AtRung> {
        places.iter().map(|&(place, rung)| AtRung { key: keys[place].clone(), rung }).collect()
    };
    for part in named(&decision.promote).chunks(MOST) {
        stepped.promoted += store.promote(part).await?;
    }
    if decision.release > 0 {
        stepped.released = store.release_pending(&sweep.id, decision.release).await?;
    }
    for part in named(&decision.prune).chunks(MOST) {
        stepped.pruned += store.prune(part).await?;
    }
    Ok(stepped)
}

async fn all_tasks(store: &impl Store, sweep: &str) -> Result<Vec<TaskRecord>, StoreError> {
    let mut records = Vec::new();
    loop {
        let page = store.tasks(sweep, records.len(), MOST).await?;
        let is_last = page.len() < MOST;
        records.extend(page);
        if is_last {
            return Ok(records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{claimant, completed, key, standing};
    use crate::store::{AfterRelease, ClaimAnswer, Held, Memory, NewSweep, Order, ReleaseReason};
    use crate::sweep::parse::{Format, parse_spec_text};
    use crate::task::Ticket;
    use proptest::prelude::*;
    use std::time::Duration;

    const THIRDS: Halving = Halving { eta: 3, metric: Metric::LOSS };

    fn score(loss: f64) -> SplitScore {
        standing(0, loss).select
    }

    fn task(state: TaskState, losses: &[f64]) -> TaskAt {
        TaskAt { state, rungs: losses.iter().map(|&loss| score(loss)).collect() }
    }

    fn waiting(losses: &[f64]) -> TaskAt {
        task(TaskState::Waiting, losses)
    }

    #[test]
    fn the_best_third_of_a_rung_goes_on() {
        let mut tasks = vec![waiting(&[0.3]), waiting(&[0.1]), waiting(&[0.2])];
        tasks.extend([task(TaskState::Running, &[]), task(TaskState::Pending, &[])]);
        let decision = decide(&tasks, 3, THIRDS);
        assert_eq!((decision.promote, decision.release, decision.prune), (vec![(1, 0)], 1, vec![]));
        // Two of three are not enough, so another sample is begun.
        let decision = decide(&tasks[1..], 2, THIRDS);
        assert_eq!((decision.promote, decision.release), (vec![], 1));
        // Without a slot nothing is done, and nothing is given up either.
        assert_eq!(decide(&tasks[..3], 0, THIRDS), Decision::default());
    }

    #[test]
    fn no_more_than_the_third_goes_on_though_better_ones_come() {
        let went_on = task(TaskState::Running, &[0.3]);
        let tasks = [went_on.clone(), waiting(&[0.4]), waiting(&[0.5]), waiting(&[0.1]), waiting(&[0.2])];
        assert_eq!(decide(&tasks, 9, THIRDS).promote, []);
        let mut more = tasks.to_vec();
        more.push(waiting(&[0.9]));
        assert_eq!(decide(&more, 9, THIRDS).promote, [(3, 0)], "two of six");
        // It failed after it was promoted: that was its rung's turn all the same.
        more[0].state = TaskState::Failed;
        assert_eq!(decide(&more, 9, THIRDS).promote, [(3, 0)]);
    }

    #[test]
    fn higher_rungs_come_first_and_ties_are_in_order() {
        let high = [waiting(&[0.1, 0.7]), waiting(&[0.1, 0.7]), waiting(&[0.1, 0.8])];
        let low = [waiting(&[0.5]), waiting(&[0.5]), waiting(&[f64::NAN])];
        let tasks = [low, high].concat();
        assert_eq!(decide(&tasks, 1, THIRDS).promote, [(3, 1)]);
        // Rung 0 has six; two may go on, but three have done so already.
        assert_eq!(decide(&tasks, 9, THIRDS).promote, [(3, 1)]);
        let equal = [waiting(&[f64::NAN]), waiting(&[-f64::NAN]), waiting(&[0.5]), waiting(&[0.5])];
        assert_eq!(decide(&equal, 9, Halving { eta: 2, ..THIRDS }).promote, [(2, 0), (3, 0)]);
        assert_eq!(decide(&equal, 9, THIRDS).promote, [(2, 0)]);
    }

    #[test]
    fn what_waits_ends_when_nothing_else_is_left() {
        let tasks = [waiting(&[0.1]), waiting(&[0.2]), task(TaskState::Succeeded, &[])];
        assert_eq!(decide(&tasks, 4, THIRDS).prune, [(0, 0), (1, 0)]);
        for left in [TaskState::Pending, TaskState::Queued, TaskState::Running, TaskState::Paused] {
            let mut tasks = tasks.to_vec();
            tasks.push(task(left, &[]));
            assert_eq!(decide(&tasks, 4, THIRDS).prune, [], "{left}");
        }
        assert_eq!(decide(&[], 4, THIRDS), Decision::default());
    }

    /// What a task's worker does next.
    #[derive(Debug, Clone, Copy)]
    enum Next {
        Rung(f64),
        Complete,
        Fail,
        Crash,
    }

    fn next() -> impl Strategy<Value = (usize, Next)> {
        let loss = prop_oneof![8 => (0..5u8).prop_map(f64::from), 1 => Just(f64::NAN)];
        let next = prop_oneof![
            10 => loss.prop_map(Next::Rung),
            2 => Just(Next::Complete),
            1 => Just(Next::Fail),
            1 => Just(Next::Crash),
        ];
        (0..30usize, next)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever workers do: every search ends, keeps to its slots, and promotes no more of a rung than its part.
        #[test]
        fn every_history_ends(
            count in 1..30usize,
            slots in 1..6usize,
            eta in 2..5usize,
            mut history in prop::collection::vec(next(), 0..200),
        ) {
            let halving = Halving { eta, metric: Metric::LOSS };
            let mut tasks = vec![task(TaskState::Pending, &[]); count];
            let mut promoted = [0usize; 8];
            let mut turns = 0;
            while !tasks.iter().all(|task| task.state.is_final()) {
                turns += 1;
                prop_assert!(turns < 1000, "{tasks:?}");
                let decision = decide(&tasks, slots, halving);
                prop_assert_eq!(&decide(&tasks, slots, halving), &decision);
                for &(place, rung) in &decision.promote {
                    let rung = rung as usize;
                    prop_assert_eq!((tasks[place].state, tasks[place].rungs.len()), (TaskState::Waiting, rung + 1));
                    tasks[place].state = TaskState::Queued;
                    promoted[rung] += 1;
                    let reached = tasks.iter().filter(|task| task.rungs.len() > rung).count();
                    prop_assert!(promoted[rung] <= reached / eta, "{} of {reached} at rung {rung}", promoted[rung]);
                    // Nobody that waits at the rung is better.
                    let better = tasks.iter().filter(|task| task.state == TaskState::Waiting && task.is_at(rung));
                    let here = &tasks[place].rungs[rung];
                    let passed_over = better.filter(|task| Metric::LOSS.compare(&task.rungs[rung], here).is_lt());
                    let also_promoted = decision.promote.iter().filter(|(_, other)| *other as usize == rung).count();
                    prop_assert!(passed_over.count() <= also_promoted.saturating_sub(1));
                }
                let pending = tasks.iter_mut().filter(|task| task.state == TaskState::Pending).take(decision.release);
                pending.for_each(|task| task.state = TaskState::Queued);
                for &(place, _) in &decision.prune {
                    tasks[place].state = TaskState::Pruned;
                }
                let busy: Vec<usize> = (0..count).filter(|&place| BUSY.contains(&tasks[place].state)).collect();
                prop_assert!(busy.len() <= slots);
                if busy.is_empty() {
                    prop_assert!(decision != Decision::default() || tasks.iter().all(|task| task.state.is_final()));
                    continue;
                }
                // When the history is over, workers go straight on.
                let (which, next) = history.pop().unwrap_or((0, Next::Complete));
                let task = &mut tasks[busy[which % busy.len()]];
                match next {
                    Next::Rung(loss) if task.rungs.len() < 4 => {
                        task.rungs.push(score(loss));
                        task.state = TaskState::Waiting;
                    }
                    Next::Rung(_) | Next::Complete => task.state = TaskState::Succeeded,
                    Next::Fail => task.state = TaskState::Failed,
                    Next::Crash => task.state = TaskState::Queued,
                }
            }
        }
    }

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
            step_asha(&store, &sweep, slots).await.unwrap()
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
        let second = step_asha(&store, &snapshot, 1).await.unwrap();
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
