//! ResNet by torchvision's names, which timm's are too.
//!
//! Follows He et al. 2016 (arXiv 1512.03385) as torchvision computes it: in a bottleneck the 3x3 convolution has the stride. Groups and widths
//! are those of the tensors, so that ResNeXt and wide ResNets are the same code.
//!
//! Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) keeps running statistics. A soup's are computed anew, by
//! [`Pass::Collect`]; those that are equal in all ingredients count as fixed, and then every pass normalises with them.

use std::collections::BTreeMap;

use mehl_soup::sweep::spec::{LinearLibrary, ZooSpec};
use mehl_soup::zoo::{Layout, TensorClass, Zoo};
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{self, Weights};
use super::resnet_config::{Block, ResnetConfig};
use super::{FamilyError, Forward, Model, ModelInputs, Pass, State, expected, identity};
use crate::hyperplane::write_soup;

/// Added to variances.
const EPS: f64 = 1e-5;

/// A ResNet.
pub(super) struct Resnet {
    config: ResnetConfig,
    weights: Weights,
    statistics: BTreeMap<String, Tensor>,
    /// Whether the running statistics are those of all ingredients, and no soup has others.
    fixed: bool,
}

impl Resnet {
    /// From a zoo of safetensors files, or of folders as timm saves them.
    pub(super) fn from_zoo(
        spec: &ZooSpec,
        zoo: &Zoo,
        layout: &Layout,
        device: Device,
        kind: Kind,
    ) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        if spec.heads.is_some() || spec.activation.is_some() {
            let what = "zoo.heads and zoo.activation are only for transformers; this model is a ResNet. Remove them"
                .to_string();
            return Err(FamilyError::Config { file: first.path().display().to_string(), what });
        }
        let config = ResnetConfig::from_zoo(zoo)?;
        let torch = |source| FamilyError::Torch { file: first.path().display().to_string(), source };
        let parameters = expected::leaves(&config.parameters(), layout, device, kind).map_err(torch)?;
        let expected = config.statistics();
        let fixed = expected.iter().all(|(name, _)| layout.get(name).is_some_and(|t| t.class == TensorClass::Frozen));
        let mut one_hot = vec![0.0; zoo.rows()];
        one_hot[0] = 1.0;
        let mut statistics = BTreeMap::new();
        for (name, shape) in expected {
            let tensor = Tensor::f_zeros(&shape, (kind, device)).map_err(torch)?;
            write_soup(zoo, &name, &one_hot, &tensor)
                .map_err(|error| expected::tensor_faults("resnet", first)(vec![error.to_string()]))?;
            statistics.insert(name, tensor);
        }
        Ok(Self { weights: Weights::new(config.root.clone(), parameters), config, statistics, fixed })
    }

    /// Batch normalisation over all but the channels: its statistics are sums in f32 for x in bf16 too, and what comes out is in the dtype of x.
    fn norm(&self, x: &Tensor, name: &str, pass: Pass) -> Result<Tensor, TchError> {
        let (weight, bias) = (self.weights.get(&format!("{name}.weight"))?, self.weights.get(&format!("{name}.bias"))?);
        let running = |what: &str| {
            let name = format!("{}{name}.{what}", self.config.root);
            self.statistics.get(&name).ok_or_else(|| TchError::FileFormat(format!("the model has no tensor {name}")))
        };
        let (mean, variance) = (running("running_mean")?, running("running_var")?);
        // PyTorch's cumulative average (`momentum=None`) is the running mean over batches; its variances are the unbiased ones.
        let (statistics, of_batch, momentum) = match pass {
            _ if self.fixed => (Some((mean, variance)), false, 0.0),
            Pass::Score => (Some((mean, variance)), false, 0.0),
            Pass::Learn => (None, true, 0.0),
            Pass::Collect { seen } => (Some((mean, variance)), true, 1.0 / (seen as f64 + 1.0)),
        };
        let size = x.size();
        if of_batch && size.iter().product::<i64>() == size[1] {
            let what = format!("{name}: expected more than one value per channel for batch statistics, found {size:?}");
            return Err(TchError::Shape(what));
        }
        let (mean, variance) = statistics.unzip();
        x.f_batch_norm(Some(weight), Some(bias), mean, variance, of_batch, momentum, EPS, true)
    }

    fn convolution(&self, x: &Tensor, name: &str, stride: i64, groups: i64) -> Result<Tensor, TchError> {
        let weight = self.weights.get(&format!("{name}.weight"))?.f_to_kind(x.kind())?;
        let (size, kernel) = (x.size(), weight.size()[2]);
        let padding = kernel / 2;
        let of = |x: &Tensor, weight: &Tensor| {
            x.f_conv2d(weight, None::<&Tensor>, [stride, stride], [padding, padding], [1, 1], groups)
        };
        // On the CPU the backward pass of PyTorch 2.11 leaves values unset in bf16 where the image is smaller than the kernel: seen as NaN on processors with AMX.
        if x.kind() == Kind::BFloat16 && size[2].min(size[3]) < kernel {
            return of(&x.f_to_kind(Kind::Float)?, &weight.f_to_kind(Kind::Float)?)?.f_to_kind(Kind::BFloat16);
        }
        of(x, &weight)
    }

    fn block(&self, x: &Tensor, block: &Block, pass: Pass) -> Result<Tensor, TchError> {
        let name = block.name.strip_prefix(&self.config.root).unwrap_or(&block.name);
        let strided = usize::from(block.is_bottleneck());
        let last = block.convolutions.len() - 1;
        let mut inner = x.shallow_clone();
        for n in 0..block.convolutions.len() {
            let (stride, groups) = if n == strided { (block.stride, block.groups) } else { (1, 1) };
            inner = self.convolution(&inner, &format!("{name}conv{}", n + 1), stride, groups)?;
            inner = self.norm(&inner, &format!("{name}bn{}", n + 1), pass)?;
            if n < last {
                inner = inner.f_relu()?;
            }
        }
        let shortcut = if block.downsample {
            let x = self.convolution(x, &format!("{name}downsample.0"), block.stride, 1)?;
            self.norm(&x, &format!("{name}downsample.1"), pass)?
        } else {
            x.shallow_clone()
        };
        inner.f_add(&shortcut)?.f_relu()
    }
}

impl Model for Resnet {
    fn parameters(&self) -> &BTreeMap<String, Tensor> {
        self.weights.all()
    }

    fn parts(&self) -> usize {
        self.config.blocks.len() + 2
    }

    fn first_part_of(&self, name: &str) -> usize {
        let block = self.config.blocks.iter().position(|block| name.starts_with(&block.name));
        match block {
            Some(block) => block + 1,
            None if self.weights.local(name).starts_with("fc.") => self.parts() - 1,
            None => 0,
        }
    }

    fn use_linear_library(&self, library: LinearLibrary) -> LinearLibrary {
        self.weights.use_linear_library(library)
    }

    fn first_part(&self, inputs: &ModelInputs, how: Forward) -> Result<State, TchError> {
        let pixels = how.precision.narrow(layers::only_input(inputs, "a ResNet")?)?;
        let x = self.norm(&self.convolution(&pixels, "conv1", 2, 1)?, "bn1", how.pass)?.f_relu()?;
        Ok(x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?.into())
    }

    fn part(&self, part: usize, state: &State, how: Forward) -> Result<State, TchError> {
        let x = &state.hidden;
        let hidden = match part {
            last if last + 1 == self.parts() => {
                let x = x.f_to_kind(self.weights.kind())?;
                self.weights.linear(&x.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?, "fc")?
            }
            block => self.block(x, &self.config.blocks[block - 1], how.pass)?,
        };
        Ok(state.with_hidden(hidden))
    }

    fn statistics(&self) -> Option<&BTreeMap<String, Tensor>> {
        (!self.fixed).then_some(&self.statistics)
    }

    /// Convolutions.
    fn rounds(&self, name: &str) -> bool {
        let name = name.strip_prefix(&self.config.root).unwrap_or(name);
        name.starts_with("conv1.") || name.contains(".conv") || name.contains(".downsample.0.")
    }

    fn architecture(&self) -> serde_json::Value {
        identity::resnet(&self.config, self.fixed)
    }

    fn architecture_1(&self) -> Option<String> {
        Some(identity::version_1::resnet(&self.config, self.fixed))
    }

    fn classes(&self) -> Option<i64> {
        Some(self.config.classes)
    }
}
