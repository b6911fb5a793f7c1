//! Any differentiable module saved by `torch.jit`, with any number of tensor inputs and one tensor of logits.
//!
//! Parameters are matched to the ingredients' tensors by name after a common prefix on either side. Buffers are the module's own and stay as they are.

use std::collections::BTreeMap;
use std::path::Path;

use mehl_soup::zoo::{Layout, TensorClass, Zoo};
use tch::{CModule, Device, Kind, TchError, Tensor};

use super::{FamilyError, Model, is_mixed, list};

/// A TorchScript module.
pub struct TorchScript {
    module: CModule,
    parameters: BTreeMap<String, Tensor>,
}

impl TorchScript {
    /// Loads a module and matches its parameters to the zoo's tensors.
    pub(super) fn load(
        path: &Path,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let torch = |source| FamilyError::Torch { file: path.display().to_string(), source };
        // The profiling executor runs another program after the first calls than during them, so that a resumed task would round
        // differently from one that was never interrupted.
        tch::jit::f_set_profiling_mode(false).map_err(torch)?;
        tch::jit::f_set_tensor_expr_fuser_enabled(false).map_err(torch)?;
        tch::jit::f_set_graph_executor_optimize(false).map_err(torch)?;
        let mut module = CModule::load_on_device(path, device).map_err(torch)?;
        module.to(device, kind, false);
        module.f_set_eval().map_err(torch)?;
        let own = module.named_parameters().map_err(torch)?;
        let first = &zoo.ingredients()[0];
        let on_disk: Vec<&str> = first.tensor_names().collect();
        let names: Vec<&str> = own.iter().map(|(name, _)| name.as_str()).collect();
        let fault = |faults: Vec<String>| FamilyError::Tensors {
            ingredient: first.path().display().to_string(),
            family: "torchscript",
            faults: list(&faults),
        };
        let matching = Matching::best(&names, &on_disk);
        let mut faults = Vec::new();
        let mut parameters = BTreeMap::new();
        for (name, tensor) in own {
            let disk = matching.disk_name(&name);
            let Some(info) = first.info(&disk) else {
                faults.push(format!("{disk}: expected shape {:?}, found no such tensor", tensor.size()));
                continue;
            };
            if info.shape.iter().map(|&d| d as i64).ne(tensor.size()) {
                faults.push(format!("{disk}: expected shape {:?}, found {:?}", tensor.size(), info.shape));
                continue;
            }
            let tensor = tensor.f_set_requires_grad(is_mixed(layout, &disk)).map_err(torch)?;
            parameters.insert(disk, tensor);
        }
        for tensor in layout.tensors.iter().filter(|t| t.class == TensorClass::Mixed) {
            if !parameters.contains_key(&tensor.name) {
                faults.push(format!(
                    "{}: expected no such tensor, found one that differs between ingredients and is no parameter of the module",
                    tensor.name
                ));
            }
        }
        if faults.is_empty() { Ok(Self { module, parameters }) } else { Err(fault(faults)) }
    }
}

impl Model for TorchScript {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn logits(&self, inputs: &[Tensor]) -> Result<Tensor, TchError> {
        self.module.forward_ts(inputs)
    }
}

/// How a module's parameter names become names on disk: drop the first `dropped` bytes, put `added` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Matching {
    dropped: usize,
    added: String,
}

impl Matching {
    /// The prefix, on either side, under which most of the module's names are found; the shorter change on a tie.
    fn best(module: &[&str], disk: &[&str]) -> Self {
        let on_disk: std::collections::BTreeSet<&str> = disk.iter().copied().collect();
        let mut candidates = vec![Self { dropped: 0, added: String::new() }];
        if let Some(first) = module.first() {
            for name in disk {
                if let Some(prefix) = name.strip_suffix(first).filter(|p| p.ends_with('.')) {
                    candidates.push(Self { dropped: 0, added: prefix.to_string() });
                }
            }
            for (dot, _) in first.match_indices('.') {
                if module.iter().all(|name| name.starts_with(&first[..=dot])) {
                    candidates.push(Self { dropped: dot + 1, added: String::new() });
                }
            }
        }
        let found = |c: &Self| module.iter().filter(|name| on_disk.contains(c.disk_name(name).as_str())).count();
        candidates
            .into_iter()
            .min_by_key(|c| (std::cmp::Reverse(found(c)), c.dropped + c.added.len()))
            .unwrap_or(Self { dropped: 0, added: String::new() })
    }

    fn disk_name(&self, module_name: &str) -> String {
        format!("{}{}", self.added, &module_name[self.dropped..])
    }
}

#[cfg(test)]
mod tests {
    use super::Matching;

    #[test]
    fn a_common_prefix_is_found_on_either_side() {
        let m = Matching::best(
            &["embed.weight", "head.bias"],
            &["model.embed.weight", "model.head.bias", "x.embed.weight"],
        );
        assert_eq!(m.disk_name("head.bias"), "model.head.bias");
        let m = Matching::best(&["net.a.w", "net.b.w"], &["a.w", "b.w"]);
        assert_eq!(m.disk_name("net.b.w"), "b.w");
        let m = Matching::best(&["a.w", "b.w"], &["a.w", "b.w", "old.a.w"]);
        assert_eq!(m.disk_name("b.w"), "b.w");
    }
}
