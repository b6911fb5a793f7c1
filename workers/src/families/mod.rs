//! Model families: what turns a soup's tensors into logits.
//!
//! A family knows how an architecture computes from tensors named exactly as on disk. Adding one means one file that implements
//! [`Model`] and one line in [`load`]: `docs/add-a-family.md` goes through it. Everything else (mixing, learning, scoring, writing) works on
//! names and tensors alone.
//!
//! | file | holds |
//! |---|---|
//! | `vit`, `clip_vit`, `timm_vit`, `resnet`, `bert`, `modernbert`, `torchscript` | one family each: the forward pass |
//! | `exported`, `export_description` | graphs that `python -m mehl_soup export` makes |
//! | `*_config`, `*_names`, `timm_arguments` | their architectures, from shapes and `config.json` |
//! | `expected` | what a family expects of tensors and configurations, compared with what is there |
//! | `text_inputs` | what text models take: tokens, mask, token types |
//! | `text_outputs`, `sentence` | what they give: logits, or embeddings as sentence-transformers makes them |
//! | `layers`, `activation`, `rotary` | what families are made of |
//! | `forward` | statistics and dtype of a forward pass |
//! | `state` | what goes into a model, and from part to part |

mod activation;
mod bert;
mod bert_config;
mod bert_names;
mod clip_config;
mod clip_vit;
mod expected;
mod export_description;
mod exported;
mod forward;
mod identity;
mod layers;
mod modernbert;
mod modernbert_config;
mod resnet;
mod resnet_config;
mod rotary;
mod sentence;
mod state;
mod text_inputs;
mod text_outputs;
mod timm_arguments;
mod timm_config;
mod timm_names;
mod timm_vit;
mod torchscript;
mod vit;
mod vit_config;

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{Family, LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, TensorClass, Zoo};
use tch::{Device, Kind, TchError, Tensor};

pub use forward::{Forward, Pass, Precision};
pub use state::{ExpectedInput, Extent, InputKind, ModelInputs, State};
pub use vit::Vit;
pub use vit_config::VitConfig;

/// A model on one device, whose parameters the engine overwrites in place with the soup.
pub trait Model {
    /// All float parameters by their names on disk, sorted: contiguous leaf tensors. Those that the soup moves require gradients. While coefficients are
    /// learned in bf16, those that the family [rounds](Model::rounds) may be in bf16.
    fn parameters(&self) -> &BTreeMap<String, Tensor>;

    /// Parts that the forward pass is cut in, at least 1: what is before the blocks, each block, what is after them. A family of one part takes as
    /// much memory for its activations with `compute.recompute` as without.
    fn parts(&self) -> usize {
        1
    }

    /// The first part that uses a parameter. Once the backward pass has gone through that part, the gradient of the parameter is complete, and is
    /// freed. 0 is right for any parameter: its gradient is kept until the end of the pass. A part that is too late ends the pass with an error.
    fn first_part_of(&self, _name: &str) -> usize {
        0
    }

    /// Asks for the library that computes large linear layers in f32 on the CPU from now on, and answers the one that does. Before the first call it is libtorch's
    /// choice, which is also the answer of families that do not have the choice.
    fn use_linear_library(&self, _library: LinearLibrary) -> LinearLibrary {
        LinearLibrary::Libtorch
    }

    /// The state after the first part, of inputs in the order of `data.inputs`.
    ///
    /// Deterministic on the CPU for a given number of threads; without dropout. `how.pass` matters only to families with [running
    /// statistics](Model::statistics). A parameter may belong to several parts.
    ///
    /// # Errors
    /// What libtorch reports, shapes included.
    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError>;

    /// The state after a later part, from 1, of the state before it. `hidden` of the last part are the outputs that the objective takes (logits
    /// `[N, classes]` for classification), in the dtype of the parameters. Never called for families of one part.
    ///
    /// # Errors
    /// As [`Model::first_part`].
    fn part(&self, part: usize, _state: &State, _how: Forward) -> Result<State, TchError> {
        Err(TchError::Shape(format!("the model has one part, and no part {part}")))
    }

    /// The state after all parts, one after the other.
    ///
    /// # Errors
    /// As [`Model::first_part`].
    fn forward(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        let mut state = self.first_part(inputs, how)?;
        for part in 1..self.parts() {
            state = self.part(part, &state, how)?;
        }
        Ok(state)
    }

    /// Outputs for a batch: `hidden` after all parts.
    ///
    /// # Errors
    /// As [`Model::first_part`].
    fn outputs(&self, inputs: &ModelInputs, how: Forward) -> Result<Tensor, TchError> {
        Ok(self.forward(inputs, how)?.hidden)
    }

    /// Whether the family knows [`Precision::Bf16`]; those that do not compute all in the dtype of the parameters.
    fn knows_bf16(&self) -> bool {
        true
    }

    /// Whether `compute.dtype = "auto"` may choose bf16, where the family knows it. Not where norms and residual sums would be in bf16 too.
    fn bf16_is_chosen(&self) -> bool {
        true
    }

    /// Whether a pass in [`Precision::Bf16`] takes a parameter rounded to bf16 and no other way. The engine puts the leaf in bf16 for such a pass: the mix writes what the pass would
    /// have rounded, and the gradient comes back as it was before the pass would have widened it.
    fn rounds(&self, _name: &str) -> bool {
        false
    }

    /// Running statistics (the means and variances of batch normalisation) that belong to a soup and not to its ingredients, by their names
    /// on disk: contiguous tensors without gradient, in the layout those of class [`TensorClass::Statistic`]. `None` for families without.
    fn statistics(&self) -> Option<&BTreeMap<String, Tensor>> {
        None
    }

    /// Whether a parameter cannot change the loss, so that its gradient is pure rounding noise. Such a tensor's coordinates stay 0.
    fn gradient_free(&self, _name: &str) -> bool {
        false
    }

    /// What computes the logits, besides the family's code and the parameters, as JSON of a documented structure
    /// (`docs/formats.md`): part of what a result depends on.
    fn architecture(&self) -> serde_json::Value;

    /// The same as manifests of version 1 have it; `None` for families that are younger than version 2.
    fn architecture_1(&self) -> Option<String> {
        None
    }

    /// Shape of one sample of each input, where the family knows it.
    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        None
    }

    /// What is expected of each input, where the family knows it.
    fn expected_inputs(&self) -> Option<Vec<ExpectedInput>> {
        self.input_shapes().map(|shapes| shapes.iter().map(|shape| ExpectedInput::floats(shape)).collect())
    }

    /// What files do not say and was assumed, one thing each, with the field of `[zoo]` that says otherwise.
    fn assumed(&self) -> &[String] {
        &[]
    }

    /// Whether outputs are embeddings `[N, width]`, and no logits.
    fn gives_embeddings(&self) -> bool {
        false
    }

    /// Number of classes, where the family knows it before the first forward pass.
    fn classes(&self) -> Option<i64> {
        None
    }
}

/// Why a zoo does not make a model.
#[derive(Debug, thiserror::Error)]
pub enum FamilyError {
    /// No family, or none that can be told, fits.
    #[error("cannot determine the model family: {0}")]
    Unknown(String),
    /// `config.json` says something this family does not compute.
    #[error("{file}: {what}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong, with expected and found.
        what: String,
    },
    /// The ingredients' tensors are not those of the model; all differences, one a line.
    #[error("the tensors of {ingredient} do not match the {family} model:\n{faults}")]
    Tensors {
        /// The first ingredient.
        ingredient: String,
        /// The family.
        family: &'static str,
        /// Differences.
        faults: String,
    },
    /// libtorch could not load or build the model.
    #[error("{file}: {source}")]
    Torch {
        /// The module's file, or the ingredient.
        file: String,
        /// Its message.
        source: TchError,
    },
}

/// The family of a zoo: what the specification says, or what the first ingredient's configuration and tensor names say.
///
/// # Errors
/// [`FamilyError::Unknown`] with what was looked at.
pub fn detect(stated: Option<Family>, zoo: &Zoo) -> Result<Family, FamilyError> {
    match stated {
        Some(family) => Ok(family),
        None => mehl_soup::zoo::detect(zoo.reference()).map_err(|e| FamilyError::Unknown(e.to_string())),
    }
}

/// Builds the model of a zoo on a device. What its parameters hold is up to the caller; mixed ones require gradients.
///
/// # Errors
/// If the ingredients' tensors or configuration do not fit the family.
pub fn load(
    family: Family,
    spec: &ZooSpec,
    zoo: &Zoo,
    layout: &Layout,
    device: Device,
    kind: Kind,
) -> Result<Box<dyn Model>, FamilyError> {
    match family {
        Family::Resnet => Ok(Box::new(resnet::Resnet::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::ClipVit => Ok(Box::new(clip_vit::ClipVit::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::TimmVit => Ok(Box::new(timm_vit::TimmVit::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::Bert => Ok(Box::new(bert::Bert::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::Modernbert => Ok(Box::new(modernbert::Modernbert::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::Vit => Ok(Box::new(Vit::from_zoo(spec, zoo, layout, device, kind)?)),
        Family::Torchscript => {
            let path = spec.architecture.as_deref().ok_or_else(|| {
                FamilyError::Unknown("`zoo.family = \"torchscript\"` needs `zoo.architecture`".to_string())
            })?;
            match export_description::read(path)? {
                Some(export) => Ok(Box::new(exported::Exported::load(export, zoo, layout, device, kind)?)),
                None => Ok(Box::new(torchscript::TorchScript::load(path, zoo, layout, device, kind)?)),
            }
        }
    }
}

/// Whether the soup moves a tensor.
fn is_mixed(layout: &Layout, name: &str) -> bool {
    layout.tensors.iter().any(|t| t.name == name && t.class == TensorClass::Mixed)
}

/// Lists faults one a line, the first twenty.
fn list(faults: &[String]) -> String {
    let mut lines: Vec<String> = faults.iter().take(20).map(|fault| format!("  {fault}")).collect();
    if faults.len() > 20 {
        lines.push(format!("  and {} more", faults.len() - 20));
    }
    lines.join("\n")
}
