//! timm's ViT and DeiT, on tensors named as on disk.
//!
//! Follows `timm.models.vision_transformer` and `timm.models.deit` (1.0.31): fused projections of queries, keys and values, class token or
//! average pooling, register tokens, norm before the blocks, LayerScale (Touvron et al. 2021, arXiv 2103.17239), norms of queries and keys,
//! distilled heads (arXiv 2012.12877). What is there is what has tensors.

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{self, Weights};
use super::timm_config::{Pool, TimmConfig};
use super::{FamilyError, Forward, Model, ModelInputs, Precision, State, expected, identity};

/// A ViT or DeiT by timm's names.
pub(super) struct TimmVit {
    config: TimmConfig,
    assumed: Vec<String>,
    weights: Weights,
}

impl TimmVit {
    /// From a zoo of folders as timm saves them, or of safetensors files.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let (config, assumed) = TimmConfig::from_zoo(spec, zoo)?;
        let first = &zoo.ingredients()[0];
        let parameters = expected::leaves(&config.tensors(first), layout, device, kind)
            .map_err(|source| FamilyError::Torch { file: first.path().display().to_string(), source })?;
        Ok(Self { weights: Weights::new(config.root.clone(), parameters), config, assumed })
    }

    /// A layer norm that may be left out.
    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor, TchError> {
        match self.weights.find(&format!("{name}.weight")) {
            Some(_) => self.weights.layer_norm(x, name, self.config.eps),
            None => Ok(x.shallow_clone()),
        }
    }

    fn embed(&self, pixels: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w, n) = (&self.config, &self.weights, pixels.size()[0]);
        let mut patches = w.patches(pixels, "patch_embed.proj", precision)?;
        let positions = w.get("pos_embed")?;
        if c.positions_of_patches {
            patches = patches.f_add(positions)?;
        }
        let mut tokens = c.special.iter().map(|(name, _)| w.tokens(n, name)).collect::<Result<Vec<_>, _>>()?;
        tokens.push(patches);
        let tokens = Tensor::f_cat(&tokens, 1)?;
        if c.positions_of_patches { Ok(tokens) } else { tokens.f_add(positions) }
    }

    fn attention(&self, x: &Tensor, block: &str, precision: Precision) -> Result<Tensor, TchError> {
        let fused = self.weights.linear(x, &format!("{block}.attn.qkv"))?;
        let [query, key, value] = layers::split_fused(&fused, self.config.heads)?;
        let query = precision.narrow(&self.norm(&query, &format!("{block}.attn.q_norm"))?)?;
        let key = precision.narrow(&self.norm(&key, &format!("{block}.attn.k_norm"))?)?;
        self.weights.linear(&layers::attention(&query, &key, &value)?, &format!("{block}.attn.proj"))
    }

    /// `x + scale y`, without a scale where there is no LayerScale.
    fn add(&self, x: &Tensor, y: &Tensor, scale: &str) -> Result<Tensor, TchError> {
        match self.weights.find(scale) {
            Some(gamma) => x.f_add(&y.f_mul(gamma)?),
            None => x.f_add(y),
        }
    }

    fn block(&self, n: usize, x: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w, block) = (&self.config, &self.weights, format!("blocks.{n}"));
        let norm = |x: &Tensor, name: &str| precision.narrow(&self.norm(x, &format!("{block}.{name}"))?);
        let attended = self.attention(&norm(x, "norm1")?, &block, precision)?;
        let x = self.add(x, &attended, &format!("{block}.ls1.gamma"))?;
        let hidden = w.linear(&norm(&x, "norm2")?, &format!("{block}.mlp.fc1"))?;
        let hidden = w.linear(&c.activation.apply(hidden)?, &format!("{block}.mlp.fc2"))?;
        self.add(&x, &hidden, &format!("{block}.ls2.gamma"))
    }

    /// Logits of the last tokens `[N, tokens, width]`.
    fn classify(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let x = self.norm(x, "norm")?;
        match c.pool {
            Pool::Token => w.linear(&self.norm(&x.f_select(1, 0)?, "fc_norm")?, "head"),
            Pool::Mean { with_special } => {
                let special = if with_special { 0 } else { c.special.iter().map(|(_, tokens)| tokens).sum() };
                let mean = x.f_slice(1, special, None, 1)?.f_mean_dim(1, false, None::<Kind>)?;
                w.linear(&self.norm(&mean, "fc_norm")?, "head")
            }
            Pool::Distilled => {
                let class = w.linear(&x.f_select(1, 0)?, "head")?;
                class.f_add(&w.linear(&x.f_select(1, 1)?, "head_dist")?)?.f_div_scalar(2.0)
            }
        }
    }
}

impl Model for TimmVit {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.layers as usize + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let after = ["norm.", "fc_norm.", "head.", "head_dist."];
        layers::part_of(self.weights.local(name), "blocks.", &after, self.parts() - 1)
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        let tokens = self.embed(layers::only_input(inputs, "a ViT")?, how.precision)?;
        Ok(self.norm(&tokens, "norm_pre")?.into())
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let x = &state.hidden;
        let hidden = match part {
            last if last + 1 == self.parts() => self.classify(x)?,
            block => self.block(block - 1, x, how.precision)?,
        };
        Ok(state.with_hidden(hidden))
    }

    /// A bias of the keys' norm adds the same to all of a query's attention logits, and softmax ignores that. The keys' own bias is a part of
    /// a tensor that counts.
    fn gradient_free(&self, name: &str) -> bool {
        name.ends_with(".attn.k_norm.bias")
    }

    /// Projections of blocks and of patches.
    fn rounds(&self, name: &str) -> bool {
        let layers = [".attn.qkv.", ".attn.proj.", ".mlp.fc1.", ".mlp.fc2."];
        name.contains("patch_embed.proj.")
            || name.contains("blocks.") && layers.iter().any(|layer| name.contains(layer))
    }

    fn assumed(&self) -> &[String] {
        &self.assumed
    }

    fn architecture(&self) -> serde_json::Value {
        identity::timm(&self.config)
    }

    fn architecture_1(&self) -> Option<String> {
        Some(identity::version_1::timm(&self.config))
    }

    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        Some(vec![vec![self.config.channels, self.config.image[0], self.config.image[1]]])
    }

    fn classes(&self) -> Option<i64> {
        Some(self.config.classes)
    }
}
