//! What the outputs of a zoo's models mean: the same in all of them, and something that a soup can be scored by.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::class_map::ClassMap;
use super::ingredient::Ingredient;
use super::problem;

/// What is wrong with the configuration of an ingredient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFault {
    /// The configuration.
    pub file: PathBuf,
    /// Field, expected, found.
    pub what: String,
}

impl ConfigFault {
    /// The configuration of an ingredient; the ingredient itself where it has none.
    pub(super) fn file_of(ingredient: &Ingredient) -> PathBuf {
        match ingredient.folder() {
            Some(folder) if ingredient.config().is_some() => folder.join("config.json"),
            _ => ingredient.path().to_path_buf(),
        }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

/// All that speaks against a mix of models whose configurations say what their outputs mean: class maps that cannot be used or
/// differ, and models that are trained for different problems. Ingredients are compared with the first.
///
/// `classes_stated`: the specification names the classes, so that maps which cannot be used do no harm.
pub fn config_faults(ingredients: &[Ingredient], classes_stated: bool) -> Vec<ConfigFault> {
    let mut faults = problem::faults(ingredients);
    let mut reference: Option<(&Ingredient, Option<ClassMap>)> = None;
    for ingredient in ingredients {
        let file = ConfigFault::file_of(ingredient);
        let mut fault = |what: String| faults.push(ConfigFault { file: file.clone(), what });
        if let Some(how) = quantised(ingredient) {
            fault(format!("its weights are quantised ({how}) and cannot be mixed: use the original models"));
        }
        let map = match ingredient.config().map(ClassMap::of).transpose() {
            Ok(map) => map.flatten(),
            Err(_) if classes_stated => continue,
            Err(unusable) => {
                fault(format!("{unusable} (set data.classes, or correct the file)"));
                continue;
            }
        };
        let Some((first, expected)) = &reference else {
            reference = Some((ingredient, map));
            continue;
        };
        let as_in_first = format!("as in {}", first.path().display());
        match (expected, &map) {
            (None, None) => {}
            (Some(expected), Some(found)) => {
                if let Some(difference) = expected.difference(found) {
                    fault(format!(
                        "{}: {difference}, {as_in_first}: outputs with different meanings cannot be mixed",
                        found.field
                    ));
                }
            }
            (Some(expected), None) => {
                fault(format!("{}: expected the same output names {as_in_first}, found none", expected.field));
            }
            (None, Some(found)) => {
                fault(format!("{}: expected no output names {as_in_first}, found some", found.field));
            }
        }
    }
    faults
}

/// How an ingredient is quantised, if it is: by its configuration, or by names and dtypes of tensors that quantisation makes.
fn quantised(ingredient: &Ingredient) -> Option<String> {
    let config = ingredient.config().and_then(|config| config.get("quantization_config")).filter(|c| !c.is_null());
    if let Some(config) = config {
        let method = config.get("quant_method").and_then(serde_json::Value::as_str).unwrap_or("an unnamed method");
        return Some(format!("quantization_config: {method}"));
    }
    const MADE: [(&str, &str); 6] = [
        (".qweight", "GPTQ or AWQ"),
        (".qzeros", "GPTQ or AWQ"),
        (".SCB", "bitsandbytes int8"),
        (".weight_format", "bitsandbytes int8"),
        (".absmax", "bitsandbytes 4 bit"),
        (".weight_scale_inv", "fp8"),
    ];
    ingredient.tensors().find_map(|(name, info)| {
        let made = MADE.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, how)| (*how).to_string());
        let is_small_float = info.dtype.bitsize() <= 8 && info.dtype.to_string().starts_with('F');
        let is_small_weight = info.dtype.bitsize() <= 8 && name.ends_with(".weight");
        let how = made.or_else(|| (is_small_float || is_small_weight).then(|| format!("{}", info.dtype)))?;
        Some(format!("{how}: tensor `{name}` is {}", info.dtype))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    fn faults(configs: &[Value], classes_stated: bool) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let ingredients: Vec<Ingredient> = configs
            .iter()
            .enumerate()
            .map(|(i, config)| {
                let folder = root.path().join(i.to_string());
                std::fs::create_dir(&folder).unwrap();
                write_file(&folder.join("model.safetensors"), &[f32s("w", &[1], &[1.0])]);
                if !config.is_null() {
                    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
                }
                Ingredient::open(&folder).unwrap()
            })
            .collect();
        let prefix = format!("{}/", root.path().display());
        config_faults(&ingredients, classes_stated).iter().map(|f| f.to_string().replace(&prefix, "")).collect()
    }

    #[test]
    fn the_same_meaning_in_other_words_is_the_same() {
        let configs = [
            json!({"id2label": {"0": "cat", "1": "dog"}}),
            json!({"id2label": {"1": "dog", "0": "cat"}, "label2id": {"cat": "0", "dog": 1}}),
            json!({"label_names": ["cat", "dog"], "problem_type": "single_label_classification"}),
        ];
        assert_eq!(faults(&configs, false), Vec::<String>::new());
        let made_up = [json!({"id2label": {"0": "LABEL_0"}}), json!({}), Value::Null];
        assert_eq!(faults(&made_up, false), Vec::<String>::new());
    }

    #[test]
    fn other_meanings_are_told_with_file_and_entry() {
        let (named, turned) = (json!({"id2label": {"0": "cat", "1": "dog"}}), json!({"label_names": ["dog", "cat"]}));
        let told = faults(&[named.clone(), turned, json!({})], false);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("1/config.json: label_names: ") && told[0].contains("`cat` for output 0, found `dog`"),
            "{told:?}"
        );
        assert!(told[1].starts_with("2/config.json: id2label: ") && told[1].contains("found none"), "{told:?}");
        assert!(faults(&[json!({}), named], false)[0].contains("expected no output names"));
    }

    #[test]
    fn a_map_that_cannot_be_used_is_told_unless_classes_are_stated() {
        let list = json!({"id2label": ["cat", "dog"]});
        assert!(faults(std::slice::from_ref(&list), false)[0].contains("id2label: expected a table"));
        assert_eq!(faults(&[list], true), Vec::<String>::new());
    }

    #[test]
    fn problems_that_differ_or_are_unknown_are_refused() {
        let of = |problem: &str| json!({"problem_type": problem});
        assert_eq!(faults(&[of("regression"), of("regression"), json!({})], true), Vec::<String>::new());
        let told = faults(&[of("regression"), of("multi_label_classification")], true);
        assert_eq!(told.len(), 1);
        let expected = "1/config.json: problem_type: expected `regression` as in 0, found `multi_label_classification`";
        assert!(told[0].starts_with(expected), "{told:?}");
        let told = faults(&[of("token_classification")], true);
        assert!(told[0].starts_with("0/config.json: problem_type: expected one of `single_label_c"), "{told:?}");
        assert!(faults(&[json!({"problem_type": 3})], true)[0].contains("found 3"));
    }
}
