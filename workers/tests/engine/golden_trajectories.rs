//! Twenty full-batch iterations of every learning method, against a PyTorch script written from the equations
//! (recipe: `fixtures/make_trajectories.py`).

use std::path::Path;

use crate::support::{Recorder, engine, fixture};
use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::SoupSpec;
use mehl_soup_worker::engine::train::{self, Parametrization};
use mehl_soup_worker::methods::{Softmax, Steady, model_batches, units};
use tch::Kind;

const K: usize = 4;
/// The order of model batches that the script uses.
const BATCHES: [[usize; 2]; 2] = [[1, 2], [0, 3]];

fn golden() -> serde_json::Value {
    let text = std::fs::read_to_string(fixture("trajectories/trajectories.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A seed whose shuffle is the script's.
fn seed() -> u64 {
    (0..10_000).find(|&seed| model_batches(seed, 0, &[0, 1, 2, 3], 2) == BATCHES).unwrap()
}

/// The specification's lines for a method of the script.
fn fields(method: &str) -> &'static str {
    match method {
        "learned" => "method = 'learned'\ninner_epochs = 20",
        "learned+" => "method = 'learned+'\ninner_epochs = 20",
        "hl" => "method = 'hl'\ninner_epochs = 20",
        "hl+" => "method = 'hl+'\ninner_epochs = 20",
        "mehl" => "method = 'mehl'\ninner_epochs = 10\nmodel_batch = 2",
        "mehl+" => "method = 'mehl+'\ninner_epochs = 10\nmodel_batch = 2",
        "steady" => "method = 'steady'\nshrink = 20\naverage = 0.9\ninner_epochs = 10\nmodel_batch = 2",
        "steady, one level" => "method = 'steady'\nshrink = 'model'\naverage = 0.9\ninner_epochs = 10\nmodel_batch = 2",
        "steady, all at once" => "method = 'steady'\nshrink = 0\naverage = 0\ninner_epochs = 20\nmodel_batch = 4",
        other => panic!("{other}"),
    }
}

fn spec(method: &str) -> String {
    let zoo = fixture("trajectories/zoo/*");
    let learn = fixture("trajectories/learn.safetensors");
    format!(
        "[zoo]\nallow_chance = true\ningredients = ['{}']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
         [soup]\n{}\nbatch = 24\nlearning_rate = {}\nearly_stopping = false\nseed = {}\n",
        zoo.display(),
        fields(method),
        if method.starts_with("learned") {
            0.05
        } else if method.starts_with("steady") {
            0.02
        } else {
            0.01
        },
        seed(),
        learn = learn.display()
    )
}

/// The coefficients that a checkpoint stands for: those of finished model batches, and the virtual fold of the one in progress.
fn coefficients(method: &str, checkpoint: &Checkpoint) -> Coefficients {
    let current = checkpoint.current.as_ref().expect("checkpoints were taken between iterations");
    let groups = checkpoint.coefficients.groups();
    if method.starts_with("learned") {
        let softmax = Softmax { members: K, groups, masked: vec![false; groups], learning_rate: 0.0 };
        return Coefficients::from_values(K, groups, softmax.coordinates(&current.parameters)).unwrap();
    }
    if method.starts_with("steady") {
        let soup = resolved(method);
        let masked = vec![false; groups];
        let steady = Steady::new(&soup, current.members.len(), &current.norms, &masked);
        let x = steady.coordinates(&train::so_far(current, steady.average()));
        let beta: Vec<f64> = x.iter().zip(units(&current.norms)).map(|(x, n)| x / n).collect();
        let mut folded = checkpoint.coefficients.clone();
        folded.fold(&current.members, &beta);
        return folded;
    }
    let beta: Vec<f64> =
        current.parameters.iter().zip(&current.norms).map(|(x, n)| if *n == 0.0 { 0.0 } else { x / n }).collect();
    let mut folded = checkpoint.coefficients.clone();
    folded.fold(&current.members, &beta);
    folded
}

fn resolved(method: &str) -> SoupSpec {
    parse_spec_text(&spec(method), Format::Toml, Path::new("/")).unwrap().soup
}

fn trajectory(method: &str, kind: Kind) -> Recorder {
    let folder = tempfile::tempdir().unwrap();
    let (mut engine, task) = engine(folder.path(), &spec(method), kind);
    let mut recorder = Recorder { every_iteration: true, ..Recorder::default() };
    let manifest = engine.scores(None, &mut recorder).unwrap();
    match engine.run(&task, &manifest, None, &mut recorder) {
        Ok(_) | Err(EngineError::Stopped) => recorder,
        Err(error) => panic!("{method}: {error}"),
    }
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn check(method: &str) {
    let golden = golden();
    let expected = &golden["methods"][method];

    let recorder = trajectory(method, Kind::Double);
    assert_eq!(recorder.losses.len(), 20, "{method}");
    for (t, (found, expected)) in recorder.losses.iter().zip(numbers(&expected["f64"]["loss"])).enumerate() {
        assert!(
            (found / expected - 1.0).abs() < 1e-9,
            "{method}, f64, iteration {t}: loss {found}, expected {expected}"
        );
    }
    let between: Vec<&Checkpoint> = recorder.checkpoints.iter().filter(|c| c.current.is_some()).collect();
    assert_eq!(between.len(), 20, "{method}");
    for (t, checkpoint) in between.into_iter().enumerate() {
        let found = coefficients(method, checkpoint);
        let expected = numbers(&expected["f64"]["A"][t]);
        assert_eq!(found.values().len(), expected.len(), "{method}: shape of A");
        for (i, (found, expected)) in found.values().iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-6,
                "{method}, f64, iteration {t}, A[{}, {}]: {found}, expected {expected}",
                i / checkpoint.coefficients.groups(),
                i % checkpoint.coefficients.groups()
            );
        }
    }

    let recorder = trajectory(method, Kind::Float);
    for (t, (found, expected)) in recorder.losses.iter().zip(numbers(&expected["f32"]["loss"])).enumerate() {
        assert!(
            (found / expected - 1.0).abs() < 1e-4,
            "{method}, f32, iteration {t}: loss {found}, expected {expected}"
        );
    }
}

#[test]
fn learned() {
    check("learned");
}

#[test]
fn learned_plus() {
    check("learned+");
}

#[test]
fn hl() {
    check("hl");
}

#[test]
fn hl_plus() {
    check("hl+");
}

#[test]
fn mehl() {
    check("mehl");
}

#[test]
fn mehl_plus() {
    check("mehl+");
}

#[test]
fn steady() {
    check("steady");
}

#[test]
fn steady_with_one_level() {
    check("steady, one level");
}

#[test]
fn steady_without_shrinking_and_averaging() {
    check("steady, all at once");
}
