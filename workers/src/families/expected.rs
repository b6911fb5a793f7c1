//! What a family expects of the ingredients' tensors and configurations, and what it finds.

use std::collections::{BTreeMap, BTreeSet};

use mehl_soup::sweep::spec::ZooSpec;
use mehl_soup::zoo::{Ingredient, Layout, Zoo};
use serde_json::Value;
use tch::{Device, Kind, TchError, Tensor};

use super::{FamilyError, is_mixed, list};

/// Name on disk and shape of each tensor of a model.
pub(super) type Tensors = Vec<(String, Vec<i64>)>;

/// Whether an ingredient has the expected tensors, in their shapes, and no others. `Err` has all differences.
///
/// `idle` knows the names that may be there without taking part in the logits.
pub(super) fn compare(expected: &Tensors, found: &Ingredient, idle: impl Fn(&str) -> bool) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    for (name, shape) in expected {
        match found.info(name) {
            None => faults.push(format!("{name}: expected shape {shape:?}, found no such tensor")),
            Some(info) if info.shape.iter().map(|&d| d as i64).ne(shape.iter().copied()) => {
                faults.push(format!("{name}: expected shape {shape:?}, found {:?}", info.shape));
            }
            Some(_) => {}
        }
    }
    let names: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let others = found.tensor_names().filter(|name| !names.contains(name) && !idle(name));
    faults.extend(others.map(|name| format!("{name}: expected no such tensor, found it")));
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// To be used in `map_err`: differences as an error.
pub(super) fn tensor_faults(family: &'static str, ingredient: &Ingredient) -> impl Fn(Vec<String>) -> FamilyError {
    let ingredient = ingredient.path().display().to_string();
    move |faults| FamilyError::Tensors { ingredient: ingredient.clone(), family, faults: list(&faults) }
}

/// A leaf of zeros for each tensor; mixed ones require gradients.
pub(super) fn leaves(
    expected: &Tensors,
    layout: &Layout,
    device: Device,
    kind: Kind,
) -> Result<BTreeMap<String, Tensor>, TchError> {
    let leaf = |(name, shape): &(String, Vec<i64>)| {
        let tensor = Tensor::f_zeros(shape, (kind, device))?.f_set_requires_grad(is_mixed(layout, name))?;
        Ok((name.clone(), tensor))
    };
    expected.iter().map(leaf).collect()
}

/// Sizes of a tensor that has N dimensions.
///
/// # Errors
/// What is found instead, in words.
pub(super) fn sizes<const N: usize>(ingredient: &Ingredient, name: &str) -> Result<[i64; N], String> {
    let info = ingredient.info(name).ok_or_else(|| format!("{name}: expected {N} dimensions, found no such tensor"))?;
    let shape: Vec<i64> = info.shape.iter().map(|&d| d as i64).collect();
    match <[i64; N]>::try_from(shape) {
        Ok(sizes) if sizes.iter().all(|&size| size > 0) => Ok(sizes),
        _ => Err(format!("{name}: expected {N} dimensions above 0, found {:?}", info.shape)),
    }
}

/// How many `{prefix}.0`, `{prefix}.1`, .. follow one another.
pub(super) fn count(ingredient: &Ingredient, prefix: &str) -> i64 {
    let numbers: BTreeSet<i64> = ingredient
        .tensor_names()
        .filter_map(|name| name.strip_prefix(prefix)?.strip_prefix('.')?.split('.').next()?.parse().ok())
        .collect();
    (0..).take_while(|n| numbers.contains(n)).count() as i64
}

/// What wrappers put before each name, a sequence of `module.` and `model.`, or what all names begin with (`_orig_mod.`, `net.`): as it is
/// before `name`; empty where `name` is not there.
pub(super) fn root(ingredient: &Ingredient, name: &str) -> String {
    let common = ingredient.common_prefix();
    let wrapped = |found: &&str| {
        found.strip_suffix(name).is_some_and(|beginning| {
            let shared = beginning.is_empty() || beginning.ends_with('.') && common.starts_with(beginning);
            shared || is_wrapper(beginning) || beginning.strip_prefix(common.as_str()).is_some_and(is_wrapper)
        })
    };
    ingredient.tensor_names().find(wrapped).and_then(|found| found.strip_suffix(name)).unwrap_or_default().to_string()
}

/// What wrappers put before all names, and what the base model's names begin with behind that: `prefix` in a model with a head,
/// nothing in a base model saved by itself. `name` is a tensor of the base model.
pub(super) fn root_and_prefix(ingredient: &Ingredient, prefix: &'static str, name: &str) -> (String, &'static str) {
    let has = |root: &str, prefix: &str| ingredient.info(&format!("{root}{prefix}{name}")).is_some();
    let with_head = root(ingredient, &format!("{prefix}{name}"));
    if has(&with_head, prefix) {
        return (with_head, prefix);
    }
    let alone = root(ingredient, name);
    // Where it is nowhere, names with the prefix are what is missing.
    if has(&alone, "") { (alone, "") } else { (String::new(), prefix) }
}

/// Whether a beginning of names says nothing but that the model was wrapped.
fn is_wrapper(beginning: &str) -> bool {
    let mut rest = beginning;
    while let Some(inner) = rest.strip_prefix("module.").or_else(|| rest.strip_prefix("model.")) {
        rest = inner;
    }
    rest.is_empty()
}

/// The configuration's file, for messages; the ingredient where there is none.
pub(super) fn config_file(ingredient: &Ingredient) -> String {
    match ingredient.folder() {
        Some(folder) if ingredient.config().is_some() => folder.join("config.json").display().to_string(),
        _ => ingredient.path().display().to_string(),
    }
}

/// To be used in `map_err`: what is wrong with an ingredient's configuration.
pub(super) fn config_fault(ingredient: &Ingredient) -> impl Fn(String) -> FamilyError {
    let file = config_file(ingredient);
    move |what| FamilyError::Config { file: file.clone(), what }
}

/// That all ingredients have the first's values in the fields that decide what a model computes; or no configuration, all
/// of them. What classes mean is compared for all families alike ([`mehl_soup::zoo::config_faults`]). Fields are JSON pointers.
pub(super) fn agree(zoo: &Zoo, decisive: &[&str]) -> Result<(), FamilyError> {
    let first = &zoo.ingredients()[0];
    for other in &zoo.ingredients()[1..] {
        let as_in_first = |what: String| config_fault(other)(format!("{what}, as in {}", first.path().display()));
        match (first.config(), other.config()) {
            (None, None) => {}
            (Some(_), None) => return Err(as_in_first("expected a configuration, found none".to_string())),
            (None, Some(_)) => return Err(as_in_first("expected no configuration, found one".to_string())),
            (Some(expected), Some(found)) => {
                if let Some(what) = difference(expected, found, decisive) {
                    return Err(as_in_first(what));
                }
            }
        }
    }
    Ok(())
}

/// The first decisive field in which two configurations differ, expected (the first's) and found, if there is one.
fn difference(expected: &Value, found: &Value, decisive: &[&str]) -> Option<String> {
    decisive.iter().find(|field| expected.pointer(field) != found.pointer(field)).map(|field| {
        let shown = |json: &Value| {
            let text = json.pointer(field).map_or("nothing".to_string(), Value::to_string);
            text.chars().take(120).collect::<String>()
        };
        let name = field.trim_start_matches('/').replace('/', ".");
        format!("{name}: expected {}, found {}", shown(expected), shown(found))
    })
}

/// A value from the specification or the configuration, which must agree where both have one.
pub(super) fn stated<T: PartialEq + std::fmt::Display>(
    field: &str,
    specification: Option<T>,
    configuration: Option<T>,
) -> Result<Option<T>, String> {
    match (specification, configuration) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(format!("{field} is {theirs}, but the specification sets {ours}; remove it from the specification"))
        }
        (ours, theirs) => Ok(theirs.or(ours)),
    }
}

/// A Hugging Face configuration, with what the specification says in the fields that it leaves out.
pub(super) fn completed(json: &Value, spec: &ZooSpec) -> Result<Value, String> {
    completed_as(json, spec, "num_attention_heads", "hidden_act")
}

/// Like [`completed`], of a configuration that calls the heads and the activation otherwise.
pub(super) fn completed_as(json: &Value, spec: &ZooSpec, heads: &str, activation: &str) -> Result<Value, String> {
    let mut json = json.clone();
    let theirs = json.get(heads).and_then(Value::as_u64);
    if let Some(count) = stated(heads, spec.heads.map(|h| h as u64), theirs)? {
        json[heads] = count.into();
    }
    let theirs = json.get(activation).and_then(Value::as_str).map(str::to_string);
    if let Some(name) = stated(activation, spec.activation.clone(), theirs)? {
        json[activation] = name.into();
    }
    Ok(json)
}

/// A whole number above 0 in a configuration; the default where it is absent or null.
pub(super) fn whole(json: &Value, key: &str, default: i64) -> Result<i64, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => one_size(value)
            .filter(|v| (1..=1 << 24).contains(v))
            .ok_or_else(|| format!("{key}: expected one whole number above 0, found {value}")),
    }
}

/// A number above 0 in a configuration; the default where it is absent or null.
pub(super) fn positive(json: &Value, key: &str, default: f64) -> Result<f64, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|v| *v > 0.0 && v.is_finite())
            .ok_or_else(|| format!("{key}: expected a number above 0, found {value}")),
    }
}

/// True or false in a configuration; the default where it is absent or null.
pub(super) fn flag(json: &Value, key: &str, default: bool) -> Result<bool, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_bool().ok_or_else(|| format!("{key}: expected true or false, found {value}")),
    }
}

/// A size in a configuration: a number, or a list of equal ones, as transformers takes both.
pub(super) fn one_size(value: &Value) -> Option<i64> {
    match value.as_array().map(Vec::as_slice) {
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => first.as_i64(),
        Some(_) => None,
        None => value.as_i64(),
    }
}

/// `pad_token_id` of a configuration: absent it has a default, and null means none.
pub(super) fn padding_token(json: &Value, default: i64) -> Result<Option<i64>, String> {
    match json.get("pad_token_id") {
        None => Ok(Some(default)),
        Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .filter(|token| *token >= 0)
            .map(Some)
            .ok_or_else(|| format!("pad_token_id: expected a whole number from 0, found {value}")),
    }
}

/// That the padding token is a row of the table of tokens.
pub(super) fn check_padding_token(token: Option<i64>, vocabulary: i64) -> Result<(), String> {
    match token {
        Some(token) if token >= vocabulary => {
            Err(format!("pad_token_id: expected a number below vocab_size {vocabulary}, found {token}"))
        }
        _ => Ok(()),
    }
}

/// Width, blocks and attention heads of published ViTs: timm's and open_clip's tiny to gigantic ones.
const PUBLISHED: [(i64, i64, i64); 10] = [
    (192, 12, 3),
    (384, 12, 6),
    (512, 12, 8),
    (768, 12, 12),
    (1024, 24, 16),
    (1152, 27, 16),
    (1280, 32, 16),
    (1408, 40, 16),
    (1536, 40, 24),
    (1664, 48, 16),
];

/// Attention heads where no file states them: those of a published model of this width with so many blocks, and what is assumed so.
///
/// # Errors
/// What to state, where that would be a guess: another number computes something else and can make another ingredient win.
pub(super) fn heads_of_published(width: i64, blocks: i64) -> Result<(i64, String), String> {
    match PUBLISHED.iter().find(|(w, b, _)| (*w, *b) == (width, blocks)) {
        Some((_, _, heads)) => Ok((
            *heads,
            format!(
                "{heads} attention heads, as in published models of width {width} with {blocks} blocks (change with zoo.heads)"
            ),
        )),
        None => Err(format!(
            "the number of attention heads cannot be derived from width {width} and {blocks} blocks: set zoo.heads"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_told_from_names() {
        for wrapper in ["", "module.", "model.", "module.model.", "model.module."] {
            assert!(is_wrapper(wrapper), "{wrapper}");
        }
        for other in ["visual.", "model", "module.visual.", "my_model."] {
            assert!(!is_wrapper(other), "{other}");
        }
    }

    #[test]
    fn a_statement_must_not_contradict_the_configuration() {
        assert_eq!(stated("heads", Some(2), None), Ok(Some(2)));
        assert_eq!(stated("heads", None, Some(3)), Ok(Some(3)));
        assert_eq!(stated("heads", Some(3), Some(3)), Ok(Some(3)));
        assert_eq!(stated::<i64>("heads", None, None), Ok(None));
        let fault = stated("heads", Some(2), Some(3)).unwrap_err();
        assert!(fault.contains("heads is 3") && fault.contains("sets 2"), "{fault}");
    }

    #[test]
    fn a_size_is_a_number_or_a_list_of_equal_ones() {
        let size = |json| one_size(&json);
        assert_eq!((size(serde_json::json!(32)), size(serde_json::json!([32, 32]))), (Some(32), Some(32)));
        assert_eq!((size(serde_json::json!([32, 48])), size(serde_json::json!([]))), (None, None));
    }

    #[test]
    fn heads_are_not_guessed_where_models_differ() {
        let (heads, assumed) = heads_of_published(768, 12).unwrap();
        assert!(heads == 12 && assumed.starts_with("12 attention heads") && assumed.contains("zoo.heads"), "{assumed}");
        assert_eq!(heads_of_published(1280, 32).unwrap().0, 16);
        for (width, blocks) in [(768, 6), (128, 2), (64, 12), (1280, 24)] {
            assert!(heads_of_published(width, blocks).unwrap_err().contains("zoo.heads"), "{width} {blocks}");
        }
    }

    #[test]
    fn the_first_decisive_difference_is_named() {
        let (a, b) = (serde_json::json!({"v": {"h": 1}, "x": 1}), serde_json::json!({"v": {"h": 2}, "x": 2}));
        assert_eq!(difference(&a, &b, &["/y", "/v/h"]), Some("v.h: expected 1, found 2".to_string()));
        assert_eq!(difference(&a, &b, &["/y"]), None);
    }
}
