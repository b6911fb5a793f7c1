//! A task that goes on where less memory is than where it began: with smaller model batches. Alone in its process, whose memory is looked at.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use mehl_soup::runner::engine::{EngineError, SoupEngine};
use support::{Recorder, engine};
use tch::Kind;

#[test]
fn a_task_goes_on_where_less_memory_is() {
    ["mehl+", "steady"].into_iter().for_each(goes_on_with_less);
}

fn goes_on_with_less(method: &str) {
    let folder = tempfile::tempdir().unwrap();
    support::random_zoo::make(folder.path(), 6);
    let learn = folder.path().join("learn.safetensors");
    let spec = |b: usize, compute: &str| {
        format!(
            "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
             [soup]\nmethod = '{method}'\nmodel_batch = {b}\nouter_epochs = 2\ninner_epochs = 2\nbatch = 6\n\
             [compute]\ndtype = 'f32'\n{compute}\n",
            folder.path().join("zoo/*").display(),
            learn = learn.display()
        )
    };
    let (mut large, task) = engine(folder.path(), &spec(3, ""), Kind::Float);
    let manifest = large.scores(None, &mut Recorder::default()).unwrap();
    // Four iterations a model batch: it is stopped in its second.
    let mut recorder = Recorder { stop_after: Some(6), ..Recorder::default() };
    assert!(matches!(large.run(&task, &manifest, None, &mut recorder), Err(EngineError::Stopped)));
    let state = recorder.checkpoints.pop().unwrap();
    assert_eq!((state.finished.len(), state.cuts.len()), (1, 0));
    drop(large);

    let (mut planner, _) = engine(folder.path(), &spec(1, ""), Kind::Float);
    let plan = planner.plan(&mut |_| ()).unwrap();
    let one = plan.tasks.iter().find(|task| task.model_batch == 1).unwrap();
    drop(planner);
    // One ingredient at once fits, and half of another.
    let memory = one.host_peak_bytes + (plan.mixed_values * 4 / 2) as u64;
    let (mut small, task) = engine(folder.path(), &spec(3, &format!("memory = '{memory}B'")), Kind::Float);
    let mut recorder = Recorder::default();
    let completion = small.run(&task, &manifest, Some(state), &mut recorder).unwrap_or_else(|error| panic!("{error}"));
    assert!(!completion.exact);
    let note = "3 ingredients at once do not fit into the memory of this machine; continuing with at most 1";
    assert!(recorder.notes.iter().any(|said| said.contains(note)), "{:?}", recorder.notes);
    let last = recorder.checkpoints.last().unwrap();
    // What was in progress was folded as far as it had come.
    assert_eq!(last.cuts, [(2, 1)]);
    let sizes: Vec<usize> = last.finished.iter().map(|batch| batch.members.len()).collect();
    assert_eq!(sizes, [3, 3, 1, 1, 1, 1, 1, 1]);
}
