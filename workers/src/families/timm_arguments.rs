//! timm's `config.json` of a ViT: what it says beyond tensor shapes.

use serde_json::Value;

use super::timm_names::{self, EPS, Named};

/// Arguments of `model_args` that tensors tell too, or that change nothing outside of training.
const TOLD: [&str; 27] = [
    "attn_drop_rate",
    "class_token",
    "depth",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_size",
    "fc_norm",
    "final_norm",
    "fix_init",
    "in_chans",
    "init_values",
    "mlp_ratio",
    "num_classes",
    "patch_drop_rate",
    "patch_size",
    "pos_drop_rate",
    "pre_norm",
    "pretrained_strict",
    "proj_bias",
    "proj_drop_rate",
    "qk_norm",
    "qkv_bias",
    "reg_tokens",
    "scale_attn_norm",
    "scale_mlp_norm",
    "strict_img_size",
    "weight_init",
];

/// What a configuration says; all `None` for a model without one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Arguments {
    /// What the architecture's name says.
    pub named: Option<Named>,
    /// Attention heads.
    pub heads: Option<i64>,
    /// Whether the width is not the architecture's own, so that its number of heads need not be what its name says.
    pub other_width: bool,
    /// Activation of the perceptrons, by the name in Hugging Face configurations.
    pub activation: Option<String>,
    /// Added to variances by layer norms.
    pub eps: Option<f64>,
    /// Heights and widths of the input that are named, the likeliest first.
    pub images: Vec<[i64; 2]>,
    /// `global_pool`.
    pub pool: Option<String>,
    /// Whether class and register tokens count in the mean.
    pub with_special: bool,
    /// Whether special tokens have no positions.
    pub positions_of_patches: Option<bool>,
    /// Number of classes.
    pub classes: Option<i64>,
}

impl Arguments {
    /// Of the parsed `config.json`.
    ///
    /// # Errors
    /// What the value of which field is not computed, in words.
    pub(super) fn of(config: Option<&Value>) -> Result<Self, String> {
        let Some(config) = config else { return Ok(Self::default()) };
        let mut arguments = Self {
            named: config.get("architecture").and_then(Value::as_str).map(timm_names::named).transpose()?,
            pool: config.get("global_pool").and_then(Value::as_str).map(str::to_string),
            classes: config.get("num_classes").and_then(Value::as_i64),
            ..Self::default()
        };
        if let Some(given) = config.get("model_args").and_then(Value::as_object) {
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                arguments
                    .take(name, value)
                    .map_err(|expected| format!("model_args.{name}: expected {expected}, found {value}"))?;
            }
        }
        if let Some([_, size @ ..]) =
            config.pointer("/pretrained_cfg/input_size").and_then(Value::as_array).map(Vec::as_slice)
        {
            arguments.images.extend(image(&Value::Array(size.to_vec())));
        }
        Ok(arguments)
    }

    /// One argument; `Err` says what was expected.
    fn take(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let flag = || value.as_bool().ok_or_else(|| "true or false".to_string());
        match name {
            "num_heads" => {
                let heads = value.as_i64().filter(|heads| *heads > 0);
                self.heads = Some(heads.ok_or("a whole number above 0")?);
            }
            "embed_dim" => self.other_width = true,
            "act_layer" => {
                let name = value.as_str().ok_or("an activation's name")?;
                self.activation = Some(if name == "gelu_tanh" { "gelu_pytorch_tanh" } else { name }.to_string());
            }
            "norm_layer" if value == "layernorm" => self.eps = Some(EPS),
            "norm_layer" => return Err("`layernorm`".to_string()),
            // Before others that are named: those are of the weights that a model began with.
            "img_size" => self.images.insert(0, image(value).ok_or("one or two whole numbers above 0")?),
            "global_pool" => {
                let pool = value.as_str().ok_or("a name")?;
                self.pool.get_or_insert_with(|| pool.to_string());
            }
            "pool_include_prefix" => self.with_special = flag()?,
            "no_embed_class" => self.positions_of_patches = Some(flag()?),
            _ if TOLD.contains(&name) => {}
            _ => return Err("no such argument, because it is not supported".to_string()),
        }
        Ok(())
    }
}

/// Height and width, of one number for both or of two.
fn image(value: &Value) -> Option<[i64; 2]> {
    let size = |value: &Value| value.as_i64().filter(|size| (1..=1 << 24).contains(size));
    match value {
        Value::Array(sizes) => match &sizes[..] {
            [height, width] => Some([size(height)?, size(width)?]),
            _ => None,
        },
        other => size(other).map(|side| [side, side]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_or_refused_by_name() {
        let config = serde_json::json!({
            "architecture": "vit_base_patch16_224",
            "num_classes": 3,
            "global_pool": "avg",
            "model_args": {"img_size": [8, 12], "num_heads": 2, "act_layer": "gelu_tanh", "depth": 1, "norm_layer": null},
            "pretrained_cfg": {"input_size": [3, 224, 224]},
        });
        let arguments = Arguments::of(Some(&config)).unwrap();
        assert_eq!(arguments.images, [[8, 12], [224, 224]]);
        assert_eq!((arguments.heads, arguments.pool.as_deref(), arguments.classes), (Some(2), Some("avg"), Some(3)));
        assert_eq!(arguments.activation.as_deref(), Some("gelu_pytorch_tanh"));
        assert_eq!(arguments.eps, None);
        for (name, value) in [("mlp_layer", "swiglu"), ("attn_layer", "diff"), ("norm_layer", "rmsnorm")] {
            let fault = Arguments::of(Some(&serde_json::json!({"model_args": {name: value}}))).unwrap_err();
            assert!(fault.contains(name) && fault.contains(value), "{fault}");
        }
        assert_eq!(Arguments::of(None), Ok(Arguments::default()));
    }
}
