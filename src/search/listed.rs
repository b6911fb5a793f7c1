//! Grid and random samples: the specification lists the tasks, and each runs to its end.

use super::{Decision, History, Reach, Search};
use crate::sweep::expand::Expansion;
use crate::sweep::spec::Spec;

/// Opens the tasks that a specification lists.
#[derive(Debug, Clone)]
pub struct Listed {
    spec: Spec,
}

impl Listed {
    /// Of this specification.
    pub fn new(spec: Spec) -> Self {
        Self { spec }
    }
}

impl Search for Listed {
    fn reach(&self) -> Reach {
        Reach::Nothing
    }

    /// # Panics
    /// As [`Expansion::new`].
    fn decide(&self, history: &History) -> Vec<Decision> {
        if history.tasks.is_empty() { open_all(&self.spec) } else { vec![] }
    }
}

/// Opens every task that a specification lists.
///
/// # Panics
/// As [`Expansion::new`].
pub(super) fn open_all(spec: &Spec) -> Vec<Decision> {
    let listed = Expansion::new(spec.clone());
    listed.iter().map(|task| Decision::Open(Box::new(task))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::search::{SeenTask, first_tasks};
    use crate::sweep::expand::expand;
    use crate::sweep::parse::{Format, parse_spec_text};
    use crate::task::TaskState;

    #[test]
    fn all_tasks_are_opened_at_once_and_nothing_is_decided_later() {
        for search in [
            "{ space = { batch = [1, 2, 3] } }",
            "{ strategy = 'random', tasks = 4, space = { seed = { int = [1, 9] } } }",
        ] {
            let text = format!("zoo.ingredients = 'z'\ndata.learn = 'l'\nsearch = {search}");
            let spec = parse_spec_text(&text, Format::Toml, Path::new("/")).unwrap();
            let listed = Listed::new(spec.clone());
            assert_eq!(first_tasks(&listed), expand(&spec));
            assert_eq!(listed.reach(), Reach::Nothing);
            let seen = SeenTask { state: TaskState::Succeeded, rungs: vec![], task: None, select: None };
            assert_eq!(listed.decide(&History { tasks: vec![seen] }), []);
        }
    }
}
