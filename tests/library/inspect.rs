//! `mehl-soup inspect` on made zoos: what the table and the JSON say, and the exit code.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Tensor, blob, counter, floats, write_model};
use safetensors::Dtype;
use serde_json::{Value, json};

const SHAPES: [(&str, &[usize]); 5] = [
    ("embed.weight", &[8, 4]),
    ("encoder.layer.0.weight", &[4, 4]),
    ("encoder.layer.1.weight", &[4, 4]),
    ("encoder.layer.10.weight", &[4, 4]),
    ("head.weight", &[8, 4]),
];

/// Ingredient k: a common base and noise of its own; `head.weight` is tied to `embed.weight`, `frozen` is equal in all.
fn model(k: usize) -> Vec<Tensor> {
    let mut state = (k as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let mut tensors: Vec<Tensor> = SHAPES
        .iter()
        .map(|(name, shape)| {
            let values: Vec<f64> = (0..shape.iter().product()).map(|i| (i % 7) as f64 + 0.1 * noise()).collect();
            floats(name, Dtype::F32, shape, &values)
        })
        .collect();
    tensors[4].data = tensors[0].data.clone();
    tensors.push(floats("frozen", Dtype::F32, &[3], &[1.0, 2.0, 3.0]));
    tensors.push(counter("steps", 5));
    tensors
}

struct Place {
    root: tempfile::TempDir,
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.out.contains(part), "expected `{part}` in:\n{}", self.out);
        }
        self
    }
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, tensors: &[Tensor]) {
        let path = self.root.path().join("zoo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, blob(tensors)).unwrap();
    }

    /// `k00.safetensors` and so on.
    fn zoo(&self, ingredients: usize) -> &Self {
        for k in 0..ingredients {
            self.write(&format!("k{k:02}.safetensors"), &model(k));
        }
        self
    }

    fn inspect(&self, flags: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_mehl-soup"))
            .args(["inspect", "zoo/*"])
            .args(flags)
            .current_dir(self.root.path())
            .env("MEHL_SOUP_CACHE_DIR", self.root.path().join("cache"))
            // What can be known without the models: the worker's own tests have the rest.
            .env("MEHL_SOUP_WORKER", self.root.path().join("none"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

#[test]
fn what_ingredients_share_is_said_once() {
    let place = Place::new();
    let said = place.zoo(72).inspect(&[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.has(&["72 ingredients", "k00.safetensors, k01.safetensors", "and 68 more", "faults: none", "(--hash)"]);
    assert!(said.out.lines().count() < 16, "{}", said.out);
}

#[test]
fn every_kind_of_difference_is_told_with_both_values() {
    let place = Place::new();
    place.zoo(3);
    let mut odd = model(3);
    odd[0] = floats("embed.weight", Dtype::F16, &[8, 4], &[0.0; 32]);
    odd[6].dtype = Dtype::U64;
    odd[1] = floats("encoder.layer.0.weight", Dtype::F32, &[16], &[0.0; 16]);
    odd[2].name = "encoder.layer.7.weight".into();
    place.write("odd.safetensors", &odd);
    place.write("torn.safetensors", &model(4));
    let torn = place.root.path().join("zoo/torn.safetensors");
    let bytes = fs::read(&torn).unwrap();
    fs::write(&torn, &bytes[..bytes.len() - 3]).unwrap();

    let said = place.inspect(&[]);
    assert_eq!(said.code, Some(1));
    said.has(&[
        "differences from k00.safetensors, which most ingredients match:",
        "odd.safetensors: 1 tensor missing (`encoder.layer.1.weight`), 1 tensor not in the others (`encoder.layer.7.weight`), 1 tensor of another shape (`encoder.layer.0.weight` expected shape [4, 4], found [16]), 1 tensor of another dtype (`steps` expected dtype I64, found U64)",
        "--verbose",
        "ingredients have different dtypes: odd.safetensors in F16/F32, 3 (k00.safetensors, ...) in F32",
    ]);
    let said = place.inspect(&["--verbose"]);
    said.has(&[
        "tensor `steps`: expected dtype I64, found U64: odd.safetensors",
        "tensor `encoder.layer.0.weight`: expected shape [4, 4], found [16]: odd.safetensors",
        "tensor `encoder.layer.1.weight`: expected one, found none: odd.safetensors",
        "tensor `encoder.layer.7.weight`: expected none, found one: odd.safetensors",
        "torn.safetensors: tensor `head.weight`",
    ]);
    let report = place.inspect(&["--format", "json"]).json();
    let differences: Vec<&Value> = report["mismatches"].as_array().unwrap().iter().map(|m| &m["difference"]).collect();
    let expected = [
        json!({"shape": {"expected": [4, 4], "found": [16]}}),
        json!("missing"),
        json!("extra"),
        json!({"dtype": {"expected": "I64", "found": "U64"}}),
    ];
    assert_eq!(differences, expected.iter().collect::<Vec<_>>());
    assert!(report["ingredients"][4]["fault"].as_str().unwrap().contains("torn.safetensors"));
}

#[test]
fn what_most_are_like_is_the_reference() {
    let place = Place::new();
    place.zoo(6);
    let mut odd = model(9);
    odd.pop();
    place.write("a.safetensors", &odd);
    let said = place.inspect(&[]);
    said.has(&["differences from k00.safetensors", "a.safetensors: 1 tensor missing (`steps`)"]);
    assert_eq!(place.inspect(&["--format", "json"]).json()["reference"], json!("k00.safetensors"));
}

#[test]
fn what_a_glob_passes_over_and_what_configurations_say_is_told() {
    let place = Place::new();
    place.zoo(2);
    for (name, text) in [("zoo/lora/adapter_config.json", "{}"), ("zoo/notes.txt", ""), ("zoo/old.pt", "")] {
        let path = place.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let said = place.inspect(&[]);
    assert_eq!(said.code, Some(0), "{}", said.out);
    said.has(&["skipped:", "zoo/lora: an adapter", "zoo/notes.txt: expected", "zoo/old.pt: a pickle"]);
    for (k, config) in
        [r#"{"id2label": {"0": "cat", "1": "dog"}}"#, r#"{"id2label": {"0": "dog", "1": "cat"}}"#].iter().enumerate()
    {
        place.write(&format!("named{k}/model.safetensors"), &model(k));
        fs::write(place.root.path().join(format!("zoo/named{k}/config.json")), config).unwrap();
    }
    let said = place.inspect(&[]);
    assert_eq!(said.code, Some(1));
    said.has(&["named1/config.json: id2label", "expected no output names as in"]);
}

#[test]
fn contents_tell_what_is_frozen_tied_and_equal() {
    let place = Place::new();
    place.zoo(4);
    place.write("twin.safetensors", &model(2));
    let mut with_statistics = Vec::new();
    for k in 0..2 {
        let mut tensors = model(k);
        tensors.push(floats("norm.running_var", Dtype::F32, &[1], &[k as f64]));
        with_statistics.push(tensors);
    }
    let said = place.inspect(&["--hash"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.has(&[
        "k02.safetensors, twin.safetensors",
        "5 of 7 tensors are mixed",
        "frozen (equal in all ingredients):\n  frozen",
        "tied:\n  head.weight = embed.weight",
        "copied (not a float dtype):\n  steps",
        "not finite: none",
    ]);
    let report = place.inspect(&["--hash", "--format", "json"]).json();
    let tensors = json!({
        "mixed": 5, "frozen": ["frozen"], "tied": {"head.weight": "embed.weight"}, "statistics": [], "copied": ["steps"],
    });
    assert_eq!(report["contents"]["tensors"], tensors);
    assert_eq!(report["contents"]["equal"], json!([["k02.safetensors", "twin.safetensors"]]));
    assert_eq!(report["ingredients"][2]["hash"], report["ingredients"][4]["hash"]);

    let place = Place::new();
    for (k, tensors) in with_statistics.iter().enumerate() {
        place.write(&format!("{k}.safetensors"), tensors);
    }
    place.inspect(&["--hash"]).has(&["running statistics that differ", "norm.running_var"]);
}

#[test]
fn values_that_are_not_finite_and_copies_that_differ_are_named() {
    let place = Place::new();
    place.zoo(3);
    let mut bad = model(3);
    bad[2].data[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    place.write("nan.safetensors", &bad);
    let said = place.inspect(&["--hash"]);
    assert_eq!(said.code, Some(1));
    said.has(&[
        "nan.safetensors: tensor `encoder.layer.1.weight`: NaN at element 5",
        "frozen and tied tensors: unknown",
    ]);
    let report = place.inspect(&["--hash", "--format", "json"]).json();
    let expected =
        json!([{"ingredient": "nan.safetensors", "tensor": "encoder.layer.1.weight", "element": 5, "value": "NaN"}]);
    assert_eq!(report["contents"]["not_finite"], expected);
    assert_eq!(place.inspect(&[]).code, Some(0), "headers do not show it");

    let place = Place::new();
    place.zoo(2);
    let mut other = model(2);
    other[6] = counter("steps", 6);
    place.write("other.safetensors", &other);
    let said = place.inspect(&["--hash"]);
    assert_eq!(said.code, Some(1));
    let said = place.inspect(&["--hash", "--verbose"]);
    said.has(&[
        "tensor `steps`: expected the same contents, found different ones (I64 tensors are copied, not mixed): other.safetensors",
    ]);
}

/// 24 ingredients; one was trained into another direction in one block only, one everywhere.
#[test]
fn ingredients_that_stand_out() {
    let place = Place::new();
    place.zoo(22);
    let shift = |tensor: &mut Tensor, by: f32| {
        for value in tensor.data.chunks_exact_mut(4) {
            let moved = f32::from_le_bytes(value.try_into().unwrap()) + by;
            value.copy_from_slice(&moved.to_le_bytes());
        }
    };
    let mut block = model(22);
    shift(&mut block[3], 1.5);
    place.write("block.safetensors", &block);
    let mut all = model(23);
    all.iter_mut().take(5).for_each(|tensor| shift(tensor, 4.0));
    place.write("everywhere.safetensors", &all);

    let report = place.inspect(&["--distances", "--format", "json"]).json();
    let distances = &report["distances"];
    let groups = json!(["embed", "encoder.layer.0", "encoder.layer.1", "encoder.layer.10", "frozen", "head"]);
    assert_eq!((&distances["groups"], &distances["grouping"]), (&groups, &json!("block")));
    let names: Vec<&str> =
        report["ingredients"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    let z = |k: usize, of: &str| {
        let entry = &distances["ingredients"][k];
        let distance = match groups.as_array().unwrap().iter().position(|group| group == of) {
            Some(group) => &entry["groups"][group],
            None => &entry["overall"],
        };
        distance["z"].as_f64().unwrap()
    };
    for (k, name) in names.iter().enumerate() {
        let out = |of: &str| z(k, of) > 3.5;
        match *name {
            "block.safetensors" => assert!(out("encoder.layer.10") && !out("encoder.layer.0")),
            "everywhere.safetensors" => assert!(out("encoder.layer.10") && out("encoder.layer.0") && out("overall")),
            _ => assert!(!out("encoder.layer.10") && !out("encoder.layer.0") && !out("overall"), "{name}"),
        }
    }
    assert!(distances["ingredients"][0]["groups"][4]["relative"].as_f64() == Some(0.0), "frozen is in no distance");

    let said = place.inspect(&["--distances"]);
    assert_eq!(said.code, Some(0), "to stand out is no fault");
    let line = |name: &str| said.out.lines().rfind(|line| line.contains(name)).unwrap();
    assert!(line("everywhere.safetensors").contains("ALL"), "{}", said.out);
    assert!(line("block.safetensors").contains("encoder.layer.10"), "{}", said.out);
    let whole = place.inspect(&["--distances", "--group", "model", "--format", "json"]).json();
    assert_eq!(whole["distances"]["groups"], json!(["model"]));
    assert_eq!(whole["distances"]["ingredients"][3]["overall"], distances["ingredients"][3]["overall"]);
    let fine = place.inspect(&["--distances", "--group", "tensor", "--format", "json"]).json();
    assert_eq!(fine["distances"]["groups"].as_array().unwrap().len(), 6);
}

#[test]
fn distances_need_ingredients_that_agree() {
    let place = Place::new();
    place.zoo(4);
    let mut odd = model(4);
    odd.pop();
    place.write("odd.safetensors", &odd);
    let said = place.inspect(&["--distances"]);
    assert_eq!(said.code, Some(1));
    said.has(&["no distances: some ingredients have faults or differences", "1 tensor missing (`steps`)"]);
    assert_eq!(place.inspect(&["--group", "tensor"]).code, Some(2), "--group without --distances");
}

#[test]
fn sharded_folders_and_their_files_are_counted() {
    let place = Place::new();
    let mut tensors = model(0);
    let second = tensors.split_off(3);
    write_model(&place.root.path().join("zoo/sharded"), &[tensors, second]);
    let report = place.inspect(&["--format", "json"]).json();
    let entry = &report["ingredients"][0];
    assert_eq!((&report["version"], &entry["files"], &entry["tensors"]), (&json!(1), &json!(2), &json!(7)));
    assert_eq!(entry["dtypes"], json!({"F32": 115, "I64": 1}));
    assert_eq!((&entry["parameters"], &entry["bytes"]), (&json!(116), &json!(115 * 4 + 8)));
}

#[test]
fn the_family_is_told_or_why_not() {
    let place = Place::new();
    place.zoo(2).inspect(&[]).has(&["family: unknown: "]);
    let report = place.inspect(&["--format", "json"]).json();
    assert!(report["family"].is_null() && report["family_fault"].is_string());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("workers/tests/fixtures/trajectories/zoo/*");
    let output = Command::new(env!("CARGO_BIN_EXE_mehl-soup"))
        .arg("inspect")
        .arg(fixtures)
        .env("MEHL_SOUP_WORKER", "/dev/null/none")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("family: vit\n"), "{text}");
}

#[test]
fn help_says_what_is_read_and_what_it_costs() {
    let output = Command::new(env!("CARGO_BIN_EXE_mehl-soup")).args(["inspect", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for part in
        ["--hash", "--distances", "--group", "What is read, and what it shows", "Iglewicz and Hoaglin", "Exit codes"]
    {
        assert!(help.contains(part), "{part}\n{help}");
    }
}

#[test]
fn a_hostile_name_stays_a_name() {
    let place = Place::new();
    let name: &Path = Path::new("a\u{1b}[2Jb.safetensors");
    place.write(name.to_str().unwrap(), &model(0));
    let said = place.inspect(&[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!said.out.contains('\u{1b}') && said.out.contains("\\u{1b}"), "{}", said.out);
}
