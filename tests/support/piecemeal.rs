//! A search that adds the tasks of a grid one after another, each once the one before has ended.

use std::sync::Arc;

use mehl_soup::search::{Decision, History, Reach, Search, Searches};
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::spec::Spec;
use mehl_soup::sweep::task::{Origin, Task};

pub struct Piecemeal {
    tasks: Vec<Task>,
}

/// Gives this search for every specification.
pub fn piecemeal() -> Searches {
    Searches::new(|spec: &Spec| Arc::new(Piecemeal { tasks: expand(spec) }))
}

impl Search for Piecemeal {
    fn reach(&self) -> Reach {
        Reach::Tasks
    }

    fn decide(&self, history: &History) -> Vec<Decision> {
        let open = |task: &Task| Decision::Open(Box::new(task.clone()));
        if history.tasks.is_empty() {
            return self.tasks.iter().filter(|task| task.origin == Origin::Baseline).map(open).collect();
        }
        match self.tasks.get(history.tasks.len()) {
            None => vec![Decision::Close],
            Some(next) if history.tasks.iter().all(|task| task.state.is_final()) => vec![open(next)],
            Some(_) => vec![],
        }
    }
}
