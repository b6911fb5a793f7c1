//! A run folder that an earlier version of the program has left half-done is finished by this one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::support::programs::Place;
use mehl_soup::coefficients::CoefficientsFile;

/// Where the sweep's inputs lay when it was begun: paths are a part of a sweep's identity.
const ROOT: &str = "/tmp/mehl-soup-formats-v1";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/formats/v1")
}

/// The inputs at their place, for one test at a time.
struct Inputs(#[allow(dead_code, reason = "held")] File);

impl Inputs {
    fn new() -> Self {
        let lock = File::create(format!("{ROOT}.lock")).unwrap();
        lock.lock().unwrap();
        let _ = fs::remove_dir_all(ROOT);
        copy(&fixtures().join("zoo"), &Path::new(ROOT).join("zoo"));
        fs::copy(fixtures().join("learn.safetensors"), Path::new(ROOT).join("learn.safetensors")).unwrap();
        Self(lock)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(ROOT);
    }
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

/// Coefficients files of the tasks that succeeded, as the earlier version ended them.
fn whole() -> BTreeMap<String, Vec<u8>> {
    let tasks = fs::read_dir(fixtures().join("whole/tasks")).unwrap().map(|entry| entry.unwrap());
    let files =
        tasks.map(|task| (task.file_name().into_string().unwrap(), task.path().join("coefficients.safetensors")));
    files.filter(|(_, file)| file.exists()).map(|(task, file)| (task, fs::read(file).unwrap())).collect()
}

#[test]
fn a_run_that_an_earlier_version_began_is_finished_with_its_bits() {
    let _inputs = Inputs::new();
    let place = Place::new();
    fs::copy(fixtures().join("sweep.toml"), place.path("sweep.toml")).unwrap();
    place.run("sweep.toml", "fresh").expect(0);
    copy(&fixtures().join("half"), &place.path("half"));
    let checkpoints =
        ["0003-mehl+", "0004-mehl+", "0005-steady"].map(|id| format!("half/tasks/{id}/checkpoint.safetensors"));
    assert!(checkpoints.iter().all(|file| place.path(file).exists()));
    let ended = place.run("sweep.toml", "half").expect(0);
    assert!(!ended.stderr.contains("another zoo or other data"), "{}", ended.stderr);

    let (half, fresh, whole) = (place.coefficients_by_task("half"), place.coefficients_by_task("fresh"), whole());
    assert_eq!(half.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    // Where this machine rounds as the one that the fixtures are of, all bits are theirs.
    let rounds_alike = fresh == whole;
    for (task, expected) in &whole {
        let found = &half[task];
        if rounds_alike {
            assert!(found == expected, "{task}: coefficients differ");
        }
        let (found, expected) =
            (CoefficientsFile::from_bytes(found).unwrap(), CoefficientsFile::from_bytes(expected).unwrap());
        let pairs = found.coefficients.values().iter().zip(expected.coefficients.values());
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-3, "{task}: coefficients differ by {apart}");
    }
}
