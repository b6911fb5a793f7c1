//! What identifies an architecture in a manifest: JSON of a documented structure (`docs/formats.md`), whatever its
//! fields are called here. Every field decides what a model computes.

use serde_json::{Value, json};

use super::activation::Activation;
use super::bert_config::BertConfig;
use super::clip_config::ClipConfig;
use super::modernbert_config::ModernbertConfig;
use super::resnet_config::ResnetConfig;
use super::text_outputs::Outputs;
use super::timm_config::{Pool, TimmConfig};
use super::vit_config::{Head, VitConfig};

pub(super) mod version_1;

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu-tanh",
        Activation::QuickGelu => "quick-gelu",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
    }
}

pub(super) fn vit(config: &VitConfig) -> Value {
    json!({
        "prefix": config.prefix,
        "head": match config.head {
            Head::ClassToken => "class-token",
            Head::WithTeacher => "with-teacher",
        },
        "hidden_size": config.hidden_size,
        "layers": config.layers,
        "heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "activation": activation(config.activation),
        "layer_norm_eps": config.layer_norm_eps,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "channels": config.channels,
        "qkv_bias": config.qkv_bias,
    })
}

pub(super) fn clip(config: &ClipConfig) -> Value {
    json!({
        "naming": if config.is_openai() { "openai" } else { "hugging-face" },
        "tower": config.tower,
        "head": config.head,
        "hidden_size": config.width,
        "layers": config.layers,
        "heads": config.heads,
        "intermediate_size": config.hidden,
        "activation": activation(config.activation),
        "layer_norm_eps": config.eps,
        "channels": config.channels,
        "patch_size": config.patch,
        "image_size": config.image,
        "patches": config.patches,
        "features": config.features,
        "classes": config.classes,
        "head_bias": config.head_bias,
    })
}

pub(super) fn timm(config: &TimmConfig) -> Value {
    json!({
        "root": config.root,
        "hidden_size": config.width,
        "layers": config.layers,
        "heads": config.heads,
        "intermediate_size": config.hidden,
        "activation": activation(config.activation),
        "layer_norm_eps": config.eps,
        "channels": config.channels,
        "patch_size": config.patch,
        "image_size": config.image,
        "special_tokens": config.special,
        "positions_of_patches": config.positions_of_patches,
        "positions": config.positions,
        "pool": match config.pool {
            Pool::Token => "token",
            Pool::Mean { with_special: true } => "mean-with-special",
            Pool::Mean { with_special: false } => "mean",
            Pool::Distilled => "distilled",
        },
        "classes": config.classes,
    })
}

pub(super) fn bert(config: &BertConfig) -> Value {
    json!({
        "naming": config.names.naming,
        "root": config.root,
        "base": config.base,
        "hidden_size": config.hidden_size,
        "layers": config.layers,
        "heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "activation": activation(config.activation),
        "layer_norm_eps": config.layer_norm_eps,
        "vocabulary": config.vocabulary,
        "positions": config.positions,
        "token_types": config.token_types,
        "padding_token": config.padding_token,
        "outputs": outputs(&config.outputs),
    })
}

pub(super) fn modernbert(config: &ModernbertConfig) -> Value {
    json!({
        "root": config.root,
        "base": config.base,
        "hidden_size": config.hidden_size,
        "global": config.global,
        "reach": config.reach,
        "heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "activation": activation(config.activation),
        "layer_norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "global_theta": config.global_theta,
        "local_theta": config.local_theta,
        "vocabulary": config.vocabulary,
        "positions": config.positions,
        "padding_token": config.padding_token,
        "head": config.head.as_ref().map(|head| json!({
            "pooling": head.pooling.name(),
            "activation": activation(head.activation),
            "bias": head.bias,
        })),
        "outputs": outputs(&config.outputs),
    })
}

/// What an encoder of texts gives.
fn outputs(outputs: &Outputs) -> Value {
    match outputs {
        Outputs::Logits { classes } => json!({ "classes": classes }),
        Outputs::Embedding(sentence) => {
            json!({ "pooling": sentence.pooling.name(), "normalised": sentence.normalised })
        }
    }
}

pub(super) fn resnet(config: &ResnetConfig, fixed_statistics: bool) -> Value {
    let blocks: Vec<Value> = config
        .blocks
        .iter()
        .map(|block| {
            json!({
                "name": block.name,
                "convolutions": block.convolutions,
                "groups": block.groups,
                "stride": block.stride,
                "downsample": block.downsample,
            })
        })
        .collect();
    json!({
        "root": config.root,
        "channels": config.channels,
        "stem": config.stem,
        "blocks": blocks,
        "features": config.features,
        "classes": config.classes,
        "bias": config.bias,
        "fixed_statistics": fixed_statistics,
    })
}
