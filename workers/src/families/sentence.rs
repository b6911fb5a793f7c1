//! Folders of sentence-transformers: how an encoder's tokens become an embedding.
//!
//! Follows sentence-transformers 6.2 (`Pooling`, `Normalize`) and Reimers and Gurevych 2019 (arXiv
//! 1908.10084).

use std::path::Path;

use mehl_soup::source;
use mehl_soup::untrusted::LARGEST_CONFIG;
use mehl_soup::zoo::{Ingredient, Zoo};
use serde_json::Value;
use tch::{Kind, TchError, Tensor};

use super::{FamilyError, State};

/// The file that lists a model's modules.
pub(super) const MODULES: &str = "modules.json";

/// Below every value: what padding is for a maximum.
const LOWEST: f64 = -1e30;

/// What makes an embedding of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// What becomes of the tokens of a sample.
    pub pooling: Pooling,
    /// Whether embeddings then have the length 1.
    pub normalised: bool,
}

/// What becomes of the tokens of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    Cls,
    /// The largest of each value.
    Max,
}

impl Pooling {
    /// Name in configurations and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Max => "max",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Mean, Self::Cls, Self::Max].into_iter().find(|pooling| pooling.name() == name)
    }

    /// `[N, width]` of tokens `[N, T, width]`, of which those of `mask` `[N, T]` are a sample's
    /// own; all are without.
    pub(super) fn pool(self, tokens: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let column = mask.map(|mask| mask.f_unsqueeze(-1)).transpose()?;
        match (self, &column) {
            (Self::Mean, None) => tokens.f_mean_dim(1, false, None::<Kind>),
            (Self::Mean, Some(own)) => {
                let own = own.f_to_kind(tokens.kind())?;
                // A sample without tokens has the embedding 0.
                let count = own.f_sum_dim_intlist(1, false, None::<Kind>)?.f_clamp_min(1.0)?;
                tokens.f_mul(&own)?.f_sum_dim_intlist(1, false, None::<Kind>)?.f_div(&count)
            }
            (Self::Cls, None) => tokens.f_select(1, 0),
            (Self::Cls, Some(own)) => {
                // The first of a sample's own tokens: padding may be on the left.
                let first = own.f_to_kind(Kind::Int64)?.f_argmax(1, true)?;
                let (n, width) = (tokens.size()[0], tokens.size()[2]);
                tokens.f_gather(1, &first.f_expand([n, 1, width], false)?, false)?.f_squeeze_dim(1)
            }
            (Self::Max, None) => Ok(tokens.f_max_dim(1, false)?.0),
            (Self::Max, Some(own)) => Ok(tokens.f_masked_fill(&own.f_logical_not()?, LOWEST)?.f_max_dim(1, false)?.0),
        }
    }
}

impl Sentence {
    /// `[N, width]` of the last tokens `[N, T, width]`.
    pub(super) fn embed(&self, state: &State) -> Result<Tensor, TchError> {
        let pooled = self.pooling.pool(&state.hidden, state.mask.as_ref())?;
        if !self.normalised {
            return Ok(pooled);
        }
        // As `torch.nn.functional.normalize`.
        let length = pooled.f_norm_scalaropt_dim(2.0, 1, true)?.f_clamp_min(1e-12)?;
        pooled.f_div(&length)
    }
}

/// What the folders of all ingredients say; `None` if they are no folders of sentence-transformers.
///
/// # Errors
/// If a file is at fault, a module is not computed, or folders differ.
pub(super) fn read_all(zoo: &Zoo) -> Result<Option<Sentence>, FamilyError> {
    let first = &zoo.ingredients()[0];
    let expected = read(first)?;
    for other in &zoo.ingredients()[1..] {
        let found = read(other)?;
        if found != expected {
            let shown = |sentence: &Option<Sentence>| match sentence {
                None => format!("no {MODULES}"),
                Some(s) => format!("{}{}", s.pooling.name(), if s.normalised { ", normalised" } else { "" }),
            };
            return Err(FamilyError::Config {
                file: other.path().join(MODULES).display().to_string(),
                what: format!(
                    "embeddings: expected {}, found {}, as in {}: embeddings of different kinds cannot be mixed",
                    shown(&expected),
                    shown(&found),
                    first.path().display()
                ),
            });
        }
    }
    Ok(expected)
}

/// What one folder says.
fn read(ingredient: &Ingredient) -> Result<Option<Sentence>, FamilyError> {
    let Some(folder) = ingredient.folder() else { return Ok(None) };
    let file = folder.join(MODULES);
    let Some(modules) = read_json(&file)? else { return Ok(None) };
    let fault = |what: String| FamilyError::Config { file: file.display().to_string(), what };
    let modules = modules.as_array().ok_or_else(|| fault("expected a list of modules, found another value".into()))?;
    let mut steps = Vec::new();
    for module in modules {
        let text = |key: &str| module.get(key).and_then(Value::as_str);
        let (Some(kind), Some(path)) = (text("type"), text("path")) else {
            return Err(fault(format!("expected `type` and `path` of each module, found {module}")));
        };
        steps.push((kind.rsplit('.').next().unwrap_or_default(), path));
    }
    let (pooling, rest) = match &steps[..] {
        [("Transformer", ""), ("Pooling", path), rest @ ..] => (*path, rest),
        [("Transformer", path), ..] if !path.is_empty() => {
            return Err(fault(format!(
                "the encoder is in `{path}`: move its files to the folder itself, and set its path to \"\""
            )));
        }
        _ => {
            let names: Vec<_> = steps.iter().map(|(kind, _)| format!("`{kind}`")).collect();
            return Err(fault(format!(
                "expected the modules `Transformer`, `Pooling` and optionally `Normalize`, found {}",
                names.join(", ")
            )));
        }
    };
    let normalised = match rest {
        [] => false,
        [("Normalize", _)] => true,
        [(kind, path), ..] => {
            return Err(fault(format!(
                "module `{kind}` (`{path}`): expected `Transformer`, `Pooling` and optionally `Normalize`, and no other \
                 module"
            )));
        }
    };
    check_encoder(folder)?;
    if Path::new(pooling).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(fault(format!("module `Pooling`: expected a path inside the folder, found `{pooling}`")));
    }
    let file = folder.join(pooling).join("config.json");
    let fault = |what: String| FamilyError::Config { file: file.display().to_string(), what };
    let json =
        read_json(&file)?.ok_or_else(|| fault("expected the configuration of the pooling, found no file".into()))?;
    Ok(Some(Sentence { pooling: pooling_of(&json).map_err(fault)?, normalised }))
}

/// That the encoder's last tokens are what is pooled: newer versions of sentence-transformers can
/// take something else.
fn check_encoder(folder: &Path) -> Result<(), FamilyError> {
    let file = folder.join("sentence_bert_config.json");
    let Some(json) = read_json(&file)? else { return Ok(()) };
    const USUAL: [(&str, &str); 3] = [
        ("/transformer_task", "feature-extraction"),
        ("/modality_config/text/method_output_name", "last_hidden_state"),
        ("/module_output_name", "token_embeddings"),
    ];
    match USUAL.into_iter().find(|(field, usual)| json.pointer(field).is_some_and(|found| found != usual)) {
        None => Ok(()),
        Some((field, usual)) => Err(FamilyError::Config {
            file: file.display().to_string(),
            what: format!(
                "{}: expected `{usual}`, found {}",
                field.trim_start_matches('/').replace('/', "."),
                json.pointer(field).unwrap_or(&Value::Null)
            ),
        }),
    }
}

/// The pooling of a configuration: `pooling_mode`, or in older ones `pooling_mode_mean_tokens` and
/// so on.
fn pooling_of(json: &Value) -> Result<Pooling, String> {
    const OLDER: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    if json.get("include_prompt").and_then(Value::as_bool) == Some(false) {
        return Err(
            "include_prompt: expected true, found false: which tokens are a prompt is not known here".to_string()
        );
    }
    let modes: Vec<String> = match json.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.clone()],
        Some(Value::Array(modes)) => modes.iter().map(|mode| mode.as_str().unwrap_or_default().to_string()).collect(),
        Some(other) => return Err(format!("pooling_mode: expected a name, found {other}")),
        None => {
            let is_on = |key: &str| json.get(key).and_then(Value::as_bool) == Some(true);
            OLDER.iter().filter(|(key, _)| is_on(key)).map(|(_, mode)| mode.to_string()).collect()
        }
    };
    match &modes[..] {
        [mode] => {
            Pooling::parse(mode).ok_or_else(|| format!("pooling_mode: expected `mean`, `cls` or `max`, found `{mode}`"))
        }
        [] => Err("pooling_mode: expected `mean`, `cls` or `max`, found none".to_string()),
        several => Err(format!("pooling_mode: expected one of `mean`, `cls` and `max`, found {}", several.join(", "))),
    }
}

/// The JSON of a file; `None` without the file.
fn read_json(file: &Path) -> Result<Option<Value>, FamilyError> {
    let fault = |what: String| FamilyError::Config { file: file.display().to_string(), what };
    match source::of(file).read(file, LARGEST_CONFIG) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(fault(e.to_string())),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| fault(format!("not JSON: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn poolings_of_both_spellings() {
        for (json, expected) in [
            (json!({"pooling_mode": "mean", "include_prompt": true}), Pooling::Mean),
            (json!({"pooling_mode": ["max"]}), Pooling::Max),
            (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}), Pooling::Cls),
        ] {
            assert_eq!(pooling_of(&json), Ok(expected), "{json}");
        }
        for (json, says) in [
            (json!({"pooling_mode": "lasttoken"}), "found `lasttoken`"),
            (json!({"pooling_mode_weightedmean_tokens": true}), "found `weightedmean`"),
            (json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}), "found cls, max"),
            (json!({}), "found none"),
            (json!({"pooling_mode": "mean", "include_prompt": false}), "include_prompt: expected true"),
        ] {
            let fault = pooling_of(&json).unwrap_err();
            assert!(fault.contains(says), "`{says}` in {fault}");
        }
    }

    #[test]
    fn a_sample_without_tokens_is_no_fault() {
        let tokens = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0]).view([1, 2, 2]);
        let mask = Tensor::from_slice(&[false, false]).view([1, 2]);
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Max] {
            let state = State { hidden: tokens.shallow_clone(), mask: Some(mask.shallow_clone()), positions: None };
            let embedding = Sentence { pooling, normalised: true }.embed(&state).unwrap();
            assert!(Vec::<f64>::try_from(embedding.view(-1)).unwrap().iter().all(|v| v.is_finite()), "{pooling:?}");
        }
    }
}
