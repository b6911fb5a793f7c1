//! What `plan` says against what then happens. Alone in its process, whose memory it measures.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mehl_soup::host;
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup::zoo::bytes_read;
use mehl_soup_worker::engine::memory;
use support::{Recorder, engine, random_zoo};
use tch::Kind;

fn spec(folder: &Path, soup: &str) -> String {
    let learn = folder.join("learn.safetensors");
    format!(
        "[zoo]\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\nbatch = 6\n{soup}\n",
        folder.join("zoo/*").display(),
        learn = learn.display()
    )
}

/// The largest anonymous memory while some work runs.
fn peak_while<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(host::memory().anonymous);
                std::thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap())
    })
}

fn near(planned: u64, found: u64, what: &str) {
    let ratio = planned as f64 / found as f64;
    assert!((ratio - 1.0).abs() < 0.1, "{what}: planned {planned}, found {found}");
}

#[test]
fn memory_reading_and_iterations_are_as_planned() {
    memory::keep_freed_pages();
    let folder = tempfile::tempdir().unwrap();
    random_zoo::make(folder.path(), 6);
    for soup in [
        "method = 'mehl+'\nmodel_batch = 4\ninner_epochs = 2\nearly_stopping = false\n[compute]\ndtype = 'f32'",
        "method = 'hl+'\ndirection_dtype = 'int8'\ninner_epochs = 2\n[compute]\ndtype = 'bf16'",
        "method = 'learned+'\ninner_epochs = 2\n[compute]\ndtype = 'f32'\nrecompute = true",
    ] {
        let text = spec(folder.path(), soup);
        let (mut planner, task) = engine(folder.path(), &text, Kind::Float);
        let plan = planner.plan(&mut |_| {}).unwrap();
        drop(planner);
        memory::give_back_freed_pages();
        let planned = plan.tasks.iter().find(|planned| planned.task == task.id).unwrap();
        assert!(planned.share.seconds > 0.0 && plan.total.seconds > planned.share.seconds);

        let (mut engine, task) = engine(folder.path(), &text, Kind::Float);
        // The first time the inputs are opened too, for which one ingredient is read.
        engine.scores(None, &mut Recorder::default()).unwrap();
        let before = bytes_read();
        let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
        let scored = bytes_read();
        let (completion, peak) = peak_while(|| engine.run(&task, &manifest, None, &mut Recorder::default()).unwrap());
        let read = bytes_read() - scored;
        if soup.contains("early_stopping = false") {
            // Only of the first: the heap that earlier ones leave behind in this process is more than a tenth of such small models.
            near(planned.host_peak_bytes, peak, &format!("{soup}: peak"));
        }
        near(planned.share.bytes_read, read, &format!("{soup}: bytes"));
        near(plan.scores.bytes_read, scored - before, "bytes of scores");
        assert!(completion.effort.iterations <= planned.iterations, "{soup}");
        if soup.contains("early_stopping = false") {
            assert_eq!(completion.effort.iterations, planned.iterations, "{soup}");
        }
        assert_eq!(completion.model_batch, planned.model_batch);
    }
    // Not beside the measurement.
    what_cannot_fit_is_refused_before_anything_is_loaded();
}

fn what_cannot_fit_is_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    random_zoo::make(folder.path(), 2);
    let text = spec(folder.path(), "method = 'mehl'\n[compute]\nmemory = '10MB'");
    let (mut engine, task) = engine(folder.path(), &text, Kind::Float);
    let plan = engine.plan(&mut |_| {}).unwrap();
    let refused = plan.tasks.iter().find(|planned| planned.task == task.id).unwrap().refused.clone().unwrap();
    assert!(refused.contains("compute.memory") && refused.contains("not even one ingredient fits"), "{refused}");
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    let before = bytes_read();
    match engine.run(&task, &manifest, None, &mut Recorder::default()) {
        Err(EngineError::Input(why)) => {
            assert_eq!(why.split_once(" (").unwrap().0, refused.split_once(" (").unwrap().0)
        }
        other => panic!("{:?}", other.map(|done| done.effort)),
    }
    assert_eq!(bytes_read(), before, "no ingredient was read for it");
}
