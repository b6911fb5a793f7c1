//! Hugging Face ViT and DeiT for image classification, differentiable, on tensors named as on disk.
//!
//! Follows Dosovitskiy et al. 2021 (arXiv 2010.11929) in the layout of transformers: pre-norm blocks, class token, learned positions.
//! DeiT (Touvron et al. 2021, arXiv 2012.12877) adds a distillation token.

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{self, Weights};
use super::vit_config::{self, Head, VitConfig};
use super::{FamilyError, Forward, Model, ModelInputs, Precision, State, expected, identity};

/// A ViT or DeiT whose parameters are plain tensors.
pub struct Vit {
    config: VitConfig,
    classes: i64,
    weights: Weights,
}

impl Vit {
    /// From parameters that are already on a device; names and shapes are those of [`VitConfig::tensors`].
    pub fn from_parameters(config: VitConfig, classes: i64, parameters: BTreeMap<String, Tensor>) -> Self {
        Self { config, classes, weights: Weights::new("", parameters) }
    }

    /// From a zoo whose ingredients are Hugging Face folders.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let fault = expected::config_fault(first);
        let json =
            first.config().ok_or_else(|| fault("expected the configuration of a ViT or DeiT, found none".into()))?;
        let json = expected::completed(json, spec).map_err(&fault)?;
        let config = VitConfig::from_json(&json).map_err(&fault)?;
        expected::agree(zoo, &vit_config::DECISIVE)?;
        let root = expected::root(first, &format!("{}.embeddings.cls_token", config.prefix));
        let head = format!("{root}{}.weight", config.heads_names()[0]);
        let classes = first.info(&head).and_then(|info| info.shape.first().copied()).unwrap_or(0) as i64;
        let tensors =
            config.tensors(classes).into_iter().map(|(name, shape)| (format!("{root}{name}"), shape)).collect();
        expected::compare(&tensors, first, |_| false).map_err(expected::tensor_faults("vit", first))?;
        let parameters = expected::leaves(&tensors, layout, device, kind)
            .map_err(|source| FamilyError::Torch { file: first.path().display().to_string(), source })?;
        Ok(Self { config, classes, weights: Weights::new(root, parameters) })
    }

    /// `[N, tokens, hidden]` of images `[N, channels, size, size]`.
    fn embed(&self, pixels: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, n) = (&self.config, pixels.size()[0]);
        let embeddings = format!("{}.embeddings", c.prefix);
        let projection = format!("{embeddings}.patch_embeddings.projection");
        let patches = self.weights.patches(pixels, &projection, precision)?;
        let mut tokens = vec![self.weights.tokens(n, &format!("{embeddings}.cls_token"))?];
        if c.special_tokens() == 2 {
            tokens.push(self.weights.tokens(n, &format!("{embeddings}.distillation_token"))?);
        }
        tokens.push(patches);
        Tensor::f_cat(&tokens, 1)?.f_add(self.weights.get(&format!("{embeddings}.position_embeddings"))?)
    }

    fn attention(&self, x: &Tensor, block: &str) -> Result<Tensor, TchError> {
        let split = |name: &str| {
            let projected = self.weights.linear(x, &format!("{block}.attention.attention.{name}"))?;
            layers::split_heads(&projected, self.config.heads)
        };
        let mixed = layers::attention(&split("query")?, &split("key")?, &split("value")?)?;
        self.weights.linear(&mixed, &format!("{block}.attention.output.dense"))
    }

    fn block(&self, layer: usize, x: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let block = format!("{}.encoder.layer.{layer}", c.prefix);
        let norm = |x: &Tensor, name: &str| {
            precision.narrow(&w.layer_norm(x, &format!("{block}.{name}"), c.layer_norm_eps)?)
        };
        let x = x.f_add(&self.attention(&norm(x, "layernorm_before")?, &block)?)?;
        let hidden = w.linear(&norm(&x, "layernorm_after")?, &format!("{block}.intermediate.dense"))?;
        x.f_add(&w.linear(&c.activation.apply(hidden)?, &format!("{block}.output.dense"))?)
    }

    /// Logits of the last tokens `[N, tokens, hidden]`.
    fn classify(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        // The norm works on each token alone, and the heads look only at the special ones.
        let special = x.f_slice(1, 0, c.special_tokens(), 1)?;
        let special = w.layer_norm(&special, &format!("{}.layernorm", c.prefix), c.layer_norm_eps)?;
        let class = w.linear(&special.f_select(1, 0)?, c.heads_names()[0])?;
        match c.head {
            Head::ClassToken => Ok(class),
            Head::WithTeacher => {
                let teacher = w.linear(&special.f_select(1, 1)?, c.heads_names()[1])?;
                class.f_add(&teacher)?.f_div_scalar(2.0)
            }
        }
    }
}

impl Model for Vit {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.layers as usize + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let prefix = &self.config.prefix;
        let mut after = vec![format!("{prefix}.layernorm.")];
        after.extend(self.config.heads_names().iter().map(|head| format!("{head}.")));
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        layers::part_of(self.weights.local(name), &format!("{prefix}.encoder.layer."), &after, self.parts() - 1)
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        Ok(self.embed(layers::only_input(inputs, "a ViT")?, how.precision)?.into())
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let x = &state.hidden;
        let hidden = match part {
            last if last + 1 == self.parts() => self.classify(x)?,
            block => self.block(block - 1, x, how.precision)?,
        };
        Ok(state.with_hidden(hidden))
    }

    /// A key's bias adds the same to all of a query's attention logits, and softmax ignores that.
    fn gradient_free(&self, name: &str) -> bool {
        name.ends_with(".attention.attention.key.bias")
    }

    /// Projections of blocks and of patches.
    fn rounds(&self, name: &str) -> bool {
        name.contains(".patch_embeddings.projection.")
            || name.contains(".encoder.layer.") && !name.contains(".layernorm_")
    }

    fn architecture(&self) -> serde_json::Value {
        identity::vit(&self.config)
    }

    fn architecture_1(&self) -> Option<String> {
        Some(identity::version_1::vit(&self.config))
    }

    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        Some(vec![vec![self.config.channels, self.config.image_size, self.config.image_size]])
    }

    fn classes(&self) -> Option<i64> {
        Some(self.classes)
    }
}
