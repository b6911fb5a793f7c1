//! The model that ingredients were fine-tuned from, as one more row of a soup: task arithmetic is a
//! mix of it and them.
//!
//! A base often has another head. A tensor that it lacks, or has in another shape, counts as the
//! ingredients' mean, so that its coefficient moves that tensor nowhere outside their plane.

use std::path::Path;

use super::element::{Element, is_mixable};
use super::error::ZooError;
use super::{CHUNK, Ingredient, Zoo, hash_ingredient};

/// Part of the ingredients' values that a base must have under the same names and in the same shapes.
/// Below it, it is another model.
const LEAST_SHARED: f64 = 0.5;

impl Zoo {
    /// This zoo with a base, which becomes the row after those of the ingredients; and what a person
    /// should know of it.
    ///
    /// # Errors
    /// If it cannot be opened, or shares less than half of the ingredients' values by name and shape.
    pub fn with_base(mut self, path: &Path) -> Result<(Self, Vec<String>), ZooError> {
        let mut base = Ingredient::open(path)?;
        let prefixes = [base.common_prefix(), self.reference().common_prefix()];
        if prefixes[0] != prefixes[1] && self.shared(&base, &prefixes) > self.shared(&base, &["", ""]) {
            base.replace_prefix(&prefixes[1]);
        }
        let (shared, all) = (self.shared(&base, &["", ""]), self.values());
        if (shared as f64) < LEAST_SHARED * all as f64 {
            return Err(ZooError::OtherModel {
                path: base.path().to_path_buf(),
                reference: self.reference().path().to_path_buf(),
                shared: (100 * shared).checked_div(all).unwrap_or(0),
            });
        }
        let mut notes: Vec<String> = base.notes().to_vec();
        base.rename(format!("base:{}", base.name()));
        self.base = Some(base);
        let lacking: Vec<&str> = self.reference().tensor_names().filter(|name| self.base_lacks(name)).collect();
        if let [first, ..] = lacking[..] {
            let count = lacking.len();
            let others = if count > 1 { format!(" and {} others", count - 1) } else { String::new() };
            notes.push(format!(
                "zoo.base: missing or of another shape: `{first}`{others}; the ingredients' mean is used instead"
            ));
        }
        Ok((self, notes))
    }

    /// The base.
    pub fn base(&self) -> Option<&Ingredient> {
        self.base.as_ref()
    }

    /// Rows of a soup's coefficients: those of the ingredients, then the base's.
    pub fn rows(&self) -> usize {
        self.len() + usize::from(self.base.is_some())
    }

    /// The files of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, k: usize) -> &Ingredient {
        self.ingredients.get(k).or(self.base.as_ref()).expect("rows are those of ingredients and base")
    }

    /// Whether the base has no tensor that can stand beside the ingredients' of this name.
    pub fn base_lacks(&self, name: &str) -> bool {
        let Some(base) = &self.base else { return false };
        let like = self.reference().info(name);
        !base.info(name).is_some_and(|own| is_mixable(own.dtype) && like.is_some_and(|like| like.shape == own.shape))
    }

    /// Reads a float tensor of a row, as [`Ingredient::read`]; what the base lacks as the ingredients'
    /// mean.
    ///
    /// # Errors
    /// As [`Ingredient::read`].
    pub fn read_row<T: Element>(&self, k: usize, name: &str, out: &mut [T]) -> Result<(), ZooError> {
        if k >= self.len() && self.base_lacks(name) {
            return self.read_mean(name, out);
        }
        self.row(k).read(name, out)
    }

    /// The ingredients' mean of a tensor, summed in f64.
    fn read_mean<T: Element>(&self, name: &str, out: &mut [T]) -> Result<(), ZooError> {
        // The lengths are checked by the first ingredient.
        self.ingredients[0].read(name, out)?;
        let weight = 1.0 / self.len() as f64;
        let mut theta = vec![0.0; CHUNK.min(out.len())];
        for (i, chunk) in out.chunks_mut(CHUNK).enumerate() {
            let mut sum = vec![0.0; chunk.len()];
            let theta = &mut theta[..chunk.len()];
            for ingredient in &self.ingredients {
                ingredient.read_range(name, i * CHUNK, theta)?;
                sum.iter_mut().zip(&*theta).for_each(|(sum, theta)| *sum += weight * theta);
            }
            chunk.iter_mut().zip(sum).for_each(|(to, sum)| *to = T::from_f64(sum));
        }
        Ok(())
    }

    /// Weights of the files' own tensors of this name, from those of all rows: what the base lacks
    /// is shared by the ingredients.
    pub fn weights_of(&self, name: &str, rows: &[f64]) -> Vec<f64> {
        let mut weights = rows.to_vec();
        if self.base_lacks(name)
            && let Some(own) = weights.get_mut(self.len()).map(std::mem::take)
        {
            let each = own / self.len() as f64;
            weights[..self.ingredients.len()].iter_mut().for_each(|weight| *weight += each);
        }
        weights
    }

    /// Float values of the reference.
    fn values(&self) -> usize {
        self.reference().tensors().filter(|(_, info)| is_mixable(info.dtype)).map(|(_, info)| info.numel()).sum()
    }

    /// Of them those that a model has under the same names, with one prefix for another, and shapes.
    fn shared(&self, base: &Ingredient, prefixes: &[impl AsRef<str>; 2]) -> usize {
        let [of_base, own] = prefixes.each_ref().map(AsRef::as_ref);
        let same = |(name, info): &(&str, &super::TensorInfo)| {
            let name = name.strip_prefix(own).map(|rest| format!("{of_base}{rest}"));
            let found = name.and_then(|name| base.info(&name));
            is_mixable(info.dtype) && found.is_some_and(|found| is_mixable(found.dtype) && found.shape == info.shape)
        };
        self.reference().tensors().filter(same).map(|(_, info)| info.numel()).sum()
    }
}

impl Zoo {
    /// The content hash of the base, if there is one.
    ///
    /// # Errors
    /// As [`Zoo::hash`].
    pub fn hash_base(
        &self,
        cache: Option<&super::HashCache>,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Option<super::IngredientHashes>, ZooError> {
        self.base.as_ref().map(|base| hash_ingredient(base, cache, advance)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coefficients::mix_tensor;
    use crate::zoo::testing::{Tensor, f32s, write_file};
    use std::path::PathBuf;

    fn write(folder: &Path, name: &str, tensors: &[Tensor]) -> PathBuf {
        let path = folder.join(format!("{name}.safetensors"));
        write_file(&path, tensors);
        path
    }

    fn zoo(folder: &Path) -> Zoo {
        let model = |name: &str, x: f32| {
            write(folder, name, &[f32s("m.body", &[4], &[x, x, x, 1.0]), f32s("m.head", &[2], &[x, -x])])
        };
        Zoo::open(&[model("a", 1.0), model("b", 3.0)]).unwrap()
    }

    #[test]
    fn a_base_is_one_more_row_and_its_missing_head_is_the_mean() {
        let root = tempfile::tempdir().unwrap();
        let head_of_three = f32s("module.m.head", &[3], &[9.0; 3]);
        let base = write(root.path(), "base", &[f32s("module.m.body", &[4], &[0.0, 1.0, 2.0, 1.0]), head_of_three]);
        let (zoo, notes) = zoo(root.path()).with_base(&base).unwrap();
        assert_eq!((zoo.len(), zoo.rows(), zoo.row(2).name()), (2, 3, "base:base.safetensors"));
        assert!(notes.iter().any(|note| note.contains("missing or of another shape: `m.head`")), "{notes:?}");
        let mut row = [0f32; 4];
        zoo.read_row(2, "m.body", &mut row).unwrap();
        assert_eq!(row, [0.0, 1.0, 2.0, 1.0]);
        let mut head = [0f32; 2];
        zoo.read_row(2, "m.head", &mut head).unwrap();
        assert_eq!(head, [2.0, -2.0]);
        // 0.5 a + 1.5 b - 1 base.
        let weights = [0.5, 1.5, -1.0];
        mix_tensor(&zoo, "m.body", &weights, &mut row).unwrap();
        assert_eq!(row, [5.0, 4.0, 3.0, 1.0]);
        mix_tensor(&zoo, "m.head", &weights, &mut head).unwrap();
        assert_eq!(head, [3.0, -3.0]);
    }

    #[test]
    fn another_architecture_is_no_base() {
        let root = tempfile::tempdir().unwrap();
        let other = write(root.path(), "other", &[f32s("m.body", &[5], &[0.0; 5]), f32s("m.head", &[2], &[0.0; 2])]);
        let error = zoo(root.path()).with_base(&other).unwrap_err().to_string();
        for part in ["other.safetensors", "33 %", "zoo.base", "a.safetensors"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
