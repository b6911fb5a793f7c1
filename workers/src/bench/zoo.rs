//! Made-up zoos: ViTs of random weights, and images of random values. What is measured on them does not depend on what they hold.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use mehl_soup_worker::families::VitConfig;
use mehl_soup_worker::rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// How large the models are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// ViT-B/32 at 224 px: 88 million values.
    VitB,
    /// ViT-S/32 at 224 px: 23 million values.
    VitS,
    /// The ViT of `mehl-soup demo` at 8 px: 136 thousand values.
    Demo,
}

impl Size {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::VitB => "ViT-B/32, 224 px",
            Self::VitS => "ViT-S/32, 224 px",
            Self::Demo => "the demo's ViT, 8 px",
        }
    }

    /// Classes of the models.
    pub fn classes(self) -> usize {
        if self == Self::Demo { 10 } else { 1000 }
    }

    /// Shape of an image: `[channels, height, width]`.
    pub fn image(self) -> [i64; 3] {
        if self == Self::Demo { [1, 8, 8] } else { [3, 224, 224] }
    }

    /// Values of one model.
    pub fn elements(self, config: &VitConfig) -> usize {
        let tensors = config.tensors(self.classes() as i64);
        tensors.iter().map(|(_, shape)| shape.iter().product::<i64>() as usize).sum()
    }

    /// Batches of learn data.
    fn batches(self) -> usize {
        if self == Self::Demo { 10 } else { 2 }
    }

    fn config(self) -> serde_json::Value {
        let (patch, width, layers, heads, hidden) = match self {
            Self::VitB => (32, 768, 12, 12, 3072),
            Self::VitS => (32, 384, 12, 6, 1536),
            Self::Demo => (2, 64, 4, 4, 128),
        };
        let [channels, side, _] = self.image();
        // transformers counts classes by their names.
        let names: serde_json::Map<String, serde_json::Value> =
            (0..self.classes()).map(|i| (i.to_string(), format!("class {i}").into())).collect();
        serde_json::json!({
            "architectures": ["ViTForImageClassification"], "model_type": "vit", "patch_size": patch, "image_size": side,
            "num_channels": channels, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": hidden, "id2label": names,
        })
    }
}

fn random(shape: &[i64], scale: f32, rng: &mut impl rand_chacha::rand_core::Rng) -> Vec<f32> {
    let n = shape.iter().product::<i64>() as usize;
    (0..n).map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * scale).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Makes what of `out/zoo/*` and `out/learn.safetensors` is not there yet: `ingredients` models, and samples for some batches. Answers the models' architecture.
pub fn make(out: &Path, size: Size, ingredients: usize, batch: usize) -> anyhow::Result<VitConfig> {
    let config = size.config();
    let vit = VitConfig::from_json(&config).map_err(anyhow::Error::msg)?;
    for k in 0..ingredients {
        let folder = out.join(format!("zoo/k{k:03}"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.json"), format!("{config:#}\n"))?;
        if folder.join("model.safetensors").exists() {
            continue;
        }
        eprintln!("making {}", folder.display());
        let mut rng = rng::generator(k as u64, "bench", &[]);
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = vit
            .tensors(size.classes() as i64)
            .into_iter()
            .map(|(name, shape)| {
                let norm = name.contains("layernorm") && name.ends_with("weight");
                let mut values = random(&shape, 0.06, &mut rng);
                if norm {
                    values.iter_mut().for_each(|v| *v += 1.0);
                }
                (name, shape.iter().map(|&d| d as usize).collect(), bytes(&values))
            })
            .collect();
        write(&folder.join("model.safetensors"), &tensors, Dtype::F32)?;
    }
    make_samples(&out.join("learn.safetensors"), size, size.batches() * batch.max(16))?;
    Ok(vit)
}

/// Makes a file of `n` samples if there is none.
pub fn make_samples(path: &Path, size: Size, n: usize) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut rng = rng::generator(0, "bench data", &[]);
    let [channels, height, width] = size.image();
    let shape = [n as i64, channels, height, width];
    let labels: Vec<u8> = (0..n as i64).flat_map(|i| (i % size.classes() as i64).to_le_bytes()).collect();
    let pixels = bytes(&random(&shape, 2.0, &mut rng));
    let views = [
        ("inputs", TensorView::new(Dtype::F32, shape.map(|d| d as usize).to_vec(), &pixels)?),
        ("labels", TensorView::new(Dtype::I64, vec![n], &labels)?),
    ];
    Ok(fs::write(path, safetensors::serialize(views, None)?)?)
}

fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)], dtype: Dtype) -> anyhow::Result<()> {
    let mut views = Vec::new();
    for (name, shape, data) in tensors {
        views.push((name.as_str(), TensorView::new(dtype, shape.clone(), data)?));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let partial = path.with_extension("partial");
    fs::write(&partial, safetensors::serialize(views, Some(metadata))?)?;
    Ok(fs::rename(partial, path)?)
}
