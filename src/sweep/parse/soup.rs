//! `[soup]`, with or without searched values in place of what is given.

use super::node::{Node, Place, Value};
use super::section::{Faults, Section};
use crate::sweep::spec::{Auto, Grouping, Init, MethodName, ModelBatch, Overrides, SoupSpec};

/// Keys of `[soup]`.
pub const FIELDS: [&str; 14] = [
    "method",
    "layer_groups",
    "model_batch",
    "inner_epochs",
    "outer_epochs",
    "batch",
    "learning_rate",
    "weight_decay",
    "warmup",
    "gradient_clip",
    "init",
    "early_stopping",
    "patience",
    "seed",
];

/// Reads `[soup]`; what is not given has its default, which may depend on the method.
///
/// `searched`: some field is searched. Then a `layer_groups` that does not go with a method is no fault, and does not count for it.
pub fn read(node: Option<&Node>, seed: u64, searched: bool, faults: &mut Faults) -> SoupSpec {
    let mut section = Section::new("soup", node, faults);
    let words: Vec<(&'static str, MethodName)> = MethodName::ALL.iter().map(|m| (m.as_str(), *m)).collect();
    let method = section.word("method", &words, faults).unwrap_or(MethodName::MehlPlus);
    let groups_place = section.get("layer_groups").map(|node| node.place);
    let words = [("model", Grouping::Model), ("block", Grouping::Block), ("tensor", Grouping::Tensor)];
    let stated = section.word("layer_groups", &words, faults);
    let layer_groups = match (stated, method.is_layer_wise()) {
        (None | Some(Grouping::Model), false) => Grouping::Model,
        (None, true) => Grouping::Tensor,
        (Some(stated @ (Grouping::Tensor | Grouping::Block)), true) => stated,
        (Some(_), layer_wise) => {
            if !searched {
                let expected = if layer_wise { "block or tensor" } else { "model" };
                let what = format!("expected {expected} with method `{method}`, which is told by the plus sign");
                faults.add(groups_place.unwrap_or_default(), "soup.layer_groups", what);
            }
            if layer_wise { Grouping::Tensor } else { Grouping::Model }
        }
    };
    let model_batch = match section.get("model_batch").map(|node| (node, &node.value)) {
        None => ModelBatch::Auto(Auto::Auto),
        Some((_, Value::Text(text))) if text == "auto" => ModelBatch::Auto(Auto::Auto),
        Some((_, Value::Int(b))) if *b >= 1 => ModelBatch::Fixed(*b as usize),
        Some((node, _)) => {
            let what = format!("expected auto or a whole number of at least 1, found {}", node.shown());
            faults.add(node.place, "soup.model_batch", what);
            ModelBatch::Auto(Auto::Auto)
        }
    };
    let default_rate = if matches!(method, MethodName::Learned | MethodName::LearnedPlus) { 0.05 } else { 0.01 };
    let words =
        [("batch-mean", Init::BatchMean), ("uniform", Init::Uniform), ("best", Init::Best), ("greedy", Init::Greedy)];
    let soup = SoupSpec {
        method,
        layer_groups,
        model_batch,
        inner_epochs: section.whole("inner_epochs", 1, faults).unwrap_or(5) as usize,
        outer_epochs: section.whole("outer_epochs", 1, faults).unwrap_or(1) as usize,
        batch: section.whole("batch", 1, faults).unwrap_or(128) as usize,
        learning_rate: section.number("learning_rate", |v| v > 0.0, "a number above 0", faults).unwrap_or(default_rate),
        weight_decay: section.number("weight_decay", |v| v >= 0.0, "a number of at least 0", faults).unwrap_or(0.0),
        warmup: section.number("warmup", |v| (0.0..=1.0).contains(&v), "a number from 0 to 1", faults).unwrap_or(0.2),
        gradient_clip: section.number("gradient_clip", |v| v > 0.0, "a number above 0", faults).unwrap_or(1.0),
        init: section.word("init", &words, faults).unwrap_or(Init::BatchMean),
        early_stopping: section.flag("early_stopping", faults).unwrap_or(true),
        patience: section.whole("patience", 1, faults).unwrap_or(3) as usize,
        seed: section.whole("seed", 0, faults).unwrap_or(seed),
    };
    section.finish(faults);
    soup
}

/// The given fields of `[soup]` with some replaced.
pub fn with_overrides(given: &Overrides, overrides: &Overrides) -> Node {
    let mut fields = given.clone();
    fields.extend(overrides.iter().filter(|(key, _)| *key != "zoo.top").map(|(k, v)| (k.clone(), v.clone())));
    let fields = fields.iter().map(|(key, value)| (key.clone(), Place::default(), Node::from_json(value))).collect();
    Node { value: Value::Table(fields), place: Place::default() }
}

/// The hyperparameters of a task whose values were found valid one by one.
pub fn resolve(given: &Overrides, overrides: &Overrides, seed: u64) -> SoupSpec {
    read(Some(&with_overrides(given, overrides)), seed, true, &mut Faults::default())
}
