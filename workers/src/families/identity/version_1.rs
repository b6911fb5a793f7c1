//! What identified an architecture in manifests of version 1: what Rust printed of its configuration then. Kept as it
//! was, so that sweeps that were begun with it go on; nothing here changes.

use super::super::activation::Activation;
use super::super::clip_config::ClipConfig;
use super::super::resnet_config::ResnetConfig;
use super::super::timm_config::{Pool, TimmConfig};
use super::super::vit_config::{Head, VitConfig};

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "Gelu",
        Activation::GeluTanh => "GeluTanh",
        Activation::QuickGelu => "QuickGelu",
        Activation::Relu => "Relu",
        Activation::Silu => "Silu",
    }
}

pub(in crate::families) fn vit(c: &VitConfig) -> String {
    let head = match c.head {
        Head::ClassToken => "ClassToken",
        Head::WithTeacher => "WithTeacher",
    };
    format!(
        "VitConfig {{ prefix: {:?}, head: {head}, hidden_size: {}, layers: {}, heads: {}, intermediate_size: {}, activation: {}, \
         layer_norm_eps: {:?}, image_size: {}, patch_size: {}, channels: {}, qkv_bias: {} }}",
        c.prefix,
        c.hidden_size,
        c.layers,
        c.heads,
        c.intermediate_size,
        activation(c.activation),
        c.layer_norm_eps,
        c.image_size,
        c.patch_size,
        c.channels,
        c.qkv_bias
    )
}

pub(in crate::families) fn clip(c: &ClipConfig) -> String {
    let naming = if c.is_openai() { OPENAI } else { HUGGING_FACE };
    format!(
        "ClipConfig {{ naming: {naming}, tower: {:?}, head: {:?}, width: {}, layers: {}, heads: {}, hidden: {}, activation: {}, \
         eps: {:?}, channels: {}, patch: {}, image: {}, patches: {}, features: {}, classes: {}, head_bias: {} }}",
        c.tower,
        c.head,
        c.width,
        c.layers,
        c.heads,
        c.hidden,
        activation(c.activation),
        c.eps,
        c.channels,
        c.patch,
        c.image,
        c.patches,
        c.features,
        c.classes,
        c.head_bias
    )
}

const OPENAI: &str = r#"Naming { tower: "visual.", head: "classification_head", class: "class_embedding", positions: "positional_embedding", patches: "conv1", before: "ln_pre", blocks: "transformer.resblocks", norms: ["ln_1", "ln_2"], perceptron: ["mlp.c_fc", "mlp.c_proj"], out: "attn.out_proj" }"#;
const HUGGING_FACE: &str = r#"Naming { tower: "vision_model.", head: "classifier", class: "embeddings.class_embedding", positions: "embeddings.position_embedding.weight", patches: "embeddings.patch_embedding", before: "pre_layrnorm", blocks: "encoder.layers", norms: ["layer_norm1", "layer_norm2"], perceptron: ["mlp.fc1", "mlp.fc2"], out: "self_attn.out_proj" }"#;

pub(in crate::families) fn timm(c: &TimmConfig) -> String {
    let pool = match c.pool {
        Pool::Token => "Token",
        Pool::Mean { with_special: true } => "Mean { with_special: true }",
        Pool::Mean { with_special: false } => "Mean { with_special: false }",
        Pool::Distilled => "Distilled",
    };
    format!(
        "TimmConfig {{ root: {:?}, width: {}, layers: {}, heads: {}, hidden: {}, activation: {}, eps: {:?}, channels: {}, \
         patch: {:?}, image: {:?}, special: {:?}, positions_of_patches: {}, positions: {}, pool: {pool}, classes: {} }}",
        c.root,
        c.width,
        c.layers,
        c.heads,
        c.hidden,
        activation(c.activation),
        c.eps,
        c.channels,
        c.patch,
        c.image,
        c.special,
        c.positions_of_patches,
        c.positions,
        c.classes
    )
}

pub(in crate::families) fn resnet(c: &ResnetConfig, fixed_statistics: bool) -> String {
    let block = |block: &super::super::resnet_config::Block| {
        format!(
            "Block {{ name: {:?}, convolutions: {:?}, groups: {}, stride: {}, downsample: {} }}",
            block.name, block.convolutions, block.groups, block.stride, block.downsample
        )
    };
    let blocks: Vec<String> = c.blocks.iter().map(block).collect();
    format!(
        "ResnetConfig {{ root: {:?}, channels: {}, stem: {}, blocks: [{}], features: {}, classes: {}, bias: {} }}, fixed statistics: {fixed_statistics}",
        c.root,
        c.channels,
        c.stem,
        blocks.join(", "),
        c.features,
        c.classes,
        c.bias
    )
}
