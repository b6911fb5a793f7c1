//! A task that was stopped and goes on ends with the same bits as one that was not.

use std::path::Path;

use crate::support::{Recorder, coefficients, engine, fixture, run};
use mehl_soup::checkpoint::{Checkpoint, GreedyState};
use mehl_soup::runner::engine::{EngineError, SoupEngine};
use mehl_soup_worker::engine::TorchEngine;
use mehl_soup_worker::rng;
use tch::{Device, Kind, Tensor};

/// Text encoders of the fixtures.
const ENCODERS: [&str; 3] = ["roberta", "distilbert", "modernbert"];

fn vit_spec(soup: &str) -> String {
    vit_spec_of(&fixture("trajectories/zoo"), soup)
}

fn vit_spec_of(zoo: &Path, soup: &str) -> String {
    let learn = fixture("trajectories/learn.safetensors");
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}/*']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n[soup]\n{soup}\n",
        zoo.display(),
        learn = learn.display()
    )
}

fn text_spec(soup: &str) -> String {
    let text = fixture("text");
    format!(
        "[zoo]\nallow_chance = true\ningredients = ['{t}/zoo/*']\nfamily = 'torchscript'\narchitecture = '{t}/model.pt'\n\
         [data]\nlearn = '{t}/learn.safetensors'\nselect = '{t}/select.safetensors'\ninputs = ['input_ids', 'attention_mask']\n[soup]\n{soup}\n",
        t = text.display()
    )
}

fn finish(
    engine: &mut TorchEngine,
    task: &mehl_soup::sweep::task::Task,
    manifest: &mehl_soup::sweep::manifest::Manifest,
    mut resume: Option<Checkpoint>,
    interval: Option<u64>,
) -> (Vec<u8>, u64, u32) {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let done = resume.as_ref().map_or(0, |c| c.totals.effort.iterations);
        let mut recorder = Recorder { stop_after: interval.map(|n| done + n), ..Recorder::default() };
        match engine.run(task, manifest, resume.take(), &mut recorder) {
            Ok(completion) => {
                assert!(completion.exact, "{:?}", recorder.notes);
                return (completion.coefficients, completion.effort.iterations, attempts);
            }
            Err(EngineError::Stopped) => resume = recorder.checkpoints.pop(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn check(spec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (mut whole, task) = engine(folder.path(), spec, Kind::Float);
    let manifest = whole.scores(None, &mut Recorder::default()).unwrap();
    let (expected, iterations, _) = finish(&mut whole, &task, &manifest, None, None);
    for interval in [1, 3] {
        // A new engine: nothing is left of the first one's memory.
        let (mut pieces, task) = engine(folder.path(), spec, Kind::Float);
        let (found, repeated, attempts) = finish(&mut pieces, &task, &manifest, None, Some(interval));
        assert_eq!(found, expected, "stopped every {interval} iterations: {spec}");
        assert_eq!(repeated, iterations, "no iteration is done twice");
        assert!(attempts > 3, "it was stopped indeed");
    }
}

#[test]
fn block_methods() {
    check(&vit_spec("method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 3\nouter_epochs = 2\nbatch = 10"));
    check(&vit_spec("method = 'mehl'\nmodel_batch = 1\ninner_epochs = 2\nbatch = 7\ninit = 'greedy'"));
}

#[test]
fn two_levels_and_their_average() {
    check(&vit_spec("method = 'steady'\nmodel_batch = 2\ninner_epochs = 3\nouter_epochs = 2\nbatch = 10"));
    check(&vit_spec("method = 'steady'\nshrink = 'model'\ninner_epochs = 3\nbatch = 7\nearly_stopping = false"));
    check(&vit_spec("method = 'steady'\naverage = 0\ndirection_dtype = 'int8'\ninner_epochs = 3\nbatch = 10"));
}

#[test]
fn a_start_that_leaves_bad_ingredients_out() {
    let zoo = tempfile::tempdir().unwrap();
    for k in ["k0", "k1", "k2", "k3"] {
        std::fs::create_dir(zoo.path().join(k)).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture(&format!("trajectories/zoo/{k}/{file}")), zoo.path().join(k).join(file)).unwrap();
        }
    }
    let file = zoo.path().join("k1/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&file).unwrap();
    for (name, tensor) in &mut tensors {
        if name == "classifier.weight" {
            *tensor *= -1000.0;
        }
    }
    Tensor::write_safetensors(&tensors, &file).unwrap();
    let soup = |init| format!("method = 'mehl+'\nmodel_batch = 4\ninner_epochs = 4\nbatch = 10\ninit = '{init}'");
    check(&vit_spec_of(zoo.path(), &soup("auto")));
    let found = |init| {
        let folder = tempfile::tempdir().unwrap();
        let (completion, recorder) = run(folder.path(), &vit_spec_of(zoo.path(), &soup(init)), Kind::Float).unwrap();
        let begins = recorder.notes.iter().any(|note| note.contains("starts from the greedy soup"));
        (coefficients(&completion).values().to_vec(), begins)
    };
    let (auto, greedy, mean) = (found("auto"), found("greedy"), found("batch-mean"));
    assert!(auto.0 == greedy.0 && auto.0 != mean.0);
    assert_eq!([auto.1, greedy.1, mean.1], [true, false, false]);
}

#[test]
fn a_start_among_good_ingredients_is_their_mean() {
    let found = |init| {
        let folder = tempfile::tempdir().unwrap();
        let soup = format!("method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 10\ninit = '{init}'");
        coefficients(&run(folder.path(), &vit_spec(&soup), Kind::Float).unwrap().0).values().to_vec()
    };
    assert_eq!(found("auto"), found("batch-mean"));
    assert_ne!(found("auto"), found("greedy"));
}

#[test]
fn compact_directions() {
    check(&vit_spec("method = 'mehl+'\nmodel_batch = 2\ndirection_dtype = 'int8'\ninner_epochs = 2\nbatch = 10"));
    check(&vit_spec("method = 'hl+'\ndirection_dtype = 'int4'\ninner_epochs = 3\nbatch = 10"));
}

#[test]
fn methods_that_hold_all() {
    check(&vit_spec("method = 'hl+'\nlayer_groups = 'block'\ninner_epochs = 3\nbatch = 10"));
    check(&vit_spec("method = 'learned+'\ninner_epochs = 3\nbatch = 10"));
    check(&vit_spec("method = 'learned'\ninner_epochs = 3\nbatch = 10\nearly_stopping = false"));
}

#[test]
fn a_torchscript_module() {
    check(&text_spec("method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 20"));
}

/// Three ingredients near a text encoder of the fixtures, and what they learn from: tokens of different lengths.
fn encoder_spec(folder: &Path, case: &str, soup: &str) -> String {
    let from = fixture("encoders").join(case);
    let mut random = rng::generator(7, "encoders", &[]);
    for k in 0..3 {
        let to = folder.join(format!("zoo/m{k}"));
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
        let mut tensors = Tensor::read_safetensors(from.join("model.safetensors")).unwrap();
        // They come in any order, and noise is drawn for one after the other.
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, tensor) in &mut tensors {
            let noise: Vec<f32> = (0..tensor.numel()).map(|_| rng::unit(&mut random) as f32 * 0.2 - 0.1).collect();
            *tensor += Tensor::from_slice(&noise).view_as(tensor);
        }
        Tensor::write_safetensors(&tensors, to.join("model.safetensors")).unwrap();
    }
    let mut drawn = |n: usize, least: i64, most: i64| -> Vec<i64> {
        (0..n).map(|_| least + (rng::unit(&mut random) * (most - least) as f64) as i64).collect()
    };
    let lengths = Tensor::from_slice(&drawn(40, 1, 8)).view([40, 1]);
    let mask = Tensor::arange(7, (Kind::Int64, Device::Cpu)).lt_tensor(&lengths).to_kind(Kind::Int64);
    let ids = Tensor::from_slice(&drawn(280, 5, 40)).view([40, 7]);
    let labels = Tensor::from_slice(&drawn(40, 0, 3));
    let learn = folder.join("learn.safetensors");
    Tensor::write_safetensors(&[("input_ids", ids), ("attention_mask", mask), ("labels", labels)], &learn).unwrap();
    format!(
        "seed = 4\n[zoo]\nallow_chance = true\ningredients = ['{}/zoo/*']\n[data]\nlearn = '{learn}'\nselect = '{learn}'\n\
         inputs = ['input_ids', 'attention_mask']\n[soup]\n{soup}\n",
        folder.display(),
        learn = learn.display()
    )
}

#[test]
fn text_encoders() {
    for case in ENCODERS {
        let folder = tempfile::tempdir().unwrap();
        check(&encoder_spec(folder.path(), case, "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 10"));
    }
}

/// Six ingredients near those of the fixtures: some help the mean of the better ones, some do not.
fn greedy_zoo(seed: u64) -> tempfile::TempDir {
    let zoo = tempfile::tempdir().unwrap();
    let mut random = rng::generator(seed, "greedy zoo", &[]);
    for k in 0..6 {
        let (from, to) = (fixture(&format!("trajectories/zoo/k{}", k % 4)), zoo.path().join(format!("m{k}")));
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
        let mut tensors = Tensor::read_safetensors(from.join("model.safetensors")).unwrap();
        for (_, tensor) in &mut tensors {
            let noise: Vec<f32> = (0..tensor.numel()).map(|_| rng::unit(&mut random) as f32 * 0.2 - 0.1).collect();
            *tensor += Tensor::from_slice(&noise).view_as(tensor);
        }
        Tensor::write_safetensors(&tensors, to.join("model.safetensors")).unwrap();
    }
    zoo
}

/// Greedy states after each candidate, and the result: uninterrupted, or stopped after each one and resumed by a new
/// engine.
fn greedy_states(spec: &str, is_stopped: bool) -> (Vec<GreedyState>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut whole, task) = engine(folder.path(), spec, Kind::Float);
    let manifest = whole.scores(None, &mut Recorder::default()).unwrap();
    let (mut states, mut resume) = (vec![], None);
    loop {
        let stop_after = is_stopped.then_some(0);
        let mut recorder = Recorder { every_iteration: true, stop_after, ..Recorder::default() };
        let (mut fresh, _) = engine(folder.path(), spec, Kind::Float);
        let ended = fresh.run(&task, &manifest, resume.take(), &mut recorder);
        for greedy in recorder.checkpoints.iter().filter_map(|checkpoint| checkpoint.greedy.clone()) {
            if states.last() != Some(&greedy) {
                states.push(greedy);
            }
        }
        match ended {
            Ok(completion) => {
                assert!(completion.exact, "{:?}", recorder.notes);
                return (states, completion.coefficients);
            }
            Err(EngineError::Stopped) => resume = recorder.checkpoints.pop(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn greedy_tries_the_same_candidates_wherever_it_was_stopped() {
    let mut kept = vec![];
    for seed in 0..4 {
        let zoo = greedy_zoo(seed);
        let spec = vit_spec_of(zoo.path(), "method = 'greedy'");
        let (whole, pieces) = (greedy_states(&spec, false), greedy_states(&spec, true));
        assert_eq!(whole, pieces, "choices, scores and result");
        assert_eq!(whole.0.len(), 5, "each candidate was tried");
        kept.push(whole.0[4].members.len());
    }
    assert!(kept.iter().any(|&n| (2..6).contains(&n)), "some are kept, and some are not: {kept:?}");
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spec = vit_spec("method = 'mehl+'\nmodel_batch = 2\nbatch = 10");
    let (mut one, task) = engine(folder.path(), &spec, Kind::Float);
    let manifest = one.scores(None, &mut Recorder::default()).unwrap();
    let mut recorder = Recorder { stop_after: Some(2), ..Recorder::default() };
    assert!(matches!(one.run(&task, &manifest, None, &mut recorder), Err(EngineError::Stopped)));
    let checkpoint = recorder.checkpoints.pop().unwrap();
    let mut other = task.clone();
    other.soup.learning_rate *= 2.0;
    let refused = one.run(&other, &manifest, Some(checkpoint.clone()), &mut Recorder::default());
    assert!(matches!(refused, Err(EngineError::ForeignCheckpoint(_))));

    // Another build goes on, and says so.
    let mut elsewhere = checkpoint;
    elsewhere.build.compute_threads += 1;
    let mut recorder = Recorder::default();
    let completion = one.run(&task, &manifest, Some(elsewhere), &mut recorder).unwrap();
    assert!(!completion.exact && recorder.notes.iter().any(|note| note.contains("within tolerance")));
}

#[test]
fn a_zoo_that_changed_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, task) = engine(folder.path(), &vit_spec("method = 'uniform'"), Kind::Float);
    let mut manifest = one.scores(None, &mut Recorder::default()).unwrap();
    manifest.ingredients[1].hash = "0".repeat(64);
    let error = one.run(&task, &manifest, None, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("zoo changed") && error.contains("k1"), "{error}");
}

#[test]
fn an_ingredient_that_changes_under_a_running_engine_gives_no_result() {
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let shorten = |file: &std::fs::File| file.set_len(file.metadata().unwrap().len() - 4).unwrap();
    // The same bytes again: only the time tells that they are not certain.
    let touch = |file: &std::fs::File| file.set_modified(std::time::SystemTime::now()).unwrap();
    for method in ["uniform", "mehl+", "learned"] {
        for (how, change) in [("expected", &shorten as &dyn Fn(&std::fs::File)), ("it was modified", &touch)] {
            let folder = tempfile::tempdir().unwrap();
            let place = crate::support::programs::Place::new();
            place.copy_zoo();
            let zoo = place.path("zoo");
            let open =
                |k: &str| std::fs::File::options().append(true).open(zoo.join(k).join("model.safetensors")).unwrap();
            ["k0", "k1", "k2", "k3"].iter().for_each(|k| open(k).set_modified(hour_ago).unwrap());
            let spec = vit_spec(&format!("method = '{method}'"))
                .replace(fixture("trajectories/zoo").to_str().unwrap(), zoo.to_str().unwrap());
            let (mut engine, task) = engine(folder.path(), &spec, Kind::Float);
            let manifest = engine.scores(None, &mut Recorder::default()).unwrap();
            change(&open("k2"));
            let error = engine.run(&task, &manifest, None, &mut Recorder::default()).unwrap_err();
            assert!(matches!(error, EngineError::Input(_)), "{method}: {error}");
            let text = error.to_string();
            let is_named = text.contains("zoo changed") && text.contains("k2/model.safetensors");
            assert!(is_named && (text.contains(how) || text.contains("truncated")), "{method} {how}: {text}");
        }
    }
}

#[test]
fn a_task_keeps_the_library_of_linear_layers_with_which_it_began() {
    let with = |spec: String, library: &str| format!("{spec}[compute]\nlinear = '{library}'\n");
    let soup = "method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 2\nbatch = 10";
    for (begun, stated) in [("onednn", "libtorch"), ("libtorch", "onednn")] {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, task) = engine(folder.path(), &with(vit_spec(soup), begun), Kind::Float);
        let manifest = first.scores(None, &mut Recorder::default()).unwrap();
        let mut recorder = Recorder { stop_after: Some(1), ..Recorder::default() };
        assert!(matches!(first.run(&task, &manifest, None, &mut recorder), Err(EngineError::Stopped)));
        let state = Checkpoint::from_bytes(&recorder.checkpoints.pop().unwrap().to_bytes()).unwrap();
        assert_eq!(state.build.linear.as_str(), begun);
        let (mut next, task) = engine(folder.path(), &with(vit_spec(soup), stated), Kind::Float);
        let mut recorder = Recorder::default();
        assert!(next.run(&task, &manifest, Some(state), &mut recorder).unwrap().exact);
        assert!(recorder.checkpoints.iter().all(|state| state.build.linear.as_str() == begun));
        let said = format!("linear layers by {begun}");
        assert!(recorder.notes.iter().any(|note| note.contains(&said)), "{:?}", recorder.notes);
    }
    // A module's own code calls libtorch.
    let folder = tempfile::tempdir().unwrap();
    let spec = with(text_spec("method = 'mehl+'\nmodel_batch = 2\ninner_epochs = 1\nbatch = 10"), "onednn");
    let (mut module, task) = engine(folder.path(), &spec, Kind::Float);
    let manifest = module.scores(None, &mut Recorder::default()).unwrap();
    let mut recorder = Recorder::default();
    module.run(&task, &manifest, None, &mut recorder).unwrap();
    assert!(recorder.checkpoints.iter().all(|state| state.build.linear.as_str() == "libtorch"));
    assert!(recorder.notes.iter().any(|note| note.contains("does not know compute.linear")), "{:?}", recorder.notes);
}
