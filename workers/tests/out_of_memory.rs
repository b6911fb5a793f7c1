//! Memory that runs out in the middle of a task: the task goes on with smaller model batches. Alone in its process, whose limit it lowers.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::fs;

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::SoupEngine;
use support::{Recorder, engine};
use tch::Kind;

/// Private memory of this process that counts towards `RLIMIT_DATA`, in bytes.
fn data_size() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn allow(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a plain struct that the call only reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
}

#[test]
fn a_task_goes_on_with_smaller_model_batches() {
    let folder = tempfile::tempdir().unwrap();
    support::random_zoo::make(folder.path(), 6);
    let learn = folder.path().join("learn.safetensors");
    let spec = format!(
        "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
         [soup]\nmethod = 'mehl+'\nmodel_batch = 5\ninner_epochs = 2\nbatch = 6\n[compute]\ndtype = 'f32'\n",
        folder.path().join("zoo/*").display(),
        learn = learn.display()
    );
    let (mut engine, task) = engine(folder.path(), &spec, Kind::Float);
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    // Centre, gradient and three ingredients take five models, five ingredients seven.
    let model = fs::metadata(folder.path().join("zoo/k0/model.safetensors")).unwrap().len();
    allow(data_size() + 6 * model);
    let mut recorder = Recorder::default();
    let completion = engine.run(&task, &manifest, None, &mut recorder);
    allow(libc::RLIM_INFINITY);
    let completion = completion.unwrap_or_else(|error| panic!("{error}"));
    assert!(!completion.exact);
    let note = recorder.notes.iter().find(|note| note.contains("out of memory with 5 ingredients")).unwrap();
    assert!(note.contains("at most 3"), "{note}");
    let last: &Checkpoint = recorder.checkpoints.last().unwrap();
    assert_eq!(last.cuts, [(0, 3)]);
    assert_eq!(last.finished.iter().map(|batch| batch.members.len()).collect::<Vec<_>>(), [3, 3]);

    // A checkpoint from after the cut is gone on with as the task would have.
    let cut = recorder.checkpoints.iter().find(|c| c.cuts.len() == 1 && c.finished.len() == 1).unwrap().clone();
    let again = engine.run(&task, &manifest, Some(cut), &mut Recorder::default()).unwrap();
    assert_eq!(again.coefficients, completion.coefficients);
}
