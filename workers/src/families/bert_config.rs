//! `config.json` of Hugging Face's BERT, RoBERTa, XLM-R and DistilBERT.

use mehl_soup::sweep::spec::ZooSpec;
use mehl_soup::zoo::{Ingredient, Zoo};
use serde_json::Value;

use super::activation::Activation;
use super::bert_names::{self, BERT, BertNames, DISTILBERT, ROBERTA};
use super::expected::{self, Tensors, flag, padding_token, positive, whole};
use super::text_inputs::Limits;
use super::{FamilyError, text_outputs::Outputs};

/// The architecture of a BERT.
#[derive(Debug, PartialEq)]
pub struct BertConfig {
    /// What tensors are called.
    pub names: &'static BertNames,
    /// What wrappers put before all names; empty or ends with a dot.
    pub root: String,
    /// What the base model's names begin with, behind the root; empty or ends with a dot.
    pub base: &'static str,
    /// Width of a token.
    pub hidden_size: i64,
    /// Transformer blocks.
    pub layers: i64,
    /// Attention heads; divides `hidden_size`.
    pub heads: i64,
    /// Width of the hidden layer of each block's perceptron.
    pub intermediate_size: i64,
    /// Activation of that layer.
    pub activation: Activation,
    /// Added to variances by layer norms.
    pub layer_norm_eps: f64,
    /// Rows of the table of tokens.
    pub vocabulary: i64,
    /// Rows of the table of positions.
    pub positions: i64,
    /// Rows of the table of token types; 0 where there is none.
    pub token_types: i64,
    /// Number of the padding token, whose row gets no gradient. RoBERTa counts positions of other
    /// tokens from the number after it.
    pub padding_token: Option<i64>,
    /// What the last part gives.
    pub outputs: Outputs,
}

/// Fields of `config.json` that decide what a model computes, as JSON pointers.
const DECISIVE: [&str; 19] = [
    "/model_type",
    "/hidden_size",
    "/dim",
    "/num_hidden_layers",
    "/n_layers",
    "/num_attention_heads",
    "/n_heads",
    "/intermediate_size",
    "/hidden_dim",
    "/hidden_act",
    "/activation",
    "/layer_norm_eps",
    "/vocab_size",
    "/max_position_embeddings",
    "/type_vocab_size",
    "/pad_token_id",
    "/position_embedding_type",
    "/is_decoder",
    "/add_cross_attention",
];

impl BertConfig {
    /// Reads and compares the configurations of all ingredients, and compares the first one's
    /// tensors with it.
    ///
    /// # Errors
    /// Naming file, field or tensor, expected and found.
    pub(super) fn from_zoo(spec: &ZooSpec, zoo: &Zoo) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let fault = expected::config_fault(first);
        let json = first.config().ok_or_else(|| {
            fault("expected the configuration of a BERT, a RoBERTa or a DistilBERT, found none".into())
        })?;
        let names = names_of(json).map_err(&fault)?;
        let (heads, activation) =
            if *names == DISTILBERT { ("n_heads", "activation") } else { ("num_attention_heads", "hidden_act") };
        let json = expected::completed_as(json, spec, heads, activation).map_err(&fault)?;
        expected::agree(zoo, &DECISIVE)?;
        let (root, base) = expected::root_and_prefix(first, names.prefix, "embeddings.word_embeddings.weight");
        let head = format!("{root}{}.weight", names.head[1]);
        let outputs = Outputs::find(zoo, &head)?;
        let config = Self::from_json(&json, names, root, base, outputs).map_err(&fault)?;
        config.check_tensors(first)?;
        Ok(config)
    }

    /// Missing fields have the defaults of transformers' `BertConfig`, `RobertaConfig`,
    /// `XLMRobertaConfig` and `DistilBertConfig`.
    fn from_json(
        json: &Value,
        names: &'static BertNames,
        root: String,
        base: &'static str,
        outputs: Outputs,
    ) -> Result<Self, String> {
        let is_distil = *names == DISTILBERT;
        let is_roberta = *names == ROBERTA;
        // DistilBERT's own words for the same.
        let word = |distil: &'static str, other: &'static str| if is_distil { distil } else { other };
        for key in ["is_decoder", "add_cross_attention"] {
            if flag(json, key, false)? {
                return Err(format!("{key}: expected an encoder, found true"));
            }
        }
        match json.get("position_embedding_type") {
            None | Some(Value::Null) => {}
            Some(kind) if kind == "absolute" => {}
            Some(kind) => return Err(format!("position_embedding_type: expected `absolute`, found {kind}")),
        }
        let key = word("activation", "hidden_act");
        let name = json.get(key).and_then(Value::as_str).unwrap_or("gelu");
        let config = Self {
            names,
            root,
            base,
            hidden_size: whole(json, word("dim", "hidden_size"), 768)?,
            layers: whole(json, word("n_layers", "num_hidden_layers"), if is_distil { 6 } else { 12 })?,
            heads: whole(json, word("n_heads", "num_attention_heads"), 12)?,
            intermediate_size: whole(json, word("hidden_dim", "intermediate_size"), 3072)?,
            activation: Activation::parse(name)
                .ok_or_else(|| format!("{key}: expected one of {}, found `{name}`", Activation::NAMES))?,
            // DistilBERT's is not in its configuration.
            layer_norm_eps: if is_distil { 1e-12 } else { positive(json, "layer_norm_eps", 1e-12)? },
            vocabulary: whole(json, "vocab_size", if is_roberta { 50265 } else { 30522 })?,
            positions: whole(json, "max_position_embeddings", 512)?,
            token_types: if is_distil { 0 } else { whole(json, "type_vocab_size", 2)? },
            padding_token: padding_token(json, if is_roberta { 1 } else { 0 })?,
            outputs,
        };
        if config.hidden_size % config.heads != 0 {
            return Err(format!(
                "{}: expected a divisor of the width {}, found {}",
                word("n_heads", "num_attention_heads"),
                config.hidden_size,
                config.heads
            ));
        }
        expected::check_padding_token(config.padding_token, config.vocabulary)?;
        if is_roberta && config.padding_token.is_none() {
            return Err("pad_token_id: expected a number, from which RoBERTa counts its positions, found none".into());
        }
        if config.limits().tokens < 1 {
            return Err(format!(
                "max_position_embeddings: expected positions behind pad_token_id {}, found {}",
                config.padding_token.unwrap_or_default(),
                config.positions
            ));
        }
        Ok(config)
    }

    /// Position of the first token where positions are counted from the padding token; `None` where
    /// they begin with 0.
    pub fn first_position(&self) -> Option<i64> {
        self.padding_token.filter(|_| *self.names == ROBERTA).map(|token| token + 1)
    }

    /// What the model takes at most.
    pub(super) fn limits(&self) -> Limits {
        let tokens = self.positions - self.first_position().unwrap_or(0);
        Limits { vocabulary: self.vocabulary, tokens, types: self.token_types }
    }

    /// The head's products, behind the root; `None` without a head.
    pub fn head(&self) -> Option<[String; 2]> {
        let [first, last] = self.names.head;
        let base = if self.names.head_in_base { self.base } else { "" };
        matches!(self.outputs, Outputs::Logits { .. }).then(|| [format!("{base}{first}"), last.to_string()])
    }

    /// Name and shape of every tensor that takes part in the outputs.
    pub(super) fn tensors(&self) -> Tensors {
        let (h, i, n) = (self.hidden_size, self.intermediate_size, self.names);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: Vec<i64>| tensors.push((format!("{}{name}", self.root), shape));
        let embeddings = format!("{}embeddings", self.base);
        add(format!("{embeddings}.word_embeddings.weight"), vec![self.vocabulary, h]);
        add(format!("{embeddings}.position_embeddings.weight"), vec![self.positions, h]);
        if self.token_types > 0 {
            add(format!("{embeddings}.token_type_embeddings.weight"), vec![self.token_types, h]);
        }
        let mut norms = vec![format!("{embeddings}.LayerNorm")];
        let mut products = Vec::new();
        for layer in 0..self.layers {
            let block = format!("{}{}.{layer}", self.base, n.blocks);
            products.extend(n.projections.map(|name| (format!("{block}.{name}"), h, h)));
            products.push((format!("{block}.{}", n.mixed[0]), h, h));
            products.push((format!("{block}.{}", n.perceptron[0]), i, h));
            products.push((format!("{block}.{}", n.perceptron[1]), h, i));
            norms.extend([n.mixed[1], n.perceptron[2]].map(|name| format!("{block}.{name}")));
        }
        if let (Some([first, last]), Outputs::Logits { classes }) = (self.head(), &self.outputs) {
            products.extend([(first, h, h), (last, *classes, h)]);
        }
        for norm in norms {
            add(format!("{norm}.weight"), vec![h]);
            add(format!("{norm}.bias"), vec![h]);
        }
        for (name, out, input) in products {
            add(format!("{name}.weight"), vec![out, input]);
            add(format!("{name}.bias"), vec![out]);
        }
        tensors
    }

    fn check_tensors(&self, first: &Ingredient) -> Result<(), FamilyError> {
        let old = |name: &&str| name.ends_with("LayerNorm.gamma") || name.ends_with("LayerNorm.beta");
        if let Some(name) = first.tensor_names().find(old) {
            return Err(expected::config_fault(first)(format!(
                "{name}: the name that an old version of transformers gave; load the model in transformers and save \
                 it with save_pretrained"
            )));
        }
        let idle = |name: &str| {
            let name = name.strip_prefix(&self.root).unwrap_or(name);
            bert_names::is_idle(name.strip_prefix(self.base).unwrap_or(name))
        };
        expected::compare(&self.tensors(), first, idle).map_err(expected::tensor_faults("bert", first))
    }
}

/// Which of the three a configuration is of.
fn names_of(json: &Value) -> Result<&'static BertNames, String> {
    match json.get("model_type").and_then(Value::as_str) {
        Some("bert") => Ok(&BERT),
        Some("roberta" | "xlm-roberta") => Ok(&ROBERTA),
        Some("distilbert") => Ok(&DISTILBERT),
        other => {
            let found = other.map_or("none".to_string(), |other| format!("`{other}`"));
            Err(format!("model_type: expected `bert`, `roberta`, `xlm-roberta` or `distilbert`, found {found}"))
        }
    }
}
