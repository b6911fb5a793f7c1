//! What earlier versions of the program have written, which this one reads (`docs/formats.md`).

use std::fs;
use std::path::{Path, PathBuf};

use mehl_soup::api_types::{EventsBody, HistoryBody, LoadBody, SweepBody, SweepPage, TaskDetail, TaskPage};
use mehl_soup::checkpoint::{Checkpoint, CheckpointError};
use mehl_soup::coefficients::CoefficientsFile;
use mehl_soup::report::{read_folder, render};
use mehl_soup::runner::run_folder::{FolderError, HistoryFile, RunFolder, SpecFile, SweepFile};
use mehl_soup::store::KeptRungs;
use mehl_soup::sweep::expand::expand;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::results::{SweepResults, TaskOutcome};
use mehl_soup::sweep::spec::ComputeDtype;
use mehl_soup::sweep::task::Task;
use mehl_soup::task::{TaskState, Ticket};
use serde::de::DeserializeOwned;
use serde_json::json;

fn v1(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/v1").join(path)
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    let path = v1(path);
    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn tasks_with(file: &str) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(v1("half/tasks"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join(file).exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{file}");
    found
}

#[test]
fn a_specification_and_its_inputs_are_recognised() {
    let file: SpecFile = read("half/spec.json");
    let sweep: SweepFile = read("half/sweep.json");
    assert_eq!(sweep.version, 1);
    assert!(sweep.is_of(&file.spec) && sweep.is_of(&parse_spec(&v1("sweep.toml")).unwrap()));
    let mut other = file.spec.clone();
    other.seed += 1;
    assert!(!sweep.is_of(&other));
    assert!(!SweepFile { version: 2, ..sweep }.is_of(&file.spec));

    let manifest: Manifest = read("half/manifest.json");
    let results: SweepResults = read("whole/results.json");
    assert_eq!((manifest.version, manifest.inputs_hash()), (1, results.inputs_hash));
    let now = Manifest { version: 2, ..manifest.clone() };
    assert_ne!(now.inputs_hash(), manifest.inputs_hash());
    let unknown =
        json!({ "version": 3, "family": "vit", "architecture": {}, "ingredients": [], "data": [], "notes": [] });
    let error = serde_json::from_value::<Manifest>(unknown).unwrap_err().to_string();
    assert!(error.contains("manifest has version 3, this program reads 1 and 2"), "{error}");
}

#[test]
fn files_of_tasks_are_read() {
    let spec = parse_spec(&v1("sweep.toml")).unwrap();
    let manifest: Manifest = read("half/manifest.json");
    let tasks = expand(&spec);
    for id in tasks_with("checkpoint.safetensors") {
        let checkpoint =
            Checkpoint::from_bytes(&fs::read(v1(&format!("half/tasks/{id}/checkpoint.safetensors"))).unwrap()).unwrap();
        let task = tasks.iter().find(|task| task.id == id).unwrap();
        // Where it goes on by its identity, it goes on at all.
        assert_eq!(checkpoint.identity, task.identity(&manifest, ComputeDtype::F32), "{id}");
        assert_ne!(checkpoint.identity, task.identity(&manifest, ComputeDtype::F64), "{id}");
        assert_eq!(checkpoint.coefficients.ingredients(), 4);
    }
    for id in tasks_with("coefficients.safetensors") {
        let bytes = fs::read(v1(&format!("half/tasks/{id}/coefficients.safetensors"))).unwrap();
        assert_eq!(CoefficientsFile::from_bytes(&bytes).unwrap().to_bytes(), bytes, "{id}");
    }
    for id in tasks_with("outcome.json") {
        let outcome: TaskOutcome = read(&format!("half/tasks/{id}/outcome.json"));
        assert_eq!(outcome.state, TaskState::Succeeded);
    }
    for id in tasks_with("rungs.json") {
        let rungs: KeptRungs = read(&format!("half/tasks/{id}/rungs.json"));
        assert_eq!(rungs.scores.len(), 1, "{id}");
        serde_json::from_str::<TaskOutcome>(&rungs.outcome).unwrap();
    }
    for id in tasks_with("history.json") {
        assert!(!read::<HistoryFile>(&format!("half/tasks/{id}/history.json")).points.is_empty(), "{id}");
    }
    assert!(matches!(Checkpoint::from_bytes(b"{}"), Err(CheckpointError::Damaged(_))));
}

#[test]
fn a_run_folder_is_opened_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("half");
    copy(&v1("half"), &root);
    let report = read_folder(&root).unwrap();
    assert!(render(&report).unwrap().contains("0001-steady"));
    let spec = parse_spec(&v1("sweep.toml")).unwrap();
    let opened = RunFolder::open(&root, &spec).unwrap();
    assert_eq!(opened.manifest().unwrap(), Some(read("half/manifest.json")));
    drop(opened);
    let other = mehl_soup::sweep::spec::Spec { seed: 5, ..spec };
    let error = RunFolder::open(&root, &other).unwrap_err();
    assert!(matches!(&error, FolderError::OtherSpec { found_name, .. } if found_name == "formats-v1"), "{error}");
    let whole: SweepResults = read("whole/results.json");
    assert_eq!(whole.tasks.len(), 9);
}

#[test]
fn tasks_that_a_search_added_are_read_and_more_are_kept_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let spec = parse_spec(&v1("sweep.toml")).unwrap();
    let run = RunFolder::open(&folder.path().join("run"), &spec).unwrap();
    assert!(run.opened().unwrap().is_empty());
    let file = run.root().join("opened.json");
    fs::copy(v1("opened.json"), &file).unwrap();
    let opened = run.opened().unwrap();
    let (place, third) = opened.first_key_value().unwrap();
    let found = (*place, third.id.as_str(), third.soup.learning_rate, &third.overrides["weight_decay"]);
    assert_eq!(found, (5, "0003-mehl+", 0.005, &json!(1.0)));
    let mut kept = opened.clone();
    kept.insert(6, Task { id: "0004-mehl+".into(), ..third.clone() });
    run.keep_opened(kept.clone()).unwrap();
    run.keep_opened(opened).unwrap();
    assert_eq!(run.opened().unwrap(), kept, "what was added before stays");
    let newer = fs::read_to_string(v1("opened.json")).unwrap().replace("\"version\": 1", "\"version\": 2");
    fs::write(&file, newer).unwrap();
    let error = run.opened().unwrap_err().to_string();
    assert!(error.contains("opened.json has version 2, this program reads up to 1"), "{error}");
}

#[test]
fn messages_between_programs_are_read() {
    let ticket = br#"{"version":1,"task_id":"formats-v1-avxjw86n/0006-steady","generation":1}"#;
    assert_eq!(Ticket::from_bytes(ticket).unwrap().to_bytes(), ticket);
    let sweeps: SweepPage = read("api/sweeps.json");
    let sweep: SweepBody = read("api/sweep.json");
    assert_eq!((sweeps.sweeps.len(), sweep.tasks), (1, 10));
    assert_eq!(read::<TaskPage>("api/tasks.json").tasks.len(), 10);
    assert_eq!(read::<TaskDetail>("api/task.json").task.state, TaskState::Succeeded);
    assert!(!read::<EventsBody>("api/events.json").events.is_empty());
    assert!(!read::<HistoryBody>("api/history.json").points.is_empty());
    assert_eq!(read::<LoadBody>("api/load.json").running, 1);
    assert!(read::<SweepResults>("api/results.json").tasks.iter().any(|row| row.state == TaskState::Running));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
