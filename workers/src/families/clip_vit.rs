//! CLIP's visual tower as an image classifier, by OpenAI's names or Hugging Face's.
//!
//! Follows Radford et al. 2021 (arXiv 2103.00020): pre-norm blocks behind a norm of the embeddings, QuickGELU. OpenAI's features, the
//! projected class token, are divided by their Euclidean norm before the head, as in the wrapper of mlfoundations/model-soups.
//! `CLIPForImageClassification` takes the mean of the patches' last tokens instead.

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::clip_config::ClipConfig;
use super::layers::{self, Weights};
use super::{FamilyError, Forward, Model, ModelInputs, Precision, State, expected, identity};

/// A CLIP image classifier.
pub(super) struct ClipVit {
    config: ClipConfig,
    assumed: Vec<String>,
    weights: Weights,
}

impl ClipVit {
    /// From a zoo of safetensors files by OpenAI's names, or of Hugging Face folders.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let (config, assumed) = ClipConfig::from_zoo(spec, zoo)?;
        let file = zoo.ingredients()[0].path().display().to_string();
        let parameters = expected::leaves(&config.tensors(), layout, device, kind)
            .map_err(|source| FamilyError::Torch { file, source })?;
        Ok(Self { config, assumed, weights: Weights::new("", parameters) })
    }

    fn embed(&self, pixels: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let name = |layer: &str| format!("{}{layer}", c.tower);
        let patches = w.patches(pixels, &name(c.naming.patches), precision)?;
        let class = w.tokens(pixels.size()[0], &name(c.naming.class))?;
        let tokens = Tensor::f_cat(&[class, patches], 1)?.f_add(w.get(&name(c.naming.positions))?)?;
        w.layer_norm(&tokens, &name(c.naming.before), c.eps)
    }

    fn attention(&self, x: &Tensor, block: &str) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let [query, key, value] = if c.is_openai() {
            let (weight, bias) = (format!("{block}.attn.in_proj_weight"), format!("{block}.attn.in_proj_bias"));
            layers::split_fused(&w.product(x, w.get(&weight)?, Some(w.get(&bias)?))?, c.heads)?
        } else {
            let split = |part: &str| layers::split_heads(&w.linear(x, &format!("{block}.self_attn.{part}"))?, c.heads);
            [split("q_proj")?, split("k_proj")?, split("v_proj")?]
        };
        w.linear(&layers::attention(&query, &key, &value)?, &format!("{block}.{}", c.naming.out))
    }

    fn block(&self, block: usize, x: &Tensor, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let [first, second] = c.naming.norms;
        let [up, down] = c.naming.perceptron;
        let block = format!("{}{}.{block}", c.tower, c.naming.blocks);
        let norm = |x: &Tensor, name: &str| precision.narrow(&w.layer_norm(x, &format!("{block}.{name}"), c.eps)?);
        let x = x.f_add(&self.attention(&norm(x, first)?, &block)?)?;
        let hidden = w.linear(&norm(&x, second)?, &format!("{block}.{up}"))?;
        x.f_add(&w.linear(&c.activation.apply(hidden)?, &format!("{block}.{down}"))?)
    }

    /// `[N, features]` of the last tokens.
    fn features(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        if !c.is_openai() {
            return x.f_slice(1, 1, None, 1)?.f_mean_dim(1, false, None::<Kind>);
        }
        let class = w.layer_norm(&x.f_select(1, 0)?, &format!("{}ln_post", c.tower), c.eps)?;
        let features = class.f_matmul(w.get(&format!("{}proj", c.tower))?)?;
        features.f_div(&features.f_norm_scalaropt_dim(2.0, -1, true)?)
    }
}

impl Model for ClipVit {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.layers as usize + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let c = &self.config;
        let after = [format!("{}.", c.head), format!("{}ln_post.", c.tower), format!("{}proj", c.tower)];
        let after: Vec<&str> = after.iter().map(String::as_str).collect();
        layers::part_of(name, &format!("{}{}.", c.tower, c.naming.blocks), &after, self.parts() - 1)
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        Ok(self.embed(layers::only_input(inputs, "a CLIP ViT")?, how.precision)?.into())
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let x = &state.hidden;
        let hidden = match part {
            last if last + 1 == self.parts() => self.weights.linear(&self.features(x)?, &self.config.head)?,
            block => self.block(block - 1, x, how.precision)?,
        };
        Ok(state.with_hidden(hidden))
    }

    /// A key's bias adds the same to all of a query's attention logits, and softmax ignores that. OpenAI's is a part of a tensor that counts.
    fn gradient_free(&self, name: &str) -> bool {
        name.ends_with(".self_attn.k_proj.bias")
    }

    /// Projections of blocks and of patches.
    fn rounds(&self, name: &str) -> bool {
        let (names, inner) = (&self.config.naming, name.strip_prefix(&self.config.tower).unwrap_or(name));
        inner.strip_prefix(names.patches).is_some_and(|rest| rest.starts_with('.'))
            || inner.strip_prefix(names.blocks).is_some_and(|rest| rest.starts_with('.'))
                && !names.norms.iter().any(|norm| inner.contains(&format!(".{norm}.")))
    }

    fn assumed(&self) -> &[String] {
        &self.assumed
    }

    fn architecture(&self) -> serde_json::Value {
        identity::clip(&self.config)
    }

    fn architecture_1(&self) -> Option<String> {
        Some(identity::version_1::clip(&self.config))
    }

    fn input_shapes(&self) -> Option<Vec<Vec<i64>>> {
        Some(vec![vec![self.config.channels, self.config.image, self.config.image]])
    }

    fn classes(&self) -> Option<i64> {
        Some(self.config.classes)
    }
}
