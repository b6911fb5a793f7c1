//! Small untrained models: their configurations, and random tensors.

use std::collections::BTreeMap;
use std::path::Path;

use mehl_soup::sweep::spec::Family;
use safetensors::Dtype;
use serde_json::{Value, json};
use tch::nn::Init;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform, f_init};
use tch::{Device, Kind, TchError};

use super::DemoError;
use super::write::{Companions, Content, StoredTensor, write_model};
use crate::data::images::preprocessor;
use crate::families::VitConfig;

/// Width of a token of the ViTs, their blocks, heads, and the width of the perceptrons' hidden layer.
const VIT: [usize; 4] = [64, 4, 4, 128];
/// Channels of the stages of a ResNet.
const STAGES: [i64; 4] = [64, 128, 256, 512];

/// What a model is to take and to tell.
pub struct Blank<'a> {
    /// `vit`, `timm-vit` or `resnet`.
    pub family: Family,
    /// Side of its images, a multiple of 4.
    pub side: usize,
    /// Channels of its images.
    pub channels: usize,
    /// Names of its classes.
    pub classes: &'a [String],
}

/// A tensor that is to be.
struct Wanted {
    name: String,
    shape: Vec<i64>,
    init: Init,
}

impl Blank<'_> {
    /// Writes the model folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path, seed: u64) -> Result<(), DemoError> {
        tch::manual_seed(seed as i64);
        let mut tensors = self.wanted()?.iter().map(random).collect::<Result<Vec<_>, TchError>>()?;
        let counters = tensors.iter().filter_map(|t| t.name.strip_suffix("running_mean")).map(|norm| StoredTensor {
            name: format!("{norm}num_batches_tracked"),
            dtype: Dtype::I64,
            shape: vec![],
            bytes: vec![0; 8],
        });
        let counters: Vec<_> = counters.collect();
        tensors.extend(counters);
        write_model(path, &self.companions(), &tensors)
    }

    /// Side of a patch: 16 to 64 patches an image.
    fn patch(&self) -> usize {
        if self.side >= 32 && self.side.is_multiple_of(8) { self.side / 8 } else { self.side / 4 }
    }

    fn companions(&self) -> Companions {
        let files = match self.family {
            Family::Vit => {
                let mut companions = vec![("config.json", self.vit_config())];
                if self.channels == 3 {
                    companions.push((preprocessor::FILE, self.processor()));
                }
                companions
            }
            Family::TimmVit => vec![("config.json", self.timm_config("vit_tiny_patch16_224", &self.timm_vit()))],
            _ => vec![("config.json", self.timm_config("resnet18", &json!({ "layers": [1, 1, 1, 1] })))],
        };
        files.into_iter().map(|(name, json)| (name, Content::Json(json))).collect()
    }

    fn vit_config(&self) -> Value {
        let [width, layers, heads, hidden] = VIT;
        let labels: BTreeMap<String, &String> =
            self.classes.iter().enumerate().map(|(i, name)| (i.to_string(), name)).collect();
        let ids: BTreeMap<&String, usize> = self.classes.iter().enumerate().map(|(i, name)| (name, i)).collect();
        json!({
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "hidden_size": width,
            "image_size": self.side,
            "initializer_range": 0.02,
            "intermediate_size": hidden,
            "layer_norm_eps": 1e-6,
            "num_attention_heads": heads,
            "num_channels": self.channels,
            "num_hidden_layers": layers,
            "patch_size": self.patch(),
            "qkv_bias": true,
            "id2label": labels,
            "label2id": ids,
            "dtype": "float32",
        })
    }

    fn processor(&self) -> Value {
        json!({
            "image_processor_type": "ViTImageProcessor",
            "do_resize": true,
            "size": { "height": self.side, "width": self.side },
            "resample": 2,
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        })
    }

    fn timm_vit(&self) -> Value {
        let [width, layers, heads, hidden] = VIT;
        json!({
            "img_size": self.side,
            "patch_size": self.patch(),
            "embed_dim": width,
            "depth": layers,
            "num_heads": heads,
            "mlp_ratio": hidden as f64 / width as f64,
        })
    }

    /// As timm's `save_for_hf` writes it.
    fn timm_config(&self, architecture: &str, arguments: &Value) -> Value {
        let is_vit = self.family == Family::TimmVit;
        let mut config = json!({
            "architecture": architecture,
            "num_classes": self.classes.len(),
            "num_features": if is_vit { VIT[0] as i64 } else { STAGES[3] },
            "global_pool": if is_vit { "token" } else { "avg" },
            "model_args": arguments,
            "label_names": self.classes,
            "pretrained_cfg": {
                "input_size": [self.channels, self.side, self.side],
                "fixed_input_size": is_vit,
                "interpolation": "bilinear",
                "crop_pct": 1.0,
                "crop_mode": "center",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
                "num_classes": self.classes.len(),
                "first_conv": if is_vit { "patch_embed.proj" } else { "conv1" },
                "classifier": if is_vit { "head" } else { "fc" },
            },
        });
        if !is_vit {
            config["pretrained_cfg"]["pool_size"] = json!([self.side.div_ceil(32), self.side.div_ceil(32)]);
        }
        config
    }

    fn wanted(&self) -> Result<Vec<Wanted>, DemoError> {
        Ok(match self.family {
            Family::Vit => {
                let config = VitConfig::from_json(&self.vit_config()).map_err(DemoError::Data)?;
                transformer(config.tensors(self.classes.len() as i64))
            }
            Family::TimmVit => transformer(self.timm_tensors()),
            _ => self.resnet_tensors(),
        })
    }

    fn timm_tensors(&self) -> Vec<(String, Vec<i64>)> {
        let [width, layers, _, hidden] = VIT.map(|n| n as i64);
        let patch = self.patch() as i64;
        let tokens = (self.side as i64 / patch).pow(2) + 1;
        let mut tensors = vec![
            ("cls_token".to_string(), vec![1, 1, width]),
            ("pos_embed".to_string(), vec![1, tokens, width]),
            ("patch_embed.proj.weight".to_string(), vec![width, self.channels as i64, patch, patch]),
            ("patch_embed.proj.bias".to_string(), vec![width]),
        ];
        let mut pair = |name: &str, weight: &[i64]| {
            tensors.push((format!("{name}.weight"), weight.to_vec()));
            tensors.push((format!("{name}.bias"), vec![weight[0]]));
        };
        for n in 0..layers {
            pair(&format!("blocks.{n}.norm1"), &[width]);
            pair(&format!("blocks.{n}.attn.qkv"), &[3 * width, width]);
            pair(&format!("blocks.{n}.attn.proj"), &[width, width]);
            pair(&format!("blocks.{n}.norm2"), &[width]);
            pair(&format!("blocks.{n}.mlp.fc1"), &[hidden, width]);
            pair(&format!("blocks.{n}.mlp.fc2"), &[width, hidden]);
        }
        pair("norm", &[width]);
        pair("head", &[self.classes.len() as i64, width]);
        tensors
    }

    /// Weights of convolutions as He et al. 2015 (arXiv 1502.01852) draw them, as torchvision does.
    fn resnet_tensors(&self) -> Vec<Wanted> {
        let he =
            Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };
        let mut tensors = Vec::new();
        let mut push = |name: String, shape: &[i64], init| tensors.push(Wanted { name, shape: shape.to_vec(), init });
        let mut convolution = |conv: &str, norm: &str, shape: [i64; 4]| {
            push(format!("{conv}.weight"), &shape, he);
            for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
                push(format!("{norm}.{part}"), &shape[..1], Init::Const(value));
            }
        };
        convolution("conv1", "bn1", [STAGES[0], self.channels as i64, 7, 7]);
        let mut width = STAGES[0];
        for (stage, out) in (1..).zip(STAGES) {
            let block = format!("layer{stage}.0");
            convolution(&format!("{block}.conv1"), &format!("{block}.bn1"), [out, width, 3, 3]);
            convolution(&format!("{block}.conv2"), &format!("{block}.bn2"), [out, out, 3, 3]);
            if out != width {
                let (conv, norm) = (format!("{block}.downsample.0"), format!("{block}.downsample.1"));
                convolution(&conv, &norm, [out, width, 1, 1]);
            }
            width = out;
        }
        let bound = 1.0 / (width as f64).sqrt();
        for (name, shape) in
            [("fc.weight", vec![self.classes.len() as i64, width]), ("fc.bias", vec![self.classes.len() as i64])]
        {
            push(name.to_string(), &shape, Init::Uniform { lo: -bound, up: bound });
        }
        tensors
    }
}

/// Normal with deviation 0.02 for weights and embeddings, ones for norms, zeros for biases.
fn transformer(tensors: Vec<(String, Vec<i64>)>) -> Vec<Wanted> {
    let wanted = |(name, shape): (String, Vec<i64>)| {
        let init = match name.rsplit('.').next() {
            Some("bias") => Init::Const(0.0),
            Some("weight") if shape.len() == 1 => Init::Const(1.0),
            _ => Init::Randn { mean: 0.0, stdev: 0.02 },
        };
        Wanted { name, shape, init }
    };
    tensors.into_iter().map(wanted).collect()
}

/// A head for other classes.
///
/// # Errors
/// If libtorch refuses.
pub fn random_head(name: &str, shape: &[i64]) -> Result<StoredTensor, TchError> {
    let init = if shape.len() == 1 { Init::Const(0.0) } else { Init::Randn { mean: 0.0, stdev: 0.02 } };
    random(&Wanted { name: name.to_string(), shape: shape.to_vec(), init })
}

fn random(wanted: &Wanted) -> Result<StoredTensor, TchError> {
    let tensor = f_init(wanted.init, &wanted.shape, Device::Cpu, Kind::Float)?;
    let values = Vec::<f32>::try_from(tensor.f_contiguous()?.f_view(-1)?)?;
    Ok(StoredTensor {
        name: wanted.name.clone(),
        dtype: Dtype::F32,
        shape: wanted.shape.iter().map(|&d| d as usize).collect(),
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    })
}
