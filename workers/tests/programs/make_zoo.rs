//! `mehl-soup demo --make-zoo`: zoos on a user's images, by the programs.

use std::fs;
use std::path::Path;

use crate::support::programs::{Ended, Place, Running, edit, read_tensors};
use image::RgbImage;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup_worker::engine::Inputs;
use mehl_soup_worker::families::Precision;
use tch::{Device, Kind};

const CLASSES: [&str; 3] = ["ant", "bee", "cat"];
/// Few epochs: how good the models are does not matter here.
const QUICK: [&str; 4] = ["--base-epochs", "2", "--epochs", "1..2"];

/// A place with `images/`: for each class `n` images of 12 x 12, of which most are its own color.
fn place(classes: &[&str], n: u32) -> Place {
    let place = Place::new();
    for (c, class) in (0u32..).zip(classes) {
        let folder = place.path("images").join(class);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..n {
            let shade = |x: u32, y: u32, channel: u32| {
                let own = if channel == c % 3 { 160 } else { 40 };
                own + ((x * 7 + y * 13 + i * 29 + channel * 5) % 60) as u8
            };
            let picture = RgbImage::from_fn(12, 12, |x, y| image::Rgb([0, 1, 2].map(|channel| shade(x, y, channel))));
            picture.save(folder.join(format!("{i:02}.png"))).unwrap();
        }
    }
    place
}

/// `demo --make-zoo zoo` with these flags, started.
fn start(place: &Place, flags: &[&str]) -> Running {
    let mut command = place.command();
    command.args(["demo", "--make-zoo"]).args(flags);
    Running::start(command)
}

fn make(place: &Place, flags: &[&str]) -> Ended {
    start(place, flags).wait()
}

/// `folder --images images`, quick, with more flags.
fn quick<'a>(folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[folder, "--images", "images"], &QUICK[..], more].concat()
}

/// Every file below a folder of a place, with its bytes.
fn contents(place: &Place, folder: &str) -> Vec<(String, Vec<u8>)> {
    let files = place.tree(folder).into_iter().filter(|name| place.path(folder).join(name).is_file());
    files.map(|name| (name.clone(), place.read(&format!("{folder}/{name}")))).collect()
}

#[track_caller]
fn assert_same(place: &Place, a: &str, b: &str) {
    let (a, b) = (contents(place, a), contents(place, b));
    let names = |of: &[(String, Vec<u8>)]| of.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    for ((name, ours), (_, theirs)) in a.iter().zip(&b) {
        assert!(ours == theirs, "{name} differs");
    }
}

fn json(place: &Place, path: &str) -> serde_json::Value {
    serde_json::from_slice(&place.read(path)).unwrap()
}

/// Leaves a made sweep as it is but for its length.
fn shorten(place: &Place, zoo: &str) {
    let path = place.path(zoo).join("sweep.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("inner_epochs = 15"), "{text}");
    fs::write(path, text.replace("inner_epochs = 15", "inner_epochs = 2")).unwrap();
}

/// A zoo of a family, a sweep over it, and its best model opened by itself: it scores what the sweep says.
fn a_zoo_of(family: &str) {
    let place = place(&CLASSES, 12);
    let made = make(&place, &quick("zoo", &["--family", family, "--ingredients", "3"])).expect(0);
    assert_eq!(made.stdout.trim(), "zoo/sweep.toml");
    let made = made.says(&["36 images of 3 classes: 9 base, 9 train, 6 learn, 6 select, 6 test", "fine-tuned 3/3"]);
    assert!(!made.stderr.contains("assumed: images are prepared"), "{}", made.stderr);
    shorten(&place, "zoo");
    let ran = place.run("zoo/sweep.toml", "zoo/run").expect(0);
    assert!(!ran.stderr.contains("assumed: images are prepared"), "{}", ran.stderr);
    let results = place.results("zoo/run");
    assert_eq!(results.tasks.len(), 10);
    assert!(results.tasks.iter().all(|row| row.select.is_some()), "{:?}", results.tasks);
    let alone = fs::read_to_string(place.path("zoo/sweep.toml")).unwrap().replace("zoo/*", "run/best");
    fs::write(place.path("zoo/alone.toml"), alone).unwrap();
    let spec = parse_spec(&place.path("zoo/alone.toml")).unwrap();
    let inputs = Inputs::open(&spec, Device::Cpu, Kind::Float, None, &mut |_| {}).unwrap();
    assert_eq!(inputs.family.as_str(), family);
    let score = inputs.score(&inputs.data.select, 64, Precision::Full).unwrap();
    let said = results.tasks[0].select.unwrap();
    assert!((score.loss - said.loss).abs() < 1e-5 && score.metrics().eq(said.metrics()), "{score:?} {said:?}");
}

#[test]
fn a_zoo_of_vits_is_swept() {
    a_zoo_of("vit");
}

#[test]
fn a_zoo_of_timm_vits_is_swept() {
    a_zoo_of("timm-vit");
}

#[test]
fn a_zoo_of_resnets_is_swept() {
    a_zoo_of("resnet");
}

#[test]
fn batch_normalisation_leaves_with_the_statistics_of_what_it_was_trained_on() {
    let place = place(&CLASSES, 5);
    make(&place, &quick("zoo", &["--family", "resnet", "--ingredients", "2"])).expect(0);
    let tensors = |name: &str| read_tensors(&place.path("zoo").join(name).join("model.safetensors"));
    let (base, one, two) = (tensors("base"), tensors("zoo/run-00"), tensors("zoo/run-01"));
    for (name, (_, shape, bytes)) in &one {
        if name.ends_with("running_var") || name.ends_with("running_mean") {
            let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
            assert!(values.iter().all(|value| value.is_finite()), "{name}");
            assert!(!name.ends_with("running_var") || values.iter().all(|value| *value >= 0.0), "{name}");
            assert!(*bytes != base[name].2 && *bytes != two[name].2, "{name} is another's");
        } else if name.ends_with("num_batches_tracked") {
            assert!(shape.is_empty() && *bytes == [0; 8], "{name}");
        }
    }
}

#[test]
fn a_killed_zoo_goes_on_and_has_the_bits_of_one_that_was_not() {
    let place = place(&CLASSES, 8);
    let flags = ["--ingredients", "4", "--bad", "0.5"];
    make(&place, &quick("whole/zoo", &flags)).expect(0);
    let mut killed = start(&place, &quick("cut/zoo", &flags));
    assert!(killed.watch(|| place.path("cut/zoo/zoo/run-00").exists()), "over too early");
    killed.kill();
    assert!(!place.path("cut/zoo/zoo/run-03").exists(), "over before it was killed");
    make(&place, &quick("cut/zoo", &flags)).expect(0);
    assert_same(&place, "whole", "cut");
    for lost in ["zoo/run-02", "data/select", "base"] {
        fs::remove_dir_all(place.path("cut/zoo").join(lost)).unwrap();
    }
    make(&place, &quick("cut/zoo", &flags)).expect(0);
    assert_same(&place, "whole", "cut");
}

#[test]
fn another_zoo_does_not_go_in_the_same_folder() {
    let place = place(&CLASSES, 6);
    let flags = quick("zoo", &["--ingredients", "1"]);
    make(&place, &flags).expect(0);
    let refused = |more: &[&str], says: &[&str]| {
        make(&place, &[&flags, more].concat()).expect(2).says(&["zoo contains another zoo"]).says(says);
    };
    refused(&["--seed", "8"], &["seed: expected 8, found 7"]);
    refused(&["--noise", "0..0.5"], &["ranges.noise.high: expected 0.5, found 0.3"]);
    refused(&["--bad", "1"], &["bad: expected 1.0, found 0.0"]);
    fs::copy(place.path("images/ant/00.png"), place.path("images/bee/09.png")).unwrap();
    refused(&[], &["images: expected "]);
    place
        .mehl_soup(&["demo", "--out", "zoo"])
        .expect(2)
        .says(&["zoo contains another zoo", "family: expected nothing"]);
}

#[test]
fn the_share_that_is_asked_for_is_bad_and_says_how() {
    let place = place(&CLASSES, 5);
    let made = make(&place, &quick("zoo", &["--ingredients", "6", "--bad", "0.5"])).expect(0);
    let training = |i: usize| json(&place, &format!("zoo/zoo/run-{i:02}/training.json"));
    let kinds: Vec<String> =
        (0..6).filter_map(|i| training(i).pointer("/bad/kind")?.as_str().map(str::to_string)).collect();
    assert_eq!(kinds, ["over-trained", "wrong-learning-rate", "label-noise"]);
    for kind in &kinds {
        assert!(made.stderr.contains(&format!("deliberately bad ({kind})")), "{}", made.stderr);
    }
    for i in 0..6 {
        let recipe = training(i);
        assert!(recipe["seed"].is_u64() && recipe["learning_rate"].is_f64(), "{recipe}");
        match recipe.pointer("/bad/kind").and_then(|kind| kind.as_str()) {
            Some("over-trained") => assert_eq!((&recipe["shift"], &recipe["noise"]), (&0.0.into(), &0.0.into())),
            Some("wrong-learning-rate") => assert_eq!(recipe["learning_rate"], 0.1),
            _ => assert!(recipe["learning_rate"].as_f64().unwrap() <= 4e-3, "{recipe}"),
        }
    }
    assert!(json(&place, "zoo/base/training.json").get("bad").is_none());
}

#[test]
fn a_base_of_the_user_is_fine_tuned_with_its_own_head_or_a_new_one() {
    let place = place(&CLASSES, 6);
    make(&place, &quick("first", &["--family", "timm-vit", "--ingredients", "1"])).expect(0);
    // Its own classes: it is the base as it is.
    let flags = ["again", "--images", "images", "--base", "first/base", "--epochs", "1", "--ingredients", "2"];
    let made = make(&place, &flags).expect(0);
    assert!(!made.stderr.contains("new head"), "{}", made.stderr);
    let tensors = |name: &str| read_tensors(&place.path(name).join("model.safetensors"));
    assert_eq!(tensors("first/base"), tensors("again/base"));
    assert_eq!(place.read("first/base/config.json"), place.read("again/base/config.json"));
    shorten(&place, "again");
    place.run("again/sweep.toml", "again/run").expect(0);
    // Other classes: a new head, and nothing else is another in the base.
    fs::rename(place.path("images/cat"), place.path("images/dog")).unwrap();
    fs::create_dir(place.path("images/eel")).unwrap();
    for i in 0..6 {
        let from = place.path(&format!("images/ant/{i:02}.png"));
        image::open(from).unwrap().rotate90().save(place.path(&format!("images/eel/{i:02}.png"))).unwrap();
    }
    let flags = ["other", "--images", "images", "--base", "first/base", "--epochs", "1", "--ingredients", "2"];
    make(&place, &flags).expect(0).says(&["training a new head on 4 samples"]);
    let (before, after) = (tensors("first/base"), tensors("other/base"));
    for (name, tensor) in &before {
        assert_eq!(tensor == &after[name], !name.starts_with("head."), "{name}");
    }
    assert_eq!(after["head.weight"].1[0], 4);
    let config = json(&place, "other/zoo/run-01/config.json");
    assert_eq!(config["label_names"], serde_json::json!(["ant", "bee", "dog", "eel"]));
    shorten(&place, "other");
    place.run("other/sweep.toml", "other/run").expect(0);
}

#[test]
fn what_is_wrong_is_told_with_exit_code_2_before_anything_is_made() {
    let place = place(&CLASSES, 5);
    let refused = |flags: &[&str], says: &[&str]| {
        make(&place, flags).expect(2).says(&["error: "]).says(says);
        assert!(!place.path("zoo").exists(), "{flags:?} left something");
    };
    refused(&["zoo", "--images", "none"], &["none", "No such file"]);
    fs::create_dir(place.path("empty")).unwrap();
    refused(&["zoo", "--images", "empty"], &["empty", "one subfolder per class", "found no subfolder"]);
    let copy = |to: &str, classes: &[&str], n: usize| {
        for class in classes {
            fs::create_dir_all(place.path(to).join(class)).unwrap();
            for i in 0..n {
                let name = format!("{class}/{i:02}.png");
                fs::copy(place.path("images").join(&name), place.path(to).join(&name)).unwrap();
            }
        }
    };
    copy("one", &["ant"], 5);
    refused(&["zoo", "--images", "one"], &["at least two classes", "only `ant`"]);
    copy("few", &["ant", "bee"], 4);
    refused(&["zoo", "--images", "few"], &["class `ant`", "at least 5", "found 4"]);
    refused(&["zoo", "--images", "images", "--image-size", "30"], &["multiple of 4, found 30"]);
    refused(&["zoo", "--family", "resnet", "--image-size", "16"], &["at least 32 for a ResNet", "found 16"]);
    refused(&["zoo", "--image-size", "12"], &["multiple of 8", "found 12 x 12"]);
    refused(&["zoo", "--bad", "1.5"], &["--bad", "from 0 to 1"]);
    refused(&["zoo", "--learning-rate", "1..0.1"], &["--learning-rate", "LOW <= HIGH, found 1..0.1"]);
    refused(&["zoo", "--epochs", "0..3"], &["--epochs", "whole numbers from 1"]);
    refused(&["zoo", "--base", "images"], &["images", "model.safetensors"]);
    refused(&["zoo", "--base", "images", "--family", "vit"], &["--family", "--base"]);
    let clip = crate::support::fixture("clip");
    let tower = first_folder(&clip);
    refused(&["zoo", "--base", tower.to_str().unwrap()], &["expected a model of family vit, timm-vit or resnet"]);
    place.mehl_soup(&["demo", "--bad", "0.5"]).expect(2).says(&["--make-zoo"]);
    let vit = crate::support::fixture("trajectories/zoo/k0");
    let flags = ["zoo", "--images", "images", "--image-size", "16", "--base", vit.to_str().unwrap()];
    refused(&flags, &["--image-size: expected 8 x 8 as required by the base model, found 16"]);
    edit(&copy_model(&place, &vit), |tensors| {
        let (_, _, bytes) = tensors.values_mut().next().unwrap();
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(&["zoo", "--images", "images", "--base", "spoiled"], &["spoiled", "NaN"]);
}

/// The first folder in a folder.
fn first_folder(root: &Path) -> std::path::PathBuf {
    let mut folders: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.swap_remove(0)
}

/// Copies a model to `spoiled/`; its tensors' file.
fn copy_model(place: &Place, model: &Path) -> std::path::PathBuf {
    fs::create_dir(place.path("spoiled")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), place.path("spoiled").join(name)).unwrap();
    }
    place.path("spoiled/model.safetensors")
}
