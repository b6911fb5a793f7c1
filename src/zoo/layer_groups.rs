//! Which tensors share a coefficient.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::layout::Layout;
use crate::sweep::spec::Grouping;

/// Components that, followed by a number, name a block: Hugging Face encoders, timm, OpenAI CLIP, GPT-2, T5.
const BLOCKS: [&str; 6] = ["layer", "layers", "blocks", "resblocks", "h", "block"];

/// The L >= 1 layer groups of a zoo, in natural order of their names (`layer.2` before `layer.10`).
///
/// | grouping | group of a tensor |
/// |---|---|
/// | model | `model` |
/// | tensor | the tensor's name |
/// | block | the name up to the number of the first `layer.N`, `layers.N`, `blocks.N`, `resblocks.N`, `h.N`, `block.N` or, in ResNet, `layerM.N` in it; for a tensor outside of blocks the shortest beginning of its name, in whole components, that is not the beginning of a block's name too: beside `vit.encoder.layer.N` there are `vit.embeddings`, `vit.layernorm` and `classifier` |
///
/// A tied tensor is in the group of the one it is tied to. If nothing is mixed there is one group without tensors, so that
/// coefficients still have a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGroups {
    /// Group names; a group's index here is its column in `A`.
    pub names: Vec<String>,
    of: BTreeMap<String, usize>,
}

impl LayerGroups {
    /// Groups of the layout's mixed tensors.
    pub fn new(grouping: Grouping, layout: &Layout) -> Self {
        let blocks: BTreeSet<&str> = layout.mixed().filter_map(|tensor| block_of(&tensor.name)).collect();
        let named: Vec<(&str, &str)> = layout
            .mixed()
            .map(|tensor| {
                let leader = tensor.tied_to.as_deref().unwrap_or(&tensor.name);
                let group = match grouping {
                    Grouping::Model => "model",
                    Grouping::Tensor => leader,
                    Grouping::Block => block_of(leader).unwrap_or_else(|| outside(leader, &blocks)),
                };
                (tensor.name.as_str(), group)
            })
            .collect();
        let mut names: Vec<String> =
            named.iter().map(|(_, group)| group.to_string()).collect::<BTreeSet<_>>().into_iter().collect();
        if names.is_empty() {
            names.push("empty".into());
        }
        names.sort_by(|a, b| natural(a, b));
        let index: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let of = named.iter().map(|(tensor, group)| (tensor.to_string(), index[group])).collect();
        Self { names, of }
    }

    /// L.
    #[allow(clippy::len_without_is_empty, reason = "there is always a group")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Column of a tensor in `A`; `None` for one that is not mixed.
    pub fn of(&self, tensor: &str) -> Option<usize> {
        self.of.get(tensor).copied()
    }

    /// Every mixed tensor and its column, sorted by name.
    pub fn tensors(&self) -> &BTreeMap<String, usize> {
        &self.of
    }
}

/// The beginning of `name` up to and including its first block number.
fn block_of(name: &str) -> Option<&str> {
    let mut end = 0;
    let mut before = "";
    for component in name.split('.') {
        end += component.len();
        let is_number = !component.is_empty() && component.bytes().all(|b| b.is_ascii_digit());
        if is_number && (BLOCKS.contains(&before) || is_stage(before)) {
            return Some(&name[..end]);
        }
        before = component;
        end += 1;
    }
    None
}

/// `layer1` and so on: ResNet numbers its stages too, in the same component.
fn is_stage(component: &str) -> bool {
    let number = component.strip_prefix("layer").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// The shortest beginning of `name` that no block's name begins with.
fn outside<'a>(name: &'a str, blocks: &BTreeSet<&str>) -> &'a str {
    let is_shared = |beginning: &str| {
        blocks.iter().any(|block| block.strip_prefix(beginning).is_some_and(|rest| rest.starts_with('.')))
    };
    let ends = name.match_indices('.').map(|(at, _)| at);
    ends.map(|end| &name[..end]).find(|beginning| !is_shared(beginning)).unwrap_or(name)
}

/// Runs of digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    fn next(s: &str) -> (&str, &str) {
        let digit = s.as_bytes().first().is_some_and(u8::is_ascii_digit);
        s.split_at(s.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(s.len()))
    }
    let (mut x, mut y) = (a, b);
    while !x.is_empty() && !y.is_empty() {
        let ((p, rest_x), (q, rest_y)) = (next(x), next(y));
        let both_numbers = p.as_bytes()[0].is_ascii_digit() && q.as_bytes()[0].is_ascii_digit();
        let order = if both_numbers {
            let (n, m) = (p.trim_start_matches('0'), q.trim_start_matches('0'));
            n.len().cmp(&m.len()).then(n.cmp(m))
        } else {
            p.cmp(q)
        };
        if order.is_ne() {
            return order;
        }
        (x, y) = (rest_x, rest_y);
    }
    // Equal up to leading zeros or a common beginning: the plain order, so that different names never compare equal.
    x.len().cmp(&y.len()).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;
    use crate::zoo::layout::{LayoutTensor, TensorClass};

    fn layout(names: &[&str]) -> Layout {
        let tensor = |name: &&str| LayoutTensor {
            name: name.to_string(),
            dtype: Dtype::F32,
            shape: vec![2],
            class: TensorClass::Mixed,
            tied_to: None,
        };
        Layout { tensors: names.iter().map(tensor).collect() }
    }

    #[test]
    fn blocks_and_what_is_around_them() {
        let vit = layout(&[
            "classifier.bias",
            "classifier.weight",
            "vit.embeddings.cls_token",
            "vit.embeddings.patch_embeddings.projection.weight",
            "vit.encoder.layer.0.attention.output.dense.weight",
            "vit.encoder.layer.10.layernorm_before.weight",
            "vit.encoder.layer.2.layernorm_before.weight",
            "vit.layernorm.weight",
        ]);
        let groups = LayerGroups::new(Grouping::Block, &vit);
        let expected = [
            "classifier",
            "vit.embeddings",
            "vit.encoder.layer.0",
            "vit.encoder.layer.2",
            "vit.encoder.layer.10",
            "vit.layernorm",
        ];
        assert_eq!(groups.names, expected);
        assert_eq!(groups.of("vit.encoder.layer.10.layernorm_before.weight"), Some(4));
        assert_eq!(groups.of("classifier.bias"), Some(0));
        assert_eq!(groups.of("absent"), None);
    }

    #[test]
    fn other_families_spellings() {
        let names = |tensors: &[&str]| LayerGroups::new(Grouping::Block, &layout(tensors)).names;
        assert_eq!(names(&["blocks.0.a", "cls_token", "norm.weight"]), ["blocks.0", "cls_token", "norm"]);
        assert_eq!(
            names(&["visual.proj", "visual.transformer.resblocks.3.ln_1.weight", "visual.transformer.x"]),
            ["visual.proj", "visual.transformer.resblocks.3", "visual.transformer.x"]
        );
        assert_eq!(names(&["encoder.block.1.layer.0.w", "encoder.block.1.layer.1.w"]), ["encoder.block.1"]);
        assert_eq!(names(&["h.1.w", "ln.b", "layer.norm.w"]), ["h.1", "layer", "ln"]);
        assert_eq!(
            names(&[
                "bn1.weight",
                "conv1.weight",
                "fc.bias",
                "layer1.0.conv1.weight",
                "layer1.0.downsample.0.weight",
                "layer1.1.bn2.bias",
                "layer4.10.conv1.weight",
                "layer4.2.conv1.weight",
            ]),
            ["bn1", "conv1", "fc", "layer1.0", "layer1.1", "layer4.2", "layer4.10"]
        );
        assert_eq!(names(&["layer1.weight", "layer_1.0.weight"]), ["layer1", "layer_1"]);
        assert_eq!(names(&["fc1.weight", "fc2.weight", "fc10.weight"]), ["fc1", "fc2", "fc10"]);
    }

    #[test]
    fn tied_tensors_share_a_group() {
        let mut tied = layout(&["embed.weight", "head.weight", "x"]);
        tied.tensors[1].tied_to = Some("embed.weight".into());
        for grouping in [Grouping::Tensor, Grouping::Block] {
            let groups = LayerGroups::new(grouping, &tied);
            assert_eq!(groups.of("embed.weight"), groups.of("head.weight"), "{grouping:?}");
            assert_eq!(groups.len(), 2, "{grouping:?}");
        }
        assert_eq!(LayerGroups::new(Grouping::Model, &tied).names, ["model"]);
    }

    #[test]
    fn a_zoo_with_nothing_to_mix_still_has_a_column() {
        let mut frozen = layout(&["a"]);
        frozen.tensors[0].class = TensorClass::Frozen;
        for grouping in [Grouping::Model, Grouping::Tensor, Grouping::Block] {
            let groups = LayerGroups::new(grouping, &frozen);
            assert_eq!((groups.len(), groups.of("a")), (1, None));
        }
    }

    #[test]
    fn natural_order_is_total() {
        let mut names = ["a10", "a2", "a02", "a", "a2b", "b1", "10", "9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["9", "10", "a", "a02", "a2", "a2b", "a10", "b1"]);
    }
}
