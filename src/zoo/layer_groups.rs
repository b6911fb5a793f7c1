//! Layer groups: the parameters that share a coefficient.

use std::collections::BTreeMap;

use super::layout::Layout;
use crate::sweep::spec::Grouping;

/// Names that hold a numbered list of transformer blocks or stages.
const LISTS: [&str; 7] = ["layer", "layers", "blocks", "resblocks", "block", "h", "stages"];

/// The layer groups of a zoo's mixed tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerGroups {
    /// One name a group: `model`, a tensor's name, or a block's prefix. Numbers are in numerical order.
    pub names: Vec<String>,
    of: BTreeMap<String, usize>,
}

impl LayerGroups {
    /// Groups the mixed tensors of a layout. Tied tensors share a group. There is always one group at least, if only an empty one.
    ///
    /// A block is what has the same name up to the first number after one of `layer`, `layers`, `blocks`, `resblocks`, `block`, `h`, `stages`;
    /// a tensor outside of blocks belongs to the group of the first two components of its name, without the last one (`vit.embeddings`, `classifier`).
    pub fn new(grouping: Grouping, layout: &Layout) -> Self {
        let mut group_names: BTreeMap<String, String> = BTreeMap::new();
        for tensor in layout.mixed() {
            let name = match (&tensor.tied_to, grouping) {
                (_, Grouping::Model) => "model".to_string(),
                // The earlier of two tied tensors has its group already.
                (Some(earlier), _) if group_names.contains_key(earlier) => group_names[earlier].clone(),
                (_, Grouping::Block) => block_of(&tensor.name),
                (_, Grouping::Tensor) => tensor.name.clone(),
            };
            group_names.insert(tensor.name.clone(), name);
        }
        let mut names: Vec<String> = group_names.values().cloned().collect();
        names.sort_by_key(|name| natural(name));
        names.dedup();
        let of = group_names
            .into_iter()
            .filter_map(|(tensor, group)| Some((tensor, names.iter().position(|name| *name == group)?)))
            .collect();
        if names.is_empty() {
            names.push("model".to_string());
        }
        Self { names, of }
    }

    /// L, at least 1.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The group of a tensor; `None` if it is not mixed.
    pub fn of(&self, tensor: &str) -> Option<usize> {
        self.of.get(tensor).copied()
    }
}

fn block_of(tensor: &str) -> String {
    let parts: Vec<&str> = tensor.split('.').collect();
    let number = parts.windows(2).position(|pair| {
        LISTS.contains(&pair[0]) && !pair[1].is_empty() && pair[1].bytes().all(|b| b.is_ascii_digit())
    });
    match number {
        Some(at) => parts[..at + 2].join("."),
        None => parts[..(parts.len() - 1).clamp(1, 2)].join("."),
    }
}

/// A key that sorts `layer.2` before `layer.10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    name.split('.').map(|part| part.parse().map_or((part.to_string(), 0), |n| (String::new(), n))).collect()
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;
    use crate::zoo::{LayoutTensor, TensorClass};

    fn layout(names: &[(&str, Option<&str>)]) -> Layout {
        let tensors = names
            .iter()
            .map(|(name, tied)| LayoutTensor {
                name: name.to_string(),
                dtype: Dtype::F32,
                shape: vec![2],
                class: TensorClass::Mixed,
                tied_to: tied.map(str::to_string),
            })
            .collect();
        Layout { tensors }
    }

    const VIT: [(&str, Option<&str>); 6] = [
        ("classifier.bias", None),
        ("vit.embeddings.cls_token", None),
        ("vit.embeddings.patch_embeddings.projection.weight", None),
        ("vit.encoder.layer.10.output.dense.weight", None),
        ("vit.encoder.layer.2.attention.attention.key.bias", None),
        ("vit.encoder.layer.2.output.dense.weight", None),
    ];

    #[test]
    fn blocks_are_told_by_their_numbers() {
        let groups = LayerGroups::new(Grouping::Block, &layout(&VIT));
        assert_eq!(groups.names, ["classifier", "vit.embeddings", "vit.encoder.layer.2", "vit.encoder.layer.10"]);
        assert_eq!(groups.of(VIT[4].0), groups.of(VIT[5].0));
        assert_ne!(groups.of(VIT[3].0), groups.of(VIT[5].0));
    }

    #[test]
    fn tied_tensors_share_a_coefficient() {
        let tied = layout(&[("a.weight", None), ("b.weight", Some("a.weight")), ("c.weight", None)]);
        let groups = LayerGroups::new(Grouping::Tensor, &tied);
        assert_eq!(groups.names, ["a.weight", "c.weight"]);
        assert_eq!(groups.of("a.weight"), groups.of("b.weight"));
        assert_eq!(LayerGroups::new(Grouping::Model, &tied).len(), 1);
    }

    #[test]
    fn nothing_mixed_is_one_empty_group() {
        let groups = LayerGroups::new(Grouping::Tensor, &layout(&[]));
        assert_eq!((groups.len(), groups.of("a")), (1, None));
    }
}
