//! Graphs of `python -m mehl_soup export` against the library that they are of: `fixtures/make_exported.py`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::golden::{tensor, try_load_in, zoo_spec};
use crate::support::{fixture, read_floats};
use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup_worker::families::{Model, ModelInputs, Pass, Precision};
use tch::{Kind, Reduction, Tensor};

fn ingredients(folder: &Path) -> Vec<PathBuf> {
    ["a", "b"].iter().map(|name| folder.join("zoo").join(name)).collect()
}

fn spec(folder: &Path) -> ZooSpec {
    ZooSpec { architecture: Some(folder.join("exported")), ..zoo_spec(Some(Family::Torchscript)) }
}

fn load(case: &str) -> Box<dyn Model> {
    let folder = fixture("exported").join(case);
    try_load_in(Kind::Float, &ingredients(&folder), &spec(&folder)).unwrap_or_else(|error| panic!("{error}")).1
}

/// Asserts that values are those of the golden file, which is in f64. A graph computes in f32: it has casts to that.
fn close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(found.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-5 * scale, "{what}[{i}]: found {f}, expected {e}");
    }
}

fn outputs(model: &dyn Model, inputs: &Tensor, pass: Pass) -> Tensor {
    model.outputs(&ModelInputs::from(inputs.shallow_clone()), pass.full()).unwrap()
}

/// Logits with own and with the batch's statistics, loss and gradients. Answers the golden file and the inputs.
fn check(case: &str, model: &dyn Model) -> (PathBuf, Tensor) {
    let golden = fixture("exported").join(case).join("golden.safetensors");
    let floats = read_floats(&golden);
    let (inputs, labels) = (tensor(&golden, "inputs", Kind::Float), tensor(&golden, "labels", Kind::Int64));
    close("score", &tch::no_grad(|| outputs(model, &inputs, Pass::Score)), &floats["score64"]);
    let logits = outputs(model, &inputs, Pass::Learn);
    close("logits", &logits.detach(), &floats["logits64"]);
    let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
    close("loss", &loss.detach(), &floats["loss64"]);
    loss.backward();
    let mut checked = 0;
    for (name, parameter) in model.parameters().iter().filter(|(_, parameter)| parameter.grad().defined()) {
        close(name, &parameter.grad(), &floats[&format!("grad64.{name}")]);
        checked += 1;
    }
    assert_eq!(checked, floats.keys().filter(|key| key.starts_with("grad64.")).count());
    // Learning leaves running statistics as they were.
    close("score", &tch::no_grad(|| outputs(model, &inputs, Pass::Score)), &floats["score64"]);
    (golden, inputs)
}

#[test]
fn a_graph_with_other_names_on_disk_equals_transformers() {
    let model = load("renamed");
    let _golden = check("renamed", model.as_ref());
    assert!(model.parameters().contains_key("dinov2.encoder.layer.0.attention.attention.query.weight"));
    assert!(model.statistics().is_none());
    assert_eq!(model.classes(), Some(3));
}

#[test]
fn a_graph_with_batch_normalisation_equals_transformers() {
    let model = load("batch-norm");
    let (golden, inputs) = check("batch-norm", model.as_ref());
    let floats = read_floats(&golden);
    let statistics = model.statistics().unwrap();
    tch::no_grad(|| {
        for seen in 0..2 {
            let _logits =
                outputs(model.as_ref(), &inputs.narrow(0, 3 * seen, 3), Pass::Collect { seen: seen as usize });
        }
    });
    assert_eq!(statistics.len(), floats.keys().filter(|key| key.starts_with("collected64.")).count());
    for (name, found) in statistics {
        close(name, found, &floats[&format!("collected64.{name}")]);
    }
}

/// The engine puts leaves that the family rounds in bf16 before a pass in it.
fn set_precision(model: &dyn Model, kind: Kind) {
    for (name, parameter) in model.parameters().iter().filter(|(_, parameter)| parameter.requires_grad()) {
        let mut parameter = parameter.shallow_clone();
        if model.rounds(name) {
            let held = parameter.detach().to_kind(kind);
            parameter.set_data(&held);
        }
        parameter.zero_grad();
    }
}

/// Distance of two tensors over the length of the second.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    let length = |tensor: &Tensor| tensor.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]).sqrt();
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    length(&(found - &expected)) / length(&expected).max(1e-3)
}

#[test]
fn a_graph_learns_in_bf16_as_pytorch_does_and_is_the_same_in_f32_afterwards() {
    for case in ["renamed", "batch-norm"] {
        let model = load(case);
        assert!(model.knows_bf16(), "{case}");
        let (golden, inputs) = check(case, model.as_ref());
        let before = tch::no_grad(|| outputs(model.as_ref(), &inputs, Pass::Score));
        set_precision(model.as_ref(), Kind::BFloat16);
        let named = ModelInputs::from(inputs.shallow_clone());
        let logits = model.outputs(&named, Pass::Learn.with(Precision::Bf16)).unwrap();
        assert_eq!(logits.kind(), Kind::Float);
        assert!(relative(&logits.detach(), &tensor(&golden, "logits16", Kind::Float)) < 0.01, "{case}");
        let labels = tensor(&golden, "labels", Kind::Int64);
        logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0).backward();
        for name in read_floats(&golden).keys().filter(|key| key.starts_with("grad16.")) {
            let parameter = &model.parameters()[&name["grad16.".len()..]];
            let distance = relative(&parameter.grad(), &tensor(&golden, name, Kind::Float));
            assert!(distance < 0.03, "{case}, {name}: {distance}");
        }
        set_precision(model.as_ref(), Kind::Float);
        let zoo = ingredients(&fixture("exported").join(case));
        write(&zoo[0], model.as_ref());
        let after = tch::no_grad(|| outputs(model.as_ref(), &inputs, Pass::Score));
        assert_eq!(before, after, "{case}");
    }
}

/// Writes an ingredient's tensors to those that require gradients.
fn write(ingredient: &Path, model: &dyn Model) {
    for (name, parameter) in model.parameters().iter().filter(|(_, parameter)| parameter.requires_grad()) {
        let values = tensor(&ingredient.join("model.safetensors"), name, Kind::Float);
        tch::no_grad(|| parameter.shallow_clone().copy_(&values));
    }
}

fn copy_of(case: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let folder = fixture("exported").join(case);
    for file in walk(&folder) {
        let to = copy.path().join(file.strip_prefix(&folder).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, to).unwrap();
    }
    copy
}

/// A copy of a case, changed, and what is said then.
fn refused(case: &str, change: impl FnOnce(&Path)) -> String {
    let copy = copy_of(case);
    change(copy.path());
    let loaded = try_load_in(Kind::Float, &ingredients(copy.path()), &spec(copy.path()));
    loaded.err().unwrap_or_else(|| panic!("nothing was refused")).to_string()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Writes a file of the export, and its hash where that is to be right.
fn rewrite(folder: &Path, name: &str, change: impl FnOnce(String) -> String, with_hash: bool) {
    let path = folder.join("exported").join(name);
    let before = fs::read(&path).unwrap();
    let after = change(String::from_utf8(before.clone()).unwrap());
    fs::write(&path, &after).unwrap();
    if with_hash {
        let sums = folder.join("exported/BLAKE3SUMS");
        let hex = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let changed = fs::read_to_string(&sums).unwrap().replace(&hex(&before), &hex(after.as_bytes()));
        fs::write(sums, changed).unwrap();
    }
}

#[test]
fn exports_that_were_changed_are_refused() {
    let said = refused("renamed", |folder| {
        let graph = folder.join("exported/graph.pt");
        let mut bytes = fs::read(&graph).unwrap();
        bytes.push(0);
        fs::write(graph, bytes).unwrap();
    });
    assert!(said.contains("graph.pt: was changed after the export: expected blake3 "), "{said}");
    let classes = |text: String| text.replace("\"classes\": 3", "\"classes\": 4");
    let said = refused("renamed", |folder| rewrite(folder, "export.json", classes, false));
    assert!(said.contains("export.json: was changed after the export"), "{said}");
    let version = |text: String| text.replace("\"version\": 1", "\"version\": 2");
    let said = refused("renamed", |folder| rewrite(folder, "export.json", version, true));
    assert!(said.contains("expected `mehl-soup export` of version 1, found `mehl-soup export` of version 2"), "{said}");
    let said = refused("renamed", |folder| fs::remove_file(folder.join("exported/BLAKE3SUMS")).unwrap());
    assert!(said.contains("BLAKE3SUMS: ") && said.contains("make the folder again with"), "{said}");
}

#[test]
fn tensors_that_do_not_map_are_named_on_both_sides() {
    let other = |text: String| text.replace("dinov2.layernorm.", "dinov2.norm.");
    let said = refused("renamed", |folder| rewrite(folder, "export.json", other, true));
    let expected = "only in the graph: dinov2.norm.bias, dinov2.norm.weight; \
                    only in the ingredient: dinov2.layernorm.bias, dinov2.layernorm.weight. \
                    Make the graph from an ingredient of this zoo: python -m mehl_soup export ";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn values_that_cannot_be_mixed_are_refused() {
    // As if the weight of a norm were a buffer: the ingredients differ in it.
    let buffer = |text: String| text.replace("\"buffers\": []", "\"buffers\": [\"dinov2.layernorm.weight\"]");
    let said = refused("renamed", |folder| rewrite(folder, "export.json", buffer, true));
    assert!(said.contains("dinov2.layernorm.weight: is a buffer and no running statistic"), "{said}");
    let unknown = |text: String| {
        let (before, rest) = text.split_once("\"statistics\": [").unwrap();
        let (_, after) = rest.split_once(']').unwrap();
        format!("{before}\"statistics\": []{after}")
    };
    let said = refused("batch-norm", |folder| rewrite(folder, "export.json", unknown, true));
    assert!(said.contains("running_mean: ingredients differ in it, but the graph does not compute it anew"), "{said}");
}

#[test]
fn a_graph_with_other_constants_is_refused() {
    let name = "resnet.embedder.embedder.normalization.num_batches_tracked";
    let constants = |hash: &str| {
        let entry = format!("\"constants\": {{\"{name}\": \"{hash}\"}}");
        move |text: String| text.replace("\"constants\": {}", &entry)
    };
    let said = refused("batch-norm", |folder| rewrite(folder, "export.json", constants(&"0".repeat(64)), true));
    assert!(said.contains(&format!("{name}: is a constant of the graph")), "{said}");
    let copy = copy_of("batch-norm");
    let own = blake3::hash(&0_i64.to_le_bytes()).to_hex();
    rewrite(copy.path(), "export.json", constants(&own), true);
    assert!(try_load_in(Kind::Float, &ingredients(copy.path()), &spec(copy.path())).is_ok());
}

#[test]
fn another_version_of_torch_is_noted() {
    assert!(load("renamed").assumed().is_empty());
    let copy = copy_of("renamed");
    rewrite(copy.path(), "export.json", |text| text.replace("\"torch\": \"2.11.0", "\"torch\": \"2.9.1"), true);
    let (_, model) = try_load_in(Kind::Float, &ingredients(copy.path()), &spec(copy.path())).unwrap();
    let [note] = model.assumed() else { panic!("one note") };
    assert!(note.starts_with("a graph that torch 2.9.1"), "{note}");
}
