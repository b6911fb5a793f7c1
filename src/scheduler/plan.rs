//! What a turn of the scheduler changes: a pure function from what there is to what is to be done.

use std::cmp::Reverse;
use std::time::Duration;

use super::search;
use crate::store::{Order, Stage, SweepRecord};
use crate::task::TaskState;

/// How work is handed out.
#[derive(Debug, Clone)]
pub struct PlanSettings {
    /// Tickets on their way for each worker, so that none waits for the next turn.
    pub window_per_worker: usize,
    /// Tickets on their way besides.
    pub window_extra: usize,
    /// A sweep that has waited for so long counts as one step of priority above a new one.
    pub ageing: Duration,
}

impl PlanSettings {
    /// Most tasks of a search that may be runnable or run at once: the later one begins, the more is known of the others. One beside each that runs, so
    /// that no worker waits for a turn.
    pub fn search_slots(&self, workers: usize) -> usize {
        match self.window_per_worker.saturating_mul(workers) {
            0 => self.window_extra.max(1),
            slots => slots,
        }
    }

    /// Most tickets that may be on their way to so many workers. At least one: without a task that can be taken, an autoscaler would start no worker.
    pub fn window(&self, workers: usize) -> usize {
        self.window_per_worker.saturating_mul(workers).saturating_add(self.window_extra).max(1)
    }
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { window_per_worker: 2, window_extra: 16, ageing: Duration::from_secs(600) }
    }
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// All sweeps.
    pub sweeps: &'a [SweepRecord],
    /// Workers that are there.
    pub workers: usize,
    /// Tickets on their way, published or not.
    pub tickets: usize,
}

/// A change. Each may be done twice, or by two schedulers at once, without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Idle tasks of this sweep are brought in line with what its owner wants.
    Settle(String),
    /// Tasks of this sweep that wait after a crash, and whose wait may be over.
    Due(String),
    /// So many pending tasks of a sweep become runnable.
    Release {
        /// The sweep.
        sweep: String,
        /// Most tasks.
        limit: usize,
    },
    /// A search decides which tasks of its sweep go on, begin or end.
    Search {
        /// The sweep.
        sweep: String,
        /// Most tasks of the sweep that may be runnable or run at once.
        slots: usize,
    },
    /// So many runnable tasks of a sweep get a ticket.
    Choose {
        /// The sweep.
        sweep: String,
        /// Most tasks.
        limit: usize,
    },
}

impl Action {
    /// The sweep that it is about.
    pub fn sweep(&self) -> &str {
        let (Self::Settle(sweep)
        | Self::Due(sweep)
        | Self::Release { sweep, .. }
        | Self::Search { sweep, .. }
        | Self::Choose { sweep, .. }) = self;
        sweep
    }
}

/// What is to be done, in order.
pub fn plan(settings: &PlanSettings, now: &Snapshot<'_>) -> Vec<Action> {
    let window = settings.window(now.workers);
    let mut room = window.saturating_sub(now.tickets);
    let mut actions = Vec::new();
    for sweep in now.sweeps.iter().filter(|sweep| needs_settling(sweep)) {
        actions.push(Action::Settle(sweep.id.clone()));
    }
    for sweep in now.sweeps.iter().filter(|sweep| sweep.delayed > 0) {
        actions.push(Action::Due(sweep.id.clone()));
    }
    let mut open: Vec<&SweepRecord> = now.sweeps.iter().filter(|sweep| sweep.order == Order::Continue).collect();
    open.sort_by_key(|sweep| (Reverse(rank(sweep, settings.ageing)), sweep.created, &sweep.id));
    for sweep in open {
        let pending = if sweep.stage == Stage::Ready { sweep.count(TaskState::Pending) } else { 0 };
        let released = if sweep.search_controlled {
            let slots = match sweep.cap {
                0 => settings.search_slots(now.workers),
                cap => settings.search_slots(now.workers).min(cap as usize),
            };
            let wanted = search::wanted(sweep, slots);
            if wanted.is_some() {
                actions.push(Action::Search { sweep: sweep.id.clone(), slots });
            }
            wanted.unwrap_or(0)
        } else {
            // No more than the window can take soon: a walk over a hundred thousand tasks is nobody's turn.
            let released = pending.min((2 * window).saturating_sub(sweep.ready));
            if released > 0 {
                actions.push(Action::Release { sweep: sweep.id.clone(), limit: released });
            }
            released
        };
        let chosen = (sweep.ready + released).min(room).min(room_of(sweep));
        if chosen > 0 {
            actions.push(Action::Choose { sweep: sweep.id.clone(), limit: chosen });
            room -= chosen;
        }
    }
    actions
}

/// Milliseconds by which a sweep is ahead of one of priority 0 that was created at the beginning of time. Only differences matter, so no clock is read.
fn rank(sweep: &SweepRecord, ageing: Duration) -> i128 {
    let step = ageing.as_millis().max(1).min(i64::MAX as u128) as i128;
    i128::from(sweep.priority) * step - i128::from(sweep.created)
}

/// Tickets that a sweep's cap still allows: what runs and what is on its way counts.
fn room_of(sweep: &SweepRecord) -> usize {
    if sweep.cap == 0 {
        return usize::MAX;
    }
    let on_their_way = sweep.count(TaskState::Queued).saturating_sub(sweep.ready + sweep.delayed);
    (sweep.cap as usize).saturating_sub(sweep.count(TaskState::Running) + on_their_way)
}

/// Whether a sweep has idle tasks that its owner wants otherwise, or that have nothing to wait for.
fn needs_settling(sweep: &SweepRecord) -> bool {
    if sweep.stage == Stage::Creating && sweep.order != Order::Cancel {
        return false;
    }
    let [pending, queued, waiting, paused] =
        [TaskState::Pending, TaskState::Queued, TaskState::Waiting, TaskState::Paused].map(|state| sweep.count(state));
    // While it scores, the one task that can have failed is its scores task.
    let hopeless = sweep.stage == Stage::Scoring && sweep.count(TaskState::Failed) > 0;
    match sweep.order {
        Order::Cancel => pending + queued + waiting + paused > 0,
        Order::Pause => queued > 0 || hopeless && pending > 0,
        Order::Continue => paused > 0 || hopeless && pending > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sweep(id: &str, counts: &[(TaskState, usize)], ready: usize) -> SweepRecord {
        SweepRecord {
            id: id.into(),
            name: id.into(),
            stage: Stage::Ready,
            order: Order::Continue,
            created: 1_000_000,
            priority: 0,
            cap: 0,
            attempts: 3,
            search_controlled: false,
            counts: counts.iter().copied().collect(),
            ready,
            delayed: 0,
            may_grow: false,
        }
    }

    fn choose(sweep: &str, limit: usize) -> Action {
        Action::Choose { sweep: sweep.into(), limit }
    }

    fn planned(sweeps: &[SweepRecord], workers: usize, tickets: usize) -> Vec<Action> {
        plan(&PlanSettings::default(), &Snapshot { sweeps, workers, tickets })
    }

    #[test]
    fn tickets_fill_the_window_and_no_more() {
        let many = [sweep("a", &[(TaskState::Queued, 500)], 500)];
        assert_eq!(planned(&many, 4, 0), [choose("a", 24)]);
        assert_eq!(planned(&many, 4, 20), [choose("a", 4)]);
        assert_eq!(planned(&many, 4, 24), []);
        assert_eq!(planned(&many, 0, 0), [choose("a", 16)]);
    }

    #[test]
    fn a_search_is_asked_while_it_has_slots_and_something_to_decide() {
        use TaskState::{Pending, Running, Succeeded, Waiting};
        let of = |counts: &[(TaskState, usize)]| [SweepRecord { search_controlled: true, ..sweep("a", counts, 0) }];
        let search = |slots| Action::Search { sweep: "a".into(), slots };
        assert_eq!(planned(&of(&[(Pending, 50)]), 3, 0), [search(6), choose("a", 6)]);
        assert_eq!(planned(&of(&[(Pending, 50), (Running, 4)]), 3, 0), [search(6), choose("a", 2)]);
        assert_eq!(planned(&of(&[(Pending, 50), (Running, 6)]), 3, 0), []);
        assert_eq!(planned(&of(&[(Waiting, 2), (Running, 5)]), 3, 0), [search(6), choose("a", 1)]);
        assert_eq!(planned(&of(&[(Waiting, 2)]), 3, 0), [search(6), choose("a", 2)]);
        assert_eq!(planned(&of(&[(Running, 1), (Succeeded, 9)]), 3, 0), []);
        let capped = [SweepRecord { search_controlled: true, cap: 2, ..sweep("a", &[(Pending, 50), (Running, 1)], 0) }];
        assert_eq!(planned(&capped, 3, 0), [search(2), choose("a", 1)]);
        let mut scoring = of(&[(Pending, 50)]);
        scoring[0].stage = Stage::Scoring;
        assert_eq!(planned(&scoring, 3, 0), []);
        // One that may open more is asked though no task is left.
        let growing = |counts: &[(TaskState, usize)], order| {
            [SweepRecord { search_controlled: true, may_grow: true, order, ..sweep("a", counts, 0) }]
        };
        assert_eq!(planned(&growing(&[(Succeeded, 9)], Order::Continue), 3, 0), [search(6)]);
        assert_eq!(planned(&growing(&[(Running, 6)], Order::Continue), 3, 0), []);
        assert_eq!(planned(&growing(&[(Succeeded, 9)], Order::Pause), 3, 0), []);
        assert_eq!(planned(&growing(&[(Succeeded, 9)], Order::Cancel), 3, 0), []);
    }

    #[test]
    fn pending_tasks_are_released_as_the_window_needs_them() {
        let all = [sweep("a", &[(TaskState::Pending, 100_000)], 0)];
        assert_eq!(planned(&all, 0, 0), [Action::Release { sweep: "a".into(), limit: 32 }, choose("a", 16)]);
        let mut scoring = all;
        scoring[0].stage = Stage::Scoring;
        assert_eq!(planned(&scoring, 0, 0), []);
    }

    #[test]
    fn priority_comes_first_then_age_and_age_becomes_priority() {
        let make = |id: &str, priority, created| SweepRecord {
            priority,
            created,
            ..sweep(id, &[(TaskState::Queued, 10)], 10)
        };
        let first = |sweeps: &[SweepRecord]| match planned(sweeps, 0, 0).first() {
            Some(Action::Choose { sweep, .. }) => sweep.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(first(&[make("late", 0, 2000), make("early", 0, 1000)]), "early");
        assert_eq!(first(&[make("early", 0, 1000), make("urgent", 1, 500_000)]), "urgent");
        // Ten minutes are worth one step.
        assert_eq!(first(&[make("early", 0, 1000), make("urgent", 1, 700_000)]), "early");
        assert_eq!(planned(&[make("b", 0, 2), make("a", 0, 1)], 0, 0), [choose("a", 10), choose("b", 6)]);
    }

    #[test]
    fn a_cap_counts_what_runs_and_what_is_on_its_way() {
        let counts = [(TaskState::Queued, 13), (TaskState::Running, 3)];
        let capped = |cap| [SweepRecord { cap, ..sweep("a", &counts, 12) }];
        assert_eq!(planned(&capped(6), 0, 1), [choose("a", 2)]);
        assert_eq!(planned(&capped(4), 0, 1), []);
        assert_eq!(planned(&capped(0), 0, 1), [choose("a", 12)]);
    }

    #[test]
    fn tasks_that_wait_after_a_crash_take_no_room() {
        let counts = [(TaskState::Queued, 3), (TaskState::Running, 1)];
        let delayed = [SweepRecord { cap: 2, delayed: 2, ..sweep("a", &counts, 1) }];
        assert_eq!(planned(&delayed, 0, 0), [Action::Due("a".into()), choose("a", 1)]);
    }

    #[test]
    fn idle_tasks_follow_their_owner() {
        let settle = || vec![Action::Settle("a".into())];
        let with = |order, stage, counts: &[(TaskState, usize)]| {
            planned(&[SweepRecord { order, stage, ..sweep("a", counts, 0) }], 0, 0)
        };
        use TaskState::{Cancelled, Failed, Paused, Pending, Queued, Running, Waiting};
        for state in [Pending, Queued, Waiting, Paused] {
            assert_eq!(with(Order::Cancel, Stage::Ready, &[(state, 1)]), settle(), "{state}");
        }
        assert_eq!(with(Order::Cancel, Stage::Ready, &[(Running, 1), (Cancelled, 5)]), []);
        assert_eq!(with(Order::Pause, Stage::Ready, &[(Queued, 1)]), settle());
        assert_eq!(with(Order::Pause, Stage::Ready, &[(Paused, 1), (Pending, 3)]), []);
        assert_eq!(with(Order::Continue, Stage::Ready, &[(Paused, 1)]), settle());
        assert_eq!(with(Order::Continue, Stage::Scoring, &[(Failed, 1), (Pending, 3)]), settle());
        assert_eq!(with(Order::Continue, Stage::Scoring, &[(Queued, 1), (Pending, 3)]), []);
        assert_eq!(with(Order::Continue, Stage::Creating, &[(Pending, 3)]), []);
    }

    proptest! {
        #[test]
        fn neither_window_nor_cap_is_exceeded(
            sizes in proptest::collection::vec((0..50_usize, 0..50_usize, 0..20_usize, 0..9_usize, 0..12_u32, -3..3_i64, 0..5_000_000_u64), 0..12),
            workers in 0..20_usize,
            extra in 0..30_usize,
        ) {
            let sweeps: Vec<_> = sizes.iter().enumerate().map(|(i, &(pending, ready, out, running, cap, priority, created))| SweepRecord {
                cap, priority, created,
                ..sweep(&format!("s{i}"), &[(TaskState::Pending, pending), (TaskState::Queued, ready + out), (TaskState::Running, running)], ready)
            }).collect();
            let settings = PlanSettings { window_extra: extra, ..PlanSettings::default() };
            let tickets: usize = sizes.iter().map(|size| size.2).sum();
            let actions = plan(&settings, &Snapshot { sweeps: &sweeps, workers, tickets });
            let mut chosen = 0;
            for action in &actions {
                let Action::Choose { sweep, limit } = action else { continue };
                chosen += limit;
                let of = sweeps.iter().find(|s| s.id == *sweep).unwrap();
                let on_their_way = of.count(TaskState::Queued) - of.ready;
                prop_assert!(of.cap == 0 || of.count(TaskState::Running) + on_their_way + limit <= of.cap as usize);
                prop_assert!(*limit <= of.ready + of.count(TaskState::Pending));
            }
            let room = settings.window(workers).saturating_sub(tickets);
            prop_assert!(chosen <= room);
            // Work that may be handed out is handed out while there is room.
            let possible: usize = sweeps.iter().map(|s| (s.ready + s.count(TaskState::Pending)).min(room_of(s))).sum();
            prop_assert_eq!(chosen, room.min(possible));
        }
    }
}
