//! `steady`: coefficients on the hyperplane in two levels, shrunk, and averaged over the iterations.
//!
//! Within a model batch with centre c, ingredient k has the coefficient
//! `s[k,l] = a_k + delta[k,l]` on `theta[k,l] - c[l]`, which is not divided by its length: a step
//! moves each tensor by a similar share of the difference, where the published methods move it by a
//! similar distance. Shrinking holds the coefficients of an ingredient together; the mean over the
//! iterations is less noisy than the last one. `docs/methods.md` has the equations and what was
//! tried.

use mehl_soup::sweep::spec::{Shrink, SoupSpec};

use crate::engine::train::Parametrization;
use crate::hyperplane::Projection;
use crate::hyperplane::schedule::cosine_with_warmup;

/// Parameters: `a`, one for each member; then, unless there is one level, `delta`, row-major
/// `[members, L]`.
pub struct Steady<'a> {
    soup: &'a SoupSpec,
    /// n, row-major `[members, L]`; 0 where a direction vanishes.
    norms: &'a [f64],
    /// Groups whose gradient is rounding noise.
    masked: &'a [bool],
    members: usize,
    /// What `delta` shrinks by; `None`: there is no `delta`.
    shrink: Option<f64>,
}

impl<'a> Steady<'a> {
    /// For a model batch of `members` ingredients.
    pub fn new(soup: &'a SoupSpec, members: usize, norms: &'a [f64], masked: &'a [bool]) -> Self {
        let shrink = match soup.shrink {
            Some(Shrink::By(by)) => Some(by),
            Some(Shrink::Model(_)) | None => None,
        };
        Self { soup, norms, masked, members, shrink }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.members + self.shrink.map_or(0, |_| self.norms.len())
    }

    fn groups(&self) -> usize {
        self.masked.len()
    }
}

/// What a coefficient of 1 is along unit directions: their lengths, and 1 where they vanish, so that
/// the coefficients of these groups are kept too.
pub fn units(norms: &[f64]) -> Vec<f64> {
    norms.iter().map(|&n| if n == 0.0 { 1.0 } else { n }).collect()
}

impl Parametrization for Steady<'_> {
    /// `x[k,l] = n[k,l] (a_k + delta[k,l])`
    fn coordinates(&self, parameters: &[f64]) -> Vec<f64> {
        let (a, delta) = parameters.split_at(self.members);
        let s = |i: usize| a[i / self.groups()] + delta.get(i).copied().unwrap_or(0.0);
        units(self.norms).iter().enumerate().map(|(i, n)| n * s(i)).collect()
    }

    fn inverse_temperature(&self, _: &[f64]) -> Option<f64> {
        None
    }

    /// With `G[k,l] = <theta[k,l] - c[l], g[l]>`: `dL/da_k = sum_l G[k,l]`, `dL/ddelta[k,l] = G[k,l]`;
    /// g clipped to a global norm, as `torch.nn.utils.clip_grad_norm_` does.
    fn gradient(&self, _: &[f64], projection: &Projection, _: f64) -> Vec<f64> {
        let scale = (self.soup.gradient_clip / (projection.gradient_norm + 1e-6)).min(1.0);
        let each: Vec<f64> = projection.dots.iter().zip(self.norms).map(|(dot, n)| scale * n * dot).collect();
        let mut gradient: Vec<f64> = each.chunks(self.groups()).map(|row| row.iter().sum()).collect();
        if self.shrink.is_some() {
            gradient.extend(each);
        }
        gradient
    }

    fn is_masked(&self, index: usize) -> bool {
        let Some(index) = index.checked_sub(self.members) else { return false };
        self.norms[index] == 0.0 || self.masked[index % self.groups()]
    }

    /// Shrinking takes its place.
    fn decays(&self, _: usize) -> bool {
        false
    }

    fn learning_rate(&self, step: usize, total: usize) -> f64 {
        cosine_with_warmup(self.soup.learning_rate, self.soup.warmup, step, total)
    }

    /// The proximal step of `shrink / 2 |delta|^2`: `delta <- delta / (1 + rate shrink)`. Not a part of
    /// the gradient, where AdamW would divide it by its own size.
    fn after_step(&self, parameters: &mut [f64], learning_rate: f64) {
        if let Some(shrink) = self.shrink {
            let divisor = 1.0 + learning_rate * shrink;
            parameters[self.members..].iter_mut().for_each(|delta| *delta /= divisor);
        }
    }

    fn average(&self) -> f64 {
        self.soup.average.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mehl_soup::sweep::parse::resolve_soup;
    use mehl_soup::sweep::spec::Overrides;

    fn soup(fields: &[(&str, serde_json::Value)]) -> SoupSpec {
        let given: Overrides = fields.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
        resolve_soup(&given, &Overrides::new(), 0).unwrap()
    }

    #[test]
    fn a_model_moves_all_its_groups_and_deviations_only_those_that_differ() {
        let soup = soup(&[("shrink", 5.into())]);
        // Two members, three groups: the second of the first member vanishes, the third is masked.
        let (norms, masked) = ([2.0, 0.0, 4.0, 1.0, 3.0, 5.0], [false, false, true]);
        let steady = Steady::new(&soup, 2, &norms, &masked);
        assert_eq!(steady.parameters(), 8);
        let parameters = [0.5, -1.0, 0.1, 0.0, 0.0, 0.2, 0.3, 0.0];
        let expected = [2.0 * 0.6, 0.5, 4.0 * 0.5, -0.8, 3.0 * -0.7, -5.0];
        let found = steady.coordinates(&parameters);
        assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-15), "{found:?}");
        let stays: Vec<bool> = (0..8).map(|i| steady.is_masked(i)).collect();
        assert_eq!(stays, [false, false, false, true, true, false, false, true]);

        let projection = Projection { dots: vec![1.0, 7.0, 0.5, 2.0, -1.0, 0.0], gradient_norm: 0.1 };
        assert_eq!(steady.gradient(&parameters, &projection, 0.0), [4.0, -1.0, 2.0, 0.0, 2.0, 2.0, -3.0, 0.0]);
        let clipped = Projection { gradient_norm: 2.0 - 1e-6, ..projection };
        assert_eq!(steady.gradient(&parameters, &clipped, 0.0)[..2], [2.0, -0.5]);

        let mut shrunk = parameters;
        steady.after_step(&mut shrunk, 0.2);
        assert_eq!((shrunk[0], shrunk[1]), (0.5, -1.0));
        assert_eq!((shrunk[2], shrunk[5]), (0.05, 0.1));
    }

    #[test]
    fn one_level_has_no_deviations() {
        let soup = soup(&[("shrink", "model".into())]);
        let (norms, masked) = ([2.0, 3.0], [false]);
        let steady = Steady::new(&soup, 2, &norms, &masked);
        assert_eq!((steady.parameters(), steady.coordinates(&[0.5, 2.0])), (2, vec![1.0, 6.0]));
        let projection = Projection { dots: vec![1.0, -1.0], gradient_norm: 0.0 };
        assert_eq!(steady.gradient(&[0.5, 2.0], &projection, 0.0), [2.0, -3.0]);
    }
}
