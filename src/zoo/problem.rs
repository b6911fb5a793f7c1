//! What ingredients were trained for, as their configurations say, and the objective of a sweep
//! that follows.

use std::path::Path;

use serde_json::Value;

use super::ingredient::Ingredient;
use super::meaning::ConfigFault;
use crate::source;
use crate::sweep::objective::ObjectiveName;
use crate::untrusted::{LARGEST_CONFIG, without_mark};

/// `model_type` of an encoder in `config_sentence_transformers.json`.
const ENCODER: &str = "SentenceTransformer";
/// That of a cross-encoder.
const CROSS_ENCODER: &str = "CrossEncoder";

/// What a model was trained for: `problem_type` of transformers' configurations, or what stands for
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// `single_label_classification`
    SingleLabel,
    /// `multi_label_classification`
    MultiLabel,
    /// `regression`
    Regression,
    /// No `problem_type`, but one output. transformers trains such a model by squared error.
    OneOutput,
    /// A cross-encoder of sentence-transformers with one output, which that library trains by
    /// binary cross-entropy.
    CrossEncoder,
    /// A folder of sentence-transformers: `modules.json` lists the modules of an encoder.
    Encoder,
}

impl Problem {
    /// The values of `problem_type`.
    const NAMED: [(&str, Self); 3] = [
        ("single_label_classification", Self::SingleLabel),
        ("multi_label_classification", Self::MultiLabel),
        ("regression", Self::Regression),
    ];

    /// Where it is stated, in words.
    fn words(self) -> &'static str {
        match self {
            Self::SingleLabel => "problem_type `single_label_classification`",
            Self::MultiLabel => "problem_type `multi_label_classification`",
            Self::Regression => "problem_type `regression`",
            Self::OneOutput => "one output and no problem_type",
            Self::CrossEncoder => "a cross-encoder of sentence-transformers with one output",
            Self::Encoder => "an encoder of sentence-transformers (modules.json)",
        }
    }

    /// The objective that it stands for.
    fn objective(self) -> ObjectiveName {
        match self {
            Self::SingleLabel => ObjectiveName::Classification,
            Self::MultiLabel => ObjectiveName::MultiLabel,
            Self::Regression | Self::OneOutput => ObjectiveName::Regression,
            Self::CrossEncoder => ObjectiveName::Score,
            Self::Encoder => ObjectiveName::Pairs,
        }
    }

    /// Whether a specification may state an objective for such models. One output may be anything;
    /// one logit of binary cross-entropy is what multi-label classification with one label is.
    fn allows(self, objective: ObjectiveName) -> bool {
        match self {
            Self::OneOutput | Self::CrossEncoder => true,
            Self::MultiLabel if objective == ObjectiveName::Score => true,
            other => other.objective() == objective,
        }
    }
}

/// `problem_type` of a configuration; `None` if it is not stated.
///
/// # Errors
/// If it is none that transformers has.
fn stated(config: &Value) -> Result<Option<Problem>, String> {
    let Some(found) = config.get("problem_type").filter(|value| !value.is_null()) else { return Ok(None) };
    let known = Problem::NAMED.iter().find(|(name, _)| found.as_str() == Some(name));
    known.map(|(_, problem)| Some(*problem)).ok_or_else(|| {
        let names: Vec<String> = Problem::NAMED.iter().map(|(name, _)| format!("`{name}`")).collect();
        let found = found.as_str().map_or_else(|| found.to_string(), |text| format!("`{text}`"));
        format!("problem_type: expected one of {}, found {found}", names.join(", "))
    })
}

/// Whether a configuration is of a model with one output: `num_labels`, or the entries of
/// `id2label`.
fn has_one_output(config: &Value) -> bool {
    let labels = config.get("num_labels").and_then(Value::as_u64);
    let names = config.get("id2label").and_then(Value::as_object).map(|names| names.len() as u64);
    labels.or(names) == Some(1)
}

/// `model_type` of `config_sentence_transformers.json`; without it `modules.json` means an encoder.
/// `None` if a folder has neither.
///
/// # Errors
/// If a file is there and cannot be read.
fn kind_of(folder: &Path) -> Result<Option<String>, ConfigFault> {
    let about = read(&folder.join("config_sentence_transformers.json"))?;
    if let Some(kind) = about.as_ref().and_then(|about| about.get("model_type")).and_then(Value::as_str) {
        return Ok(Some(kind.to_string()));
    }
    Ok(read(&folder.join("modules.json"))?.map(|_| ENCODER.to_string()))
}

/// Whether `config.json` is of a cross-encoder, as sentence-transformers marks it since version 4,
/// or before.
fn is_cross_encoder(config: &Value) -> bool {
    ["sentence_transformers", "sbert_ce_default_activation_function"].iter().any(|field| config.get(field).is_some())
}

/// A JSON file; `None` if there is none.
fn read(file: &Path) -> Result<Option<Value>, ConfigFault> {
    let fault = |what: String| ConfigFault { file: file.to_path_buf(), what };
    match source::of(file).read(file, LARGEST_CONFIG) {
        Ok(text) => {
            serde_json::from_slice(without_mark(&text)).map(Some).map_err(|error| fault(format!("not JSON: {error}")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// Problem types that are unknown, or that differ where they are stated. Ingredients are compared
/// with the first that states one.
pub(super) fn faults(ingredients: &[Ingredient]) -> Vec<ConfigFault> {
    let mut faults = vec![];
    let mut first: Option<(&Ingredient, Problem)> = None;
    for ingredient in ingredients {
        let mut fault = |what: String| faults.push(ConfigFault { file: ConfigFault::file_of(ingredient), what });
        match ingredient.config().map(stated).transpose().map(Option::flatten) {
            Err(what) => fault(what),
            Ok(None) => {}
            Ok(Some(found)) => match first {
                None => first = Some((ingredient, found)),
                Some((other, expected)) if expected != found => {
                    let name =
                        |problem| Problem::NAMED.iter().find(|(_, own)| *own == problem).map_or("", |(name, _)| name);
                    let (expected, found, other) = (name(expected), name(found), other.path().display());
                    fault(format!(
                        "problem_type: expected `{expected}` as in {other}, found `{found}`: models that were trained \
                         for different problems cannot be mixed"
                    ));
                }
                Some(_) => {}
            },
        }
    }
    faults
}

/// The objective of a sweep, and what a person should know of how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedObjective {
    /// The objective.
    pub objective: ObjectiveName,
    /// Why it is not classification, where nobody stated it.
    pub note: Option<String>,
}

/// The objective that a specification states, or that the configurations of all ingredients stand
/// for. Without either it is classification.
///
/// # Errors
/// If a configuration contradicts the specification or that of the first ingredient, or cannot be
/// read.
pub fn resolve_objective(
    ingredients: &[Ingredient],
    stated: Option<ObjectiveName>,
) -> Result<ResolvedObjective, ConfigFault> {
    let mut first: Option<(&Ingredient, Option<Problem>)> = None;
    for ingredient in ingredients {
        let found = problem_of(ingredient)?;
        let fault = |what: String| Err(ConfigFault { file: ConfigFault::file_of(ingredient), what });
        if let (Some(objective), Some(problem)) = (stated, found)
            && !problem.allows(objective)
        {
            return fault(format!(
                "expected a model for data.objective = \"{objective}\", found {}, which stands for \"{}\"",
                problem.words(),
                problem.objective()
            ));
        }
        match first {
            None => first = Some((ingredient, found)),
            Some((other, expected)) if stated.is_none() && objective_of(expected) != objective_of(found) => {
                let words = |problem: Option<Problem>| problem.map_or("no problem_type", Problem::words);
                return fault(format!(
                    "expected {} as in {}, found {}",
                    words(expected),
                    other.path().display(),
                    words(found)
                ));
            }
            Some(_) => {}
        }
    }
    let found = first.and_then(|(ingredient, problem)| Some((ingredient, problem?)));
    let objective = stated.unwrap_or_else(|| objective_of(found.map(|(_, problem)| problem)));
    let note =
        found.filter(|_| stated.is_none() && objective != ObjectiveName::Classification).map(|(first, problem)| {
            let name = first.name();
            format!("assumed: objective `{objective}`, because of {} in {name} (data.objective)", problem.words())
        });
    Ok(ResolvedObjective { objective, note })
}

/// What an ingredient was trained for; `None` if nothing says so.
fn problem_of(ingredient: &Ingredient) -> Result<Option<Problem>, ConfigFault> {
    let kind = ingredient.folder().map(kind_of).transpose()?.flatten();
    if kind.as_deref() == Some(ENCODER) {
        return Ok(Some(Problem::Encoder));
    }
    let Some(config) = ingredient.config() else { return Ok(None) };
    let fault = |what| ConfigFault { file: ConfigFault::file_of(ingredient), what };
    Ok(stated(config).map_err(fault)?.or_else(|| {
        let is_crossed = kind.as_deref() == Some(CROSS_ENCODER) || is_cross_encoder(config);
        has_one_output(config).then_some(if is_crossed { Problem::CrossEncoder } else { Problem::OneOutput })
    }))
}

fn objective_of(problem: Option<Problem>) -> ObjectiveName {
    problem.map_or_else(ObjectiveName::default, Problem::objective)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    /// What follows from configurations, each with files beside it.
    fn resolved(
        folders: &[&[(&str, Value)]],
        stated: Option<ObjectiveName>,
    ) -> Result<(ObjectiveName, Option<String>), String> {
        let root = tempfile::tempdir().unwrap();
        let ingredients: Vec<Ingredient> = folders
            .iter()
            .enumerate()
            .map(|(i, files)| {
                let folder = root.path().join(i.to_string());
                std::fs::create_dir(&folder).unwrap();
                write_file(&folder.join("model.safetensors"), &[f32s("w", &[1], &[1.0])]);
                for (name, value) in *files {
                    std::fs::write(folder.join(name), value.to_string()).unwrap();
                }
                Ingredient::open(&folder).unwrap()
            })
            .collect();
        let prefix = format!("{}/", root.path().display());
        let here = |text: String| text.replace(&prefix, "");
        let found = resolve_objective(&ingredients, stated).map_err(|fault| here(fault.to_string()))?;
        Ok((found.objective, found.note.map(here)))
    }

    fn config(value: Value) -> [(&'static str, Value); 1] {
        [("config.json", value)]
    }

    #[test]
    fn configurations_say_what_models_were_trained_for() {
        for (fields, expected) in [
            (json!({}), ObjectiveName::Classification),
            (json!({"problem_type": null, "num_labels": 3}), ObjectiveName::Classification),
            (json!({"problem_type": "single_label_classification"}), ObjectiveName::Classification),
            (json!({"problem_type": "multi_label_classification"}), ObjectiveName::MultiLabel),
            (json!({"problem_type": "regression"}), ObjectiveName::Regression),
            (json!({"num_labels": 1}), ObjectiveName::Regression),
            (json!({"id2label": {"0": "LABEL_0"}}), ObjectiveName::Regression),
        ] {
            let (objective, note) = resolved(&[&config(fields.clone()), &config(fields.clone())], None).unwrap();
            assert_eq!(objective, expected, "{fields}");
            assert_eq!(note.is_some(), expected != ObjectiveName::Classification, "{fields}");
        }
        let (_, note) = resolved(&[&config(json!({"num_labels": 1}))], None).unwrap();
        let expected =
            "assumed: objective `regression`, because of one output and no problem_type in 0 (data.objective)";
        assert_eq!(note.as_deref(), Some(expected));
        let modules = ("modules.json", json!([]));
        let encoder = [("config.json", json!({})), modules.clone()];
        assert_eq!(resolved(&[&encoder], None).unwrap().0, ObjectiveName::Pairs);
        let kind = |kind: &str| ("config_sentence_transformers.json", json!({"model_type": kind}));
        let named = [("config.json", json!({"num_labels": 1})), modules, kind("SentenceTransformer")];
        assert_eq!(resolved(&[&named], None).unwrap().0, ObjectiveName::Pairs);
        let [config, modules, _] = named;
        assert_eq!(resolved(&[&[config, modules, kind("CrossEncoder")]], None).unwrap().0, ObjectiveName::Score);
        let marked = json!({"num_labels": 1, "sentence_transformers": {"version": "4.0.1"}});
        assert_eq!(resolved(&[&self::config(marked)], None).unwrap().0, ObjectiveName::Score);
    }

    #[test]
    fn what_is_stated_counts_unless_a_configuration_contradicts_it() {
        let stated = |fields: Value, objective| resolved(&[&config(fields)], Some(objective));
        for (fields, objective) in [
            (json!({}), ObjectiveName::Pairs),
            (json!({"num_labels": 1}), ObjectiveName::Score),
            (json!({"num_labels": 1}), ObjectiveName::Regression),
            (json!({"problem_type": "multi_label_classification"}), ObjectiveName::Score),
            (json!({"problem_type": "regression"}), ObjectiveName::Regression),
        ] {
            assert_eq!(stated(fields.clone(), objective), Ok((objective, None)), "{fields}");
        }
        let told = stated(json!({"problem_type": "regression"}), ObjectiveName::Score).unwrap_err();
        let expected = "0/config.json: expected a model for data.objective = \"score\", found problem_type `regression`, \
                        which stands for \"regression\"";
        assert_eq!(told, expected);
        let encoder = [("config.json", json!({})), ("modules.json", json!([]))];
        let told = resolved(&[&encoder], Some(ObjectiveName::Classification)).unwrap_err();
        assert!(told.contains("modules.json") && told.contains("stands for \"pairs\""), "{told}");
    }

    #[test]
    fn ingredients_of_different_problems_are_refused() {
        let (one, many) = (config(json!({"num_labels": 1})), config(json!({})));
        let told = resolved(&[&many, &one], None).unwrap_err();
        let expected = "1/config.json: expected no problem_type as in 0, found one output and no problem_type";
        assert_eq!(told, expected);
        // The same objective, said in two ways.
        let stated = config(json!({"problem_type": "regression"}));
        assert_eq!(resolved(&[&one, &stated], None).unwrap().0, ObjectiveName::Regression);
        assert_eq!(resolved(&[&many, &one], Some(ObjectiveName::Score)).unwrap().0, ObjectiveName::Score);
        let broken = [("config.json", json!({})), ("modules.json", json!([]))];
        assert!(resolved(&[&many, &broken], None).unwrap_err().contains("as in 0, found an encoder"));
    }
}
