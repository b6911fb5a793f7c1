//! The architecture of a CLIP image classifier, from tensor shapes and, where there is one, `config.json`.

use mehl_soup::sweep::spec::ZooSpec;
use mehl_soup::zoo::{Ingredient, Zoo};
use serde_json::Value;

use super::FamilyError;
use super::activation::Activation;
use super::expected::{self, Tensors};

/// What OpenAI and Hugging Face call the same layers.
#[derive(Debug, PartialEq)]
pub(super) struct Naming {
    pub tower: &'static str,
    pub head: &'static str,
    pub class: &'static str,
    pub positions: &'static str,
    pub patches: &'static str,
    pub before: &'static str,
    pub blocks: &'static str,
    pub norms: [&'static str; 2],
    pub perceptron: [&'static str; 2],
    pub out: &'static str,
}

/// OpenAI's visual tower, and the head as in mlfoundations/model-soups.
pub(super) static OPENAI: Naming = Naming {
    tower: "visual.",
    head: "classification_head",
    class: "class_embedding",
    positions: "positional_embedding",
    patches: "conv1",
    before: "ln_pre",
    blocks: "transformer.resblocks",
    norms: ["ln_1", "ln_2"],
    perceptron: ["mlp.c_fc", "mlp.c_proj"],
    out: "attn.out_proj",
};

/// Hugging Face's `CLIPForImageClassification`.
pub(super) static HUGGING_FACE: Naming = Naming {
    tower: "vision_model.",
    head: "classifier",
    class: "embeddings.class_embedding",
    positions: "embeddings.position_embedding.weight",
    patches: "embeddings.patch_embedding",
    before: "pre_layrnorm",
    blocks: "encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    perceptron: ["mlp.fc1", "mlp.fc2"],
    out: "self_attn.out_proj",
};

/// Tensors of a whole CLIP that take no part in the logits, after the wrapper's prefix: the text tower, and what OpenAI's archives hold.
const IDLE_OPENAI: [&str; 11] = [
    "token_embedding.weight",
    "positional_embedding",
    "ln_final.weight",
    "ln_final.bias",
    "text_projection",
    "logit_scale",
    "transformer.resblocks.",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
];

/// The same of Hugging Face's: the norm of the pooled class token, which the classifier does not read, and a buffer of old versions.
const IDLE_HUGGING_FACE: [&str; 3] = ["post_layernorm.weight", "post_layernorm.bias", "embeddings.position_ids"];

/// Fields of Hugging Face's `config.json` that decide what a model computes, as JSON pointers.
const DECISIVE: [&str; 12] = [
    "/model_type",
    "/architectures",
    "/hidden_act",
    "/layer_norm_eps",
    "/num_attention_heads",
    "/image_size",
    "/patch_size",
    "/vision_config/hidden_act",
    "/vision_config/layer_norm_eps",
    "/vision_config/num_attention_heads",
    "/vision_config/image_size",
    "/vision_config/patch_size",
];

/// The architecture of a CLIP image classifier.
#[derive(Debug, PartialEq)]
pub(super) struct ClipConfig {
    /// What its layers are called.
    pub naming: &'static Naming,
    /// Name of the tower, with a dot at its end.
    pub tower: String,
    /// Name of the head.
    pub head: String,
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
    /// Side of a square patch.
    pub patch: i64,
    /// Side of the square input.
    pub image: i64,
    /// Number of patches.
    pub patches: i64,
    /// Width of the features.
    pub features: i64,
    /// Number of classes.
    pub classes: i64,
    /// Whether the head has a bias.
    pub head_bias: bool,
}

impl ClipConfig {
    /// Of the zoo's first ingredient, whose tensors are those of the model; the others' configurations agree with its own.
    /// And what was assumed of it.
    pub(super) fn from_zoo(spec: &ZooSpec, zoo: &Zoo) -> Result<(Self, Vec<String>), FamilyError> {
        let first = &zoo.ingredients()[0];
        let faults = expected::tensor_faults("clip-vit", first);
        expected::agree(zoo, &DECISIVE)?;
        if let Some(name) = first.tensor_names().find(|name| name.ends_with("visual.layer1.0.conv1.weight")) {
            return Err(faults(vec![format!("{name}: expected a vision transformer, found CLIP's ModifiedResNet")]));
        }
        let naming = [&OPENAI, &HUGGING_FACE]
            .into_iter()
            .find(|naming| naming.place(first).is_some())
            .ok_or_else(|| faults(vec![missing(&OPENAI), missing(&HUGGING_FACE)]))?;
        let shapes = Shapes::of(naming, first).map_err(|fault| faults(vec![fault]))?;
        let (config, assumed) = shapes.config(spec, first).map_err(expected::config_fault(first))?;
        expected::compare(&config.tensors(), first, |name| config.is_idle(name)).map_err(faults)?;
        Ok((config, assumed))
    }

    /// Name and shape of every tensor that takes part in the logits.
    pub(super) fn tensors(&self) -> Tensors {
        let (n, w, t) = (self.naming, self.width, &self.tower);
        let mut tensors = vec![
            (format!("{t}{}", n.class), vec![w]),
            (format!("{t}{}", n.positions), vec![self.patches + 1, w]),
            (format!("{t}{}.weight", n.patches), vec![w, self.channels, self.patch, self.patch]),
            (format!("{}.weight", self.head), vec![self.classes, self.features]),
        ];
        if self.head_bias {
            tensors.push((format!("{}.bias", self.head), vec![self.classes]));
        }
        let mut layer = |name: String, shape: &[i64]| {
            tensors.push((format!("{t}{name}.weight"), shape.to_vec()));
            tensors.push((format!("{t}{name}.bias"), vec![shape[0]]));
        };
        layer(n.before.to_string(), &[w]);
        if self.is_openai() {
            layer("ln_post".to_string(), &[w]);
        }
        for block in 0..self.layers {
            let block = format!("{}.{block}", n.blocks);
            for norm in n.norms {
                layer(format!("{block}.{norm}"), &[w]);
            }
            let [up, down] = n.perceptron;
            layer(format!("{block}.{up}"), &[self.hidden, w]);
            layer(format!("{block}.{down}"), &[w, self.hidden]);
            layer(format!("{block}.{}", n.out), &[w, w]);
            if !self.is_openai() {
                for part in ["q_proj", "k_proj", "v_proj"] {
                    layer(format!("{block}.self_attn.{part}"), &[w, w]);
                }
            }
        }
        if self.is_openai() {
            tensors.push((format!("{t}proj"), vec![w, self.features]));
            for block in 0..self.layers {
                let attention = format!("{t}{}.{block}.attn", n.blocks);
                tensors.push((format!("{attention}.in_proj_weight"), vec![3 * w, w]));
                tensors.push((format!("{attention}.in_proj_bias"), vec![3 * w]));
            }
        }
        tensors
    }

    /// Whether it is OpenAI's: features of the class token, projected and normalised. Otherwise the mean of the patches' tokens.
    pub(super) fn is_openai(&self) -> bool {
        self.naming == &OPENAI
    }

    /// Whether a tensor may be there without taking part in the logits.
    fn is_idle(&self, name: &str) -> bool {
        if self.is_openai() {
            let rest = name.strip_prefix(self.tower.trim_end_matches("visual."));
            rest.is_some_and(|rest| {
                IDLE_OPENAI.iter().any(|idle| rest == *idle || idle.ends_with('.') && rest.starts_with(idle))
            })
        } else {
            name.strip_prefix(&self.tower).is_some_and(|rest| IDLE_HUGGING_FACE.contains(&rest))
        }
    }
}

/// What to say where a tower is not found.
fn missing(naming: &Naming) -> String {
    format!("{}{}: expected a tower's class token, found no such tensor", naming.tower, naming.class)
}

impl Naming {
    /// The tower's and the head's whole names in an ingredient, if it has a tower by this naming.
    fn place(&self, ingredient: &Ingredient) -> Option<(String, String)> {
        let class = format!("{}{}", self.tower, self.class);
        let root = expected::root(ingredient, &class);
        ingredient.info(&format!("{root}{class}"))?;
        // The wrapper that normalises holds the tower as its `model`, and the head beside it.
        let beside = root.strip_suffix("model.").unwrap_or(&root);
        let heads = [&root, beside].map(|root| format!("{root}{}", self.head));
        let head = heads.iter().find(|head| ingredient.info(&format!("{head}.weight")).is_some());
        Some((format!("{root}{}", self.tower), head.unwrap_or(&heads[1]).clone()))
    }
}

/// What shapes alone tell.
struct Shapes {
    naming: &'static Naming,
    tower: String,
    head: String,
    layers: i64,
    hidden: i64,
    patch: [i64; 4],
    tokens: i64,
    features: i64,
    classes: i64,
}

impl Shapes {
    fn of(naming: &'static Naming, found: &Ingredient) -> Result<Self, String> {
        let (tower, head) = naming.place(found).ok_or_else(|| missing(naming))?;
        let blocks = format!("{tower}{}", naming.blocks);
        let [hidden, _] = expected::sizes(found, &format!("{blocks}.0.{}.weight", naming.perceptron[0]))?;
        let [tokens, _] = expected::sizes(found, &format!("{tower}{}", naming.positions))?;
        let [classes, features] = expected::sizes(found, &format!("{head}.weight"))?;
        let layers = expected::count(found, &blocks);
        let patch = expected::sizes(found, &format!("{tower}{}.weight", naming.patches))?;
        Ok(Self { naming, tower, head, layers, hidden, patch, tokens, features, classes })
    }

    /// Adds what only the configuration, the specification or habit tell.
    fn config(self, spec: &ZooSpec, found: &Ingredient) -> Result<(ClipConfig, Vec<String>), String> {
        let mut assumed = Vec::new();
        let [width, channels, patch, _] = self.patch;
        // `CLIPConfig` has the tower's in a field of its own, `CLIPVisionConfig` is the tower's.
        let json = found.config().map(|json| json.get("vision_config").unwrap_or(json));
        let json = expected::completed(json.unwrap_or(&Value::Object(Default::default())), spec)?;
        let whole = |key: &str| match json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => expected::one_size(value)
                .filter(|v| (1..=1 << 24).contains(v))
                .map(Some)
                .ok_or_else(|| format!("{key}: expected one whole number above 0, found {value}")),
        };
        // What transformers takes where its configuration is silent.
        let default = |value: i64| (self.naming == &HUGGING_FACE && found.config().is_some()).then_some(value);
        let heads = match whole("num_attention_heads")?.or(default(12)) {
            Some(heads) => heads,
            None => {
                let (heads, what) = expected::heads_of_published(width, self.layers)?;
                assumed.push(what);
                heads
            }
        };
        if width % heads != 0 {
            return Err(format!("attention heads: expected a divisor of the width {width}, found {heads}"));
        }
        let side = (1..=self.tokens).find(|side| side * side >= self.tokens - 1).unwrap_or(0);
        if side * side != self.tokens - 1 {
            return Err(format!(
                "{}{}: expected a class token and a square number of patches, found {} tokens",
                self.tower, self.naming.positions, self.tokens
            ));
        }
        let image = whole("image_size")?.or(default(224)).unwrap_or(side * patch);
        if image / patch != side {
            return Err(format!("image_size: expected {side} patches of {patch} pixels per side, found {image}"));
        }
        let name = json.get("hidden_act").and_then(Value::as_str);
        if name.is_none() && found.config().is_none() {
            assumed.push("activation `quick_gelu`, as in OpenAI's CLIP (change with zoo.activation)".to_string());
        }
        let name = name.unwrap_or("quick_gelu");
        let config = ClipConfig {
            naming: self.naming,
            width,
            layers: self.layers,
            heads,
            hidden: self.hidden,
            activation: Activation::parse(name)
                .ok_or_else(|| format!("activation: expected one of {}, found `{name}`", Activation::NAMES))?,
            eps: json.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-5),
            channels,
            patch,
            image,
            patches: self.tokens - 1,
            features: self.features,
            classes: self.classes,
            head_bias: found.info(&format!("{}.bias", self.head)).is_some(),
            tower: self.tower,
            head: self.head,
        };
        Ok((config, assumed))
    }
}
