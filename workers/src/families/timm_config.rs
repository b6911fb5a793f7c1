//! The architecture of timm's ViT or DeiT, from tensor shapes and, where there is one, timm's `config.json`.

use mehl_soup::sweep::spec::ZooSpec;
use mehl_soup::zoo::{Ingredient, Zoo};

use super::FamilyError;
use super::activation::Activation;
use super::expected::{self, Tensors};
use super::timm_arguments::Arguments;
use super::timm_names::{self, CLIP_EPS, EPS};

/// Fields of timm's `config.json` that decide what a model computes, as JSON pointers.
const DECISIVE: [&str; 5] =
    ["/architecture", "/num_classes", "/global_pool", "/model_args", "/pretrained_cfg/input_size"];

/// Where the head looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    /// At the class token.
    Token,
    /// At the mean of the patches' tokens, or of all.
    Mean {
        /// Whether class and register tokens count.
        with_special: bool,
    },
    /// Mean of one head on the class token and one on the distillation token.
    Distilled,
}

/// The architecture of timm's ViT or DeiT, but for layers that are there or not, which their tensors tell.
#[derive(Debug, PartialEq)]
pub(super) struct TimmConfig {
    /// What wrappers put before each name.
    pub root: String,
    /// Width of a token.
    pub width: i64,
    /// Transformer blocks.
    pub layers: i64,
    /// Attention heads; divides the width.
    pub heads: i64,
    /// Width of the hidden layer of each block's perceptron.
    pub hidden: i64,
    /// Activation of that layer.
    pub activation: Activation,
    /// Added to variances by layer norms.
    pub eps: f64,
    /// Channels of the input.
    pub channels: i64,
    /// Height and width of a patch.
    pub patch: [i64; 2],
    /// Height and width of the input.
    pub image: [i64; 2],
    /// Special tokens before the patches, in order: name and number.
    pub special: Vec<(&'static str, i64)>,
    /// Whether special tokens have no positions.
    pub positions_of_patches: bool,
    /// Number of positions.
    pub positions: i64,
    /// Where the head looks.
    pub pool: Pool,
    /// Number of classes.
    pub classes: i64,
}

/// What is wrong, and with which file.
enum Fault {
    Tensor(String),
    Config(String),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Config(what)
    }
}

impl TimmConfig {
    /// Of the zoo's first ingredient, whose tensors are those of the model; the others' configurations agree with its own.
    /// And what was assumed of it.
    pub(super) fn from_zoo(spec: &ZooSpec, zoo: &Zoo) -> Result<(Self, Vec<String>), FamilyError> {
        let first = &zoo.ingredients()[0];
        let faults = expected::tensor_faults("timm-vit", first);
        expected::agree(zoo, &DECISIVE)?;
        let refused = |name: &str| Some(format!("{name}: {}, which is not supported", timm_names::refused(name)?));
        let refused: Vec<String> = first.tensor_names().filter_map(refused).collect();
        if !refused.is_empty() {
            return Err(faults(refused));
        }
        let (config, assumed) = Self::told(spec, first).map_err(|fault| match fault {
            Fault::Tensor(what) => faults(vec![what]),
            Fault::Config(what) => expected::config_fault(first)(what),
        })?;
        expected::compare(&config.tensors(first), first, |_| false).map_err(faults)?;
        Ok((config, assumed))
    }

    fn told(spec: &ZooSpec, found: &Ingredient) -> Result<(Self, Vec<String>), Fault> {
        let arguments = Arguments::of(found.config())?;
        let root = expected::root(found, "patch_embed.proj.weight");
        let has = |name: &str| found.info(&format!("{root}{name}")).is_some();
        let [width, channels, high, wide] = sizes(found, &root, "patch_embed.proj.weight")?;
        let [hidden, _] = sizes(found, &root, "blocks.0.mlp.fc1.weight")?;
        let [_, inner] = sizes(found, &root, "blocks.0.mlp.fc2.weight")?;
        if hidden == 2 * inner {
            return Err(Fault::Tensor(format!(
                "{root}blocks.0.mlp.fc1.weight: width {hidden}, but fc2 takes {inner}: a gated MLP (SwiGLU), which is not supported"
            )));
        }
        let [classes, _] = sizes(found, &root, "head.weight")?;
        if let Some(stated) = arguments.classes.filter(|stated| *stated != classes) {
            return Err(Fault::Config(format!(
                "num_classes: expected {classes}, the number of rows of head.weight, found {stated}"
            )));
        }
        let [_, positions, _] = sizes(found, &root, "pos_embed")?;
        let mut special = Vec::new();
        for name in ["cls_token", "dist_token", "reg_token"].into_iter().filter(|name| has(name)) {
            let [_, tokens, _] = sizes(found, &root, name)?;
            special.push((name, tokens));
        }
        let (image, positions_of_patches) =
            place(&arguments, [high, wide], positions, special.iter().map(|(_, tokens)| tokens).sum())?;
        let head_width = if has("blocks.0.attn.q_norm.weight") {
            let [head_width] = sizes(found, &root, "blocks.0.attn.q_norm.weight")?;
            Some(head_width)
        } else {
            None
        };
        let named = arguments.named;
        let eps = match named {
            Some(named) => named.eps,
            // Only the architectures after CLIP have this norm.
            None if has("norm_pre.weight") => CLIP_EPS,
            None => EPS,
        };
        let stated = expected::stated("activation", spec.activation.as_deref(), arguments.activation.as_deref())?;
        let activation = match stated {
            Some(name) => Activation::parse(name)
                .ok_or_else(|| format!("activation: expected one of {}, found `{name}`", Activation::NAMES))?,
            None => named.map_or(Activation::Gelu, |named| named.activation),
        };
        let mut assumed = Vec::new();
        if stated.is_none() && named.is_none() {
            assumed.push("activation `gelu`, as in most of timm's ViTs (change with zoo.activation)".to_string());
        }
        let layers = expected::count(found, &format!("{root}blocks"));
        let (heads, by_shapes) = heads(spec, &arguments, width, layers, head_width)?;
        assumed.extend(by_shapes);
        let pool = pool(&arguments, has("dist_token"), has("cls_token"), has("fc_norm.weight"))?;
        if arguments.pool.is_none() && named.is_none() && pool != Pool::Distilled {
            let how = if pool == Pool::Token { "the class token" } else { "the mean of the patches" };
            assumed.push(format!(
                "the head uses {how}, derived from the tensor names (change with global_pool in config.json)"
            ));
        }
        let config = Self {
            width,
            layers,
            heads,
            hidden,
            activation,
            eps: arguments.eps.unwrap_or(eps),
            channels,
            patch: [high, wide],
            image,
            special,
            positions_of_patches,
            positions,
            pool,
            classes,
            root,
        };
        Ok((config, assumed))
    }

    /// Name and shape of every tensor; layers that may be left out are expected if the ingredient's first block has them.
    pub(super) fn tensors(&self, found: &Ingredient) -> Tensors {
        let (w, d) = (self.width, self.width / self.heads);
        let mut tensors = vec![
            (format!("{}pos_embed", self.root), vec![1, self.positions, w]),
            (format!("{}patch_embed.proj.weight", self.root), vec![w, self.channels, self.patch[0], self.patch[1]]),
            (format!("{}head.weight", self.root), vec![self.classes, w]),
        ];
        let special = self.special.iter().map(|(name, tokens)| (format!("{}{name}", self.root), vec![1, *tokens, w]));
        tensors.extend(special);
        if self.pool == Pool::Distilled {
            tensors.push((format!("{}head_dist.weight", self.root), vec![self.classes, w]));
        }
        let is_there = |name: &str| found.info(&format!("{}{name}", self.root)).is_some();
        let mut optional = |name: &str, shape: &[i64]| {
            if is_there(name) {
                tensors.push((format!("{}{name}", self.root), shape.to_vec()));
            }
        };
        optional("patch_embed.proj.bias", &[w]);
        optional("head.bias", &[self.classes]);
        if self.pool == Pool::Distilled {
            optional("head_dist.bias", &[self.classes]);
        }
        for norm in ["norm_pre", "norm", "fc_norm"] {
            optional(&format!("{norm}.weight"), &[w]);
            optional(&format!("{norm}.bias"), &[w]);
        }
        let required: [(&str, &[i64]); 8] = [
            ("norm1.weight", &[w]),
            ("norm1.bias", &[w]),
            ("norm2.weight", &[w]),
            ("norm2.bias", &[w]),
            ("attn.qkv.weight", &[3 * w, w]),
            ("attn.proj.weight", &[w, w]),
            ("mlp.fc1.weight", &[self.hidden, w]),
            ("mlp.fc2.weight", &[w, self.hidden]),
        ];
        let left_out: [(&str, &[i64]); 10] = [
            ("attn.qkv.bias", &[3 * w]),
            ("attn.proj.bias", &[w]),
            ("attn.q_norm.weight", &[d]),
            ("attn.q_norm.bias", &[d]),
            ("attn.k_norm.weight", &[d]),
            ("attn.k_norm.bias", &[d]),
            ("mlp.fc1.bias", &[self.hidden]),
            ("mlp.fc2.bias", &[w]),
            ("ls1.gamma", &[w]),
            ("ls2.gamma", &[w]),
        ];
        let left_out = left_out.iter().filter(|(part, _)| is_there(&format!("blocks.0.{part}")));
        let block: Vec<_> = required.iter().chain(left_out).collect();
        for n in 0..self.layers {
            tensors
                .extend(block.iter().map(|(part, shape)| (format!("{}blocks.{n}.{part}", self.root), shape.to_vec())));
        }
        tensors
    }
}

fn sizes<const N: usize>(found: &Ingredient, root: &str, name: &str) -> Result<[i64; N], Fault> {
    expected::sizes(found, &format!("{root}{name}")).map_err(Fault::Tensor)
}

/// Attention heads: as stated, as the norms of queries tell, or as the architecture has them; and what was assumed if shapes alone told.
fn heads(
    spec: &ZooSpec,
    arguments: &Arguments,
    width: i64,
    blocks: i64,
    head_width: Option<i64>,
) -> Result<(i64, Option<String>), String> {
    let stated = expected::stated("num_heads", spec.heads.map(|heads| heads as i64), arguments.heads)?;
    let (heads, assumed) = match (stated.or(head_width.map(|d| width / d)), arguments.named) {
        (Some(heads), _) => (heads, None),
        (None, Some(named)) if !arguments.other_width => (named.heads.unwrap_or(width / 64), None),
        (None, _) => {
            let (heads, what) = expected::heads_of_published(width, blocks)?;
            (heads, Some(what))
        }
    };
    if heads < 1 || width % heads != 0 {
        return Err(format!("attention heads: expected a divisor of the width {width}, found {heads}"));
    }
    match head_width {
        Some(d) if heads * d != width => {
            Err(format!("attention heads: expected {}, because q_norm has width {d}, found {heads}", width / d))
        }
        _ => Ok((heads, assumed)),
    }
}

/// Where the head looks: as stated, or as the tensors suggest.
fn pool(arguments: &Arguments, distilled: bool, has_class: bool, norm_after: bool) -> Result<Pool, String> {
    let default = if norm_after || !has_class { "avg" } else { "token" };
    match arguments.pool.as_deref().unwrap_or(default) {
        "token" if distilled => Ok(Pool::Distilled),
        "token" if has_class => Ok(Pool::Token),
        "avg" if !distilled => Ok(Pool::Mean { with_special: arguments.with_special }),
        other => {
            let expected = match (distilled, has_class) {
                (true, _) => "`token`, with a distillation token",
                (false, true) => "`token` or `avg`",
                (false, false) => "`avg`, without a class token",
            };
            Err(format!("global_pool: expected {expected}, found `{other}`"))
        }
    }
}

/// Height and width of the input, and whether only patches have positions.
fn place(arguments: &Arguments, patch: [i64; 2], positions: i64, special: i64) -> Result<([i64; 2], bool), String> {
    // Without special tokens the two are one.
    let ways: &[bool] = if special == 0 { &[false] } else { &[false, true] };
    let ways = ways
        .iter()
        .copied()
        .filter(|way| arguments.positions_of_patches.is_none_or(|only| only == *way || special == 0));
    let patches = |only: bool| positions - if only { 0 } else { special };
    for image in &arguments.images {
        let fits = |only: &bool| (image[0] / patch[0]) * (image[1] / patch[1]) == patches(*only);
        if let Some(only) = ways.clone().find(fits) {
            return Ok((*image, only));
        }
    }
    let side = |n: i64| (1..=n).find(|side| side * side >= n).filter(|side| side * side == n);
    let squares: Vec<_> = ways.filter_map(|only| Some((side(patches(only))?, only))).collect();
    match squares[..] {
        [(side, only)] => Ok(([side * patch[0], side * patch[1]], only)),
        [] => Err(format!(
            "pos_embed: expected a square number of patches, or `img_size`, found {positions} positions and {special} special tokens"
        )),
        _ => Err(format!(
            "pos_embed: with {positions} positions and {special} special tokens it is unclear whether the special tokens have positions: set `model_args.no_embed_class` in config.json"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(json: serde_json::Value) -> Arguments {
        Arguments::of(Some(&json)).unwrap()
    }

    #[test]
    fn positions_tell_the_image_and_who_has_them() {
        let none = Arguments::default();
        assert_eq!(place(&none, [16, 16], 197, 1), Ok(([224, 224], false)));
        assert_eq!(place(&none, [16, 16], 196, 1), Ok(([224, 224], true)));
        assert_eq!(place(&none, [16, 16], 196, 0), Ok(([224, 224], false)));
        assert!(place(&none, [16, 16], 23, 1).is_err());
        assert!(place(&none, [4, 4], 9, 8).unwrap_err().contains("no_embed_class"));
        let stated = arguments(serde_json::json!({"model_args": {"no_embed_class": true}}));
        assert_eq!(place(&stated, [4, 4], 9, 8), Ok(([12, 12], true)));
        let wide = arguments(serde_json::json!({"model_args": {"img_size": [8, 13]}}));
        assert_eq!(place(&wide, [4, 4], 7, 1), Ok(([8, 13], false)));
        // The size of the weights that a model began with, no longer its own.
        let stale = arguments(serde_json::json!({"pretrained_cfg": {"input_size": [3, 224, 224]}}));
        assert_eq!(place(&stale, [16, 16], 577, 1), Ok(([384, 384], false)));
    }

    #[test]
    fn pooling_is_stated_or_suggested() {
        let none = Arguments::default();
        assert_eq!(pool(&none, false, true, false), Ok(Pool::Token));
        assert_eq!(pool(&none, false, true, true), Ok(Pool::Mean { with_special: false }));
        assert_eq!(pool(&none, false, false, false), Ok(Pool::Mean { with_special: false }));
        assert_eq!(pool(&none, true, true, false), Ok(Pool::Distilled));
        let map = arguments(serde_json::json!({"global_pool": "map"}));
        assert!(pool(&map, false, true, false).unwrap_err().contains("found `map`"));
        let token = arguments(serde_json::json!({"global_pool": "token"}));
        assert!(pool(&token, false, false, true).is_err());
    }
}
