//! Any differentiable module saved by `torch.jit`, with any number of tensor inputs and one tensor of logits.
//!
//! Parameters are matched to the ingredients' tensors by name after a common prefix on either side. Buffers are the module's own and stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mehl_soup::zoo::{Layout, LayoutTensor, TensorClass, Zoo};
use mehl_soup::{source, untrusted};
use tch::{CModule, Device, Kind, TchError, Tensor};

use super::export_description::{COMMAND, holds, torch_fault, what_else};
use super::{FamilyError, Forward, Model, ModelInputs, State, is_mixed, list};

/// A TorchScript module.
pub struct TorchScript {
    module: CModule,
    hash: String,
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
        let read = |source| FamilyError::Torch { file: path.display().to_string(), source: TchError::Io(source) };
        let bytes = source::of(path).read(path, u64::MAX).map_err(read)?;
        let hash = blake3::hash(&bytes).to_hex();
        // What was looked up is what runs: the file may be another by now.
        untrusted::check_module(path, &hash).map_err(read)?;
        let mut module = load_module(path, &bytes, device)?;
        module.f_set_eval().map_err(torch)?;
        if holds(&bytes, "running_mean") {
            return Err(FamilyError::Config {
                file: path.display().to_string(),
                what: format!(
                    "the module has running statistics of batch normalisation. All ingredients would be scored with \
                     these, and a soup would have no others. `{COMMAND}` makes a graph that takes those of each ingredient \
                     and computes those of a soup"
                ),
            });
        }
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
        let mut parameters: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut matched = BTreeSet::new();
        for (name, tensor) in own {
            let disk = matching.disk_name(&name);
            let own_name = disk.clone();
            matched.insert(disk.clone());
            let Some(info) = first.info(&disk) else {
                faults.push(format!("{disk}: expected shape {:?}, found no such tensor", tensor.size()));
                continue;
            };
            if info.shape.iter().map(|&d| d as i64).ne(tensor.size()) {
                faults.push(format!("{disk}: expected shape {:?}, found {:?}", tensor.size(), info.shape));
                continue;
            }
            // One tensor under two names: the first has it, and the soup keeps the two equal if all ingredients do.
            if let Some((first, _)) = parameters.iter().find(|(_, p): &(_, &Tensor)| p.data_ptr() == tensor.data_ptr())
            {
                let tied = |t: &LayoutTensor| t.name == disk && (t.tied_to.is_some() || t.class != TensorClass::Mixed);
                let first_tied = |t: &LayoutTensor| t.name == *first && t.tied_to.as_deref() == Some(&disk);
                if !layout.tensors.iter().any(|t| tied(t) || first_tied(t)) {
                    faults.push(format!(
                        "{disk}: expected the same values as {first}, because the module ties them, found different ones"
                    ));
                }
                continue;
            }
            parameters.insert(disk, with_values(tensor, kind, is_mixed(layout, &own_name)).map_err(torch)?);
        }
        for tensor in layout.tensors.iter().filter(|t| t.class != TensorClass::Copied) {
            if !matched.contains(&tensor.name) {
                faults.push(format!(
                    "{}: expected no such tensor: it is not a parameter of the module. A module has its own buffers, which \
                     are not those of an ingredient. `{COMMAND}` makes a graph that takes both from the ingredients",
                    tensor.name
                ));
            }
        }
        let hash = format!("torchscript {hash}");
        if faults.is_empty() { Ok(Self { module, hash, parameters }) } else { Err(fault(faults)) }
    }
}

/// A module that computes the same bits from the first call on.
pub(super) fn load_module(path: &Path, bytes: &[u8], device: Device) -> Result<CModule, FamilyError> {
    let torch = torch_fault(path);
    // The profiling executor runs another program after the first calls than during them, so that a resumed task would round
    // differently from one that was never interrupted.
    tch::jit::f_set_profiling_mode(false).map_err(&torch)?;
    tch::jit::f_set_tensor_expr_fuser_enabled(false).map_err(&torch)?;
    tch::jit::f_set_graph_executor_optimize(false).map_err(&torch)?;
    let mut rest = bytes;
    CModule::load_data_on_device(&mut rest, device).map_err(|source| {
        // Beside its code, an archive of torch.jit has its constants.
        if holds(bytes, "constants.pkl") {
            return torch(source);
        }
        FamilyError::Config {
            file: path.display().to_string(),
            what: format!(
                "expected a module saved by torch.jit.save, found {}; make one with `{COMMAND}`",
                what_else(bytes)
            ),
        }
    })
}

/// A parameter as the engine needs it: contiguous, in the dtype that is computed in. The module sees the change, as it is the same tensor.
pub(super) fn with_values(mut tensor: Tensor, kind: Kind, moves: bool) -> Result<Tensor, TchError> {
    let data = tch::no_grad(|| tensor.f_detach()?.f_to_kind(kind)?.f_contiguous())?;
    tensor.f_set_data(&data)?;
    tensor.f_set_requires_grad(moves)
}

impl Model for TorchScript {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        &self.parameters
    }

    fn first_part(&self, inputs: &ModelInputs, _: Forward) -> Result<State, TchError> {
        Ok(self.module.forward_ts(&inputs.tensors())?.into())
    }

    /// A module's own code decides on dtypes, and its constants and casts would meet tensors of another.
    fn knows_bf16(&self) -> bool {
        false
    }

    fn architecture(&self) -> serde_json::Value {
        serde_json::json!({ "module": self.hash })
    }

    fn architecture_1(&self) -> Option<String> {
        Some(self.hash.clone())
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
