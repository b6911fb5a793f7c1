//! The architecture of a ResNet, from tensor shapes.

use mehl_soup::zoo::{Ingredient, RESNETS, Zoo};
use serde_json::Value;

use super::FamilyError;
use super::expected::{self, Tensors};

/// Fields of timm's `config.json` that decide what a model computes, as JSON pointers.
const DECISIVE: [&str; 4] = ["/architecture", "/num_classes", "/global_pool", "/model_args"];

/// Arguments of timm's `model_args` that tensors tell too, or that change nothing outside of training.
const TOLD: [&str; 12] = [
    "base_width",
    "block_reduce_first",
    "cardinality",
    "channels",
    "drop_block_rate",
    "drop_path_rate",
    "drop_rate",
    "in_chans",
    "layers",
    "num_classes",
    "pretrained_strict",
    "zero_init_last",
];

/// One residual block: two convolutions of 3x3, or 1x1, 3x3, 1x1.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// Its name, with a dot at its end.
    pub name: String,
    /// Output and input channels of each convolution.
    pub convolutions: Vec<[i64; 2]>,
    /// Groups of the 3x3 convolution of a bottleneck.
    pub groups: i64,
    /// Of the first 3x3 convolution of two, or of the one of a bottleneck.
    pub stride: i64,
    /// Whether the shortcut has a convolution of its own.
    pub downsample: bool,
}

impl Block {
    /// Whether it is a bottleneck.
    pub(super) fn is_bottleneck(&self) -> bool {
        self.convolutions.len() == 3
    }
}

/// The architecture of a ResNet.
#[derive(Debug, PartialEq)]
pub(super) struct ResnetConfig {
    /// What wrappers put before each name.
    pub root: String,
    /// Channels of the input.
    pub channels: i64,
    /// Channels behind the stem.
    pub stem: i64,
    /// All blocks.
    pub blocks: Vec<Block>,
    /// Channels behind the last block.
    pub features: i64,
    /// Number of classes.
    pub classes: i64,
    /// Whether the last layer has a bias.
    pub bias: bool,
}

impl ResnetConfig {
    /// Of the zoo's first ingredient, whose tensors are those of the model; the others' configurations agree with its own.
    pub(super) fn from_zoo(zoo: &Zoo) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let faults = expected::tensor_faults("resnet", first);
        expected::agree(zoo, &DECISIVE)?;
        check_config(first.config()).map_err(expected::config_fault(first))?;
        let refused: Vec<String> = first.tensor_names().filter_map(|name| refused(first, name)).collect();
        if !refused.is_empty() {
            return Err(faults(refused));
        }
        let config = Self::told(first).map_err(|fault| faults(vec![fault]))?;
        let all: Tensors = config.parameters().into_iter().chain(config.statistics()).collect();
        expected::compare(&all, first, |name| name.ends_with(".num_batches_tracked")).map_err(faults)?;
        Ok(config)
    }

    fn told(found: &Ingredient) -> Result<Self, String> {
        let root = expected::root(found, "conv1.weight");
        let stem_name = format!("{root}conv1.weight");
        let [stem, channels, high, wide] = expected::sizes(found, &stem_name)?;
        if [high, wide] != [7, 7] {
            return Err(format!("{stem_name}: expected a stem of 7x7, found {high}x{wide}, which is not supported"));
        }
        let mut blocks = Vec::new();
        let mut width = stem;
        for stage in 1..=4 {
            for n in 0..expected::count(found, &format!("{root}layer{stage}")) {
                let stride = if stage > 1 && n == 0 { 2 } else { 1 };
                let block = block(found, format!("{root}layer{stage}.{n}."), stride, width)?;
                width = block.convolutions.last().map_or(width, |[out, _]| *out);
                blocks.push(block);
            }
        }
        let [classes, features] = expected::sizes(found, &format!("{root}fc.weight"))?;
        let bias = found.info(&format!("{root}fc.bias")).is_some();
        if features != width {
            return Err(format!("{root}fc.weight: expected {width} features of the last block, found {features}"));
        }
        Ok(Self { root, channels, stem, blocks, features, classes, bias })
    }

    /// Every batch norm and its channels.
    fn norms(&self) -> Vec<(String, i64)> {
        let mut norms = vec![(format!("{}bn1", self.root), self.stem)];
        for block in &self.blocks {
            let own = block.convolutions.iter().enumerate();
            norms.extend(own.map(|(n, [out, _])| (format!("{}bn{}", block.name, n + 1), *out)));
            if let (true, Some([out, _])) = (block.downsample, block.convolutions.last()) {
                norms.push((format!("{}downsample.1", block.name), *out));
            }
        }
        norms
    }

    /// Name and shape of every parameter.
    pub(super) fn parameters(&self) -> Tensors {
        let mut tensors = vec![
            (format!("{}conv1.weight", self.root), vec![self.stem, self.channels, 7, 7]),
            (format!("{}fc.weight", self.root), vec![self.classes, self.features]),
        ];
        if self.bias {
            tensors.push((format!("{}fc.bias", self.root), vec![self.classes]));
        }
        for block in &self.blocks {
            for (n, [out, input]) in block.convolutions.iter().enumerate() {
                let side = if block.is_bottleneck() && n != 1 { 1 } else { 3 };
                let input = if block.is_bottleneck() && n == 1 { input / block.groups } else { *input };
                tensors.push((format!("{}conv{}.weight", block.name, n + 1), vec![*out, input, side, side]));
            }
            if let (true, [[_, input], .., [out, _]]) = (block.downsample, &block.convolutions[..]) {
                tensors.push((format!("{}downsample.0.weight", block.name), vec![*out, *input, 1, 1]));
            }
        }
        for (norm, channels) in self.norms() {
            tensors.push((format!("{norm}.weight"), vec![channels]));
            tensors.push((format!("{norm}.bias"), vec![channels]));
        }
        tensors
    }

    /// Name and shape of every running statistic.
    pub(super) fn statistics(&self) -> Tensors {
        let of = |(norm, channels): (String, i64)| {
            ["running_mean", "running_var"].map(|statistic| (format!("{norm}.{statistic}"), vec![channels]))
        };
        self.norms().into_iter().flat_map(of).collect()
    }
}

/// A block of `width` input channels, as its tensors tell.
fn block(found: &Ingredient, name: String, stride: i64, width: i64) -> Result<Block, String> {
    let [mid, _, _, _] = expected::sizes(found, &format!("{name}conv1.weight"))?;
    let [second, per_group, _, _] = expected::sizes(found, &format!("{name}conv2.weight"))?;
    let last = format!("{name}conv3.weight");
    let (convolutions, groups) = if found.info(&last).is_some() {
        let [out, _, _, _] = expected::sizes(found, &last)?;
        if mid % per_group != 0 {
            return Err(format!(
                "{name}conv2.weight: expected a group size that divides {mid} channels, found {per_group}"
            ));
        }
        (vec![[mid, width], [second, mid], [out, second]], mid / per_group)
    } else {
        (vec![[mid, width], [second, mid]], 1)
    };
    let out = convolutions.last().map_or(width, |[out, _]| *out);
    let downsample = stride != 1 || out != width || found.info(&format!("{name}downsample.0.weight")).is_some();
    Ok(Block { name, convolutions, groups, stride, downsample })
}

/// What the family does not compute, by a tensor's name.
fn refused(found: &Ingredient, name: &str) -> Option<String> {
    let what = if name.ends_with("conv1.0.weight") && !name.contains("layer") {
        "a deep stem"
    } else if name.contains("maxpool.") {
        "a stem with a convolution instead of max pooling"
    } else if name.contains(".downsample.1.weight") && found.info(name).is_some_and(|info| info.shape.len() == 4) {
        "average pooling in shortcuts"
    } else if name.contains(".se.") || name.contains(".attn.") {
        "channel attention"
    } else {
        return None;
    };
    Some(format!("{name}: {what}, which is not supported"))
}

/// That timm's configuration, if this is one, says nothing that is not computed.
fn check_config(config: Option<&Value>) -> Result<(), String> {
    let Some((config, architecture)) = config.and_then(|c| Some((c, c.get("architecture")?.as_str()?))) else {
        return Ok(());
    };
    let name = architecture.split('.').next().unwrap_or_default();
    if !RESNETS.contains(&name) {
        return Err(format!("architecture: expected one of {}, found `{name}`", RESNETS.join(", ")));
    }
    let pool = config.get("global_pool").and_then(Value::as_str).unwrap_or("avg");
    if pool != "avg" {
        return Err(format!("global_pool: expected `avg`, found `{pool}`"));
    }
    let given = config.get("model_args").and_then(Value::as_object).into_iter().flatten();
    for (name, value) in given.filter(|(_, value)| !value.is_null()) {
        let is_known = TOLD.contains(&name.as_str()) || name == "global_pool" && value == "avg";
        if !is_known {
            return Err(format!("model_args.{name}: expected no such argument, found {value}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_refused_by_field() {
        let of = |json: Value| check_config(Some(&json));
        assert_eq!(check_config(None), Ok(()));
        assert_eq!(of(serde_json::json!({"num_classes": 3})), Ok(()));
        let layers = serde_json::json!({"layers": [1, 1, 1, 1], "global_pool": "avg"});
        assert_eq!(of(serde_json::json!({"architecture": "resnet18.a1_in1k", "model_args": layers})), Ok(()));
        for (json, part) in [
            (serde_json::json!({"architecture": "resnet50d"}), "found `resnet50d`"),
            (serde_json::json!({"architecture": "resnet50", "global_pool": "max"}), "found `max`"),
            (serde_json::json!({"architecture": "resnet50", "model_args": {"output_stride": 8}}), "output_stride"),
        ] {
            let fault = of(json).unwrap_err();
            assert!(fault.contains(part), "{fault}");
        }
    }
}
