//! Asynchronous successive halving (ASHA; Li et al. 2020, arXiv 1810.05934): where the rungs are.
//!
//! A task is stopped at each rung, and goes on, from where it was, if it is promoted. Learning rates are laid out for all of a task's epochs, so
//! a promoted task computes what it would have computed without the stop.

use serde::{Deserialize, Serialize};

use super::method::{Holds, MethodName, Within};
use super::spec::SoupSpec;

/// `search.eta` and `search.grace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asha {
    /// Of n tasks that reached a rung, floor(n / eta) are promoted; each rung is at eta times the epochs of the one before. At least 2.
    pub eta: usize,
    /// Epochs of the first rung, at least 1.
    pub grace: usize,
}

impl Asha {
    /// `search.eta` where the file has none.
    pub const ETA: usize = 3;
    /// `search.grace` where the file has none.
    pub const GRACE: usize = 1;

    /// Whole epochs after which a task stops at a rung (from 0): `grace * eta^rung`. `None` if it has ended by then.
    pub fn stop(&self, rung: u32, soup: &SoupSpec) -> Option<u64> {
        let all = epochs(soup.method, soup.inner_epochs, soup.outer_epochs)?;
        let at = (self.grace as u64).saturating_mul((self.eta as u64).saturating_pow(rung));
        (at < all).then_some(at)
    }
}

/// Whole epochs of a task, as rungs count them: outer epochs for methods with model batches, inner epochs for those that hold all ingredients at once. `None` for
/// methods that do not learn.
pub fn epochs(method: MethodName, inner_epochs: usize, outer_epochs: usize) -> Option<u64> {
    let learning = method.facts().learning?;
    let (inner, outer) = (inner_epochs as u64, outer_epochs as u64);
    Some(match (learning.holds, learning.within) {
        (Holds::ModelBatch, _) => outer,
        (Holds::All, Within::Hyperplane) => inner.saturating_mul(outer),
        // There is nothing to begin anew from.
        (Holds::All, Within::ConvexHull) => inner,
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::resolve_soup;
    use super::super::spec::Overrides;
    use super::*;

    fn stops(asha: Asha, method: &str, inner: usize, outer: usize) -> Vec<u64> {
        let values = [("method", method.into()), ("inner_epochs", inner.into()), ("outer_epochs", outer.into())];
        let overrides: Overrides = values.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        let soup = resolve_soup(&Overrides::new(), &overrides, 0).unwrap();
        (0..70).map_while(|rung| asha.stop(rung, &soup)).collect()
    }

    #[test]
    fn rungs_are_powers_of_eta_before_the_end() {
        let asha = Asha { eta: 3, grace: 1 };
        assert_eq!(stops(asha, "mehl+", 5, 10), [1, 3, 9]);
        assert_eq!(stops(asha, "mehl", 5, 9), [1, 3], "the end is no rung");
        assert!(stops(asha, "mehl", 50, 1).is_empty());
        assert_eq!(stops(asha, "learned", 10, 1), [1, 3, 9]);
        assert_eq!(stops(asha, "hl+", 5, 2), [1, 3, 9]);
        assert!(stops(asha, "greedy", 50, 50).is_empty());
        assert_eq!(stops(Asha { eta: 2, grace: 3 }, "mehl", 1, 13), [3, 6, 12]);
        assert_eq!(stops(Asha { eta: 1000, grace: 1 }, "mehl", 1, 1_000_000), [1, 1000], "no overflow beyond");
    }
}
