//! Successive halving without waiting for a rung to fill (ASHA; Li et al. 2020, arXiv 1810.05934):
//! who goes on past a rung, and who ends. Tasks keep their checkpoints at rungs, so nothing is
//! computed twice.

use super::listed::open_all;
use super::{AtRung, Decision, History, Reach, Search, SeenTask};
use crate::sweep::asha::Asha;
use crate::sweep::metric::Metric;
use crate::sweep::spec::{SoupSpec, Spec};
use crate::task::TaskState;

/// Successive halving over the samples that a specification lists.
#[derive(Debug, Clone)]
pub struct Halving {
    spec: Spec,
    asha: Asha,
}

impl Halving {
    /// Of this specification, with these rungs.
    pub fn new(spec: Spec, asha: Asha) -> Self {
        Self { spec, asha }
    }
}

impl Search for Halving {
    fn reach(&self) -> Reach {
        Reach::Rungs
    }

    /// # Panics
    /// As [`Expansion::new`](crate::sweep::expand::Expansion::new), on an empty history.
    fn decide(&self, history: &History) -> Vec<Decision> {
        if history.tasks.is_empty() {
            return open_all(&self.spec);
        }
        let rule = Rule { eta: self.asha.eta.max(2), metric: self.spec.data.metric };
        rule.decide(history)
    }

    fn stop(&self, rung: u32, soup: &SoupSpec) -> Option<u64> {
        self.asha.stop(rung, soup)
    }
}

/// Who goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    /// Of n tasks that reached a rung, floor(n / eta) go on.
    eta: usize,
    /// What "better" means.
    metric: Metric,
}

impl Rule {
    /// A rung that n tasks have reached promotes floor(n / eta) of them and no more, the best ones:
    /// those that wait there and are among the floor(n / eta) best of all that reached it. Equal
    /// scores are in the order of the tasks, and a NaN is worse than any number. Higher rungs come
    /// first. When no task can begin, runs, or is promoted, those that wait end.
    fn decide(self, history: &History) -> Vec<Decision> {
        let promotable = self.promotable(&history.tasks);
        let moves = [TaskState::Pending, TaskState::Queued, TaskState::Running, TaskState::Paused];
        if !promotable.is_empty() || history.count(&moves) > 0 {
            return promotable.into_iter().map(Decision::Promote).collect();
        }
        let waiting = history.tasks.iter().enumerate().filter(|(_, task)| task.state == TaskState::Waiting);
        let at = |(place, task): (usize, &SeenTask)| AtRung { place, rung: (task.rungs.len().max(1) - 1) as u32 };
        waiting.map(|seen| Decision::Prune(at(seen))).collect()
    }

    /// Waiting tasks that their rungs promote, those of the highest rung first, the best of each
    /// first.
    fn promotable(self, tasks: &[SeenTask]) -> Vec<AtRung> {
        let height = tasks.iter().map(|task| task.rungs.len()).max().unwrap_or(0);
        let mut promotable = Vec::new();
        for rung in (0..height).rev() {
            let mut reached: Vec<usize> = (0..tasks.len()).filter(|&place| tasks[place].rungs.len() > rung).collect();
            let limit = reached.len() / self.eta;
            let gone_on = reached.iter().filter(|&&place| !is_at(&tasks[place], rung)).count();
            reached.sort_by(|&a, &b| self.metric.compare(&tasks[a].rungs[rung], &tasks[b].rungs[rung]).then(a.cmp(&b)));
            let waiting = reached
                .into_iter()
                .take(limit)
                .filter(|&place| is_at(&tasks[place], rung) && tasks[place].state == TaskState::Waiting);
            let chosen = waiting.take(limit.saturating_sub(gone_on));
            promotable.extend(chosen.map(|place| AtRung { place, rung: rung as u32 }));
        }
        promotable
    }
}

/// Whether a task is at this rung, or ended there.
fn is_at(task: &SeenTask, rung: usize) -> bool {
    task.rungs.len() == rung + 1 && matches!(task.state, TaskState::Waiting | TaskState::Pruned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::contract::standing;
    use crate::sweep::expand::expand;
    use crate::sweep::parse::{Format, parse_spec_text};
    use crate::sweep::score::SplitScore;

    const THIRDS: Rule = Rule { eta: 3, metric: Metric::LOSS };

    fn score(loss: f64) -> SplitScore {
        standing(0, loss).select
    }

    fn task(state: TaskState, losses: &[f64]) -> SeenTask {
        SeenTask { state, rungs: losses.iter().map(|&loss| score(loss)).collect(), task: None, select: None }
    }

    fn waiting(losses: &[f64]) -> SeenTask {
        task(TaskState::Waiting, losses)
    }

    /// What is decided: places and rungs of those that go on, and of those that end.
    fn decided(rule: Rule, tasks: &[SeenTask]) -> [Vec<(usize, u32)>; 2] {
        let (mut promoted, mut pruned) = (vec![], vec![]);
        for decision in rule.decide(&History { tasks: tasks.to_vec() }) {
            match decision {
                Decision::Promote(AtRung { place, rung }) => promoted.push((place, rung)),
                Decision::Prune(AtRung { place, rung }) => pruned.push((place, rung)),
                other => panic!("{other:?}"),
            }
        }
        [promoted, pruned]
    }

    #[test]
    fn it_begins_with_all_samples_and_stops_them_at_rungs() {
        let text = "zoo.ingredients = 'z'\ndata.learn = 'l'\nsoup.method = 'mehl'\nsoup.outer_epochs = 9\n\
                    search = { strategy = 'asha', tasks = 3, eta = 2, grace = 2, space = { seed = { int = [1, 9] } } }";
        let spec = parse_spec_text(text, Format::Toml, std::path::Path::new("/")).unwrap();
        let search = crate::search::Searches::default().of(&spec);
        let tasks = crate::search::first_tasks(&*search);
        assert_eq!((search.reach(), &tasks), (Reach::Rungs, &expand(&spec)));
        let stops: Vec<_> = (0..4).map(|rung| search.stop(rung, &tasks[2].soup)).collect();
        assert_eq!(stops, [Some(2), Some(4), Some(8), None]);
        let history = History { tasks: vec![waiting(&[0.1]), waiting(&[0.2]), task(TaskState::Failed, &[])] };
        assert_eq!(search.decide(&history), [Decision::Promote(AtRung { place: 0, rung: 0 })]);
    }

    #[test]
    fn the_best_third_of_a_rung_goes_on() {
        let mut tasks = vec![waiting(&[0.3]), waiting(&[0.1]), waiting(&[0.2])];
        tasks.extend([task(TaskState::Running, &[]), task(TaskState::Pending, &[])]);
        assert_eq!(decided(THIRDS, &tasks), [vec![(1, 0)], vec![]]);
        assert_eq!(decided(THIRDS, &tasks[1..]), [vec![], vec![]], "two of three are not enough");
    }

    #[test]
    fn no_more_than_the_third_goes_on_though_better_ones_come() {
        let went_on = task(TaskState::Running, &[0.3]);
        let tasks = [went_on.clone(), waiting(&[0.4]), waiting(&[0.5]), waiting(&[0.1]), waiting(&[0.2])];
        assert_eq!(decided(THIRDS, &tasks)[0], []);
        let mut more = tasks.to_vec();
        more.push(waiting(&[0.9]));
        assert_eq!(decided(THIRDS, &more)[0], [(3, 0)], "two of six");
        // It failed after it was promoted: that was its rung's turn all the same.
        more[0].state = TaskState::Failed;
        assert_eq!(decided(THIRDS, &more)[0], [(3, 0)]);
    }

    #[test]
    fn higher_rungs_come_first_and_ties_are_in_order() {
        let high = [waiting(&[0.1, 0.7]), waiting(&[0.1, 0.7]), waiting(&[0.1, 0.8])];
        let low = [waiting(&[0.5]), waiting(&[0.5]), waiting(&[f64::NAN])];
        // Rung 0 has six; two may go on, but three have done so already.
        assert_eq!(decided(THIRDS, &[low, high.clone()].concat())[0], [(3, 1)]);
        let low = [0.01, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6].map(|loss| waiting(&[loss]));
        let tasks = [&low[..], &high[..]].concat();
        assert_eq!(decided(THIRDS, &tasks)[0], [(9, 1), (0, 0)], "four of twelve, of whom three have gone on");
        let equal = [waiting(&[f64::NAN]), waiting(&[-f64::NAN]), waiting(&[0.5]), waiting(&[0.5])];
        assert_eq!(decided(Rule { eta: 2, ..THIRDS }, &equal)[0], [(2, 0), (3, 0)]);
        assert_eq!(decided(THIRDS, &equal)[0], [(2, 0)]);
    }

    #[test]
    fn what_waits_ends_when_nothing_else_is_left() {
        let tasks = [waiting(&[0.1]), waiting(&[0.2]), task(TaskState::Succeeded, &[])];
        assert_eq!(decided(THIRDS, &tasks), [vec![], vec![(0, 0), (1, 0)]]);
        for left in [TaskState::Pending, TaskState::Queued, TaskState::Running, TaskState::Paused] {
            let mut tasks = tasks.to_vec();
            tasks.push(task(left, &[]));
            assert_eq!(decided(THIRDS, &tasks), [vec![], vec![]], "{left}");
        }
        assert_eq!(decided(THIRDS, &[]), [vec![], vec![]]);
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

    const BUSY: [TaskState; 3] = [TaskState::Queued, TaskState::Running, TaskState::Paused];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever workers do: every search ends, and promotes no more of a rung than its part.
        #[test]
        fn every_history_ends(
            count in 1..30usize,
            slots in 1..6usize,
            eta in 2..5usize,
            mut history in prop::collection::vec(next(), 0..200),
        ) {
            let rule = Rule { eta, metric: Metric::LOSS };
            let mut tasks = vec![task(TaskState::Pending, &[]); count];
            let mut promoted = [0usize; 8];
            let mut turns = 0;
            while !tasks.iter().all(|task| task.state.is_final()) {
                turns += 1;
                prop_assert!(turns < 1000, "{tasks:?}");
                let [promote, prune] = decided(rule, &tasks);
                prop_assert_eq!(&decided(rule, &tasks), &[promote.clone(), prune.clone()]);
                // As the scheduler does: promotions first, then pending tasks, while there is room.
                let room = slots - tasks.iter().filter(|task| BUSY.contains(&task.state)).count();
                let promote: Vec<_> = promote.into_iter().take(room).collect();
                for &(place, rung) in &promote {
                    let rung = rung as usize;
                    prop_assert_eq!((tasks[place].state, tasks[place].rungs.len()), (TaskState::Waiting, rung + 1));
                    tasks[place].state = TaskState::Queued;
                    promoted[rung] += 1;
                    let reached = tasks.iter().filter(|task| task.rungs.len() > rung).count();
                    prop_assert!(promoted[rung] <= reached / eta, "{} of {reached} at rung {rung}", promoted[rung]);
                    // Nobody that waits at the rung is better.
                    let waiting = tasks.iter().filter(|task| task.state == TaskState::Waiting && is_at(task, rung));
                    let here = &tasks[place].rungs[rung];
                    let passed_over = waiting.filter(|task| Metric::LOSS.compare(&task.rungs[rung], here).is_lt());
                    let also_promoted = promote.iter().filter(|(_, other)| *other as usize == rung).count();
                    prop_assert!(passed_over.count() <= also_promoted.saturating_sub(1));
                }
                let released = room - promote.len();
                let pending = tasks.iter_mut().filter(|task| task.state == TaskState::Pending).take(released);
                let began = pending.map(|task| task.state = TaskState::Queued).count();
                for &(place, _) in &prune {
                    tasks[place].state = TaskState::Pruned;
                }
                let busy: Vec<usize> = (0..count).filter(|&place| BUSY.contains(&tasks[place].state)).collect();
                if busy.is_empty() {
                    prop_assert!(began + prune.len() > 0 || tasks.iter().all(|task| task.state.is_final()));
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
}
