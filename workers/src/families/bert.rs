//! Hugging Face BERT, RoBERTa, XLM-R and DistilBERT, differentiable, on tensors named as on disk.
//!
//! Follows Devlin et al. 2019 (arXiv 1810.04805), Liu et al. 2019 (arXiv 1907.11692) and Sanh et
//! al. 2019 (arXiv 1910.01108) in the layout of transformers 5.23 (`modeling_bert.py`,
//! `modeling_roberta.py`, `modeling_distilbert.py`): one graph with a norm after each sum. They
//! differ in names, in how RoBERTa counts positions, in DistilBERT's lack of token types, and in
//! the head on the first token. MiniLM and XLM-R are BERT and RoBERTa of other sizes.

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::bert_config::BertConfig;
use super::layers::{self, Weights};
use super::text_inputs::Tokens;
use super::{ExpectedInput, FamilyError, Forward, Model, ModelInputs, Precision, State, expected, identity};

/// A BERT whose parameters are plain tensors.
pub(super) struct Bert {
    config: BertConfig,
    weights: Weights,
}

impl Bert {
    /// From a zoo whose ingredients are Hugging Face folders.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let config = BertConfig::from_zoo(spec, zoo)?;
        let file = zoo.ingredients()[0].path().display().to_string();
        let parameters = expected::leaves(&config.tensors(), layout, device, kind)
            .map_err(|source| FamilyError::Torch { file, source })?;
        let weights = Weights::new(config.root.clone(), parameters);
        Ok(Self { config, weights })
    }

    /// Rows of the table of positions for tokens `[N, T]`: `[1, T]` or `[N, T]`, i64.
    fn positions(&self, tokens: &Tokens) -> Result<Tensor, TchError> {
        match self.config.first_position() {
            None => {
                let options = (Kind::Int64, tokens.ids.device());
                Tensor::f_arange(tokens.ids.size()[1], options)?.f_unsqueeze(0)
            }
            Some(first) => {
                // As `create_position_ids_from_input_ids`: padding tokens are not counted, whatever
                // the mask says.
                let counted = tokens.stored.f_ne(first - 1)?.f_to_kind(Kind::Int64)?;
                counted.f_cumsum(1, Kind::Int64)?.f_mul(&counted)?.f_add_scalar(first - 1)
            }
        }
    }

    /// `[N, T, width]` of tokens `[N, T]`.
    fn embed(&self, tokens: &Tokens) -> Result<Tensor, TchError> {
        let (c, w) = (&self.config, &self.weights);
        let name = |table: &str| format!("{}embeddings.{table}", c.base);
        let mut sum = w.embedding(&tokens.ids, &name("word_embeddings"), c.padding_token)?;
        if c.token_types > 0 {
            let types = match &tokens.types {
                Some(types) => types.shallow_clone(),
                None => tokens.ids.f_zeros_like()?,
            };
            sum = sum.f_add(&w.embedding(&types, &name("token_type_embeddings"), None)?)?;
        }
        let padding = c.first_position().and(c.padding_token);
        sum = sum.f_add(&w.embedding(&self.positions(tokens)?, &name("position_embeddings"), padding)?)?;
        w.layer_norm(&sum, &name("LayerNorm"), c.layer_norm_eps)
    }

    fn block(&self, layer: usize, state: &State, precision: Precision) -> Result<Tensor, TchError> {
        let (c, w, n) = (&self.config, &self.weights, self.config.names);
        let block = format!("{}{}.{layer}", c.base, n.blocks);
        let linear = |x: &Tensor, name: &str| w.linear(x, &format!("{block}.{name}"));
        let norm = |x: &Tensor, name: &str| w.layer_norm(x, &format!("{block}.{name}"), c.layer_norm_eps);
        let narrow = precision.narrow(&state.hidden)?;
        let split = |name: &str| layers::split_heads(&linear(&narrow, name)?, c.heads);
        let [query, key, value] = n.projections;
        let seen = layers::seen_keys(state.mask.as_ref())?;
        let mixed = layers::masked_attention(&split(query)?, &split(key)?, &split(value)?, seen.as_ref())?;
        let x = norm(&state.hidden.f_add(&linear(&mixed, n.mixed[0])?)?, n.mixed[1])?;
        let hidden = c.activation.apply(linear(&precision.narrow(&x)?, n.perceptron[0])?)?;
        norm(&x.f_add(&linear(&hidden, n.perceptron[1])?)?, n.perceptron[2])
    }

    /// What the head or the pooling makes of the last tokens `[N, T, width]`.
    fn finish(&self, state: &State) -> Result<Tensor, TchError> {
        let Some([first, last]) = self.config.head() else {
            return self.config.outputs.embed(state);
        };
        let hidden = self.weights.linear(&state.hidden.f_select(1, 0)?, &first)?;
        let hidden = if self.config.names.head_is_relu { hidden.f_relu()? } else { hidden.f_tanh()? };
        self.weights.linear(&hidden, &last)
    }
}

impl Model for Bert {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.layers as usize + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let c = &self.config;
        let head = c.head().unwrap_or_default().map(|product| format!("{product}."));
        let after: Vec<&str> = head.iter().map(String::as_str).filter(|name| *name != ".").collect();
        let blocks = format!("{}{}.", c.base, c.names.blocks);
        layers::part_of(self.weights.local(name), &blocks, &after, self.parts() - 1)
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, _how: Forward) -> Result<State, TchError> {
        let tokens = self.config.limits().tokens(inputs)?;
        Ok(State { hidden: self.embed(&tokens)?, mask: tokens.mask, positions: None })
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let hidden = match part {
            last if last + 1 == self.parts() => self.finish(state)?,
            block => self.block(block - 1, state, how.precision)?,
        };
        Ok(state.with_hidden(hidden))
    }

    /// A key's bias adds the same to all of a query's attention logits, and softmax ignores that.
    fn gradient_free(&self, name: &str) -> bool {
        name.ends_with(&format!(".{}.bias", self.config.names.projections[1]))
    }

    /// Products of blocks.
    fn rounds(&self, name: &str) -> bool {
        let n = self.config.names;
        let is_norm = [n.mixed[1], n.perceptron[2]].iter().any(|norm| name.contains(&format!(".{norm}.")));
        name.contains(&format!("{}.", n.blocks)) && !is_norm
    }

    fn architecture(&self) -> serde_json::Value {
        identity::bert(&self.config)
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
