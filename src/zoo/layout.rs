//! Which tensors of a zoo are mixed, and which only copied.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::element::is_mixable;
use super::error::ZooError;
use super::hash::ZooHashes;
use super::mismatch::{Difference, Mismatch, Mismatches};
use super::{Ingredient, Zoo};

/// What becomes of a tensor in a soup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorClass {
    /// Float: the weighted sum. With one ingredient, every float tensor.
    Mixed,
    /// Float and byte-equal in all of several ingredients: copied, never summed.
    Frozen,
    /// A running statistic of batch normalisation (`*.running_mean`, `*.running_var`) in a zoo where these differ: it describes what its own
    /// ingredient's layers saw, a soup has its own, and a mix of variances can be negative. Never mixed, computed anew for each soup.
    Statistic,
    /// Of a dtype that cannot be mixed, equal in all ingredients: copied. Counters of batches (`*.num_batches_tracked`), which no
    /// forward pass reads, may differ: the first ingredient's is copied.
    Copied,
}

/// One tensor of a zoo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutTensor {
    /// Name on disk.
    pub name: String,
    /// Dtype on disk; where ingredients differ, that of most of them, the wider of two as common.
    pub dtype: Dtype,
    /// Shape on disk.
    pub shape: Vec<usize>,
    /// What becomes of it.
    pub class: TensorClass,
    /// For a mixed tensor of more than one element: the first tensor, by name, with the same shape, dtype and contents in
    /// every ingredient. The two are one parameter and share a coefficient.
    pub tied_to: Option<String>,
}

impl LayoutTensor {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors of a zoo, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Sorted by name.
    pub tensors: Vec<LayoutTensor>,
}

impl Layout {
    /// From the zoo's headers and content hashes.
    ///
    /// # Errors
    /// [`ZooError::Mismatch`] if tensors of a dtype that cannot be mixed differ.
    ///
    /// # Panics
    /// If `hashes` are not this zoo's.
    pub fn new(zoo: &Zoo, hashes: &ZooHashes) -> Result<Self, ZooError> {
        assert_eq!(zoo.len(), hashes.ingredients.len(), "hashes are of this zoo");
        let [first, others @ ..] = zoo.ingredients() else { return Err(ZooError::Empty) };
        let mut tensors = Vec::new();
        let mut differing = Vec::new();
        let statistics_differ = first.tensor_names().filter(|name| is_statistic(name)).any(|name| {
            let mut of = (0..zoo.len()).map(|k| hashes.of_tensor(zoo, k, name));
            let one = of.next();
            zoo.len() == 1 || of.any(|hash| Some(hash) != one)
        });
        let mut seen: BTreeMap<(Dtype, &[usize], Vec<&str>), &str> = BTreeMap::new();
        for (name, info) in first.tensors() {
            let of: Vec<&str> = (0..zoo.len()).map(|k| hashes.of_tensor(zoo, k, name)).collect();
            // The same bytes in another dtype are other values.
            let one_dtype = others.iter().all(|other| other.info(name).is_some_and(|own| own.dtype == info.dtype));
            // Of a tensor that can be mixed: what the ingredients share, a base may have otherwise.
            let of_base = hashes.of_base(zoo, name).filter(|_| is_mixable(info.dtype));
            let like_base = of_base.is_none_or(|hash| {
                hash == of[0] && zoo.base().and_then(|base| base.info(name)).is_some_and(|own| own.dtype == info.dtype)
            });
            let equal = one_dtype && like_base && of.iter().all(|hash| *hash == of[0]);
            let class = match (is_mixable(info.dtype), equal) {
                (true, _) if statistics_differ && is_statistic(name) => TensorClass::Statistic,
                (true, true) if zoo.rows() > 1 => TensorClass::Frozen,
                (true, _) => TensorClass::Mixed,
                (false, _) => TensorClass::Copied,
            };
            if class == TensorClass::Copied && !name.ends_with(".num_batches_tracked") {
                let differ = |(other, hash): (&Ingredient, &&str)| {
                    (*hash != of[0]).then(|| Mismatch {
                        path: other.path().to_path_buf(),
                        tensor: name.to_string(),
                        difference: Difference::Contents { dtype: info.dtype },
                    })
                };
                differing.extend(others.iter().zip(&of[1..]).filter_map(differ));
            }
            let dtype = commonest_dtype(zoo, name).unwrap_or(info.dtype);
            let tied_to = if class == TensorClass::Mixed && info.numel() > 1 {
                let of = of.into_iter().chain(of_base).collect();
                let first_such = *seen.entry((dtype, &info.shape, of)).or_insert(name);
                (first_such != name).then(|| first_such.to_string())
            } else {
                None
            };
            let (name, shape) = (name.to_string(), info.shape.clone());
            tensors.push(LayoutTensor { name, dtype, shape, class, tied_to });
        }
        if differing.is_empty() {
            Ok(Self { tensors })
        } else {
            Err(ZooError::Mismatch(Mismatches { reference: first.path().to_path_buf(), list: differing }))
        }
    }

    /// What headers alone tell: every float tensor counts as mixed but running statistics, and none as frozen or tied.
    pub fn of_headers(zoo: &Zoo) -> Self {
        let tensor = |(name, info): (&str, &super::TensorInfo)| LayoutTensor {
            name: name.to_string(),
            dtype: commonest_dtype(zoo, name).unwrap_or(info.dtype),
            shape: info.shape.clone(),
            class: match is_mixable(info.dtype) {
                true if is_statistic(name) => TensorClass::Statistic,
                true => TensorClass::Mixed,
                false => TensorClass::Copied,
            },
            tied_to: None,
        };
        Self { tensors: zoo.ingredients()[0].tensors().map(tensor).collect() }
    }

    /// The mixed tensors, sorted by name.
    pub fn mixed(&self) -> impl Iterator<Item = &LayoutTensor> {
        self.tensors.iter().filter(|tensor| tensor.class == TensorClass::Mixed)
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&LayoutTensor> {
        self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok().map(|i| &self.tensors[i])
    }
}

/// The dtype that most ingredients have a tensor in; the wider of two as common.
pub(super) fn commonest_dtype(zoo: &Zoo, name: &str) -> Option<Dtype> {
    let mut counts: BTreeMap<Dtype, usize> = BTreeMap::new();
    for info in zoo.ingredients().iter().filter_map(|ingredient| ingredient.info(name)) {
        *counts.entry(info.dtype).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(dtype, count)| (*count, dtype.bitsize())).map(|(dtype, _)| dtype)
}

/// Whether a tensor is, by its name, a running statistic of batch normalisation as PyTorch names them.
fn is_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{bytes, f32s, open_zoo};

    fn layout(zoo: &Zoo) -> Result<Layout, ZooError> {
        Layout::new(zoo, &zoo.hash(None, &mut |_, _| {}).unwrap())
    }

    fn model(x: f32, counter: u8) -> Vec<crate::zoo::testing::Tensor> {
        vec![
            f32s("a.weight", &[2], &[x, 1.0]),
            f32s("b.weight", &[2], &[x, 1.0]),
            f32s("c.weight", &[1, 2], &[x, 1.0]),
            f32s("frozen", &[2], &[5.0, 6.0]),
            f32s("frozen.too", &[2], &[5.0, 6.0]),
            f32s("one", &[1], &[x]),
            f32s("other.one", &[1], &[x]),
            bytes("counter", Dtype::I64, &[], vec![counter, 0, 0, 0, 0, 0, 0, 0]),
        ]
    }

    #[test]
    fn tensors_are_classed_by_their_contents() {
        use TensorClass::*;
        let (_root, zoo) = open_zoo(&[model(1.0, 7), model(2.0, 7)]);
        let layout = layout(&zoo).unwrap();
        let classes: Vec<_> = layout.tensors.iter().map(|t| (t.name.as_str(), t.class, t.tied_to.as_deref())).collect();
        let expected = [
            ("a.weight", Mixed, None),
            ("b.weight", Mixed, Some("a.weight")),
            // Another shape is another parameter; single elements and frozen tensors are equal too easily.
            ("c.weight", Mixed, None),
            ("counter", Copied, None),
            ("frozen", Frozen, None),
            ("frozen.too", Frozen, None),
            ("one", Mixed, None),
            ("other.one", Mixed, None),
        ];
        assert_eq!(classes, expected);
        assert_eq!(layout.get("one").unwrap().name, "one");
        assert!(layout.get("absent").is_none());
    }

    #[test]
    fn tensors_equal_in_one_ingredient_only_are_not_tied() {
        let mut second = model(2.0, 7);
        second[1] = f32s("b.weight", &[2], &[2.0, 1.5]);
        let (_root, zoo) = open_zoo(&[model(1.0, 7), second]);
        assert!(layout(&zoo).unwrap().get("b.weight").unwrap().tied_to.is_none());
    }

    #[test]
    fn a_single_ingredient_has_nothing_frozen() {
        let (_root, zoo) = open_zoo(&[model(1.0, 7)]);
        assert_eq!(layout(&zoo).unwrap().mixed().count(), 7);
    }

    #[test]
    fn running_statistics_are_never_mixed_and_their_counters_may_differ() {
        use TensorClass::*;
        let model = |mean: f32, variance: f32, batches: u8| {
            vec![
                f32s("bn.running_mean", &[1], &[mean]),
                f32s("bn.running_var", &[1], &[variance]),
                bytes("bn.num_batches_tracked", Dtype::I64, &[], vec![batches, 0, 0, 0, 0, 0, 0, 0]),
                f32s("bn.weight", &[1], &[mean]),
            ]
        };
        let classes = |models: &[Vec<crate::zoo::testing::Tensor>]| {
            let (_root, zoo) = open_zoo(models);
            layout(&zoo).unwrap().tensors.iter().map(|t| t.class).collect::<Vec<_>>()
        };
        // Sorted by name: counter, mean, variance, weight. All of them as soon as one differs.
        assert_eq!(classes(&[model(1.0, 2.0, 7), model(3.0, 2.0, 8)]), [Copied, Statistic, Statistic, Mixed]);
        assert_eq!(classes(&[model(1.0, 2.0, 7)]), [Copied, Statistic, Statistic, Mixed]);
        // Equal in all ingredients: they were fine-tuned with these, as constants.
        assert_eq!(classes(&[model(1.0, 2.0, 7), model(1.0, 2.0, 7)]), [Copied, Frozen, Frozen, Frozen]);
    }

    #[test]
    fn tensors_that_cannot_be_mixed_must_be_equal() {
        let (_root, zoo) = open_zoo(&[model(1.0, 7), model(2.0, 7), model(3.0, 8)]);
        let ZooError::Mismatch(found) = layout(&zoo).unwrap_err() else { panic!("another error") };
        assert_eq!(found.list.len(), 1);
        assert_eq!(found.list[0].path, zoo.ingredients()[2].path());
        assert_eq!(found.list[0].difference, Difference::Contents { dtype: Dtype::I64 });
    }
}
