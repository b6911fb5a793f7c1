//! The coefficient table `A`.

use serde::{Deserialize, Serialize};

/// Coefficients `A`, shape `[K, L]`: the soup is, per layer group l, `sum_k A[k,l] * theta[k,l]`.
///
/// Every column sums to 1 (the hyperplane of arXiv 2407.03641, section 3.1, not the convex hull): entries may be negative or above 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coefficients {
    ingredients: usize,
    groups: usize,
    /// Row-major.
    values: Vec<f64>,
}

impl Coefficients {
    /// The mean of `members`: `1 / members.len()` in their rows, 0 elsewhere.
    ///
    /// # Panics
    /// If `members` is empty or holds an index that is not below `ingredients`.
    pub fn mean_of(ingredients: usize, groups: usize, members: &[usize]) -> Self {
        assert!(!members.is_empty(), "a mean needs members");
        let mut values = vec![0.0; ingredients * groups];
        for &k in members {
            for value in &mut values[k * groups..(k + 1) * groups] {
                *value += 1.0 / members.len() as f64;
            }
        }
        Self { ingredients, groups, values }
    }

    /// From row-major values of shape `[ingredients, groups]`; `None` if the length is not that.
    pub fn from_values(ingredients: usize, groups: usize, values: Vec<f64>) -> Option<Self> {
        (values.len() == ingredients * groups).then_some(Self { ingredients, groups, values })
    }

    /// K.
    pub fn ingredients(&self) -> usize {
        self.ingredients
    }

    /// L.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Row-major values, `[K, L]`.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// `A[k, l]`.
    pub fn get(&self, k: usize, l: usize) -> f64 {
        self.values[k * self.groups + l]
    }

    /// Column l: one coefficient an ingredient.
    pub fn column(&self, l: usize) -> Vec<f64> {
        (0..self.ingredients).map(|k| self.get(k, l)).collect()
    }

    /// The ingredient that the soup consists of, if there is one: 1 in its row, 0 elsewhere.
    pub fn single_ingredient(&self) -> Option<usize> {
        let row = |k: usize| &self.values[k * self.groups..(k + 1) * self.groups];
        let single = (0..self.ingredients).find(|&k| row(k).iter().all(|&value| value == 1.0))?;
        let others_vanish = (0..self.ingredients).filter(|&k| k != single).all(|k| row(k).iter().all(|&v| v == 0.0));
        others_vanish.then_some(single)
    }

    /// The fold that follows a model batch whose soup moved by `sum_k beta[k,l] (theta[k,l] - c[l])`:
    /// `A[:,l] *= 1 - sum_k beta[k,l]`, then `A[k,l] += beta[k,l]` (arXiv 2407.03641, algorithm 1, in terms of all ingredients).
    ///
    /// `beta` is row-major `[members.len(), L]`. Column sums stay 1 up to f64 rounding.
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn fold(&mut self, members: &[usize], beta: &[f64]) {
        assert_eq!(beta.len(), members.len() * self.groups, "beta has one entry a member and group");
        for l in 0..self.groups {
            let moved: f64 = (0..members.len()).map(|i| beta[i * self.groups + l]).sum();
            for k in 0..self.ingredients {
                self.values[k * self.groups + l] *= 1.0 - moved;
            }
            for (i, &k) in members.iter().enumerate() {
                self.values[k * self.groups + l] += beta[i * self.groups + l];
            }
        }
    }

    /// Largest distance of a column's sum from 1.
    pub fn sum_error(&self) -> f64 {
        (0..self.groups).map(|l| (self.column(l).iter().sum::<f64>() - 1.0).abs()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::Coefficients;

    #[test]
    fn a_soup_of_one_ingredient_is_known() {
        assert_eq!(Coefficients::mean_of(3, 2, &[1]).single_ingredient(), Some(1));
        assert_eq!(Coefficients::mean_of(3, 2, &[0, 1]).single_ingredient(), None);
        let of = |values: &[f64]| Coefficients::from_values(2, 2, values.to_vec()).unwrap().single_ingredient();
        assert_eq!(of(&[1.0, 0.0, 0.0, 1.0]), None);
        assert_eq!(of(&[1.0, 1.0, 0.5, -0.5]), None);
        assert_eq!(of(&[0.0, 0.0, 1.0, 1.0]), Some(1));
    }
}
