//! Soup methods: their names, and the facts about them that the rest of the program goes by. Adding a method means a row
//! of [`FACTS`] here and one file in the worker (`docs/add-a-method.md`); nothing else names it.

use serde::{Deserialize, Serialize};

/// Soup methods, by the names used in specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MethodName {
    /// The best ingredient by select.
    #[serde(rename = "best")]
    Best,
    /// The plain mean.
    #[serde(rename = "uniform")]
    Uniform,
    /// Greedy soup (Wortsman et al. 2022, recipe 1).
    #[serde(rename = "greedy")]
    Greedy,
    /// Model Stock (arXiv 2403.19522): a closed form for the ingredients and their base.
    #[serde(rename = "model-stock")]
    ModelStock,
    /// Learned soup (Wortsman et al. 2022), one coefficient a model.
    #[serde(rename = "learned")]
    Learned,
    /// Learned soup, one coefficient a layer group.
    #[serde(rename = "learned+")]
    LearnedPlus,
    /// Hyperplane, all models in one model batch.
    #[serde(rename = "hl")]
    Hl,
    /// The same, one coefficient a layer group.
    #[serde(rename = "hl+")]
    HlPlus,
    /// Block coordinate descent on the hyperplane (arXiv 2407.03641).
    #[serde(rename = "mehl")]
    Mehl,
    /// The same, one coefficient a layer group.
    #[serde(rename = "mehl+")]
    MehlPlus,
    /// Block coordinate descent with a coefficient for each ingredient, shrunk deviations from it
    /// for each layer group, and averaged iterates.
    #[serde(rename = "steady")]
    Steady,
}

/// What the program goes by where it deals with a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// The method.
    pub method: MethodName,
    /// Its name in specifications.
    pub name: &'static str,
    /// Its name in sentences of reports.
    pub title: &'static str,
    /// Whether coefficients differ between layer groups.
    pub is_layer_wise: bool,
    /// Whether it needs `zoo.base`.
    pub needs_base: bool,
    /// How it learns coefficients by gradients; `None` if it does not.
    pub learning: Option<Learning>,
}

/// How a method learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learning {
    /// Where its soups are.
    pub within: Within,
    /// How many ingredients are in memory at once.
    pub holds: Holds,
    /// What its coefficients are learned as.
    pub coordinates: Coordinates,
    /// Default of `soup.learning_rate`.
    pub learning_rate: f64,
    /// Default of `soup.inner_epochs`.
    pub inner_epochs: usize,
    /// Default of `soup.batch`.
    pub batch: usize,
}

/// Where the soups of a method are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Coefficients of at least 0, which sum to 1.
    ConvexHull,
    /// Coefficients that sum to 1; the base is one more ingredient.
    Hyperplane,
}

/// How many ingredients are in memory at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// All. Rungs of a search count inner epochs.
    All,
    /// `soup.model_batch`. Rungs of a search count outer epochs.
    ModelBatch,
}

/// What coefficients are learned as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinates {
    /// Logits of a softmax.
    Logits,
    /// Along unit directions. Takes `soup.weight_decay`.
    UnitDirections,
    /// Relative to the differences themselves. Takes `soup.shrink` and `soup.average`.
    Relative,
}

impl Learning {
    /// What a specification says of a method that does not learn; not used.
    pub(super) const UNUSED: Learning = HL;
}

const SOFTMAX: Learning = Learning {
    within: Within::ConvexHull,
    holds: Holds::All,
    coordinates: Coordinates::Logits,
    learning_rate: 0.05,
    inner_epochs: 5,
    batch: 128,
};
const HL: Learning = Learning {
    within: Within::Hyperplane,
    holds: Holds::All,
    coordinates: Coordinates::UnitDirections,
    learning_rate: 0.01,
    ..SOFTMAX
};
const MEHL: Learning = Learning { holds: Holds::ModelBatch, ..HL };
const STEADY: Learning =
    Learning { coordinates: Coordinates::Relative, learning_rate: 0.02, inner_epochs: 12, batch: 32, ..MEHL };

const fn facts(method: MethodName, name: &'static str, is_layer_wise: bool, learning: Option<Learning>) -> Facts {
    Facts { method, name, title: name, is_layer_wise, needs_base: false, learning }
}

const fn titled(title: &'static str, facts: Facts) -> Facts {
    Facts { title, ..facts }
}

/// Every method, in the order of the documentation, which is that of [`MethodName`].
pub const FACTS: [Facts; 11] = [
    titled("best ingredient", facts(MethodName::Best, "best", false, None)),
    titled("uniform soup", facts(MethodName::Uniform, "uniform", false, None)),
    titled("greedy soup", facts(MethodName::Greedy, "greedy", false, None)),
    Facts { needs_base: true, ..titled("Model Stock", facts(MethodName::ModelStock, "model-stock", true, None)) },
    facts(MethodName::Learned, "learned", false, Some(SOFTMAX)),
    facts(MethodName::LearnedPlus, "learned+", true, Some(SOFTMAX)),
    facts(MethodName::Hl, "hl", false, Some(HL)),
    facts(MethodName::HlPlus, "hl+", true, Some(HL)),
    facts(MethodName::Mehl, "mehl", false, Some(MEHL)),
    facts(MethodName::MehlPlus, "mehl+", true, Some(MEHL)),
    facts(MethodName::Steady, "steady", true, Some(STEADY)),
];

impl MethodName {
    /// Every method, in the order of the documentation.
    pub const ALL: [MethodName; FACTS.len()] = {
        let mut all = [MethodName::Best; FACTS.len()];
        let mut i = 0;
        while i < FACTS.len() {
            all[i] = FACTS[i].method;
            i += 1;
        }
        all
    };
    /// What a specification without a method means.
    pub const DEFAULT: MethodName = MethodName::Steady;

    /// The facts about it.
    pub fn facts(self) -> &'static Facts {
        &FACTS[self as usize]
    }

    /// The name used in specifications.
    pub fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// Whether coefficients differ between layer groups.
    pub fn is_layer_wise(self) -> bool {
        self.facts().is_layer_wise
    }

    /// Whether the method learns coefficients by gradients.
    pub fn learns(self) -> bool {
        self.facts().learning.is_some()
    }

    /// Whether the method moves a soup on the hyperplane, where the base is one more ingredient.
    pub fn is_on_hyperplane(self) -> bool {
        self.facts().learning.is_some_and(|learning| learning.within == Within::Hyperplane)
    }

    /// Whether all ingredients are in memory at once while it learns.
    pub fn holds_all(self) -> bool {
        self.facts().learning.is_some_and(|learning| learning.holds == Holds::All)
    }

    /// Whether it learns relative coefficients, and so takes `soup.shrink` and `soup.average`.
    pub fn is_relative(self) -> bool {
        self.facts().learning.is_some_and(|learning| learning.coordinates == Coordinates::Relative)
    }
}

impl std::fmt::Display for MethodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_names_and_says_the_same_as_json() {
        for (i, facts) in FACTS.iter().enumerate() {
            assert_eq!(facts.method as usize, i, "{}", facts.name);
            assert_eq!(serde_json::to_value(facts.method).unwrap(), facts.name);
        }
    }
}
