//! Which tensors of a zoo are mixed, and which are the same everywhere.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::Zoo;
use super::element::is_float;
use super::error::ZooError;
use super::hash::ZooHashes;

/// What a soup does with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorClass {
    /// A weighted sum of the ingredients' tensors.
    Mixed,
    /// Float, byte-equal in all ingredients: copied, never summed, in no layer group.
    Frozen,
    /// Not float, equal in all ingredients: copied.
    Copied,
}

/// One tensor of every ingredient.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutTensor {
    /// Name on disk.
    pub name: String,
    /// Stored dtype.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// What a soup does with it.
    pub class: TensorClass,
    /// An earlier tensor that has the same content in every ingredient: the two stay equal in every soup, because they share a layer group.
    pub tied_to: Option<String>,
}

/// The tensors of a zoo, sorted by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// All of them.
    pub tensors: Vec<LayoutTensor>,
}

impl Layout {
    /// From the content hashes. In a zoo of one ingredient every float tensor is mixed.
    ///
    /// # Errors
    /// If a tensor that is not float differs between ingredients.
    pub fn new(zoo: &Zoo, hashes: &ZooHashes) -> Result<Self, ZooError> {
        let first = &zoo.ingredients()[0];
        let mut tensors = Vec::new();
        // The contents of one tensor in all ingredients, to the first tensor that has them.
        let mut contents: BTreeMap<Vec<&str>, String> = BTreeMap::new();
        for name in first.tensor_names() {
            let Some(info) = first.info(name) else { continue };
            let own: Vec<&str> =
                hashes.ingredients.iter().map(|h| h.tensors.get(name).map_or("", String::as_str)).collect();
            let equal = own.iter().all(|hash| *hash == own[0]);
            let class = match (is_float(info.dtype), equal) {
                (false, true) => TensorClass::Copied,
                (false, false) => {
                    let other = own.iter().position(|hash| *hash != own[0]).unwrap_or(0);
                    return Err(ZooError::Tensor {
                        path: zoo.ingredients()[other].path().display().to_string(),
                        tensor: name.to_string(),
                        what: format!(
                            "expected the same {:?} values as in {}, as only floats can be mixed; found others",
                            info.dtype,
                            first.path().display()
                        ),
                    });
                }
                (true, true) if zoo.len() > 1 => TensorClass::Frozen,
                (true, _) => TensorClass::Mixed,
            };
            let tied_to = (class == TensorClass::Mixed && info.shape.iter().product::<usize>() > 1)
                .then(|| {
                    let earlier = contents.get(&own).cloned();
                    contents.entry(own).or_insert_with(|| name.to_string());
                    earlier.filter(|earlier| first.info(earlier).is_some_and(|e| e.shape == info.shape))
                })
                .flatten();
            tensors.push(LayoutTensor {
                name: name.to_string(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                class,
                tied_to,
            });
        }
        Ok(Self { tensors })
    }

    /// Those that a soup mixes.
    pub fn mixed(&self) -> impl Iterator<Item = &LayoutTensor> {
        self.tensors.iter().filter(|tensor| tensor.class == TensorClass::Mixed)
    }
}
