//! A model in training: real runs of AdamW, from a model folder on.

use std::path::Path;

use mehl_soup::sweep::score::SplitScore;
use mehl_soup::sweep::spec::{Family, ZooSpec};
use mehl_soup::zoo::{Ingredient, Layout, Zoo};
use safetensors::Dtype;
use tch::nn::{AdamW, OptimizerConfig};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::DemoError;
use super::recipes::Recipe;
use super::write::StoredTensor;
use crate::data::{Batch, Split};
use crate::engine;
use crate::families::{self, Model, Pass, Precision, VitConfig};
use crate::hyperplane::schedule::cosine_with_warmup;
use crate::objectives::Classification;
use crate::rng::permutation;

/// Of the norm of a gradient.
const LARGEST_NORM: f64 = 1.0;
/// Part of all steps in which the learning rate rises.
const WARMUP: f64 = 0.1;
/// Samples a batch of scoring.
const SCORE_BATCH: usize = 512;

/// What an image that is shifted has behind its edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Edge {
    /// This value.
    Background(f64),
    /// The nearest pixel.
    Nearest,
}

/// A model in training.
pub struct Trainee {
    /// The one model that training starts from.
    start: Zoo,
    family: Family,
    model: Box<dyn Model>,
    /// Names of parameters, in the order in which their gradients' norms are summed.
    order: Vec<String>,
}

impl Trainee {
    /// Of a model folder.
    ///
    /// # Errors
    /// If it is no model of a family that is known.
    pub fn open(folder: &Path) -> Result<Self, DemoError> {
        let input = |error: &dyn std::fmt::Display| DemoError::Input(error.to_string());
        let start = Zoo::open(&[folder.to_path_buf()]).map_err(|e| input(&e))?;
        let family = families::detect(None, &start).map_err(|e| input(&e))?;
        let spec = ZooSpec::of(vec![]);
        let layout = Layout::of_headers(&start);
        let model = families::load(family, &spec, &start, &layout, Device::Cpu, Kind::Float).map_err(|e| input(&e))?;
        let trainee = Self { order: order(start.ingredients(), model.as_ref()), start, family, model };
        trainee.reset()?;
        Ok(trainee)
    }

    /// Makes the model what it is in its folder.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn reset(&self) -> Result<(), DemoError> {
        for tensors in [Some(self.model.parameters()), self.model.statistics()].into_iter().flatten() {
            engine::statistics::write_tensors(&self.start, 0, tensors)?;
        }
        Ok(())
    }

    /// The model folder, as a zoo of one.
    pub fn zoo(&self) -> &Zoo {
        &self.start
    }

    /// Family of the model.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The model folder.
    pub fn start(&self) -> &Ingredient {
        &self.start.ingredients()[0]
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// Trains all parameters in place, then computes the running statistics of batch normalisation, if there are some, on the same data.
    ///
    /// # Errors
    /// If libtorch refuses, or a parameter or statistic ends as NaN or infinity.
    pub fn train(&self, data: &Split, edge: Edge, recipe: &Recipe) -> Result<(), DemoError> {
        self.fit(data, edge, recipe, &self.order, Pass::Learn)?;
        engine::statistics::collect(self.model.as_ref(), data, recipe.seed, Device::Cpu, Precision::Full)?;
        Ok(())
    }

    /// Trains only some parameters, those of the head, in place; the rest computes what it does in use.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_head(&self, data: &Split, edge: Edge, recipe: &Recipe, head: &[String]) -> Result<(), DemoError> {
        self.fit(data, edge, recipe, head, Pass::Score)
    }

    fn fit(&self, data: &Split, edge: Edge, recipe: &Recipe, names: &[String], pass: Pass) -> Result<(), DemoError> {
        tch::manual_seed(recipe.seed as i64);
        let parameters: Vec<Tensor> =
            names.iter().filter_map(|name| self.model.parameters().get(name)).map(Tensor::shallow_clone).collect();
        for (name, tensor) in self.model.parameters() {
            // The tensor is one and the same: this sets a flag of it.
            drop(tensor.f_set_requires_grad(names.contains(name))?);
        }
        let mut optimizer = AdamW { wd: recipe.weight_decay, ..AdamW::default() }.build_copt(recipe.learning_rate)?;
        for parameter in &parameters {
            optimizer.add_parameters(parameter, 0)?;
        }
        let n = data.samples();
        let right = Vec::<i64>::try_from(&data.targets)?;
        let classes = self.model.classes().unwrap_or(0) as usize;
        let targets = Tensor::f_from_slice(&recipe.labels(&right, classes))?;
        let sizes = batches(n, recipe.batch);
        let steps = recipe.epochs * sizes.len();
        let mut step = 0;
        for epoch in 0..recipe.epochs {
            let order = permutation(recipe.seed, "fine-tune", &[epoch], n);
            let mut rest = &order[..];
            for &size in &sizes {
                let (indices, after) = rest.split_at(size);
                rest = after;
                optimizer.set_learning_rate(cosine_with_warmup(recipe.learning_rate, WARMUP, step, steps))?;
                let Batch { inputs, .. } = data.batch(indices, Device::Cpu)?;
                let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
                let labels = targets.f_index_select(0, &Tensor::f_from_slice(&rows)?)?;
                // Texts are not augmented.
                let inputs = match inputs.only().filter(|only| only.is_floating_point()) {
                    Some(images) => augment(images, edge, recipe)?.into(),
                    None => inputs,
                };
                let logits = self.model.outputs(&inputs, pass.full())?;
                let loss = logits.f_cross_entropy_loss::<Tensor>(
                    &labels,
                    None,
                    Reduction::Mean,
                    -100,
                    recipe.label_smoothing,
                )?;
                optimizer.zero_grad()?;
                loss.f_backward()?;
                tch::no_grad(|| clip(&parameters))?;
                optimizer.step()?;
                step += 1;
            }
        }
        Ok(())
    }

    /// Loss and accuracy.
    ///
    /// # Errors
    /// If the loss is not finite.
    pub fn score(&self, data: &Split) -> Result<SplitScore, DemoError> {
        Ok(engine::score(&Classification, self.model.as_ref(), data, SCORE_BATCH, Device::Cpu, Precision::Full)?)
    }

    /// All tensors of the model as it now is, in f32, and as they were in its folder those that no training changes.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn tensors(&self) -> Result<Vec<StoredTensor>, DemoError> {
        let statistics = self.model.statistics();
        let stored = |(name, info): (&str, &mehl_soup::zoo::TensorInfo)| {
            let own = self.model.parameters().get(name).or_else(|| statistics?.get(name));
            let (dtype, bytes) = match own {
                Some(tensor) => {
                    let values = Vec::<f32>::try_from(tensor.f_detach()?.f_contiguous()?.f_view(-1)?)?;
                    (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
                }
                None => {
                    let bytes = self.start().bytes(name).map_err(|e| DemoError::Input(e.to_string()))?;
                    (info.dtype, bytes)
                }
            };
            Ok(StoredTensor { name: name.to_string(), dtype, shape: info.shape.clone(), bytes })
        };
        self.start().tensors().map(stored).collect()
    }
}

/// A Hugging Face ViT's parameters in the order in which the demo always had them, which its bits depend on; others by name.
fn order(start: &[Ingredient], model: &dyn Model) -> Vec<String> {
    let of_vit = || {
        let config = VitConfig::from_json(start.first()?.config()?).ok()?;
        let names: Vec<String> = config.tensors(model.classes()?).into_iter().map(|(name, _)| name).collect();
        names.iter().all(|name| model.parameters().contains_key(name)).then_some(names)
    };
    of_vit().unwrap_or_else(|| model.parameters().keys().cloned().collect())
}

/// Sizes of batches over `n` samples: `batch` each and the last with what is left. One sample alone has no statistics to be normalised with, and goes with the
/// batch before.
fn batches(n: usize, batch: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..n).step_by(batch).map(|start| batch.min(n - start)).collect();
    if let [.., before, 1] = &mut sizes[..] {
        *before += 1;
        sizes.pop();
    }
    sizes
}

/// Scales all gradients so that their norm together is at most [`LARGEST_NORM`].
fn clip(parameters: &[Tensor]) -> Result<(), TchError> {
    let gradients: Vec<Tensor> = parameters.iter().map(Tensor::grad).filter(Tensor::defined).collect();
    let norms = gradients.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    let norm = f64::try_from(Tensor::f_stack(&norms, 0)?.f_norm()?)?;
    let factor = LARGEST_NORM / (norm + 1e-6);
    if factor < 1.0 {
        for mut gradient in gradients {
            drop(gradient.f_mul_scalar_(factor)?);
        }
    }
    Ok(())
}

/// Shifts some images by an eighth of their side, and adds noise.
fn augment(images: &Tensor, edge: Edge, recipe: &Recipe) -> Result<Tensor, TchError> {
    let &[n, _, height, width] = &images.size()[..] else {
        return Err(TchError::Shape(format!(
            "expected images [N, channels, height, width], found {:?}",
            images.size()
        )));
    };
    let (down, across) = ((height / 8).max(1), (width / 8).max(1));
    let around = [across, across, down, down];
    let padded = match edge {
        // Padding is with 0.
        Edge::Background(value) => images.f_sub_scalar(value)?.f_constant_pad_nd(around)?.f_add_scalar(value)?,
        Edge::Nearest => images.f_replication_pad2d(around)?,
    };
    let mut shifted = images.shallow_clone();
    let draw = Tensor::f_rand([n, 1, 1, 1], (Kind::Float, Device::Cpu))?;
    let places = [(0, across), (2 * down, across), (down, 0), (down, 2 * across)];
    for (direction, (top, left)) in places.into_iter().enumerate() {
        let moved = padded.f_narrow(2, top, height)?.f_narrow(3, left, width)?;
        let from = recipe.shift * direction as f64 / 4.0;
        let chosen = draw.f_ge(from)?.f_logical_and(&draw.f_lt(from + recipe.shift / 4.0)?)?;
        shifted = moved.f_where_self(&chosen, &shifted)?;
    }
    shifted.f_add(&shifted.f_randn_like()?.f_mul_scalar(recipe.noise)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_is_of_one_sample_unless_there_is_but_one() {
        assert_eq!(batches(10, 5), [5, 5]);
        assert_eq!(batches(11, 5), [5, 6]);
        assert_eq!(batches(12, 5), [5, 5, 2]);
        assert_eq!((batches(3, 5), batches(1, 5)), (vec![3], vec![1]));
    }

    #[test]
    fn all_images_are_shifted_by_an_eighth_with_the_nearest_pixel_or_the_background_behind_the_edge() {
        let recipe = Recipe { shift: 1.0, noise: 0.0, ..Recipe::base(1, 1) };
        tch::manual_seed(3);
        // Each pixel is its own column: a shift across shows in it, a shift down does not.
        let columns = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([1, 1, 1, 16]).repeat([40, 1, 16, 1]);
        let shifted = augment(&columns, Edge::Nearest, &recipe).unwrap();
        let row = |i: i64| Vec::<f32>::try_from(shifted.get(i).get(0).get(5).contiguous()).unwrap();
        let firsts: std::collections::BTreeSet<i64> = (0..40).map(|i| row(i)[5] as i64).collect();
        assert_eq!(firsts.into_iter().collect::<Vec<_>>(), [3, 5, 7]);
        let left = (0..40).map(row).find(|row| row[5] == 7.0).unwrap();
        assert_eq!(left[13..], [15.0, 15.0, 15.0]);
        tch::manual_seed(3);
        let shifted = augment(&columns, Edge::Background(-9.0), &recipe).unwrap();
        let row = |i: i64| Vec::<f32>::try_from(shifted.get(i).get(0).get(5).contiguous()).unwrap();
        assert_eq!((0..40).map(row).find(|row| row[5] == 7.0).unwrap()[13..], [15.0, -9.0, -9.0]);
    }
}
