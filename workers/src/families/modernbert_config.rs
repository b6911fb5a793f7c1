//! `config.json` of Hugging Face's ModernBERT, as transformers 5.23 writes it and as earlier
//! versions did.

use mehl_soup::sweep::spec::ZooSpec;
use mehl_soup::zoo::{Ingredient, Zoo};
use serde_json::Value;

use super::FamilyError;
use super::activation::Activation;
use super::expected::{self, Tensors, flag, padding_token, positive, whole};
use super::sentence::Pooling;
use super::text_inputs::Limits;
use super::text_outputs::Outputs;

/// What the base model's names begin with in a model that has a head.
const PREFIX: &str = "model.";

/// The architecture of a ModernBERT.
#[derive(Debug, PartialEq)]
pub struct ModernbertConfig {
    /// What wrappers put before all names; empty or ends with a dot.
    pub root: String,
    /// What the base model's names begin with, behind the root; empty or ends with a dot.
    pub base: &'static str,
    /// Width of a token.
    pub hidden_size: i64,
    /// Of each block, whether its attention sees all tokens; else those of a window.
    pub global: Vec<bool>,
    /// Furthest token that a window sees on either side.
    pub reach: i64,
    /// Attention heads; `hidden_size / heads` is even.
    pub heads: i64,
    /// Width of the hidden layer of each block's perceptron.
    pub intermediate_size: i64,
    /// Activation of that layer's gate.
    pub activation: Activation,
    /// Added to variances by layer norms.
    pub norm_eps: f64,
    /// Whether norms have biases.
    pub norm_bias: bool,
    /// Whether the products of attention have.
    pub attention_bias: bool,
    /// Whether those of perceptrons have.
    pub mlp_bias: bool,
    /// Base of the rotary positions' angles in blocks that see all tokens.
    pub global_theta: f64,
    /// In blocks with a window.
    pub local_theta: f64,
    /// Rows of the table of tokens.
    pub vocabulary: i64,
    /// Most tokens of a sample.
    pub positions: i64,
    /// Number of the padding token, whose row gets no gradient.
    pub padding_token: Option<i64>,
    /// The head; `None` without.
    pub head: Option<Head>,
    /// What the last part gives.
    pub outputs: Outputs,
}

/// What is before the head's last product.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// What becomes of a sample's tokens: the first, or the mean.
    pub pooling: Pooling,
    /// Activation of the first product.
    pub activation: Activation,
    /// Whether that product has a bias.
    pub bias: bool,
}

/// Fields of `config.json` that decide what a model computes, as JSON pointers.
const DECISIVE: [&str; 23] = [
    "/model_type",
    "/hidden_size",
    "/num_hidden_layers",
    "/num_attention_heads",
    "/intermediate_size",
    "/hidden_activation",
    "/norm_eps",
    "/norm_bias",
    "/attention_bias",
    "/mlp_bias",
    "/vocab_size",
    "/max_position_embeddings",
    "/pad_token_id",
    "/layer_types",
    "/global_attn_every_n_layers",
    "/local_attention",
    "/rope_parameters",
    "/rope_scaling",
    "/global_rope_theta",
    "/local_rope_theta",
    "/classifier_pooling",
    "/classifier_bias",
    "/classifier_activation",
];

impl ModernbertConfig {
    /// Reads and compares the configurations of all ingredients, and compares the first one's
    /// tensors with it.
    ///
    /// # Errors
    /// Naming file, field or tensor, expected and found.
    pub(super) fn from_zoo(spec: &ZooSpec, zoo: &Zoo) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let fault = expected::config_fault(first);
        let json =
            first.config().ok_or_else(|| fault("expected the configuration of a ModernBERT, found none".into()))?;
        match json.get("model_type").and_then(Value::as_str) {
            Some("modernbert") => {}
            other => {
                let found = other.map_or("none".to_string(), |other| format!("`{other}`"));
                return Err(fault(format!("model_type: expected `modernbert`, found {found}")));
            }
        }
        let json = expected::completed_as(json, spec, "num_attention_heads", "hidden_activation").map_err(&fault)?;
        expected::agree(zoo, &DECISIVE)?;
        let (root, base) = expected::root_and_prefix(first, PREFIX, "embeddings.tok_embeddings.weight");
        let outputs = Outputs::find(zoo, &format!("{root}classifier.weight"))?;
        let config = Self::from_json(&json, root, base, outputs).map_err(&fault)?;
        config.check_tensors(first)?;
        Ok(config)
    }

    /// Missing fields have the defaults of transformers' `ModernBertConfig`.
    fn from_json(json: &Value, root: String, base: &'static str, outputs: Outputs) -> Result<Self, String> {
        let activation = |key: &str| {
            let name = json.get(key).and_then(Value::as_str).unwrap_or("gelu");
            Activation::parse(name)
                .ok_or_else(|| format!("{key}: expected one of {}, found `{name}`", Activation::NAMES))
        };
        let head = match &outputs {
            Outputs::Embedding(_) => None,
            Outputs::Logits { .. } => Some(Head {
                pooling: match json.get("classifier_pooling").and_then(Value::as_str).unwrap_or("cls") {
                    "cls" => Pooling::Cls,
                    "mean" => Pooling::Mean,
                    other => return Err(format!("classifier_pooling: expected `cls` or `mean`, found `{other}`")),
                },
                activation: activation("classifier_activation")?,
                bias: flag(json, "classifier_bias", false)?,
            }),
        };
        let layers = whole(json, "num_hidden_layers", 22)?;
        let config = Self {
            root,
            base,
            hidden_size: whole(json, "hidden_size", 768)?,
            global: global(json, layers)?,
            reach: whole(json, "local_attention", 128)? / 2,
            heads: whole(json, "num_attention_heads", 12)?,
            intermediate_size: whole(json, "intermediate_size", 1152)?,
            activation: activation("hidden_activation")?,
            norm_eps: positive(json, "norm_eps", 1e-5)?,
            norm_bias: flag(json, "norm_bias", false)?,
            attention_bias: flag(json, "attention_bias", false)?,
            mlp_bias: flag(json, "mlp_bias", false)?,
            global_theta: theta(json, "full_attention", "global_rope_theta", 160_000.0)?,
            local_theta: theta(json, "sliding_attention", "local_rope_theta", 10_000.0)?,
            vocabulary: whole(json, "vocab_size", 50_368)?,
            positions: whole(json, "max_position_embeddings", 8192)?,
            padding_token: padding_token(json, 50_283)?,
            head,
            outputs,
        };
        if config.hidden_size % config.heads != 0 || config.hidden_size / config.heads % 2 != 0 {
            return Err(format!(
                "num_attention_heads: expected heads of an even width in hidden_size {}, found {} heads",
                config.hidden_size, config.heads
            ));
        }
        let width = config.hidden_size / config.heads;
        if whole(json, "head_dim", width)? != width {
            return Err(format!(
                "head_dim: expected {width}, which is hidden_size / num_attention_heads, found another"
            ));
        }
        expected::check_padding_token(config.padding_token, config.vocabulary)?;
        Ok(config)
    }

    /// Transformer blocks.
    pub fn layers(&self) -> usize {
        self.global.len()
    }

    /// What the model takes at most.
    pub(super) fn limits(&self) -> Limits {
        Limits { vocabulary: self.vocabulary, tokens: self.positions, types: 0 }
    }

    /// Name and shape of every tensor that takes part in the outputs.
    pub(super) fn tensors(&self) -> Tensors {
        let (h, i, b) = (self.hidden_size, self.intermediate_size, self.base);
        let mut products = Vec::new();
        let mut norms = vec![format!("{b}embeddings.norm"), format!("{b}final_norm")];
        for layer in 0..self.layers() {
            let block = format!("{b}layers.{layer}");
            products.push((format!("{block}.attn.Wqkv"), 3 * h, h, self.attention_bias));
            products.push((format!("{block}.attn.Wo"), h, h, self.attention_bias));
            products.push((format!("{block}.mlp.Wi"), 2 * i, h, self.mlp_bias));
            products.push((format!("{block}.mlp.Wo"), h, i, self.mlp_bias));
            // What goes into the first block has just been normalised.
            if layer > 0 {
                norms.push(format!("{block}.attn_norm"));
            }
            norms.push(format!("{block}.mlp_norm"));
        }
        if let (Some(head), Outputs::Logits { classes }) = (&self.head, &self.outputs) {
            products.push(("head.dense".to_string(), h, h, head.bias));
            norms.push("head.norm".to_string());
            products.push(("classifier".to_string(), *classes, h, true));
        }
        let mut tensors = vec![(format!("{b}embeddings.tok_embeddings.weight"), vec![self.vocabulary, h])];
        for (name, out, input, bias) in products {
            tensors.push((format!("{name}.weight"), vec![out, input]));
            if bias {
                tensors.push((format!("{name}.bias"), vec![out]));
            }
        }
        for name in norms {
            tensors.push((format!("{name}.weight"), vec![h]));
            if self.norm_bias {
                tensors.push((format!("{name}.bias"), vec![h]));
            }
        }
        tensors.into_iter().map(|(name, shape)| (format!("{}{name}", self.root), shape)).collect()
    }

    /// The head of pre-training may be there too.
    fn check_tensors(&self, first: &Ingredient) -> Result<(), FamilyError> {
        let idle = |name: &str| {
            let name = name.strip_prefix(&self.root).unwrap_or(name);
            name.starts_with("decoder.") || self.head.is_none() && name.starts_with("head.")
        };
        expected::compare(&self.tensors(), first, idle).map_err(expected::tensor_faults("modernbert", first))
    }
}

/// Which blocks see all tokens: as listed, or each of so many, from the first on.
fn global(json: &Value, layers: i64) -> Result<Vec<bool>, String> {
    let Some(types) = json.get("layer_types").filter(|types| !types.is_null()) else {
        let every = whole(json, "global_attn_every_n_layers", 3)?;
        return Ok((0..layers).map(|layer| layer % every == 0).collect());
    };
    let kind = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(true),
        Some("sliding_attention") => Ok(false),
        _ => Err(format!("layer_types: expected `full_attention` or `sliding_attention`, found {kind}")),
    };
    let types: Vec<bool> = types.as_array().into_iter().flatten().map(kind).collect::<Result<_, _>>()?;
    if types.len() as i64 != layers {
        return Err(format!("layer_types: expected one of each of {layers} blocks, found {}", types.len()));
    }
    Ok(types)
}

/// Base of the rotary positions' angles of one kind of attention; `earlier` is its field in earlier
/// versions.
fn theta(json: &Value, attention: &str, earlier: &str, default: f64) -> Result<f64, String> {
    if let Some(scaling) = json.get("rope_scaling").filter(|scaling| !scaling.is_null()) {
        return Err(format!("rope_scaling: expected none, found {scaling}"));
    }
    let number = |field: String, value: &Value| {
        let is_base = |theta: &f64| theta.is_finite() && *theta > 0.0;
        value.as_f64().filter(is_base).ok_or_else(|| format!("{field}: expected a number above 0, found {value}"))
    };
    let own = match json.get("rope_parameters").filter(|all| !all.is_null()) {
        None => None,
        Some(all) => {
            let fields = all.as_object().ok_or_else(|| format!("rope_parameters: expected a table, found {all}"))?;
            if let Some(other) =
                fields.keys().find(|key| !["full_attention", "sliding_attention"].contains(&key.as_str()))
            {
                return Err(format!(
                    "rope_parameters: expected `full_attention` and `sliding_attention`, found `{other}`"
                ));
            }
            fields.get(attention).filter(|own| !own.is_null())
        }
    };
    if let Some(kind) = own.and_then(|own| own.get("rope_type").or(own.get("type"))).filter(|kind| *kind != "default") {
        return Err(format!("rope_parameters.{attention}.rope_type: expected `default`, found {kind}"));
    }
    match (own.and_then(|own| own.get("rope_theta")), json.get(earlier)) {
        (Some(theta), _) => number(format!("rope_parameters.{attention}.rope_theta"), theta),
        (None, Some(theta)) => number(earlier.to_string(), theta),
        (None, None) => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_that_see_all_tokens_are_listed_or_counted() {
        let listed = json!({"layer_types": ["sliding_attention", "full_attention"]});
        assert_eq!(global(&listed, 2), Ok(vec![false, true]));
        assert_eq!(global(&json!({}), 5), Ok(vec![true, false, false, true, false]));
        assert_eq!(
            global(&json!({"layer_types": null, "global_attn_every_n_layers": 2}), 3),
            Ok(vec![true, false, true])
        );
        assert!(global(&listed, 3).unwrap_err().contains("each of 3 blocks, found 2"));
        assert!(global(&json!({"layer_types": ["chunked_attention"]}), 1).unwrap_err().contains("chunked_attention"));
    }

    #[test]
    fn angles_of_both_spellings() {
        let local = |json: Value| theta(&json, "sliding_attention", "local_rope_theta", 10_000.0);
        assert_eq!(local(json!({})), Ok(10_000.0));
        assert_eq!(local(json!({"local_rope_theta": 500.0, "rope_scaling": null})), Ok(500.0));
        let both = json!({"rope_parameters": {"sliding_attention": {"rope_theta": 9.0}}, "local_rope_theta": 500.0});
        assert_eq!(local(both), Ok(9.0));
        assert_eq!(local(json!({"rope_parameters": {"full_attention": {"rope_theta": 9.0}}})), Ok(10_000.0));
        for (json, says) in [
            (json!({"rope_scaling": {"factor": 2}}), "rope_scaling: expected none"),
            (json!({"local_rope_theta": null}), "local_rope_theta: expected a number above 0, found null"),
            (json!({"rope_parameters": {"rope_theta": 1.0}}), "found `rope_theta`"),
            (
                json!({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}),
                "expected `default`, found \"yarn\"",
            ),
        ] {
            let fault = local(json).unwrap_err();
            assert!(fault.contains(says), "`{says}` in {fault}");
        }
    }
}
