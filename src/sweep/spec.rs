//! The resolved specification of a sweep: what a `sweep.toml` means once it was read and found valid.
//!
//! These types hold only valid values; reading, defaults and faults are in [`super::parse`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::asha::Asha;
pub use super::distribution::Distribution;
pub use super::dtype::ComputeDtype;
use super::image_spec::ImageSpec;
pub use super::linear::LinearLibrary;
pub use super::method::MethodName;
use super::metric::Metric;
use super::objective::ObjectiveName;
use super::text_spec::TextSpec;

/// A whole specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the sweep, for people.
    pub name: String,
    /// Seed of everything random that is not a task's own: the split of `learn`, the search's samples, and the default of `soup.seed`.
    pub seed: u64,
    /// The ingredients.
    pub zoo: ZooSpec,
    /// The data.
    pub data: DataSpec,
    /// Hyperparameters that every task starts from.
    pub soup: SoupSpec,
    /// The fields of `[soup]` that the file states, as it states them. Overrides replace these, and defaults are taken afterwards: they follow the method.
    pub soup_given: Overrides,
    /// Which tasks the sweep has.
    pub search: SearchSpec,
    /// Where it is computed. Not part of the sweep's identity.
    pub compute: ComputeSpec,
}

/// `[zoo]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZooSpec {
    /// Files, folders or globs, absolute after reading; the order of ingredients is that of the sorted paths.
    pub ingredients: Vec<String>,
    /// Family of the model, `None` for `auto`.
    pub family: Option<Family>,
    /// The model that the ingredients were fine-tuned from, as one more row of soups; absolute after reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// TorchScript module, for `family = "torchscript"`; absolute after reading.
    pub architecture: Option<PathBuf>,
    /// Attention heads of a transformer, where files do not tell; `None`: as the family finds it.
    pub heads: Option<usize>,
    /// Activation function, by its name in Hugging Face configurations, where files do not tell; `None`: as the family finds it.
    pub activation: Option<String>,
    /// Use only the best this many ingredients by select; `None` for all.
    pub top: Option<usize>,
    /// Whether ingredients with equal contents count as often as they are there, and not once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_duplicates: bool,
    /// Whether a sweep goes on where no ingredient is better than guessing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_chance: bool,
}

impl ZooSpec {
    /// These ingredients, and nothing else stated.
    pub fn of(ingredients: Vec<String>) -> Self {
        Self {
            ingredients,
            base: None,
            family: None,
            architecture: None,
            heads: None,
            activation: None,
            top: None,
            keep_duplicates: false,
            allow_chance: false,
        }
    }
}

impl Family {
    /// Every family, by the name used in specifications.
    pub const NAMED: [(&str, Family); 7] = [
        ("vit", Family::Vit),
        ("clip-vit", Family::ClipVit),
        ("timm-vit", Family::TimmVit),
        ("resnet", Family::Resnet),
        ("bert", Family::Bert),
        ("modernbert", Family::Modernbert),
        ("torchscript", Family::Torchscript),
    ];

    /// The name used in specifications.
    pub fn as_str(self) -> &'static str {
        Self::NAMED.iter().find(|(_, family)| *family == self).map_or("", |(name, _)| name)
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Model families, by the names used in specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Hugging Face ViT and DeiT for image classification.
    Vit,
    /// OpenAI CLIP's visual tower with a classification head, and Hugging Face `CLIPForImageClassification`.
    ClipVit,
    /// timm's ViT and DeiT.
    TimmVit,
    /// torchvision's and timm's ResNet.
    Resnet,
    /// Hugging Face BERT, RoBERTa, XLM-R and DistilBERT.
    Bert,
    /// Hugging Face ModernBERT.
    Modernbert,
    /// Any module saved by `torch.jit`.
    Torchscript,
}

/// `[data]`; paths are absolute after reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataSpec {
    /// Data that coefficients are learned on.
    pub learn: PathBuf,
    /// Data that steers early stopping, ranking and the choice of the winner; `None`: a part of `learn` is set aside.
    pub select: Option<PathBuf>,
    /// Data that is reported only.
    pub test: Option<PathBuf>,
    /// Names of the input tensors, in the order in which the model takes them.
    pub inputs: Vec<String>,
    /// Name of the label tensor.
    pub labels: String,
    /// Fraction of `learn` set aside when there is no `select`, in (0, 1).
    pub select_fraction: f64,
    /// What ranks tasks and steers early stopping.
    pub metric: Metric,
    /// What coefficients are learned for; `None`: what the ingredients' configurations say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveName>,
    /// With objective `pairs`: factor on cosines, above 0; `None`: [`DataSpec::SCALE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// How images become what the model takes. Fields about images are left out where they say nothing: what was begun without them goes on.
    #[serde(default, skip_serializing_if = "ImageSpec::is_default")]
    pub image: ImageSpec,
    /// How texts become what the model takes.
    #[serde(default, skip_serializing_if = "TextSpec::is_default")]
    pub text: TextSpec,
    /// Names of the classes of images, in the order of the model's outputs; `None`: what files tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Whether images that cannot be read are left out instead of being a fault.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_unreadable: bool,
    /// Whether a split may lack classes that another has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_missing_classes: bool,
}

impl DataSpec {
    /// Default of [`scale`](Self::scale), that of sentence-transformers' `MultipleNegativesRankingLoss`.
    pub const SCALE: f64 = 20.0;
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Which parameters share a coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grouping {
    /// All of them: one coefficient a model.
    Model,
    /// Those of one transformer block; what is before the first and after the last block forms groups of its own.
    Block,
    /// One coefficient a tensor.
    Tensor,
}

/// Where a hyperplane method starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// `batch-mean`, but `greedy` where that mean's loss on select is twice the best ingredient's and, unless it is a squared error, 0.1 above it: the rest of a descent seldom makes up for a start among bad models.
    Auto,
    /// Mean of the first model batch (the authors' way); with one model a batch, the mean of all.
    BatchMean,
    /// Mean of all ingredients.
    Uniform,
    /// Best ingredient by select.
    Best,
    /// Greedy soup.
    Greedy,
}

/// How the directions of a model batch are stored. They steer the search; folds and scores use the ingredients' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectionDtype {
    /// int8 where the forward and backward pass is in bf16, whose gradients are no finer; else f32.
    #[default]
    Auto,
    /// As coefficients and soups are computed: f32, or f64 for checks against references.
    F32,
    /// 2 bytes a value.
    Bf16,
    /// 8 bits a value, and a scale of 2 bytes for 64 values.
    Int8,
    /// 4 bits a value, and a scale of 2 bytes for 64 values.
    Int4,
}

impl DirectionDtype {
    /// What `auto` stands for under a dtype of the forward and backward pass.
    pub fn resolve(self, computes_in_bf16: bool) -> Self {
        match self {
            Self::Auto if computes_in_bf16 => Self::Int8,
            Self::Auto => Self::F32,
            other => other,
        }
    }
}

/// Number of ingredients resident at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModelBatch {
    /// This many (never more than there are).
    Fixed(usize),
    /// As many as the memory budget allows, resolved once a task.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// `"auto"`
    Auto,
}

/// How strongly `steady` holds the coefficients of an ingredient together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shrink {
    /// Deviations shrink by `1 / (1 + rate * this)` a step; >= 0.
    By(f64),
    /// No deviations: one coefficient a model.
    Model(OneLevel),
}

/// The word `model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OneLevel {
    /// `"model"`
    Model,
}

/// `[soup]`: one task's hyperparameters. Every field can be searched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SoupSpec {
    /// Method.
    pub method: MethodName,
    /// Layer groups; `Model` for methods without `+`, `Tensor` (default) or `Block` for those with it.
    pub layer_groups: Grouping,
    /// Ingredients a model batch (`mehl`, `mehl+` and `steady`; the others hold all).
    pub model_batch: ModelBatch,
    /// How directions are stored (hyperplane methods).
    #[serde(default)]
    pub direction_dtype: DirectionDtype,
    /// Passes over the learn data a model batch, at least 1.
    pub inner_epochs: usize,
    /// Passes over the ingredients (`mehl`), at least 1.
    pub outer_epochs: usize,
    /// Samples an iteration, at least 1.
    pub batch: usize,
    /// Peak learning rate of AdamW on the coefficients, > 0. Default 0.01; 0.05 for `learned`.
    pub learning_rate: f64,
    /// Decoupled weight decay of the coefficients, >= 0; 0 with `steady`, which shrinks instead.
    pub weight_decay: f64,
    /// How strongly coefficients of an ingredient are held together; `None` with other methods than `steady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink: Option<Shrink>,
    /// Decay of the mean of the iterates that is the result, in [0, 1); 0 takes the last iterate. `None` with other methods than `steady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Part of the steps over which the learning rate rises, in [0, 1] (hyperplane methods).
    pub warmup: f64,
    /// Largest global norm of the model's gradient, > 0 (hyperplane methods).
    pub gradient_clip: f64,
    /// Where a hyperplane method starts.
    pub init: Init,
    /// Whether a model batch ends with its best coefficients by select.
    pub early_stopping: bool,
    /// Inner epochs without improvement before a model batch ends, at least 1.
    pub patience: usize,
    /// Seed of model batches and data order.
    pub seed: u64,
}

/// `[search]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchSpec {
    /// How tasks are drawn.
    pub strategy: Strategy,
    /// Number of drawn tasks (random, asha), points not counted.
    pub tasks: usize,
    /// Where tasks are stopped, and how many go on; with strategy `asha`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asha: Option<Asha>,
    /// Tasks that run first: overrides by field.
    pub points: Vec<Overrides>,
    /// The searched fields, in the order of the file; keys are fields of `[soup]`, or `zoo.top`.
    pub space: Vec<(String, Distribution)>,
    /// Seconds after which nothing new is computed; unfinished tasks keep their checkpoints. Not part of the sweep's identity.
    pub max_seconds: Option<f64>,
    /// Whether the greedy soup is computed as a baseline.
    pub greedy_baseline: bool,
}

/// Field name (of `[soup]`, or `zoo.top`) to value.
pub type Overrides = std::collections::BTreeMap<String, serde_json::Value>;

/// How the tasks of a sweep are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Every combination.
    Grid,
    /// Independent samples.
    Random,
    /// Independent samples, of which the better ones are computed further than others.
    Asha,
}

/// `[compute]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeSpec {
    /// Devices, one task at a time on each: `cpu`, `cuda`, `cuda:1`.
    pub devices: Vec<String>,
    /// Threads a device's CPU computation uses; `None`: all cores over the number of devices.
    pub threads: Option<usize>,
    /// Dtype of forward and backward passes while learning; `None`: what the device is good at, resolved once a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<ComputeDtype>,
    /// Library of linear layers in f32 on a CPU; `None`: oneDNN on processors of AMD, else libtorch's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<LinearLibrary>,
    /// Whether activations are computed anew for the backward pass, block by block, instead of being kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recompute: bool,
    /// Memory budget in bytes for `model_batch = "auto"`; `None`: 80 % of what is free when a task begins, shared by
    /// the devices.
    pub memory_bytes: Option<u64>,
    /// Shortest time between two checkpoints within an inner epoch.
    pub checkpoint_seconds: f64,
    /// Samples a batch when scoring.
    pub score_batch: usize,
    /// Most bytes of decoded images that are kept between runs.
    #[serde(default = "ComputeSpec::default_image_cache")]
    pub image_cache_bytes: u64,
    /// Tasks whose values of single samples are kept, the best by select, baselines besides: for paired comparisons.
    #[serde(
        default = "ComputeSpec::default_paired_tasks",
        skip_serializing_if = "ComputeSpec::is_default_paired_tasks"
    )]
    pub paired_tasks: usize,
}

impl ComputeSpec {
    /// Default of [`image_cache_bytes`](Self::image_cache_bytes): 20 GiB, some 140,000 images of 224 x 224.
    pub fn default_image_cache() -> u64 {
        20 << 30
    }

    /// Default of [`paired_tasks`](Self::paired_tasks).
    pub fn default_paired_tasks() -> usize {
        16
    }

    fn is_default_paired_tasks(tasks: &usize) -> bool {
        *tasks == Self::default_paired_tasks()
    }
}
