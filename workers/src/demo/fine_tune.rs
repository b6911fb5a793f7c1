//! Real training runs: a small ViT from scratch, then fine-tuned with random hyperparameters.

use std::collections::BTreeMap;

use mehl_soup::sweep::manifest::SplitScore;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::nn::{self, OptimizerConfig, VarStore};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::digits::{CLASSES, SIDE};
use crate::data::Split;
use crate::families::{Model, Pass, Precision, Vit, VitConfig};
use crate::rng::{below, generator, permutation, unit};

/// `config.json` of the demo's ViT: 4 blocks, 64 wide, patches of 2 x 2 pixels.
pub fn config() -> serde_json::Value {
    let labels: BTreeMap<String, String> = (0..CLASSES).map(|i| (i.to_string(), i.to_string())).collect();
    let ids: BTreeMap<String, usize> = (0..CLASSES).map(|i| (i.to_string(), i)).collect();
    serde_json::json!({
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_size": 64,
        "image_size": SIDE,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "layer_norm_eps": 1e-6,
        "num_attention_heads": 4,
        "num_channels": 1,
        "num_hidden_layers": 4,
        "patch_size": 2,
        "qkv_bias": true,
        "id2label": labels,
        "label2id": ids,
        "dtype": "float32",
    })
}

/// How one training run goes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recipe {
    /// Peak learning rate of AdamW; cosine to 0, linear warm-up over a tenth.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Passes over the data.
    pub epochs: usize,
    /// Samples a step.
    pub batch: usize,
    /// Part of the target spread over all classes.
    pub label_smoothing: f64,
    /// Part of the images shifted by one pixel in a random direction.
    pub shift: f64,
    /// Standard deviation of noise added to pixels.
    pub noise: f64,
    /// Seed of order and noise.
    pub seed: u64,
}

impl Recipe {
    /// From nothing to a base model.
    pub fn base(seed: u64) -> Self {
        Self {
            learning_rate: 2e-3,
            weight_decay: 0.05,
            epochs: 100,
            batch: 50,
            label_smoothing: 0.0,
            shift: 0.5,
            noise: 0.2,
            seed,
        }
    }

    /// A random search as people do it: some of these runs end badly.
    pub fn random(seed: u64, index: usize) -> Self {
        let mut rng: ChaCha8Rng = generator(seed, "recipe", &[index]);
        let log_uniform = |rng: &mut ChaCha8Rng, low: f64, high: f64| low * (high / low).powf(unit(rng));
        Self {
            learning_rate: log_uniform(&mut rng, 2e-4, 4e-3),
            weight_decay: log_uniform(&mut rng, 1e-4, 0.3),
            epochs: 10 + below(&mut rng, 21) as usize,
            batch: [25, 50, 100][below(&mut rng, 3) as usize],
            label_smoothing: 0.2 * unit(&mut rng),
            shift: 0.8 * unit(&mut rng),
            noise: 0.3 * unit(&mut rng),
            seed: seed.wrapping_mul(1_000_003).wrapping_add(index as u64),
        }
    }
}

/// A model in training.
pub struct Trainee {
    store: VarStore,
    model: Vit,
}

impl Trainee {
    /// With random parameters: normal with deviation 0.02 for weights and embeddings, ones for norms, zeros for biases.
    pub fn new(seed: u64) -> Result<Self, TchError> {
        tch::manual_seed(seed as i64);
        let config = VitConfig::from_json(&config()).map_err(TchError::Shape)?;
        let store = VarStore::new(Device::Cpu);
        for (name, shape) in config.tensors(CLASSES as i64) {
            let mut path = store.root();
            let (parents, last) = name.rsplit_once('.').unwrap_or(("", &name));
            for part in parents.split('.').filter(|part| !part.is_empty()) {
                path = path / part;
            }
            let init = match last {
                "bias" => nn::Init::Const(0.0),
                "weight" if shape.len() == 1 => nn::Init::Const(1.0),
                _ => nn::Init::Randn { mean: 0.0, stdev: 0.02 },
            };
            // The store keeps it.
            drop(path.f_var(last, &shape, init)?);
        }
        Ok(Self::around(config, store))
    }

    fn around(config: VitConfig, store: VarStore) -> Self {
        let parameters = store.variables().into_iter().collect();
        Self { model: Vit::from_parameters(config, CLASSES as i64, parameters), store }
    }

    /// Another with the same parameters.
    pub fn fork(&self) -> Result<Self, TchError> {
        let mut other = Self::new(0)?;
        other.store.copy(&self.store)?;
        Ok(other)
    }

    /// Parameters by name on disk.
    pub fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.model.parameters()
    }

    /// Trains in place.
    pub fn train(&mut self, data: &Split, recipe: &Recipe) -> Result<(), TchError> {
        tch::manual_seed(recipe.seed as i64);
        let decay = nn::AdamW { wd: recipe.weight_decay, ..nn::AdamW::default() };
        let mut optimizer = decay.build(&self.store, recipe.learning_rate)?;
        let n = data.samples();
        let steps = recipe.epochs * n.div_ceil(recipe.batch);
        let mut step = 0;
        for epoch in 0..recipe.epochs {
            let order = permutation(recipe.seed, "fine-tune", &[epoch], n);
            for indices in order.chunks(recipe.batch) {
                let rate = crate::hyperplane::schedule::cosine_with_warmup(recipe.learning_rate, 0.1, step, steps);
                optimizer.set_lr(rate);
                let (inputs, labels) = data.batch(indices, Device::Cpu)?;
                let images = augment(&inputs[0], recipe)?;
                let logits = self.model.logits(&[images], Pass::Learn.full())?;
                let loss = logits.f_cross_entropy_loss::<Tensor>(
                    &labels,
                    None,
                    Reduction::Mean,
                    -100,
                    recipe.label_smoothing,
                )?;
                optimizer.backward_step_clip_norm(&loss, 1.0);
                step += 1;
            }
        }
        Ok(())
    }

    /// Loss and accuracy.
    pub fn score(&self, data: &Split) -> Result<SplitScore, mehl_soup::runner::engine::EngineError> {
        crate::engine::score(&self.model, data, 512, Device::Cpu, Precision::Full)
    }
}

/// Shifts some images by one pixel, the edge filled with background, and adds noise.
fn augment(images: &Tensor, recipe: &Recipe) -> Result<Tensor, TchError> {
    let n = images.size()[0];
    let mut shifted = images.shallow_clone();
    // Background is -1 and padding is with 0: pad the image plus one.
    let padded = images.f_add_scalar(1.0)?.f_constant_pad_nd([1, 1, 1, 1])?.f_sub_scalar(1.0)?;
    let draw = Tensor::f_rand([n, 1, 1, 1], (Kind::Float, Device::Cpu))?;
    let side = SIDE as i64;
    for (direction, (down, right)) in [(0, 1), (2, 1), (1, 0), (1, 2)].into_iter().enumerate() {
        let moved = padded.f_narrow(2, down, side)?.f_narrow(3, right, side)?;
        let from = recipe.shift * direction as f64 / 4.0;
        let chosen = draw.f_ge(from)?.f_logical_and(&draw.f_lt(from + recipe.shift / 4.0)?)?;
        shifted = moved.f_where_self(&chosen, &shifted)?;
    }
    shifted.f_add(&shifted.f_randn_like()?.f_mul_scalar(recipe.noise)?)
}
