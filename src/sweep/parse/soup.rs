//! `[soup]`: one task's hyperparameters, read from the file, from a searched value in its place, or from stored overrides.

use super::fault::{Faults, Problem, SpecError};
use super::node::Node;
use super::node::Value;
use super::section::{Field, Section};
use crate::sweep::method::Learning;
use crate::sweep::spec::{
    Auto, DirectionDtype, Grouping, Init, MethodName, ModelBatch, OneLevel, Overrides, Shrink, SoupSpec,
};

/// Every key of `[soup]`.
pub(super) const KEYS: [&str; 17] = [
    "method",
    "layer_groups",
    "model_batch",
    "direction_dtype",
    "inner_epochs",
    "outer_epochs",
    "batch",
    "learning_rate",
    "weight_decay",
    "shrink",
    "average",
    "warmup",
    "gradient_clip",
    "init",
    "early_stopping",
    "patience",
    "seed",
];

/// The override of `zoo.top`, which is the one searchable value outside `[soup]`.
pub(in crate::sweep) const TOP: &str = "zoo.top";

/// Fields that only some methods take.
pub(super) const METHODS_OWN: [&str; 4] = ["layer_groups", "weight_decay", "shrink", "average"];

/// Which of [`METHODS_OWN`] are a fault with a method that does not take them: method and value
/// were meant for each other. Of the others, the method takes its default: it is searched, and they
/// were written for the methods that they suit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// All of them.
    Fault,
    /// None.
    Tolerated,
    /// These.
    FaultOf(Vec<&'static str>),
}

impl Contradiction {
    /// A fault are those of [`METHODS_OWN`] among `keys`.
    pub(super) fn of_keys<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let of = |key: &str| METHODS_OWN.into_iter().find(|own| *own == key);
        Self::FaultOf(keys.filter_map(of).collect())
    }

    fn is_fault(&self, key: &str) -> bool {
        match self {
            Self::Fault => true,
            Self::Tolerated => false,
            Self::FaultOf(keys) => keys.contains(&key),
        }
    }
}

/// Reads the hyperparameters; `seed` is the default of `soup.seed`. Does not finish the section.
pub(super) fn read(section: &mut Section<'_>, seed: u64, contradiction: &Contradiction) -> SoupSpec {
    let methods = MethodName::ALL.map(|method| (method.as_str(), method));
    let method = section.word("method", &methods).unwrap_or(MethodName::DEFAULT);
    // Of a method that does not learn, nobody looks at these.
    let defaults = method.facts().learning.unwrap_or(Learning::UNUSED);
    let shrink = shrink(section, method, contradiction);
    SoupSpec {
        method,
        layer_groups: layer_groups(section, (method, shrink), contradiction),
        model_batch: model_batch(section),
        direction_dtype: section
            .word(
                "direction_dtype",
                &[
                    ("auto", DirectionDtype::Auto),
                    ("f32", DirectionDtype::F32),
                    ("bf16", DirectionDtype::Bf16),
                    ("int8", DirectionDtype::Int8),
                    ("int4", DirectionDtype::Int4),
                ],
            )
            .unwrap_or_default(),
        inner_epochs: section.count("inner_epochs").unwrap_or(defaults.inner_epochs),
        outer_epochs: section.count("outer_epochs").unwrap_or(1),
        batch: section.count("batch").unwrap_or(defaults.batch),
        learning_rate: section.number("learning_rate", above(0.0)).unwrap_or(defaults.learning_rate),
        weight_decay: weight_decay(section, method, contradiction),
        shrink,
        average: average(section, method, contradiction),
        warmup: section.number("warmup", 0.0..=1.0).unwrap_or(0.2),
        gradient_clip: section.number("gradient_clip", above(0.0)).unwrap_or(1.0),
        init: section
            .word(
                "init",
                &[
                    ("auto", Init::Auto),
                    ("batch-mean", Init::BatchMean),
                    ("uniform", Init::Uniform),
                    ("best", Init::Best),
                    ("greedy", Init::Greedy),
                ],
            )
            .unwrap_or(Init::Auto),
        early_stopping: section.boolean("early_stopping").unwrap_or(true),
        patience: section.count("patience").unwrap_or(3),
        seed: section.integer("seed", 0..=i64::MAX).map_or(seed, |seed| seed as u64),
    }
}

fn above(low: f64) -> (std::ops::Bound<f64>, std::ops::Bound<f64>) {
    (std::ops::Bound::Excluded(low), std::ops::Bound::Unbounded)
}

fn layer_groups(
    section: &mut Section<'_>,
    (method, shrink): (MethodName, Option<Shrink>),
    contradiction: &Contradiction,
) -> Grouping {
    let one_level = matches!(shrink, Some(Shrink::Model(_)));
    let is_layer_wise = method.is_layer_wise() && !one_level;
    let default = if is_layer_wise { Grouping::Tensor } else { Grouping::Model };
    let words = [("model", Grouping::Model), ("block", Grouping::Block), ("tensor", Grouping::Tensor)];
    let Some(groups) = section.word("layer_groups", &words) else { return default };
    if (groups == Grouping::Model) != is_layer_wise {
        return groups;
    }
    if contradiction.is_fault("layer_groups")
        && let Some(field) = section.field("layer_groups")
    {
        let takes = if is_layer_wise { "`block` or `tensor`" } else { "`model`" };
        let shrink = if one_level { " and soup.shrink = \"model\"" } else { "" };
        let problem = Problem::Value {
            expected: format!("{takes} with method `{method}`{shrink}"),
            found: field.node.found(),
            nearest: None,
        };
        section.fault(&field, problem);
    }
    default
}

/// How strongly `steady` shrinks; `None` with other methods.
fn shrink(section: &mut Section<'_>, method: MethodName, contradiction: &Contradiction) -> Option<Shrink> {
    let field = section.field("shrink");
    if !method.is_relative() {
        only_steady(section, field, method, contradiction);
        return None;
    }
    let default = Shrink::By(20.0);
    let stated = match &field {
        None => None,
        Some(field) => match &field.node.value {
            Value::Text(word) if word == "model" => Some(Shrink::Model(OneLevel::Model)),
            Value::Float(by) if by.is_finite() && *by >= 0.0 => Some(Shrink::By(*by)),
            Value::Integer(by) if *by >= 0 => Some(Shrink::By(*by as f64)),
            _ => section.refuse(field, "`model` or a finite number at least 0"),
        },
    };
    Some(stated.unwrap_or(default))
}

/// Decay of the mean of iterates; `None` with other methods than `steady`.
fn average(section: &mut Section<'_>, method: MethodName, contradiction: &Contradiction) -> Option<f64> {
    if !method.is_relative() {
        let field = section.field("average");
        only_steady(section, field, method, contradiction);
        return None;
    }
    Some(section.number("average", 0.0..1.0).unwrap_or(0.97))
}

fn only_steady(section: &Section<'_>, field: Option<Field<'_>>, method: MethodName, contradiction: &Contradiction) {
    if let Some(field) = field
        && contradiction.is_fault(&field.key)
    {
        let what = format!("can only be used with method `steady`, found `{method}`");
        section.fault(&field, Problem::Conflict(what));
    }
}

/// 0 with `steady`, which shrinks deviations instead.
fn weight_decay(section: &mut Section<'_>, method: MethodName, contradiction: &Contradiction) -> f64 {
    let stated = section.number("weight_decay", 0.0..).unwrap_or(0.0);
    if !method.is_relative() || stated == 0.0 {
        return stated;
    }
    if contradiction.is_fault("weight_decay")
        && let Some(field) = section.field("weight_decay")
    {
        let what = "method `steady` has no weight decay; use soup.shrink instead".to_string();
        section.fault(&field, Problem::Conflict(what));
    }
    0.0
}

fn model_batch(section: &mut Section<'_>) -> ModelBatch {
    let auto = ModelBatch::Auto(Auto::Auto);
    match section.field("model_batch") {
        None => auto,
        Some(field) => match &field.node.value {
            Value::Text(word) if word == "auto" => auto,
            Value::Integer(_) => section.count("model_batch").map_or(auto, ModelBatch::Fixed),
            _ => section.refuse(&field, "`auto` or a whole number of at least 1").unwrap_or(auto),
        },
    }
}

/// The hyperparameters that follow from the values `given` in `[soup]` with `overrides` in their place; defaults are taken last,
/// so that they follow the overridden method. `seed` is the default of `soup.seed`; the override [`zoo.top`](crate::sweep::task::Task::top) is left alone.
///
/// # Errors
/// If a key or a value is not one of `[soup]`. What [`parse_spec`](super::parse_spec) returned, and what is drawn from its space, always resolves.
pub fn resolve_soup(given: &Overrides, overrides: &Overrides, seed: u64) -> Result<SoupSpec, SpecError> {
    let nodes: Vec<(&String, Node)> = given
        .iter()
        .filter(|(key, _)| !overrides.contains_key(*key))
        .chain(overrides)
        .filter(|(key, _)| *key != TOP)
        .map(|(key, value)| (key, Node::from_json(value)))
        .collect();
    let fields = nodes
        .iter()
        .map(|(key, node)| Field { key: (*key).clone(), place: None, path: format!("soup.{key}"), node })
        .collect();
    let faults = Faults::default();
    let mut section = Section::of_fields("soup", None, fields, &faults);
    let soup = read(&mut section, seed, &Contradiction::Tolerated);
    section.finish();
    faults.into_result("task")?;
    Ok(soup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn overrides(pairs: &[(&str, serde_json::Value)]) -> Overrides {
        pairs.iter().map(|(key, value)| (key.to_string(), value.clone())).collect()
    }

    #[test]
    fn the_keys_are_the_fields_of_the_type_and_those_that_are_read() {
        let soup = resolve_soup(&Overrides::new(), &Overrides::new(), 0).unwrap();
        let json = serde_json::to_value(&soup).unwrap();
        let mut fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut keys = KEYS.to_vec();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
        // A resolved soup given back as overrides is itself: every key is read, and every value is valid as it is written.
        let all: Overrides = json.as_object().unwrap().clone().into_iter().collect();
        assert_eq!(resolve_soup(&Overrides::new(), &all, 9).unwrap(), soup);
    }

    #[test]
    fn defaults_follow_the_overridden_method() {
        let given = overrides(&[("layer_groups", json!("block"))]);
        let soup = |method: &str| resolve_soup(&given, &overrides(&[("method", json!(method))]), 3).unwrap();
        assert_eq!((soup("learned").learning_rate, soup("learned").layer_groups), (0.05, Grouping::Model));
        assert_eq!((soup("mehl").learning_rate, soup("mehl").layer_groups), (0.01, Grouping::Model));
        assert_eq!((soup("hl+").learning_rate, soup("hl+").layer_groups), (0.01, Grouping::Block));
        assert_eq!(soup("mehl+").seed, 3);
        let given = overrides(&[("learning_rate", json!(0.3)), ("method", json!("mehl"))]);
        assert_eq!(resolve_soup(&given, &Overrides::new(), 0).unwrap().learning_rate, 0.3);
    }

    #[test]
    fn stored_overrides_are_validated_again() {
        let error = resolve_soup(&Overrides::new(), &overrides(&[("batch", json!(0)), ("lr", json!(1))]), 0);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("task: soup.batch: expected a whole number from 1 to 1000000, found 0"), "{text}");
        assert!(text.contains("task: soup.lr: unknown key"), "{text}");
    }
}
