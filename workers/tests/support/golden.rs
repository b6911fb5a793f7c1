//! Loads miniature models and compares them with their golden files.

#![allow(clippy::unwrap_used, reason = "a test that fails by unwrapping says all that is needed")]

use std::path::{Path, PathBuf};

use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use mehl_soup_worker::families::{self, FamilyError, Model, ModelInputs, Pass};
use tch::{Device, Kind, Reduction, Tensor};

use super::read_floats;

/// f64 on both sides: what is left is the order of sums.
pub const TOLERANCE: f64 = 1e-10;

/// What a specification says of a zoo: nothing but the family.
pub fn zoo_spec(family: Option<Family>) -> ZooSpec {
    ZooSpec { family, ..ZooSpec::of(Vec::new()) }
}

/// The model of a zoo in f64, with the first ingredient's values.
pub fn try_load(paths: &[PathBuf], spec: &ZooSpec) -> Result<(Family, Box<dyn Model>), FamilyError> {
    try_load_in(Kind::Double, paths, spec)
}

/// Like [`try_load`], with parameters of another dtype.
pub fn try_load_in(kind: Kind, paths: &[PathBuf], spec: &ZooSpec) -> Result<(Family, Box<dyn Model>), FamilyError> {
    let zoo = Zoo::open(paths).unwrap();
    let hashes = zoo.hash(None, &mut |_, _| {}).unwrap();
    let layout = Layout::new(&zoo, &hashes).unwrap();
    let family = families::detect(spec.family, &zoo)?;
    let model = families::load(family, spec, &zoo, &layout, Device::Cpu, kind)?;
    let mut one_hot = vec![0.0; paths.len()];
    one_hot[0] = 1.0;
    for (name, tensor) in model.parameters().iter().chain(model.statistics().into_iter().flatten()) {
        mehl_soup_worker::hyperplane::write_soup(&zoo, name, &one_hot, tensor).unwrap();
    }
    Ok((family, model))
}

/// Like [`try_load`], of what can be loaded.
pub fn load(paths: &[PathBuf], spec: &ZooSpec) -> Box<dyn Model> {
    try_load(paths, spec).unwrap_or_else(|error| panic!("{error}")).1
}

/// Asserts that values are equal within the tolerance, seen from the largest.
pub fn close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(found.contiguous().view(-1)).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= TOLERANCE * scale, "{what}[{i}]: found {f}, expected {e}");
    }
}

/// Asserts that logits, loss and gradients are those of the golden file, whose names are those on disk after `disk_prefix`.
pub fn check(model: &dyn Model, inputs: &[Tensor], labels: &Tensor, golden: &Path, disk_prefix: &str) {
    let named = inputs.iter().enumerate().map(|(i, tensor)| (format!("input{i}"), tensor.shallow_clone()));
    check_named(model, &ModelInputs::new(named.collect()), labels, golden, disk_prefix);
}

/// Like [`check`], of a model that knows its inputs by name.
pub fn check_named(model: &dyn Model, inputs: &ModelInputs, labels: &Tensor, golden: &Path, disk_prefix: &str) {
    let golden = read_floats(golden);
    let logits = model.outputs(inputs, Pass::Learn.full()).unwrap();
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

/// A tensor of a safetensors file.
pub fn tensor(path: &Path, name: &str, kind: Kind) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let stored = if view.dtype() == safetensors::Dtype::F32 { Kind::Float } else { Kind::Int64 };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Tensor::from_data_size(view.data(), &shape, stored).to_kind(kind)
}
