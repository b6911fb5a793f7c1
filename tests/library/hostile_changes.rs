//! Files that change or vanish while they are in use: an error that names them, never a crash, and nothing is written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::{blob, floats};
use mehl_soup::coefficients::mix_tensor;
use mehl_soup::zoo::{TensorFile, Zoo, ZooError};
use safetensors::Dtype;

/// Elements of the tensor: several chunks and several pages.
const ELEMENTS: usize = 100_000;

struct Place {
    _root: tempfile::TempDir,
    path: PathBuf,
}

fn content(seed: f64) -> Vec<u8> {
    let values: Vec<f64> = (0..ELEMENTS).map(|i| seed + (i % 97) as f64).collect();
    blob(&[floats("w", Dtype::F32, &[ELEMENTS], &values)])
}

impl Place {
    /// A file of an hour ago, so that a change cannot hide in the resolution of the clock.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("w.safetensors");
        fs::write(&path, content(1.0)).unwrap();
        set_old(&path);
        Self { _root: root, path }
    }

    fn open(&self) -> Zoo {
        Zoo::open(std::slice::from_ref(&self.path)).unwrap()
    }

    fn names_it(&self, error: &ZooError, how: &str) {
        assert!(matches!(error, ZooError::Changed { file, .. } if *file == self.path), "{error}");
        let text = error.to_string();
        assert!(text.contains("w.safetensors") && text.contains(how), "expected `{how}` in: {text}");
    }
}

fn set_old(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().append(true).open(path).unwrap().set_modified(hour_ago).unwrap();
}

fn mix(zoo: &Zoo) -> Result<Vec<f32>, ZooError> {
    let mut out = vec![0f32; ELEMENTS];
    mix_tensor(zoo, "w", &[1.0], &mut out)?;
    Ok(out)
}

#[test]
fn a_file_shortened_while_open() {
    // To nothing, within the header, within the data, by one byte.
    for length in [0, 4, 40, 4096, 200_000, content(1.0).len() as u64 - 1] {
        let place = Place::new();
        let zoo = place.open();
        File::options().write(true).open(&place.path).unwrap().set_len(length).unwrap();
        place.names_it(&mix(&zoo).unwrap_err(), "it was truncated");
        place.names_it(&zoo.ingredients()[0].bytes("w").unwrap_err(), "it was truncated");
        place.names_it(&zoo.hash(None, &mut |_, _| {}).unwrap_err(), "it was truncated");
        place.names_it(&zoo.check_unchanged().unwrap_err(), &format!("found {length}"));
    }
}

#[test]
fn a_file_shortened_while_it_is_read() {
    let place = Place::new();
    let zoo = place.open();
    let path = place.path.clone();
    let shortening = std::thread::spawn(move || {
        let file = File::options().write(true).open(path).unwrap();
        for length in (0..content(1.0).len() as u64).rev().step_by(997) {
            file.set_len(length).unwrap();
        }
    });
    let error = loop {
        if let Err(error) = mix(&zoo) {
            break error;
        }
    };
    shortening.join().unwrap();
    place.names_it(&error, "it was truncated");
}

#[test]
fn a_file_grown_while_open() {
    let place = Place::new();
    let zoo = place.open();
    File::options().append(true).open(&place.path).unwrap().set_len(content(1.0).len() as u64 + 1).unwrap();
    // What was opened can still be read, and is not taken for granted.
    mix(&zoo).unwrap();
    place.names_it(&zoo.check_unchanged().unwrap_err(), "expected 4000");
}

#[test]
fn a_file_replaced_or_removed_while_open() {
    let place = Place::new();
    let zoo = place.open();
    let before = mix(&zoo).unwrap();
    let other = place.path.with_extension("new");
    fs::write(&other, content(5.0)).unwrap();
    fs::rename(&other, &place.path).unwrap();
    // The open file is still the old one: no mixture of the two is ever read.
    assert!(mix(&zoo).unwrap() == before);
    place.names_it(&zoo.check_unchanged().unwrap_err(), "it was replaced by another file");
    fs::remove_file(&place.path).unwrap();
    assert!(mix(&zoo).unwrap() == before);
    place.names_it(&zoo.check_unchanged().unwrap_err(), "No such file");
    place.names_it(&zoo.hash(None, &mut |_, _| {}).unwrap_err(), "No such file");
}

#[test]
fn a_file_written_to_after_it_was_hashed() {
    let place = Place::new();
    let zoo = place.open();
    zoo.hash(None, &mut |_, _| {}).unwrap();
    zoo.check_unchanged().unwrap();
    File::options().write(true).open(&place.path).unwrap().write_all_at(&[7], 50_000).unwrap();
    place.names_it(&zoo.check_unchanged().unwrap_err(), "it was modified");
}

#[test]
fn a_write_whose_time_is_set_back_is_noticed_by_its_contents() {
    let place = Place::new();
    let zoo = place.open();
    zoo.hash(None, &mut |_, _| {}).unwrap();
    let modified = place.path.metadata().unwrap().modified().unwrap();
    let file = File::options().write(true).open(&place.path).unwrap();
    file.write_all_at(&[7], 50_000).unwrap();
    file.set_modified(modified).unwrap();
    place.names_it(&zoo.check_unchanged().unwrap_err(), "it was modified");
}

#[test]
fn a_new_mode_or_link_is_no_change() {
    let place = Place::new();
    let zoo = place.open();
    zoo.hash(None, &mut |_, _| {}).unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o400)).unwrap();
    fs::hard_link(&place.path, place.path.with_extension("link")).unwrap();
    zoo.check_unchanged().unwrap();
}

#[test]
fn data_that_change_while_they_are_read() {
    let place = Place::new();
    let file = TensorFile::open(&place.path).unwrap();
    file.read("w").unwrap();
    File::options().write(true).open(&place.path).unwrap().write_all_at(&[7], 50_000).unwrap();
    place.names_it(&file.hash().unwrap_err(), "it was modified");
}
