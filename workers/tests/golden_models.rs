//! Logits and parameter gradients equal to transformers' and PyTorch's, on miniature models (recipes: `fixtures/make_*.py`).

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

mod support;

use std::path::Path;

use mehl_soup::sweep::spec::Family;
use mehl_soup::zoo::{Layout, Zoo};
use mehl_soup_worker::families::{self, Model, Pass};
use support::{fixture, read_floats};
use tch::{Device, Kind, Reduction, Tensor};

/// f64 on both sides: what is left is the order of sums.
const TOLERANCE: f64 = 1e-10;

fn load(paths: &[std::path::PathBuf], family: Option<Family>, architecture: Option<&Path>) -> Box<dyn Model> {
    let zoo = Zoo::open(paths).unwrap();
    let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
    let layout = Layout::new(&zoo, &hashes).unwrap();
    let family = families::detect(family, &zoo).unwrap();
    let model = families::load(family, architecture, &zoo, &layout, Device::Cpu, Kind::Double).unwrap();
    let mut one_hot = vec![0.0; paths.len()];
    one_hot[0] = 1.0;
    for (name, tensor) in model.parameters() {
        mehl_soup_worker::hyperplane::write_soup(&zoo, name, &one_hot, tensor).unwrap();
    }
    model
}

fn close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(found.contiguous().view(-1)).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= TOLERANCE * scale, "{what}[{i}]: found {f}, expected {e}");
    }
}

fn check(model: &dyn Model, inputs: &[Tensor], labels: &Tensor, golden: &Path, disk_prefix: &str) {
    let golden = read_floats(golden);
    let logits = model.logits(inputs, Pass::Learn).unwrap();
    close("logits", &logits.detach(), &golden["logits64"]);
    let loss = logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
    close("loss", &loss.detach(), &golden["loss64"]);
    let names: Vec<&String> = model.parameters().keys().collect();
    let leaves: Vec<&Tensor> = model.parameters().values().collect();
    let gradients = Tensor::run_backward(&[&loss], &leaves, false, false);
    let expected: Vec<&String> = golden.keys().filter(|key| key.starts_with("grad64.")).collect();
    assert_eq!(names.len(), expected.len(), "every parameter has a gradient in the reference");
    for (name, gradient) in names.iter().zip(&gradients) {
        let key = format!("grad64.{}", name.strip_prefix(disk_prefix).unwrap());
        assert!(gradient.defined(), "{name}");
        close(name, gradient, &golden[&key]);
        if model.gradient_free(name) {
            assert!(golden[&key].iter().all(|g| g.abs() < 1e-12), "{name} is said to be without gradient");
        }
    }
}

fn tensor(path: &Path, name: &str, kind: Kind) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let stored = if view.dtype() == safetensors::Dtype::F32 { Kind::Float } else { Kind::Int64 };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, stored).to_kind(kind)
}

fn vit(case: &str) {
    let folder = fixture("vit").join(case);
    let golden = folder.join("golden.safetensors");
    let model = load(std::slice::from_ref(&folder), None, None);
    let pixels = tensor(&golden, "pixel_values", Kind::Double);
    check(model.as_ref(), &[pixels], &tensor(&golden, "labels", Kind::Int64), &golden, "");
}

#[test]
fn vit_equals_transformers() {
    vit("vit");
}

#[test]
fn vit_without_qkv_biases_equals_transformers() {
    vit("vit_nobias_relu");
}

#[test]
fn vit_with_other_activations_equals_transformers() {
    vit("vit_gelu_new");
    vit("vit_quick_gelu");
}

#[test]
fn deit_equals_transformers() {
    vit("deit");
}

#[test]
fn deit_with_teacher_equals_transformers() {
    vit("deit_teacher");
}

#[test]
fn a_scripted_text_classifier_with_two_inputs_equals_pytorch() {
    let zoo: Vec<_> = ["a", "b", "c", "d"].iter().map(|k| fixture(&format!("text/zoo/{k}.safetensors"))).collect();
    let model = load(&zoo, Some(Family::Torchscript), Some(&fixture("text/model.pt")));
    let learn = fixture("text/learn.safetensors");
    let first = |name: &str| tensor(&learn, name, Kind::Int64).narrow(0, 0, 8);
    check(
        model.as_ref(),
        &[first("input_ids"), first("attention_mask")],
        &first("labels"),
        &fixture("text/golden.safetensors"),
        "model.",
    );
}

#[test]
fn a_module_with_an_integer_buffer_a_tied_parameter_and_another_memory_order_equals_pytorch() {
    let zoo: Vec<_> = ["a", "b"].iter().map(|k| fixture(&format!("awkward/zoo/{k}.safetensors"))).collect();
    let model = load(&zoo, Some(Family::Torchscript), Some(&fixture("awkward/model.pt")));
    let learn = fixture("awkward/learn.safetensors");
    let inputs = tensor(&learn, "inputs", Kind::Double);
    check(
        model.as_ref(),
        &[inputs],
        &tensor(&learn, "labels", Kind::Int64),
        &fixture("awkward/golden.safetensors"),
        "",
    );
}
