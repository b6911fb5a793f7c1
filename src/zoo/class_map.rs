//! Names of a model's outputs, as its `config.json` states them, and what the model was trained for.

use std::collections::BTreeMap;
use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;
use serde_json::Value;

/// Names of the outputs of a model, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// One an output, in Unicode NFC.
    pub names: Vec<String>,
    /// The field of the configuration that states them.
    pub field: &'static str,
}

/// Why a class map that is there cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMapFault {
    /// The field of the configuration.
    pub field: &'static str,
    /// What was expected, and what was found.
    pub what: String,
}

impl fmt::Display for ClassMapFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl ClassMap {
    /// The class map of a parsed `config.json`: `id2label`, `label2id`, or timm's `label_names`, at the top or in `pretrained_cfg`. `None` if
    /// there is none, or only the `LABEL_0`, `LABEL_1`, .. that transformers makes up.
    ///
    /// # Errors
    /// If one is there that does not name each output, or two are there that differ.
    pub fn of(config: &Value) -> Result<Option<Self>, ClassMapFault> {
        let in_pretrained = config.get("pretrained_cfg").and_then(|cfg| cfg.get("label_names"));
        let stated = [
            ("id2label", config.get("id2label"), id2label as fn(&Value) -> Read),
            ("label2id", config.get("label2id"), label2id),
            ("label_names", config.get("label_names"), label_names),
            ("pretrained_cfg.label_names", in_pretrained, label_names),
        ];
        let mut found: Option<Self> = None;
        for (field, value, read) in stated {
            let Some(value) = value.filter(|value| !value.is_null()) else { continue };
            let fault = |what| ClassMapFault { field, what };
            if let Some(map) = &found
                && field == "label2id"
                && map.check_unique().is_err()
            {
                // It cannot hold a name twice: what it holds must agree.
                map.check_inverse(value).map_err(fault)?;
                continue;
            }
            let names = read(value).map_err(fault)?;
            if names.is_empty() || is_made_up(&names) {
                continue;
            }
            let map = Self { names: names.iter().map(|name| nfc(name)).collect(), field };
            match &found {
                None => found = Some(map),
                Some(other) => match other.difference(&map) {
                    None => {}
                    Some(what) => return Err(fault(what)),
                },
            }
        }
        Ok(found)
    }

    /// That each output has a name of its own, so that names tell outputs.
    ///
    /// # Errors
    /// With the first name that two outputs have.
    pub fn check_unique(&self) -> Result<(), ClassMapFault> {
        let mut seen = BTreeMap::new();
        let repeated =
            self.names.iter().enumerate().find_map(|(i, name)| seen.insert(name, i).map(|first| (first, i, name)));
        repeated.map_or(Ok(()), |(first, second, name)| {
            let what =
                format!("expected a different name for each output, found `{name}` for outputs {first} and {second}");
            Err(ClassMapFault { field: self.field, what })
        })
    }

    /// In words, how another map differs from this one.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if let Some(at) = self.names.iter().zip(&other.names).position(|(a, b)| a != b) {
            let (expected, found) = (&self.names[at], &other.names[at]);
            return Some(format!(
                "expected the names of {}, `{expected}` for output {at}, found `{found}`",
                self.field
            ));
        }
        let (expected, found) = (self.names.len(), other.names.len());
        (expected != found).then(|| format!("expected the {expected} names of {}, found {found}", self.field))
    }

    /// That each name of a `label2id` is the one that this map gives its output.
    fn check_inverse(&self, label2id: &Value) -> Result<(), String> {
        for (name, index) in label2id.as_object().into_iter().flatten() {
            let index = output(name, index)?;
            if self.names.get(index) != Some(&nfc(name)) {
                return Err(format!("expected the names of {}, found `{name}` for output {index}", self.field));
            }
        }
        Ok(())
    }
}

type Read = Result<Vec<String>, String>;

/// A text in Unicode NFC: names that look the same are then the same.
pub fn nfc(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

fn id2label(value: &Value) -> Read {
    let map = value.as_object().ok_or_else(|| {
        format!("expected a table from outputs to names, such as {{\"0\": \"cat\"}}, found {}", kind(value))
    })?;
    let mut names = BTreeMap::new();
    for (key, name) in map {
        let index = number(key).ok_or_else(|| format!("expected numbers of outputs as keys, found `{key}`"))?;
        let name = text(name).ok_or_else(|| format!("expected a name for output {index}, found {name}"))?;
        if names.insert(index, name).is_some() {
            return Err(format!("expected output {index} once, found it twice"));
        }
    }
    in_order(names)
}

fn label2id(value: &Value) -> Read {
    let map = value.as_object().ok_or_else(|| {
        format!("expected a table from names to outputs, such as {{\"cat\": 0}}, found {}", kind(value))
    })?;
    let mut names = BTreeMap::new();
    for (name, index) in map {
        let index = output(name, index)?;
        if let Some(other) = names.insert(index, name.clone()) {
            return Err(format!("expected one name for output {index}, found `{other}` and `{name}`"));
        }
    }
    in_order(names)
}

/// The number of the output that a `label2id` gives a name.
fn output(name: &str, index: &Value) -> Result<usize, String> {
    let index_of = index.as_u64().map(|index| index as usize).or_else(|| number(index.as_str()?));
    index_of.ok_or_else(|| format!("expected the number of an output for `{name}`, found {index}"))
}

fn label_names(value: &Value) -> Read {
    let list = value.as_array().ok_or_else(|| format!("expected a list of names, found {}", kind(value)))?;
    let name =
        |(i, name): (usize, &Value)| text(name).ok_or_else(|| format!("expected a name for output {i}, found {name}"));
    list.iter().enumerate().map(name).collect()
}

/// The names, if they are those of outputs 0, 1, and so on without a hole.
fn in_order(names: BTreeMap<usize, String>) -> Read {
    let last = names.keys().next_back().copied().unwrap_or(0);
    match (0..names.len()).find(|i| !names.contains_key(i)) {
        None => Ok(names.into_values().collect()),
        Some(missing) => Err(format!("expected a name for each output from 0 to {last}, found none for {missing}")),
    }
}

fn number(text: &str) -> Option<usize> {
    text.trim().parse().ok()
}

/// A name, which may be a whole number: people name classes so, and write it without quotes.
fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string).or_else(|| value.as_i64().map(|number| number.to_string()))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn is_made_up(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(config: &Value) -> Option<Vec<String>> {
        ClassMap::of(config).unwrap().map(|map| map.names)
    }

    #[test]
    fn each_field_gives_names_in_the_order_of_outputs() {
        let expected = Some(vec!["cat".to_string(), "dog".to_string()]);
        for config in [
            json!({"id2label": {"1": "dog", "0": "cat"}}),
            json!({"label2id": {"dog": 1, "cat": "0"}}),
            json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"cat": 0, "dog": 1}}),
            json!({"id2label": {"0": "cat", "1": "dog"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}),
            json!({"label_names": ["cat", "dog"], "id2label": null}),
            json!({"pretrained_cfg": {"label_names": ["cat", "dog"]}}),
        ] {
            assert_eq!(names(&config), expected, "{config}");
        }
        for config in [json!({}), json!({"id2label": {}}), json!({"id2label": {"0": "LABEL_0"}})] {
            assert_eq!(names(&config), None, "{config}");
        }
    }

    #[test]
    fn names_that_are_numbers_and_other_spellings_of_letters_are_names() {
        assert_eq!(names(&json!({"id2label": {"0": 7, "1": "8"}})), Some(vec!["7".to_string(), "8".to_string()]));
        assert_eq!(names(&json!({"id2label": {"0": "gro\u{0308}\u{df}e"}})), Some(vec!["größe".to_string()]));
    }

    #[test]
    fn a_map_that_does_not_name_each_output_once_is_refused() {
        for (config, said) in [
            (json!({"id2label": ["cat", "dog"]}), "id2label: expected a table from outputs to names"),
            (json!({"id2label": {"1": "cat", "2": "dog"}}), "found none for 0"),
            (json!({"id2label": {"0": "cat", "2": "dog"}}), "from 0 to 2, found none for 1"),
            (json!({"id2label": {"0": "cat", "00": "dog"}}), "output 0 once"),
            (json!({"id2label": {"cat": 0}}), "found `cat`"),
            (json!({"id2label": {"0": null}}), "a name for output 0, found null"),
            (json!({"label2id": {"cat": 0, "dog": 0}}), "one name for output 0, found `cat` and `dog`"),
            (json!({"label2id": {"cat": 0.5}}), "for `cat`, found 0.5"),
            (json!({"label2id": [0]}), "found a list"),
            (json!({"label_names": {"0": "cat"}}), "expected a list of names, found a table"),
            (json!({"label_names": ["cat", {}]}), "a name for output 1"),
            (
                json!({"id2label": {"0": "a", "1": "b"}, "label2id": {"b": 0, "a": 1}}),
                "label2id: expected the names of id2label, `a` for output 0, found `b`",
            ),
            (json!({"id2label": {"0": "a"}, "label_names": ["a", "b"]}), "expected the 1 names of id2label, found 2"),
        ] {
            let fault = ClassMap::of(&config).unwrap_err();
            assert!(fault.to_string().contains(said), "{fault} for {config}");
        }
    }

    #[test]
    fn names_that_outputs_share_are_told_and_their_inverse_is_taken() {
        let twice = json!({"id2label": {"0": "wren", "1": "crane", "2": "crane"}, "label2id": {"wren": 0, "crane": 2}});
        let map = ClassMap::of(&twice).unwrap().unwrap();
        let fault = map.check_unique().unwrap_err().to_string();
        assert!(fault.contains("id2label") && fault.contains("`crane` for outputs 1 and 2"), "{fault}");
        let other = json!({"id2label": {"0": "wren", "1": "crane", "2": "crane"}, "label2id": {"wren": 1}});
        assert!(ClassMap::of(&other).unwrap_err().to_string().contains("found `wren` for output 1"));
    }
}
