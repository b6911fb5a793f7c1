//! The search that a specification asks for.

use std::fmt;
use std::sync::Arc;

use super::{Halving, Listed, Search};
use crate::sweep::spec::{Spec, Strategy};

/// Gives searches. What a scheduler and a local run are handed, so that neither names a strategy.
#[derive(Clone)]
pub struct Searches(Arc<Make>);

type Make = dyn Fn(&Spec) -> Arc<dyn Search> + Send + Sync;

impl Searches {
    /// Gives what `make` gives. It must give equal searches for equal specifications.
    pub fn new(make: impl Fn(&Spec) -> Arc<dyn Search> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// The search of a specification. Cheap: no task is drawn yet.
    pub fn of(&self, spec: &Spec) -> Arc<dyn Search> {
        (self.0)(spec)
    }
}

impl Default for Searches {
    /// By `search.strategy`.
    fn default() -> Self {
        Self::new(|spec| match (spec.search.strategy, spec.search.asha) {
            (Strategy::Asha, Some(asha)) => Arc::new(Halving::new(spec.clone(), asha)),
            (Strategy::Grid | Strategy::Random | Strategy::Asha, _) => Arc::new(Listed::new(spec.clone())),
        })
    }
}

impl fmt::Debug for Searches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Searches")
    }
}
