//! Logits and parameter gradients equal to transformers' and PyTorch's, on miniature models (recipes: `fixtures/make_*.py`).

use crate::support::fixture;
use crate::support::golden::{check, load, tensor, zoo_spec};
use mehl_soup::sweep::spec::{Family, ZooSpec};
use tch::Kind;

fn torchscript(module: &str) -> ZooSpec {
    ZooSpec { architecture: Some(fixture(module)), ..zoo_spec(Some(Family::Torchscript)) }
}

fn vit(case: &str) {
    let folder = fixture("vit").join(case);
    let golden = folder.join("golden.safetensors");
    let model = load(std::slice::from_ref(&folder), &zoo_spec(None));
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
    let model = load(&zoo, &torchscript("text/model.pt"));
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
    let model = load(&zoo, &torchscript("awkward/model.pt"));
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
