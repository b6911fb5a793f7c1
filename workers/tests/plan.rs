//! What `plan` says against what then happens.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::path::Path;

use mehl_soup::host;
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup::zoo::bytes_read;
use serde_json::Value;
use support::programs::Place;
use support::{Recorder, coefficients, engine, random_zoo};
use tch::Kind;

const SOUPS: [&str; 3] = [
    "method = 'mehl+'\nmodel_batch = 4\ninner_epochs = 2\nearly_stopping = false\n[compute]\ndtype = 'f32'",
    "method = 'hl+'\ndirection_dtype = 'int8'\ninner_epochs = 2\n[compute]\ndtype = 'bf16'",
    "method = 'learned+'\ninner_epochs = 2\n[compute]\ndtype = 'f32'\nrecompute = true",
];

fn spec(folder: &Path, soup: &str) -> String {
    let learn = folder.join("learn.safetensors");
    format!(
        "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\nbatch = 6\n{soup}\n",
        folder.join("zoo/*").display(),
        learn = learn.display()
    )
}

fn near(planned: u64, found: u64, what: &str) {
    let ratio = planned as f64 / found as f64;
    assert!((ratio - 1.0).abs() < 0.1, "{what}: planned {planned}, found {found}");
}

/// Each in a process of its own, as people run them.
#[test]
fn memory_is_as_planned() {
    let place = Place::new();
    random_zoo::make(&place.path(""), 6);
    let nothing_learned = ["method = 'uniform'", "method = 'greedy'"];
    for (i, soup) in SOUPS.into_iter().chain(nothing_learned).enumerate() {
        as_planned(&place, i, soup, &spec(&place.path(""), soup));
    }
    // Texts of many lengths, whose longest batch decides. The other two take up to a quarter more than is planned: what the
    // allocator and libtorch keep for each length is not counted yet.
    let place = Place::new();
    random_zoo::make_texts(&place.path(""), 6);
    let spec = spec(&place.path(""), SOUPS[0]).replace("learn.safetensors", "learn.jsonl");
    as_planned(&place, 0, SOUPS[0], &spec);
}

/// Runs a sweep, and compares its memory with what `plan` says.
fn as_planned(place: &Place, number: usize, soup: &str, spec: &str) {
    let (file, out) = (format!("{number}.toml"), format!("run{number}"));
    place.spec(&file, spec);
    let plan = place.mehl_soup(&["plan", &file, "--format", "json"]).expect(0).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let peaks = plan["tasks"].as_array().unwrap().iter().map(|task| task["host_peak_bytes"].as_u64().unwrap());
    let planned = peaks.max().unwrap();
    let mut run = place.start(&file, &out);
    let (process, mut found) = (run.id(), 0);
    run.watch(|| {
        found = found.max(host::memory_of(process).anonymous);
        false
    });
    run.wait().expect(0);
    near(planned, found, &format!("{soup}: peak"));
}

#[test]
fn reading_and_iterations_are_as_planned() {
    let folder = tempfile::tempdir().unwrap();
    random_zoo::make(folder.path(), 6);
    for soup in SOUPS {
        let text = spec(folder.path(), soup);
        let (mut engine, task) = engine(folder.path(), &text, Kind::Float);
        let plan = engine.plan(&mut |_| {}).unwrap();
        let planned = plan.tasks.iter().find(|planned| planned.task == task.id).unwrap();
        assert!(planned.share.seconds > 0.0 && plan.total.seconds > planned.share.seconds);
        let before = bytes_read();
        let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
        let scored = bytes_read();
        let completion = engine.run(&task, &manifest, None, &mut Recorder::default()).unwrap();
        near(planned.share.bytes_read, bytes_read() - scored, &format!("{soup}: bytes"));
        near(plan.scores.bytes_read, scored - before, "bytes of scores");
        assert!(completion.effort.iterations <= planned.iterations, "{soup}");
        if soup.contains("early_stopping = false") {
            assert_eq!(completion.effort.iterations, planned.iterations, "{soup}");
        }
        assert_eq!(completion.model_batch, planned.model_batch);
    }
    // Not beside what is counted for the whole process.
    greedy_reads_each_file_once();
    what_cannot_fit_is_refused_before_anything_is_loaded();
}

/// To try it; and again those that were kept, for their exact mean.
fn greedy_reads_each_file_once() {
    const K: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    random_zoo::make(folder.path(), K);
    let text = spec(folder.path(), "method = 'greedy'");
    let (mut engine, task) = engine(folder.path(), &text, Kind::Float);
    let plan = engine.plan(&mut |_| {}).unwrap();
    let planned = plan.tasks.iter().find(|planned| planned.task == task.id).unwrap().share.bytes_read;
    let one = plan.scores.bytes_read / K;
    let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
    let before = bytes_read();
    let completion = engine.run(&task, &manifest, None, &mut Recorder::default()).unwrap();
    let kept = coefficients(&completion).column(0).iter().filter(|value| **value > 0.0).count() as u64;
    // What no soup moves is written once, with all the rest.
    near((1 + K + kept) * one, bytes_read() - before, "bytes of greedy");
    near((1 + K + K) * one, planned, "bytes of greedy, if all are kept");
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
