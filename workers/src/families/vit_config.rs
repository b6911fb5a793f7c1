//! `config.json` of Hugging Face's `ViTForImageClassification` and `DeiTForImageClassification[WithTeacher]`.

use serde_json::Value;

use super::activation::Activation;
use super::expected::whole;

/// The architecture of a ViT or DeiT.
#[derive(Debug, Clone, PartialEq)]
pub struct VitConfig {
    /// First component of the encoder's tensor names: `vit` or `deit`.
    pub prefix: &'static str,
    /// Which head follows.
    pub head: Head,
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
    /// Side of the square input, in pixels.
    pub image_size: i64,
    /// Side of a square patch; divides `image_size`.
    pub patch_size: i64,
    /// Channels of the input.
    pub channels: i64,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
}

/// Fields of `config.json` that decide what a model computes, as JSON pointers.
pub(super) const DECISIVE: [&str; 12] = [
    "/model_type",
    "/architectures",
    "/hidden_size",
    "/num_hidden_layers",
    "/num_attention_heads",
    "/intermediate_size",
    "/hidden_act",
    "/layer_norm_eps",
    "/image_size",
    "/patch_size",
    "/num_channels",
    "/qkv_bias",
];

/// The classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `classifier` on the class token.
    ClassToken,
    /// Mean of `cls_classifier` on the class token and `distillation_classifier` on the distillation token.
    WithTeacher,
}

impl VitConfig {
    /// Reads the parsed `config.json`; missing fields have the defaults of transformers' `ViTConfig`.
    ///
    /// # Errors
    /// What the value of which field cannot be computed, in words.
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let prefix = match json.get("model_type").and_then(Value::as_str) {
            Some("vit") => "vit",
            Some("deit") => "deit",
            other => {
                let found = other.map_or("none".to_string(), |other| format!("`{other}`"));
                return Err(format!("model_type: expected `vit` or `deit`, found {found}"));
            }
        };
        let architecture = json.pointer("/architectures/0").and_then(Value::as_str).unwrap_or("");
        let head = match architecture {
            "DeiTForImageClassificationWithTeacher" => Head::WithTeacher,
            "ViTForImageClassification" | "DeiTForImageClassification" | "" => Head::ClassToken,
            other => return Err(format!("architectures: expected an image classifier, found `{other}`")),
        };
        let whole = |key: &str, default: i64| whole(json, key, default);
        let name = json.get("hidden_act").and_then(Value::as_str).unwrap_or("gelu");
        let config = Self {
            prefix,
            head,
            hidden_size: whole("hidden_size", 768)?,
            layers: whole("num_hidden_layers", 12)?,
            heads: whole("num_attention_heads", 12)?,
            intermediate_size: whole("intermediate_size", 3072)?,
            activation: Activation::parse(name)
                .ok_or_else(|| format!("hidden_act: expected one of {}, found `{name}`", Activation::NAMES))?,
            layer_norm_eps: json.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12),
            image_size: whole("image_size", 224)?,
            patch_size: whole("patch_size", 16)?,
            channels: whole("num_channels", 3)?,
            qkv_bias: json.get("qkv_bias").and_then(Value::as_bool).unwrap_or(true),
        };
        if config.hidden_size % config.heads != 0 {
            return Err(format!(
                "num_attention_heads: expected a divisor of hidden_size {}, found {}",
                config.hidden_size, config.heads
            ));
        }
        if config.image_size < config.patch_size {
            return Err(format!(
                "patch_size: expected at most image_size {}, found {}",
                config.image_size, config.patch_size
            ));
        }
        Ok(config)
    }

    /// Special tokens before the patches.
    pub fn special_tokens(&self) -> i64 {
        if self.prefix == "deit" { 2 } else { 1 }
    }

    /// Name and shape of every tensor, but for the heads' number of classes, which is `classes`.
    pub fn tensors(&self, classes: i64) -> Vec<(String, Vec<i64>)> {
        let (h, i, p) = (self.hidden_size, self.intermediate_size, self.prefix);
        let side = self.image_size / self.patch_size;
        let tokens = side * side + self.special_tokens();
        let mut tensors = vec![
            (format!("{p}.embeddings.cls_token"), vec![1, 1, h]),
            (format!("{p}.embeddings.position_embeddings"), vec![1, tokens, h]),
            (
                format!("{p}.embeddings.patch_embeddings.projection.weight"),
                vec![h, self.channels, self.patch_size, self.patch_size],
            ),
            (format!("{p}.embeddings.patch_embeddings.projection.bias"), vec![h]),
            (format!("{p}.layernorm.weight"), vec![h]),
            (format!("{p}.layernorm.bias"), vec![h]),
        ];
        if p == "deit" {
            tensors.push((format!("{p}.embeddings.distillation_token"), vec![1, 1, h]));
        }
        for layer in 0..self.layers {
            let block = format!("{p}.encoder.layer.{layer}");
            for part in ["query", "key", "value"] {
                tensors.push((format!("{block}.attention.attention.{part}.weight"), vec![h, h]));
                if self.qkv_bias {
                    tensors.push((format!("{block}.attention.attention.{part}.bias"), vec![h]));
                }
            }
            for (part, out, input) in
                [("attention.output.dense", h, h), ("intermediate.dense", i, h), ("output.dense", h, i)]
            {
                tensors.push((format!("{block}.{part}.weight"), vec![out, input]));
                tensors.push((format!("{block}.{part}.bias"), vec![out]));
            }
            for part in ["layernorm_before", "layernorm_after"] {
                tensors.push((format!("{block}.{part}.weight"), vec![h]));
                tensors.push((format!("{block}.{part}.bias"), vec![h]));
            }
        }
        for head in self.heads_names() {
            tensors.push((format!("{head}.weight"), vec![classes, h]));
            tensors.push((format!("{head}.bias"), vec![classes]));
        }
        tensors
    }

    /// Names of the classification heads.
    pub fn heads_names(&self) -> &'static [&'static str] {
        match self.head {
            Head::ClassToken => &["classifier"],
            Head::WithTeacher => &["cls_classifier", "distillation_classifier"],
        }
    }
}
