//! Files that could be read in two ways are read in the one that is right, or refused; what was assumed, passed over or counted once is said.

use std::fs;
use std::path::Path;

use crate::support::fixture;
use crate::support::programs::{Ended, Place, Tensors, edit, read_tensors, sound_spec, vit_spec};
use mehl_soup::sweep::results::SweepResults;
use safetensors::Dtype;
use serde_json::{Value, json};

/// A place with the ViT fixtures in `zoo/` and a specification of one cheap task.
fn scene() -> Place {
    let place = Place::new();
    place.copy_zoo();
    place.spec("sweep.toml", &spec(""));
    place
}

fn spec(zoo: &str) -> String {
    vit_spec("zoo/*", &fixture("trajectories/learn.safetensors"), "method = 'uniform'", "")
        .replace("[data]", &format!("{zoo}\n[data]"))
}

fn run(place: &Place) -> (Ended, SweepResults) {
    let ended = place.run("sweep.toml", "out").expect(0);
    (ended, place.results("out"))
}

/// What `run` refuses, `inspect` shows and ends with 1.
fn both_refuse(place: &Place, says: &[&str]) {
    place.run("sweep.toml", "out").expect(2).says(says);
    let told = place.mehl_soup(&["inspect", "zoo/*"]).expect(1);
    for text in says {
        assert!(told.stdout.contains(text), "expected `{text}` in:\n{}", told.stdout);
    }
}

fn config(place: &Place, ingredient: &str, change: impl FnOnce(&mut Value)) {
    let path = place.path("zoo").join(ingredient).join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn weights(place: &Place, ingredient: &str, change: impl FnOnce(&mut Tensors)) {
    edit(&place.path("zoo").join(ingredient).join("model.safetensors"), change);
}

fn with_prefix(prefix: &str) -> impl Fn(&mut Tensors) {
    move |tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(name, own)| (format!("{prefix}{name}"), own)).collect();
    }
}

fn in_f16(tensors: &mut Tensors) {
    for (dtype, _, data) in tensors.values_mut() {
        let values = data.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap()));
        let halves: Vec<u8> = values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect();
        (*dtype, *data) = (Dtype::F16, halves);
    }
}

fn names(results: &SweepResults) -> Vec<&str> {
    results.ingredients.iter().map(|ingredient| ingredient.name.as_str()).collect()
}

fn noted(results: &SweepResults, text: &str) -> bool {
    results.notes.iter().any(|note| note.contains(text))
}

/// The fixtures' weights are random: none of them is better than guessing.
#[test]
fn a_zoo_that_is_no_better_than_guessing_stops_unless_that_is_allowed() {
    let place = scene();
    let strict = spec("").replace("allow_chance = true\n", "");
    place.spec("sweep.toml", &strict);
    place.run("sweep.toml", "out").expect(2).says(&[
        "no ingredient is better than guessing",
        "classes or preprocessing are probably wrong",
        "zoo.allow_chance = true",
    ]);
    // Asked again, it is refused again: the scores are known, and what they mean has not changed.
    place.run("sweep.toml", "out").expect(2).says(&["no ingredient is better than guessing"]);
    // It decides whether there are results, not which: the same folder goes on.
    place.spec("sweep.toml", &spec(""));
    place.run("sweep.toml", "out").expect(0);
}

#[test]
fn what_is_passed_over_is_said_everywhere() {
    let place = scene();
    let put = |name: &str, bytes: &[u8]| {
        let path = place.path("zoo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put("lora/adapter_config.json", b"{}");
    put("lora/adapter_model.safetensors", b"");
    put("old/pytorch_model.bin", b"");
    put("notes.txt", b"");
    let said = ["zoo/lora: an adapter", "zoo/old: its weights are a pickle (`pytorch_model.bin`)", "zoo/notes.txt: "];
    let (ended, results) = run(&place);
    ended.says(&said);
    assert_eq!(names(&results), ["k0", "k1", "k2", "k3"]);
    for text in said {
        assert!(noted(&results, text), "{:?}", results.notes);
    }
    place.mehl_soup(&["plan", "sweep.toml"]).expect(0).says(&said);
    let told = place.mehl_soup(&["inspect", "zoo/*"]).expect(0);
    assert!(said.iter().all(|text| told.stdout.contains(text)), "{}", told.stdout);
    let card = String::from_utf8(place.read("out/best/README.md")).unwrap();
    assert!(card.contains("zoo/lora: an adapter"), "{card}");
    place.mehl_soup(&["report", "out", "--out", "report.html"]).expect(0);
    assert!(String::from_utf8(place.read("report.html")).unwrap().contains("zoo/lora: an adapter"));
}

#[test]
fn weights_under_another_name_are_used_if_they_are_the_only_ones() {
    let place = scene();
    let file = |name: &str| place.path("zoo/k2").join(name);
    fs::rename(file("model.safetensors"), file("weights.safetensors")).unwrap();
    let (_, results) = run(&place);
    assert_eq!(results.ingredients.len(), 4);
    assert!(noted(&results, "assumed: `weights.safetensors` contains the weights"), "{:?}", results.notes);
    fs::copy(file("weights.safetensors"), file("more.safetensors")).unwrap();
    place.run("sweep.toml", "two").expect(2).says(&[
        "zoo/k2",
        "`more.safetensors`, `weights.safetensors`",
        "give the file",
    ]);
}

#[test]
fn equal_ingredients_count_once_unless_they_are_kept() {
    let place = scene();
    std::os::unix::fs::symlink("k0", place.path("zoo/best-so-far")).unwrap();
    let (ended, results) = run(&place);
    ended.says(&["equal contents, counted once (count each with zoo.duplicates = \"keep\"): best-so-far = k0"]);
    assert_eq!(names(&results), ["best-so-far", "k1", "k2", "k3"]);
    place.spec("sweep.toml", &spec("duplicates = 'keep'"));
    place.run("sweep.toml", "kept").expect(0);
    assert_eq!(place.results("kept").ingredients.len(), 5);
}

#[test]
fn one_ingredient_in_f16_is_mixed_with_others_in_f32() {
    let place = scene();
    weights(&place, "k0", in_f16);
    let (ended, _) = run(&place);
    ended.says(&["ingredients have different dtypes: k0 in F16, 3 (k1, ...) in F32"]);
    place.mehl_soup(&["materialize", "out/tasks/uniform/coefficients.safetensors", "--out", "mean"]).expect(0);
    let mean = read_tensors(&place.path("mean/model.safetensors"));
    assert!(mean.values().all(|(dtype, ..)| *dtype == Dtype::F32));
    // The mean of what is in the files, rounded once.
    let values =
        |k: &str| read_tensors(&place.path("zoo").join(k).join("model.safetensors"))["classifier.bias"].clone();
    let number = |(dtype, _, data): &(Dtype, Vec<usize>, Vec<u8>)| match dtype {
        Dtype::F16 => half::f16::from_le_bytes(data[..2].try_into().unwrap()).to_f64(),
        _ => f64::from(f32::from_le_bytes(data[..4].try_into().unwrap())),
    };
    let expected = ["k0", "k1", "k2", "k3"].iter().map(|k| 0.25 * number(&values(k))).sum::<f64>() as f32;
    assert_eq!(number(&mean["classifier.bias"]), f64::from(expected));
}

#[test]
fn a_common_prefix_of_all_tensors_is_no_difference() {
    let plain = scene();
    let (_, expected) = run(&plain);
    for (which, prefix) in [
        (&["k1"][..], "_orig_mod."),
        (&["k0", "k1", "k2", "k3"], "module._orig_mod."),
        (&["k0", "k1", "k2", "k3"], "net."),
    ] {
        let place = scene();
        which.iter().for_each(|k| weights(&place, k, with_prefix(prefix)));
        place.mehl_soup(&["inspect", "zoo/*"]).expect(0);
        let (_, results) = run(&place);
        let scores = |results: &SweepResults| results.ingredients.iter().map(|i| i.select).collect::<Vec<_>>();
        assert_eq!(scores(&results), scores(&expected), "{prefix}");
        place.mehl_soup(&["materialize", "out/tasks/uniform/coefficients.safetensors", "--out", "mean"]).expect(0);
        let mean = read_tensors(&place.path("mean/model.safetensors"));
        let all = which.len() == 4;
        assert!(mean.keys().all(|name| name.starts_with(prefix) == all), "{:?}", mean.keys().next());
        assert!(noted(&results, prefix), "{:?}", results.notes);
    }
}

#[test]
fn classes_in_another_order_are_refused_by_run_and_inspect() {
    let place = scene();
    let named = |names: [&'static str; 3]| {
        move |json: &mut Value| json["id2label"] = json!({"0": names[0], "1": names[1], "2": names[2]})
    };
    for k in ["k0", "k1", "k2", "k3"] {
        config(&place, k, |json| drop(json.as_object_mut().unwrap().remove("label2id")));
        config(&place, k, named(["a", "b", "c"]));
    }
    // Numbers as texts, and keys in another order, mean the same.
    config(&place, "k2", |json| json["label2id"] = json!({"c": "2", "a": 0, "b": "1"}));
    place.mehl_soup(&["inspect", "zoo/*"]).expect(0);
    config(&place, "k1", named(["b", "a", "c"]));
    both_refuse(&place, &["zoo/k1/config.json: id2label", "`a` for output 0, found `b`"]);
}

#[test]
fn class_maps_that_cannot_be_used_are_refused_with_the_entry() {
    for (map, said) in [
        (json!(["a", "b", "c"]), "id2label: expected a table from outputs to names"),
        (json!({"1": "a", "2": "b", "3": "c"}), "found none for 0"),
        (json!({"0": "a", "2": "c"}), "found none for 1"),
    ] {
        let place = scene();
        for k in ["k0", "k1", "k2", "k3"] {
            config(&place, k, |json| json["id2label"] = map.clone());
        }
        both_refuse(&place, &["zoo/k0/config.json", said]);
    }
}

#[test]
fn models_for_another_problem_and_quantised_ones_are_refused() {
    let place = scene();
    for k in ["k0", "k3"] {
        let other = if k == "k0" { "single_label_classification" } else { "multi_label_classification" };
        config(&place, k, |json| json["problem_type"] = json!(other));
    }
    both_refuse(&place, &["zoo/k3/config.json: problem_type", "found `multi_label_classification`"]);
    let place = scene();
    config(&place, "k0", |json| json["quantization_config"] = json!({"quant_method": "gptq"}));
    both_refuse(&place, &["zoo/k0/config.json: its weights are quantised", "gptq"]);
}

#[test]
fn files_that_are_something_else_are_called_by_their_name() {
    for (bytes, said) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"[..], "git-lfs pointer"),
        (b"PK\x03\x04\x14\x00\x00\x08\x08\x00", "a pickle, as torch.save writes it"),
        (b"\x80\x02}q\x00(X\x01\x00", "a pickle, as torch.save writes it"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "a GGUF file"),
    ] {
        let place = scene();
        fs::write(place.path("zoo/k1/model.safetensors"), bytes).unwrap();
        both_refuse(&place, &["zoo/k1/model.safetensors", said]);
    }
}

#[test]
fn inspect_checks_the_data_of_a_specification() {
    let place = scene();
    let told = place.mehl_soup(&["inspect", "--data", "sweep.toml"]).expect(0);
    assert!(told.stdout.contains("faults: none"), "{}", told.stdout);
    fs::copy(fixture("trajectories/learn.safetensors"), place.path("learn.safetensors")).unwrap();
    edit(&place.path("learn.safetensors"), |tensors| {
        let (_, _, labels) = tensors.get_mut("labels").unwrap();
        labels[..8].copy_from_slice(&99i64.to_le_bytes());
    });
    let text = vit_spec("zoo/*", Path::new("learn.safetensors"), "method = 'uniform'", "");
    place.spec("sweep.toml", &text);
    let told = place.mehl_soup(&["inspect", "--data", "sweep.toml"]).expect(1);
    assert!(told.stdout.contains("learn.safetensors: `labels`: expected classes 0 to"), "{}", told.stdout);
    place.run("sweep.toml", "out").expect(2).says(&["learn.safetensors: `labels`: expected classes 0 to"]);
}

/// `merge` writes the model that a sweep with `uniform` finds, without data.
#[test]
fn a_merge_is_the_mean_that_a_sweep_finds() {
    let place = scene();
    run(&place);
    place.mehl_soup(&["materialize", "out/tasks/uniform/coefficients.safetensors", "--out", "mean"]).expect(0);
    place.mehl_soup(&["merge", "zoo/*", "--out", "merged"]).expect(0).says(&["0.2500  k0", "0.2500  k3"]);
    assert!(place.read("merged/model.safetensors") == place.read("mean/model.safetensors"));
    assert!(place.path("merged/config.json").exists());
    let weighted = ["merge", "zoo/*", "--out", "other", "--weights", "0.5,0.5,1,-1"];
    place.mehl_soup(&weighted).expect(0).says(&["-1.0000  k3"]);
    place.mehl_soup(&weighted).expect(2).says(&["other: the folder is not empty"]);
    place.mehl_soup(&["merge", "zoo/*", "--out", "x", "--weights", "0.5,0.5"]).expect(2).says(&["expected 4"]);
    config(&place, "k1", |json| json["problem_type"] = json!("regression"));
    place
        .mehl_soup(&["merge", "zoo/*", "--out", "x"])
        .expect(2)
        .says(&["zoo/k1/config.json: expected no problem_type as in ", "found problem_type"]);
    assert!(!place.path("x").exists());
}

/// Where a baseline ranks first, what was asked for can be written by a line that is printed.
#[test]
fn the_soup_that_was_asked_for_can_be_written() {
    let place = Place::new();
    place.spec("sweep.toml", &sound_spec("method = 'uniform'", ""));
    let ended = place.run("sweep.toml", "out").expect(0);
    let winner = &place.results("out").tasks[0];
    let line = "mehl-soup materialize ";
    assert_eq!(ended.stderr.contains(line), winner.method.to_string() != "uniform", "{}", ended.stderr);
    if let Some((_, rest)) = ended.stderr.split_once(line) {
        let file = rest.split(" --out").next().unwrap();
        place.mehl_soup(&["materialize", file, "--out", "asked"]).expect(0);
    }
}

/// Of bare tensors without a configuration, shapes do not tell the number of heads: another one would compute something else.
#[test]
fn a_number_of_heads_that_would_be_a_guess_has_to_be_stated() {
    let place = Place::new();
    let model = fixture("clip/openai/model.safetensors");
    let told = place.mehl_soup(&["inspect", model.to_str().unwrap()]).expect(1);
    assert!(told.stdout.contains("set zoo.heads"), "{}", told.stdout);
}
