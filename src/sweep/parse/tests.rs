//! Whole specifications: what they mean, and how their faults read.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sweep::metric::Metric;
use crate::sweep::objective::ObjectiveName;
use crate::sweep::spec::{
    Asha, Auto, ComputeDtype, DirectionDtype, Distribution, Family, Grouping, Init, MethodName, ModelBatch, OneLevel,
    Shrink, SoupSpec, Strategy as Draw,
};

const LEAST: &str = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'\n";

fn toml(text: &str) -> Result<Spec, SpecError> {
    parse_spec_text(text, Format::Toml, Path::new("/base"))
}

/// The specification of the least text with `rest`.
fn with(rest: &str) -> Spec {
    toml(&format!("{LEAST}{rest}")).unwrap_or_else(|error| panic!("{error}"))
}

/// The faults of the least text with `rest`, whose first line is line 3.
fn faults(rest: &str) -> Vec<String> {
    let error = toml(&format!("{LEAST}{rest}")).expect_err(rest);
    error.to_string().lines().map(str::to_string).collect()
}

#[track_caller]
fn one_fault(rest: &str, expected: &str) {
    assert_eq!(faults(rest), [expected], "{rest}");
}

#[test]
fn defaults() {
    let spec = with("seed = 7");
    let soup = SoupSpec {
        method: MethodName::Steady,
        layer_groups: Grouping::Tensor,
        model_batch: ModelBatch::Auto(Auto::Auto),
        direction_dtype: DirectionDtype::Auto,
        inner_epochs: 12,
        outer_epochs: 1,
        batch: 32,
        learning_rate: 0.02,
        weight_decay: 0.0,
        shrink: Some(Shrink::By(20.0)),
        average: Some(0.97),
        warmup: 0.2,
        gradient_clip: 1.0,
        init: Init::Auto,
        early_stopping: true,
        patience: 3,
        seed: 7,
    };
    assert_eq!(spec.soup, soup);
    assert_eq!((spec.name.as_str(), spec.seed), ("sweep", 7));
    assert_eq!(
        (spec.zoo.ingredients.as_slice(), spec.zoo.family, spec.zoo.top),
        (["/base/zoo/*".to_string()].as_slice(), None, None)
    );
    assert_eq!(spec.data.learn, PathBuf::from("/base/learn.safetensors"));
    assert_eq!((&spec.data.select, spec.data.select_fraction, spec.data.metric), (&None, 0.3, Metric::LOSS));
    assert_eq!((spec.data.inputs.as_slice(), spec.data.labels.as_str()), (["inputs".to_string()].as_slice(), "labels"));
    assert_eq!((spec.search.strategy, spec.search.tasks, spec.search.greedy_baseline), (Draw::Grid, 0, false));
    assert_eq!((spec.compute.devices.as_slice(), spec.compute.threads), (["cpu".to_string()].as_slice(), None));
    assert_eq!((spec.compute.checkpoint_seconds, spec.compute.score_batch), (10.0, 256));
    assert_eq!((spec.compute.dtype, spec.compute.recompute), (None, false));
}

#[test]
fn every_key_is_read_and_the_three_formats_agree() {
    let json = json!({
        "name": "all", "seed": 3,
        "zoo": {"ingredients": ["a.safetensors", "/abs/*"], "family": "torchscript", "architecture": "m.pt", "top": 4},
        "data": {"learn": "l", "select": "s", "test": "/t", "inputs": ["ids", "mask"], "labels": "y",
                 "select_fraction": 0.5, "metric": "accuracy"},
        "soup": {"method": "mehl+", "layer_groups": "block", "model_batch": 2, "inner_epochs": 6, "outer_epochs": 2,
                 "batch": 64, "learning_rate": 1, "weight_decay": 0.1, "warmup": 0, "gradient_clip": 2.5,
                 "init": "greedy", "early_stopping": false, "patience": 9, "seed": 8},
        "search": {"strategy": "random", "tasks": 5, "points": [{"method": "hl", "zoo": {"top": 2}}, {"zoo.top": 3}],
                   "space": {"zoo": {"top": {"int": [1, 4]}}, "learning_rate": {"log_uniform": [0.001, 0.1]},
                             "warmup": {"uniform": [0, 1]}, "method": ["mehl", "mehl+"], "init": {"choice": ["best"]}},
                   "max_seconds": 60, "greedy_baseline": true},
        "compute": {"devices": ["cpu", "cuda:1"], "threads": 2, "dtype": "bf16", "recompute": true, "memory": "8GiB", "checkpoint_seconds": 0, "score_batch": 16}
    });
    let text = serde_json::to_string_pretty(&json).unwrap();
    let spec = parse_spec_text(&text, Format::Json, Path::new("/base")).unwrap();
    assert_eq!(spec.zoo.family, Some(Family::Torchscript));
    assert_eq!(spec.zoo.architecture, Some(PathBuf::from("/base/m.pt")));
    // An architecture alone says the family.
    let alone = json!({"zoo": {"ingredients": ["a"], "architecture": "exported"}, "data": {"learn": "l"}}).to_string();
    let alone = parse_spec_text(&alone, Format::Json, Path::new("/base")).unwrap();
    assert_eq!(alone.zoo.family, Some(Family::Torchscript));
    assert_eq!(spec.zoo.ingredients, ["/base/a.safetensors", "/abs/*"]);
    assert_eq!((spec.data.inputs.len(), spec.data.metric), (2, Metric::named("accuracy").unwrap()));
    let soup = &spec.soup;
    assert_eq!((soup.layer_groups, soup.model_batch, soup.learning_rate), (Grouping::Block, ModelBatch::Fixed(2), 1.0));
    assert_eq!((soup.inner_epochs, soup.outer_epochs, soup.batch, soup.patience, soup.seed), (6, 2, 64, 9, 8));
    assert_eq!((soup.weight_decay, soup.warmup, soup.gradient_clip, soup.init), (0.1, 0.0, 2.5, Init::Greedy));
    assert!(!soup.early_stopping && spec.search.greedy_baseline);
    assert_eq!(spec.search.points[0]["zoo.top"], json!(2));
    assert_eq!(spec.search.points[1]["zoo.top"], json!(3));
    let space: std::collections::BTreeMap<_, _> = spec.search.space.iter().cloned().collect();
    assert_eq!(space["zoo.top"], Distribution::Int(1, 4));
    assert_eq!(space["learning_rate"], Distribution::LogUniform(1e-3, 1e-1));
    assert_eq!(space["warmup"], Distribution::Uniform(0.0, 1.0));
    assert_eq!(space["method"], Distribution::Choice(vec![json!("mehl"), json!("mehl+")]));
    assert_eq!((spec.search.max_seconds, spec.search.tasks), (Some(60.0), 5));
    assert_eq!((spec.compute.memory_bytes, spec.compute.threads), (Some(8 << 30), Some(2)));
    assert_eq!((spec.compute.dtype, spec.compute.recompute), (Some(ComputeDtype::Bf16), true));
    // JSON is YAML.
    assert_eq!(parse_spec_text(&text, Format::Yaml, Path::new("/base")).unwrap(), spec);
    let as_toml = ::toml::to_string(&json).unwrap();
    // The writer puts tables last, so only the order of the space differs.
    let sorted = |mut spec: Spec| {
        spec.search.space.sort_by(|a, b| a.0.cmp(&b.0));
        spec
    };
    assert_eq!(sorted(toml(&as_toml).unwrap()), sorted(spec));
}

#[test]
fn the_space_keeps_the_order_of_the_file() {
    let spec = with("[search.space]\nwarmup = [0]\nbatch = [1, 2]\nzoo.top = [3]\ninit = ['best']");
    let keys: Vec<&str> = spec.search.space.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["warmup", "batch", "zoo.top", "init"]);
}

#[test]
fn all_faults_are_told_at_once_with_their_places() {
    let found = faults(
        "zoos = 1\n[soup]\nmethod = 'mehl++'\ninner_epoch = 3\nbatch = 0\nwarmup = 1.5\nlearning_rate = '1e-3'\n[compute]\nthreads = 2.0",
    );
    let expected = [
        "sweep:3:1: zoos: unknown key; did you mean `zoo`?",
        "sweep:5:10: soup.method: expected one of `best`, `uniform`, `greedy`, `model-stock`, `learned`, `learned+`, `hl`, `hl+`, `mehl`, `mehl+`, `steady`, \
         found `mehl++`; did you mean `mehl+`?",
        "sweep:6:1: soup.inner_epoch: unknown key; did you mean `inner_epochs`?",
        "sweep:7:9: soup.batch: expected a whole number from 1 to 1000000, found 0",
        "sweep:8:10: soup.warmup: expected a finite number at least 0 and at most 1, found 1.5",
        "sweep:9:17: soup.learning_rate: expected a finite number above 0, found `1e-3`",
        "sweep:11:11: compute.threads: expected a whole number from 1 to 4096, found 2.0",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_required_is_missed() {
    let error = toml("soup = 3").unwrap_err().to_string();
    let expected = "sweep:1:1: zoo.ingredients: missing, expected a list of paths or globs\n\
                    sweep:1:1: data.learn: missing, expected a path\n\
                    sweep:1:8: soup: expected a table, found 3";
    assert_eq!(error, expected);
    one_fault(
        "zoo.family = 'torchscript'",
        "sweep:1:1: zoo.architecture: missing, expected a path (required with family `torchscript`)",
    );
    one_fault(
        "search.strategy = 'random'",
        "sweep:3:1: search.tasks: missing, expected a number from 1 to 100000 (required with strategy `random`)",
    );
}

#[test]
fn bad_zoo_data_and_compute() {
    one_fault(
        "zoo.architecture = 'm.pt'\nzoo.family = 'vit'",
        "sweep:3:20: zoo.architecture: can only be used with family `torchscript`",
    );
    one_fault(
        "zoo.family = 'vitt'",
        "sweep:3:14: zoo.family: expected one of `auto`, `vit`, `clip-vit`, `timm-vit`, `resnet`, `bert`, `modernbert`, `torchscript`, found `vitt`; did you mean `vit`?",
    );
    one_fault("zoo.top = 0", "sweep:3:11: zoo.top: expected a whole number from 1 to 1000000, found 0");
    one_fault(
        "data.select_fraction = 1",
        "sweep:3:24: data.select_fraction: expected a finite number above 0 and below 1, found 1",
    );
    one_fault(
        "data.inputs = ['labels']",
        "sweep:3:15: data.inputs: tensor `labels` appears twice among inputs and labels",
    );
    one_fault("data.inputs = ['a', 3]", "sweep:3:21: data.inputs[1]: expected a tensor's name, found 3");
    one_fault(
        "compute.devices = ['cpu', 'gpu']",
        "sweep:3:27: compute.devices[1]: expected `cpu`, `cuda` or `cuda:` and a number, found `gpu`",
    );
    one_fault(
        "compute.dtype = 'bf61'",
        "sweep:3:17: compute.dtype: expected one of `auto`, `f32`, `f64`, `bf16`, found `bf61`; did you mean `bf16`?",
    );
    assert_eq!(with("compute.dtype = 'auto'").compute.dtype, None);
    one_fault(
        "compute.memory = '8 loaves'",
        "sweep:3:18: compute.memory: expected a number of bytes, or a size such as `8GiB` or `8GB`, found `8 loaves`",
    );
    assert_eq!(with("compute.memory = '8GB'").compute.memory_bytes, Some(8_000_000_000));
    assert_eq!(with("compute.memory = 123").compute.memory_bytes, Some(123));
    one_fault(
        "compute.checkpoint_seconds = nan",
        "sweep:3:30: compute.checkpoint_seconds: expected a finite number at least 0 and at most 1000000000, found NaN",
    );
}

#[test]
fn searched_values_are_checked_where_they_stand() {
    let found = faults(
        "[search]\npoints = [{ batch = 1 }, { batch = -1, methods = 'hl' }]\n[search.space]\nbatch = [1, 0]\n\
         warmup = { int = [0, 2] }\nmethod = { choice = ['mehl', 'asha'] }\nzoo.top = [0]\nzoo.tops = [1]\npatience = 3",
    );
    let expected = [
        "sweep:4:36: search.points[1].batch: expected a whole number from 1 to 1000000, found -1",
        "sweep:4:40: search.points[1].methods: unknown key; did you mean `method`?",
        "sweep:6:13: search.space.batch[1]: expected a whole number from 1 to 1000000, found 0",
        "sweep:7:22: search.space.warmup.int[1]: expected a finite number at least 0 and at most 1, found 2",
        "sweep:8:30: search.space.method.choice[1]: expected one of `best`, `uniform`, `greedy`, `model-stock`, `learned`, `learned+`, `hl`, `hl+`, \
         `mehl`, `mehl+`, `steady`, found `asha`; did you mean `steady`?",
        "sweep:9:12: search.space.zoo.top[0]: expected a whole number from 1 to 1000000, found 0",
        "sweep:10:5: search.space.zoo.tops: unknown key; did you mean `zoo.top`?",
        "sweep:11:12: search.space.patience: expected a list of values, or a table with one of `choice`, `uniform`, `log_uniform`, `int`, `log_int`, found 3",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_fault_of_the_base_is_told_once_however_many_values_are_put_into_it() {
    one_fault(
        "soup.batch = 0\nsearch.space.warmup = [0, 0.1, 0.2]\nsearch.points = [{ seed = 1 }]",
        "sweep:3:14: soup.batch: expected a whole number from 1 to 1000000, found 0",
    );
}

#[test]
fn distributions_must_make_sense() {
    let random = |space: &str| format!("[search]\nstrategy = 'random'\ntasks = 2\nspace.{space}");
    let fault = |space: &str, expected: &str| one_fault(&random(space), &format!("sweep:6:{expected}"));
    fault("batch = []", "15: search.space.batch: expected a non-empty list of values, found a list of length 0");
    fault(
        "batch = { int = [2] }",
        "23: search.space.batch.int: expected [low, high], both whole numbers, found a list of length 1",
    );
    fault(
        "batch = { int = [2, 1] }",
        "23: search.space.batch.int: expected [low, high] with low below high, found [2, 1]",
    );
    fault(
        "warmup = { uniform = [0, inf] }",
        "28: search.space.warmup.uniform: expected [low, high], both finite numbers, found a list of length 2",
    );
    fault(
        "weight_decay = { log_uniform = [0, 1] }",
        "38: search.space.weight_decay.log_uniform: expected both ends above 0, because the range is logarithmic, found 0",
    );
    fault("warmup = { unifrom = [0, 1] }", "18: search.space.warmup.unifrom: unknown key; did you mean `uniform`?");
    // Whole ends, but what lies between would not be whole.
    let found = faults(&random("batch = { uniform = [1, 3] }"));
    assert_eq!(
        found[0],
        "sweep:6:28: search.space.batch.uniform[0]: expected a whole number from 1 to 1000000, found 1.0"
    );
    one_fault(
        "search.space.warmup = { uniform = [0, 1] }",
        "sweep:3:23: search.space.warmup: expected `choice`, `int` or a range with a `step` (a grid needs a finite list of values), found `uniform`",
    );
    one_fault(
        "search.tasks = 3",
        "sweep:3:16: search.tasks: can only be used with strategies `random` and `asha`; the number of tasks of a grid follows from its values",
    );
    one_fault(
        "search.strategy = 'hyperband'\nsearch.tasks = 3",
        "sweep:3:19: search.strategy: expected one of `grid`, `random`, `asha`, found `hyperband`; did you mean `asha`?",
    );
    one_fault(
        "search.space = { seed = { int = [0, 999] }, batch = { int = [1, 101] } }",
        "sweep:3:16: search.space: expected a grid of at most 100000 tasks, found one of 101000",
    );
}

#[test]
fn log_int_and_steps_are_read_and_their_faults_told() {
    let random = |space: &str| format!("[search]\nstrategy = 'random'\ntasks = 2\nspace.{space}");
    let read = |space: &str| with(&random(space)).search.space.remove(0).1;
    assert_eq!(read("batch = { log_int = [1, 64] }"), Distribution::LogInt(1, 64));
    assert_eq!(read("batch = { int = [8, 64], step = 8 }"), Distribution::StepInt(8, 64, 8));
    assert_eq!(read("warmup = { uniform = [0, 1], step = 0.1 }"), Distribution::StepUniform(0.0, 1.0, 0.1));
    assert_eq!(
        read("learning_rate = { log_uniform = [1e-3, 1e-1], step = 1e-3 }"),
        Distribution::StepLogUniform(1e-3, 1e-1, 1e-3)
    );
    let fault = |space: &str, expected: &str| one_fault(&random(space), &format!("sweep:6:{expected}"));
    fault(
        "batch = { log_int = [0, 64] }",
        "27: search.space.batch.log_int: expected both ends at least 1, because the range is logarithmic, found 0",
    );
    fault(
        "batch = { int = [8, 64], step = 0 }",
        "39: search.space.batch.step: expected a whole number from 1 to 56 (the length of the range), found 0",
    );
    fault(
        "warmup = { uniform = [0, 0.5], step = 0.6 }",
        "45: search.space.warmup.step: expected a number above 0, at most the length of the range (0.5), and at least a billionth of it, found 0.6",
    );
    fault(
        "warmup = { uniform = [0, 0.5], step = 1e-12 }",
        "45: search.space.warmup.step: expected a number above 0, at most the length of the range (0.5), and at least a billionth of it, found 1e-12",
    );
    fault(
        "batch = { log_int = [1, 64], step = 2 }",
        "43: search.space.batch.step: can only be used with `uniform`, `log_uniform` and `int`",
    );
    // With a step, a grid can be made of a range.
    assert_eq!(with("search.space.warmup = { uniform = [0, 1], step = 0.25 }").search.space.len(), 1);
    one_fault(
        "search.space.batch = { log_int = [1, 8] }",
        "sweep:3:22: search.space.batch: expected `choice`, `int` or a range with a `step` (a grid needs a finite list of values), found `log_int`",
    );
}

#[test]
fn asha_has_rungs() {
    let asha = |rest: &str| format!("[search]\nstrategy = 'asha'\ntasks = 9\n{rest}");
    let spec = with(&asha("space.outer_epochs = [3, 9]"));
    assert_eq!((spec.search.strategy, spec.search.tasks), (Draw::Asha, 9));
    assert_eq!(spec.search.asha, Some(Asha { eta: 3, grace: 1 }));
    let spec = with(&asha("eta = 2\ngrace = 4\n[soup]\nmethod = 'hl'"));
    assert_eq!(spec.search.asha, Some(Asha { eta: 2, grace: 4 }));
    one_fault(
        &asha("grace = 2\nspace.method = ['mehl', 'best']\nspace.outer_epochs = { int = [1, 2] }"),
        "sweep:4:12: search.strategy: no task of this search reaches a rung: the first rung is at 2 epochs, the longest task has 2 \
         (outer epochs for `mehl`, inner ones for `hl` and `learned`)",
    );
    one_fault(
        &asha("eta = 1\n[soup]\nouter_epochs = 3"),
        "sweep:6:7: search.eta: expected a whole number from 2 to 1000, found 1",
    );
    one_fault("search.grace = 1", "sweep:3:16: search.grace: can only be used with strategy `asha`");
    one_fault(
        "search.strategy = 'asha'\nsoup.outer_epochs = 2",
        "sweep:3:1: search.tasks: missing, expected a number from 1 to 100000 (required with strategy `asha`)",
    );
}

#[test]
fn what_has_no_newer_keys_is_stored_as_it_always_was() {
    let spec = with("[search]\nstrategy = 'random'\ntasks = 5\nspace.batch = { int = [1, 2] }");
    let expected = r#"{"strategy":"random","tasks":5,"points":[],"space":[["batch",{"int":[1,2]}]],"max_seconds":null,"greedy_baseline":false}"#;
    assert_eq!(serde_json::to_string(&spec.search).unwrap(), expected);
}

#[test]
fn fields_may_depend_on_the_method() {
    let spec = with(
        "[search.space]\nmethod = ['mehl', 'learned']\n\
         model_batch = { choice = [1, 2], when = { method = ['mehl', 'mehl+', 'mehl'] } }\n\
         batch = { int = [8, 16], step = 8, when.method = 'learned' }",
    );
    let when = |methods: &[MethodName], of| Distribution::When(methods.to_vec(), Box::new(of));
    let mehl = [MethodName::Mehl, MethodName::MehlPlus];
    assert_eq!(spec.search.space[1].1, when(&mehl, Distribution::Choice(vec![json!(1), json!(2)])));
    assert_eq!(spec.search.space[2].1, when(&[MethodName::Learned], Distribution::StepInt(8, 16, 8)));
    let tasks = crate::sweep::expand::expand(&spec);
    let soups: Vec<_> = tasks[2..].iter().map(|t| (t.id.as_str(), t.soup.model_batch, t.soup.batch)).collect();
    let (auto, fixed) = (ModelBatch::Auto(Auto::Auto), ModelBatch::Fixed);
    let expected = [
        ("0001-mehl", fixed(1), 128),
        ("0002-mehl", fixed(2), 128),
        ("0003-learned", auto, 8),
        ("0004-learned", auto, 16),
    ];
    assert_eq!(soups, expected);

    one_fault(
        "search.space.method = { choice = ['mehl'], when = { method = 'mehl' } }",
        "sweep:3:44: search.space.method.when: the method cannot depend on itself",
    );
    one_fault(
        "search.space.batch = { choice = [1], when = { method = ['mehl+', 'mel'] } }",
        "sweep:3:66: search.space.batch.when.method[1]: expected one of `best`, `uniform`, `greedy`, `model-stock`, `learned`, `learned+`, `hl`, `hl+`, \
         `mehl`, `mehl+`, `steady`, found `mel`; did you mean `mehl`?",
    );
    one_fault(
        "search.space.batch = { choice = [1], when = { methods = 'mehl+' } }",
        "sweep:3:47: search.space.batch.when.methods: unknown key; did you mean `method`?",
    );
    one_fault(
        "search.space.batch = { choice = [1], when = 'mehl' }",
        "sweep:3:45: search.space.batch.when: expected a table, found `mehl`",
    );
    one_fault(
        "search.space.batch = { choice = [1], when = { method = 'hl' } }",
        "sweep:3:22: search.space.batch: no task of this search uses a method that is listed in `when`",
    );
    // Only what a task can have counts as a task of a grid.
    let wide = |key: &str, method: &str| format!("{key} = {{ int = [1, 1000], when = {{ method = '{method}' }} }}");
    with(&format!(
        "[search.space]\nmethod = ['mehl', 'hl']\n{}\n{}",
        wide("batch", "mehl"),
        wide("inner_epochs", "hl")
    ));
}

#[test]
fn layer_groups_and_method_must_suit_each_other_where_they_are_meant_for_each_other() {
    let fault = |place: &str, takes: &str, method: &str, found: &str| {
        format!("sweep:{place}: expected {takes} with method `{method}`, found `{found}`")
    };
    one_fault(
        "soup = { method = 'mehl', layer_groups = 'block' }",
        &fault("3:42: soup.layer_groups", "`model`", "mehl", "block"),
    );
    one_fault(
        "soup.layer_groups = 'model'",
        &fault("3:21: soup.layer_groups", "`block` or `tensor`", "steady", "model"),
    );
    one_fault(
        "search.points = [{ method = 'hl', layer_groups = 'tensor' }]",
        &fault("3:50: search.points[0].layer_groups", "`model`", "hl", "tensor"),
    );
    one_fault(
        "search.space.layer_groups = ['block', 'model']",
        &fault("3:39: search.space.layer_groups[1]", "`block` or `tensor`", "steady", "model"),
    );
    one_fault(
        "soup = { shrink = 'model', layer_groups = 'block' }",
        "sweep:3:43: soup.layer_groups: expected `model` with method `steady` and soup.shrink = \"model\", found `block`",
    );
    with("soup.layer_groups = 'block'\nsearch.space.method = ['mehl', 'mehl+']");
    with("soup.layer_groups = 'block'\nsearch.points = [{ method = 'hl' }]");
    with("search.space = { method = ['mehl', 'mehl+'], layer_groups = ['block', 'tensor'] }");
}

#[test]
fn shrinking_and_averaging_are_of_the_method_that_has_them() {
    let soup = with("soup = { shrink = 5, average = 0 }").soup;
    assert_eq!((soup.shrink, soup.average, soup.layer_groups), (Some(Shrink::By(5.0)), Some(0.0), Grouping::Tensor));
    let soup = with("soup.shrink = 'model'").soup;
    assert_eq!((soup.shrink, soup.layer_groups), (Some(Shrink::Model(OneLevel::Model)), Grouping::Model));
    let soup = with("soup.method = 'mehl+'").soup;
    assert_eq!((soup.shrink, soup.average), (None, None));
    assert!(!serde_json::to_string(&soup).unwrap().contains("shrink"), "what was begun before goes on");

    for bad in ["-1", "'block'", "nan", "inf", "true"] {
        let found = faults(&format!("soup.shrink = {bad}"));
        assert!(found.len() == 1 && found[0].contains("expected `model` or a finite number at least 0"), "{found:?}");
    }
    for bad in ["1", "-0.1", "'no'"] {
        let found = faults(&format!("soup.average = {bad}"));
        assert!(found.len() == 1 && found[0].contains("at least 0 and below 1"), "{found:?}");
    }
    let only =
        |place: &str, method: &str| format!("sweep:{place}: can only be used with method `steady`, found `{method}`");
    one_fault("soup = { method = 'mehl', shrink = 5 }", &only("3:36: soup.shrink", "mehl"));
    one_fault("soup = { method = 'hl+', average = 0.5 }", &only("3:36: soup.average", "hl+"));
    one_fault("search.points = [{ method = 'mehl', shrink = 5 }]", &only("3:46: search.points[0].shrink", "mehl"));
    one_fault(
        "soup.weight_decay = 0.1",
        "sweep:3:21: soup.weight_decay: method `steady` has no weight decay; use soup.shrink instead",
    );
    // Written for the methods that they suit.
    let spec = with("soup = { shrink = 5, weight_decay = 0.1 }\nsearch.space.method = ['mehl', 'steady']");
    let tasks = crate::sweep::expand::expand(&spec);
    let found: Vec<_> = tasks[2..].iter().map(|task| (task.soup.shrink, task.soup.weight_decay)).collect();
    assert_eq!(found, [(None, 0.1), (Some(Shrink::By(5.0)), 0.0)]);
    with("soup.shrink = 5\nsearch.points = [{ method = 'mehl', weight_decay = 0.1 }]");
    with("search.space = { shrink = [5, 'model'], average = [0, 0.9] }");
}

#[test]
fn model_stock_needs_a_base_and_comes_with_one() {
    let fault = "sweep: zoo.base: missing, expected a path (required with method `model-stock`)";
    for without in [
        "soup.method = 'model-stock'",
        "search.space.method = ['mehl', 'model-stock']",
        "search.points = [{ method = 'model-stock' }]",
    ] {
        one_fault(without, fault);
    }
    let spec = with("zoo.base = 'base'");
    assert_eq!(spec.zoo.base, Some(PathBuf::from("/base/base")));
    let ids: Vec<String> = crate::sweep::expand::expand(&spec).into_iter().map(|task| task.id).collect();
    assert_eq!(ids, ["best", "uniform", "model-stock", "0001-steady"]);
    assert_ne!(spec.identity(), with("seed = 0").identity());
}

#[test]
fn the_identity_is_that_of_what_determines_results() {
    let base = with("seed = 1").identity();
    assert_eq!(with("seed = 1\nname = 'other'\nsearch.max_seconds = 3\ncompute.devices = 'cuda'\ncompute.dtype = 'bf16'\ncompute.recompute = true").identity(), base);
    for other in [
        "seed = 2",
        "seed = 1\nsoup.batch = 1",
        "seed = 1\nsearch.space.batch = [1]",
        "seed = 1\ndata.test = 't'",
        "seed = 1\nzoo.top = 2",
    ] {
        assert_ne!(with(other).identity(), base, "{other}");
    }
}

#[test]
fn files_name_themselves_and_their_faults() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("di[g]its.toml");
    let missing = parse_spec(&path).unwrap_err().to_string();
    assert!(missing.contains("di[g]its.toml: cannot read the specification"), "{missing}");
    std::fs::write(&path, LEAST).unwrap();
    let spec = parse_spec(&path).unwrap();
    assert_eq!((spec.name.as_str(), spec.data.learn), ("di[g]its", folder.path().join("learn.safetensors")));
    std::fs::write(&path, "[zoo").unwrap();
    assert!(parse_spec(&path).unwrap_err().to_string().contains("di[g]its.toml:1:"));
    std::fs::write(&path, b"name = '\xff'").unwrap();
    assert!(parse_spec(&path).unwrap_err().to_string().contains("cannot read"));
    #[cfg(unix)]
    {
        let odd = folder.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff.toml"));
        std::fs::write(&odd, LEAST).unwrap();
        assert!(parse_spec(&odd).unwrap_err().to_string().contains("path is not UTF-8"));
    }
    let other = parse_spec(&folder.path().join("sweep.ini")).unwrap_err().to_string();
    assert!(other.contains("expected a file that ends in .toml"), "{other}");
}

#[test]
fn a_folder_with_glob_characters_in_its_name_is_meant_literally() {
    let spec = parse_spec_text(LEAST, Format::Toml, Path::new("/b[a]se*")).unwrap();
    assert!(glob::Pattern::new(&spec.zoo.ingredients[0]).unwrap().matches("/b[a]se*/zoo/x"));
    assert!(!glob::Pattern::new(&spec.zoo.ingredients[0]).unwrap().matches("/base1/zoo/x"));
}

/// Texts that come near to specifications, so that the readers behind the parsers are reached.
fn almost_a_spec() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        Just("zoo"),
        Just("data"),
        Just("soup"),
        Just("search"),
        Just("space"),
        Just("points"),
        Just("ingredients"),
        Just("learn"),
        Just("method"),
        Just("batch"),
        Just("top"),
        Just("zoo.top"),
        Just("layer_groups"),
        Just("int"),
        Just("choice"),
        Just("log_uniform"),
        Just("log_int"),
        Just("step"),
        Just("when"),
        Just("strategy"),
        Just("'random'"),
        Just("'mehl'"),
        Just("1"),
        Just("-1"),
        Just("0.5"),
        Just("nan"),
        Just("1e999"),
        Just("9223372036854775807"),
        Just("= "),
        Just(": "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("\n"),
        Just("\n  "),
        Just("."),
        Just("\""),
        Just("é"),
        Just("&a "),
        Just("*a"),
    ];
    prop::collection::vec(words, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), almost_a_spec()]) {
        for format in [Format::Toml, Format::Yaml, Format::Json] {
            if let Err(error) = parse_spec_text(&text, format, Path::new("/base")) {
                prop_assert!(!error.faults.is_empty());
                prop_assert_eq!(error.to_string().lines().count(), error.faults.len());
            }
        }
    }

    #[test]
    fn every_value_of_a_valid_space_gives_a_valid_task(seed: u32, low in 1i64..50, more in 0i64..50) {
        let spec = with(&format!(
            "seed = {seed}\n[search]\nstrategy = 'random'\ntasks = 20\n[search.space]\nbatch = {{ int = [{low}, {}] }}\n\
             learning_rate = {{ log_uniform = [1e-4, 1] }}\nwarmup = {{ uniform = [0, 1] }}\nmethod = ['learned', 'mehl', 'hl+']\n\
             layer_groups = ['model', 'block']\nmodel_batch = ['auto', 2]\nzoo.top = {{ int = [1, 3] }}",
            low + more
        ));
        for task in crate::sweep::expand::expand(&spec).iter().skip(2) {
            let batch = task.soup.batch as i64;
            prop_assert!(low <= batch && batch <= low + more);
            prop_assert!((1e-4..=1.0).contains(&task.soup.learning_rate) && (0.0..=1.0).contains(&task.soup.warmup));
            prop_assert_eq!(task.soup.layer_groups == Grouping::Model, !task.soup.method.is_layer_wise());
            prop_assert!((1..=3).contains(&task.top.unwrap()));
        }
    }
}

#[test]
fn specifications_of_the_experiments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|ending| ending == "toml")).collect();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let spec = parse_spec(&file).unwrap_or_else(|error| panic!("{error}"));
        // Those of the paper begin where it does; the default's, where it does by default.
        let varies_it = file.ends_with("5-start.toml") || file.ends_with("7-default.toml");
        assert_eq!(spec.soup.init == Init::BatchMean, !varies_it, "{}", file.display());
    }
}

#[test]
fn objectives_have_metrics_of_their_own_and_pairs_have_a_scale() {
    assert_eq!((with("").data.objective, with("data.objective = 'auto'").data.objective), (None, None));
    for (name, objective) in ObjectiveName::NAMED {
        assert_eq!(with(&format!("data.objective = '{name}'")).data.objective, Some(objective));
        assert_eq!(objective.to_string(), name);
    }
    let metric = |rest: &str| with(rest).data.metric.name();
    assert_eq!(metric("data.metric = 'pearson'"), "pearson");
    assert_eq!(metric("data.objective = 'score'\ndata.metric = 'spearman'"), "spearman");
    one_fault(
        "data.objective = 'pairs'\ndata.metric = 'accuracy'",
        "sweep:4:15: data.metric: expected one of `loss`, `accuracy_at_1`, found `accuracy`; did you mean \
         `accuracy_at_1`?",
    );
    assert_eq!(with("data.objective = 'pairs'\ndata.scale = 50").data.scale, Some(50.0));
    assert_eq!(with("data.scale = 0.5").data.scale, Some(0.5));
    one_fault(
        "data.objective = 'regression'\ndata.scale = 5",
        "sweep:4:14: data.scale: can only be used with objective `pairs`, found objective `regression`",
    );
    assert!(faults("data.scale = 0")[0].contains("above 0"));
    assert!(faults("data.objective = 'pair'")[0].contains("`pairs`"));
}
