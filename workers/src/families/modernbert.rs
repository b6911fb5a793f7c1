//! Hugging Face ModernBERT, differentiable, on tensors named as on disk.
//!
//! Follows Warner et al. 2024 (arXiv 2412.13663) in the layout of transformers 5.23
//! (`modeling_modernbert.py`): pre-norm blocks, rotary positions, attention to all tokens in some
//! blocks and within a window in the others, and a perceptron whose hidden layer is gated (GeGLU).

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{self, Weights};
use super::modernbert_config::ModernbertConfig;
use super::rotary::Rotary;
use super::sentence::Pooling;
use super::{ExpectedInput, FamilyError, Forward, Model, ModelInputs, Precision, State, expected, identity};

/// A ModernBERT whose parameters are plain tensors.
pub(super) struct Modernbert {
    config: ModernbertConfig,
    weights: Weights,
    /// Positions in blocks that see all tokens, and in those with a window.
    rotary: [Rotary; 2],
}

impl Modernbert {
    /// From a zoo whose ingredients are Hugging Face folders.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let config = ModernbertConfig::from_zoo(spec, zoo)?;
        let file = zoo.ingredients()[0].path().display().to_string();
        let parameters = expected::leaves(&config.tensors(), layout, device, kind)
            .map_err(|source| FamilyError::Torch { file, source })?;
        let weights = Weights::new(config.root.clone(), parameters);
        let rotary = [config.global_theta, config.local_theta]
            .map(|theta| Rotary::new(config.hidden_size / config.heads, theta, kind, device));
        Ok(Self { config, weights, rotary })
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor, TchError> {
        self.weights.layer_norm(x, name, self.config.norm_eps)
    }

    /// Which keys the queries of a block see, for tokens `[N, T, width]`; `None`: all of them.
    fn seen(&self, layer: usize, x: &Tensor, mask: Option<&Tensor>) -> Result<Option<Tensor>, TchError> {
        let (keys, tokens, device) = (layers::seen_keys(mask)?, x.size()[1], x.device());
        let reach = self.config.reach;
        if self.config.global[layer] || tokens <= reach + 1 {
            return Ok(keys);
        }
        let positions = Tensor::f_arange(tokens, (Kind::Int64, device))?;
        let distance = positions.f_unsqueeze(0)?.f_sub(&positions.f_unsqueeze(1)?)?.f_abs()?;
        let window = distance.f_le(reach)?;
        match keys {
            Some(keys) => keys.f_logical_and(&window).map(Some),
            None => Ok(Some(window)),
        }
    }

    fn attention(&self, layer: usize, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let name = format!("{}layers.{layer}.attn", c.base);
        let [global, local] = &self.rotary;
        let rotary = if c.global[layer] { global } else { local };
        let [query, key, value] = layers::split_fused(&w.linear(x, &format!("{name}.Wqkv"))?, c.heads)?;
        let seen = self.seen(layer, x, mask)?;
        let mixed = layers::masked_attention(&rotary.turn(&query)?, &rotary.turn(&key)?, &value, seen.as_ref())?;
        w.linear(&mixed, &format!("{name}.Wo"))
    }

    fn perceptron(&self, layer: usize, x: &Tensor) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let name = format!("{}layers.{layer}.mlp", c.base);
        let both = w.linear(x, &format!("{name}.Wi"))?;
        let part = |start| both.f_narrow(2, start, c.intermediate_size);
        let (hidden, gate) = (part(0)?, part(c.intermediate_size)?);
        w.linear(&c.activation.apply(hidden)?.f_mul(&gate)?, &format!("{name}.Wo"))
    }

    fn block(&self, layer: usize, state: &State, precision: Precision) -> Result<Tensor, TchError> {
        let block = format!("{}layers.{layer}", self.config.base);
        let x = &state.hidden;
        let normed = match layer {
            0 => x.shallow_clone(),
            _ => self.norm(x, &format!("{block}.attn_norm"))?,
        };
        let x = x.f_add(&self.attention(layer, &precision.narrow(&normed)?, state.mask.as_ref())?)?;
        let normed = self.norm(&x, &format!("{block}.mlp_norm"))?;
        x.f_add(&self.perceptron(layer, &precision.narrow(&normed)?)?)
    }

    /// What the head or the pooling makes of the last tokens `[N, T, width]`.
    fn finish(&self, state: &State) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let tokens = state.with_hidden(self.norm(&state.hidden, &format!("{}final_norm", c.base))?);
        let Some(head) = &c.head else {
            return c.outputs.embed(&tokens);
        };
        let pooled = match head.pooling {
            // The first token whatever the mask says, as in transformers.
            Pooling::Cls => tokens.hidden.f_select(1, 0)?,
            pooling => pooling.pool(&tokens.hidden, tokens.mask.as_ref())?,
        };
        let hidden = head.activation.apply(w.linear(&pooled, "head.dense")?)?;
        w.linear(&self.norm(&hidden, "head.norm")?, "classifier")
    }
}

impl Model for Modernbert {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.layers() + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let base = self.config.base;
        let norm = format!("{base}final_norm.");
        let after = ["head.", "classifier.", &norm];
        layers::part_of(self.weights.local(name), &format!("{base}layers."), &after, self.parts() - 1)
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, _how: Forward) -> Result<State, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let tokens = c.limits().tokens(inputs)?;
        let table = format!("{}embeddings.tok_embeddings", c.base);
        let embedded = w.embedding(&tokens.ids, &table, c.padding_token)?;
        let hidden = self.norm(&embedded, &format!("{}embeddings.norm", c.base))?;
        Ok(State { hidden, mask: tokens.mask, positions: None })
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let hidden = match part {
            last if last + 1 == self.parts() => self.finish(state)?,
            block => self.block(block - 1, state, how.precision)?,
        };
        Ok(state.with_hidden(hidden))
    }

    // No parameter is free of gradient: keys are turned by their positions after their bias was
    // added.

    /// Products of blocks.
    fn rounds(&self, name: &str) -> bool {
        name.contains("layers.") && (name.contains(".attn.") || name.contains(".mlp."))
    }

    fn architecture(&self) -> serde_json::Value {
        identity::modernbert(&self.config)
    }

    fn expected_inputs(&self) -> Option<Vec<ExpectedInput>> {
        Some(self.config.limits().expected())
    }

    fn gives_embeddings(&self) -> bool {
        self.config.outputs.classes().is_none()
    }

    fn classes(&self) -> Option<i64> {
        self.config.outputs.classes()
    }
}
