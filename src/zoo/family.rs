//! Which family a model is of, from its configuration and its tensors' names.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::Ingredient;
use crate::sweep::spec::Family;

/// Names by which a family is known. All of a row must be there; a family may have several rows.
///
/// Wrappers' prefixes, `module.` and `model.` in any number, are left out here and may be there on disk; so may any that all names share.
const SIGNATURES: [(Family, &[&str]); 10] = [
    (Family::Vit, &["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"]),
    (Family::Vit, &["deit.embeddings.cls_token", "deit.encoder.layer.0.attention.attention.query.weight"]),
    (
        Family::ClipVit,
        &["visual.class_embedding", "visual.transformer.resblocks.0.attn.in_proj_weight", "classification_head.weight"],
    ),
    (
        Family::ClipVit,
        &[
            "vision_model.embeddings.class_embedding",
            "vision_model.encoder.layers.0.self_attn.q_proj.weight",
            "classifier.weight",
        ],
    ),
    (Family::TimmVit, &["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"]),
    (Family::Resnet, &["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "fc.weight"]),
    (
        Family::Bert,
        &[
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.attention.self.query.weight",
            "bert.pooler.dense.weight",
            "classifier.weight",
        ],
    ),
    (
        Family::Bert,
        &[
            "roberta.embeddings.word_embeddings.weight",
            "roberta.encoder.layer.0.attention.self.query.weight",
            "classifier.dense.weight",
            "classifier.out_proj.weight",
        ],
    ),
    (
        Family::Bert,
        &[
            "distilbert.embeddings.word_embeddings.weight",
            "distilbert.transformer.layer.0.attention.q_lin.weight",
            "pre_classifier.weight",
            "classifier.weight",
        ],
    ),
    (
        Family::Modernbert,
        &["embeddings.tok_embeddings.weight", "layers.0.attn.Wqkv.weight", "head.dense.weight", "classifier.weight"],
    ),
];

/// timm's architectures that ResNet computes: torchvision's, whose groups and widths shapes tell.
pub const RESNETS: [&str; 13] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "tv_resnet34",
    "tv_resnet50",
];

/// Beginnings of timm's ViT architectures.
const TIMM_VITS: [&str; 5] = ["vit_", "deit_", "deit3_", "flexivit_", "test_vit"];

/// What a configuration may say.
const EXPECTED: &str = "expected `vit` or `deit`, `clip` with `CLIPForImageClassification`, `bert`, `roberta`, \
     `xlm-roberta`, `distilbert` or `modernbert`, or timm's architecture of a ViT or a ResNet";

/// Why the family of a model cannot be told, with all that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyUnknown {
    /// The ingredient.
    pub ingredient: PathBuf,
    /// What is wrong, in words.
    pub what: String,
    /// The configuration's file, if there is one, and its fields that would tell, with their values.
    pub config: String,
    /// For each row of names: its family, and the names that are not there.
    pub names: Vec<(Family, Vec<&'static str>)>,
}

impl fmt::Display for FamilyUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.ingredient.display(), self.what)?;
        writeln!(f, "  checked: {}", self.config)?;
        for (family, missing) in &self.names {
            if missing.is_empty() {
                writeln!(f, "  tensor names of {family}: all found")?;
            } else {
                writeln!(f, "  tensor names of {family}: not found {}", missing.join(", "))?;
            }
        }
        write!(
            f,
            "  set zoo.family, or make a graph of any other architecture: \
             `python -m mehl_soup export {} --out exported`, then zoo.architecture = \"exported\" \
             (docs/architectures.md)",
            self.ingredient.display()
        )
    }
}

impl std::error::Error for FamilyUnknown {}

/// The family of a model, as its `config.json` says, or without one as its tensors' names say.
///
/// | config.json | family |
/// |---|---|
/// | `model_type` `vit` or `deit` | `vit` |
/// | `model_type` `bert`, `roberta`, `xlm-roberta` or `distilbert` | `bert` |
/// | `model_type` `modernbert` | `modernbert` |
/// | `model_type` `clip` or `clip_vision_model`, `architectures` with `CLIPForImageClassification` | `clip-vit` |
/// | timm's `architecture` `vit_*`, `deit_*`, `deit3_*`, `flexivit_*` | `timm-vit` |
/// | timm's `architecture` `resnet18` and so on | `resnet` |
///
/// A configuration whose family's tensors are not all there is believed as long as no other family's are: what is missing is then said by
/// the family itself.
///
/// # Errors
/// If neither tells, names fit two families, or configuration and names contradict each other.
pub fn detect(ingredient: &Ingredient) -> Result<Family, FamilyUnknown> {
    let common = ingredient.common_prefix();
    let names: Vec<_> = SIGNATURES
        .iter()
        .map(|(family, required)| {
            // Any beginning of what all names share may be a wrapper's.
            let is = |found: &str, name: &str| {
                let dots = common.match_indices('.').map(|(dot, _)| dot + 1);
                std::iter::once(0).chain(dots).any(|start| unwrapped(&found[start..]) == name)
            };
            let is_missing = |name: &&&str| !ingredient.tensor_names().any(|found| is(found, name));
            (*family, required.iter().filter(is_missing).copied().collect::<Vec<_>>())
        })
        .collect();
    let mut fitting: Vec<Family> =
        names.iter().filter(|(_, missing)| missing.is_empty()).map(|(family, _)| *family).collect();
    fitting.dedup();
    let (statement, shown) = stated(ingredient.config());
    let unknown = |what: String| FamilyUnknown {
        ingredient: ingredient.path().to_path_buf(),
        what,
        config: match ingredient.folder() {
            Some(folder) if ingredient.config().is_some() => {
                format!("{}: {shown}", folder.join("config.json").display())
            }
            _ => "config.json: none".to_string(),
        },
        names: names.clone(),
    };
    let listed = || fitting.iter().map(|family| format!("`{family}`")).collect::<Vec<_>>().join(" and ");
    match (statement, &fitting[..]) {
        (Statement::Family(family), fit) if fit.is_empty() || fit.contains(&family) => Ok(family),
        (Statement::Family(family), _) => {
            Err(unknown(format!("config.json says family `{family}`, tensor names say {}", listed())))
        }
        (Statement::Other, []) => {
            Err(unknown(format!("config.json describes a model of an unknown family, {EXPECTED}")))
        }
        (Statement::Other, _) => Err(unknown(format!(
            "config.json describes a model of an unknown family, {EXPECTED}; tensor names say {}",
            listed()
        ))),
        (Statement::Nothing, [family]) => Ok(*family),
        (Statement::Nothing, []) => Err(unknown("no family fits".to_string())),
        (Statement::Nothing, _) => Err(unknown(format!("tensor names fit {}", listed()))),
    }
}

/// What a configuration says.
enum Statement {
    /// A family.
    Family(Family),
    /// Something else.
    Other,
    /// None of the fields that would tell.
    Nothing,
}

/// The family that a configuration names, and the fields that were looked at.
fn stated(config: Option<&Value>) -> (Statement, String) {
    let Some(config) = config else { return (Statement::Nothing, String::new()) };
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let (model_type, class, architecture) = (text("/model_type"), text("/architectures/0"), text("/architecture"));
    let said: Vec<String> = [("model_type", model_type), ("architectures", class), ("architecture", architecture)]
        .iter()
        .map(|(field, value)| value.map_or(format!("no {field}"), |value| format!("{field} `{value}`")))
        .collect();
    let statement = match (model_type, class, architecture) {
        (Some("vit" | "deit"), _, _) => Statement::Family(Family::Vit),
        (Some("modernbert"), _, _) => Statement::Family(Family::Modernbert),
        (Some("bert" | "roberta" | "xlm-roberta" | "distilbert"), _, _) => Statement::Family(Family::Bert),
        (Some("clip" | "clip_vision_model"), Some("CLIPForImageClassification"), _) => {
            Statement::Family(Family::ClipVit)
        }
        (Some(_), _, _) => Statement::Other,
        (None, _, Some(name)) if RESNETS.contains(&untagged(name)) => Statement::Family(Family::Resnet),
        (None, _, Some(name)) if TIMM_VITS.iter().any(|beginning| name.starts_with(beginning)) => {
            Statement::Family(Family::TimmVit)
        }
        (None, _, Some(_)) => Statement::Other,
        (None, _, None) => Statement::Nothing,
    };
    (statement, said.join(", "))
}

/// timm's architecture, without the tag of its weights after a dot.
fn untagged(architecture: &str) -> &str {
    architecture.split('.').next().unwrap_or_default()
}

/// A name without wrappers' prefixes.
fn unwrapped(name: &str) -> &str {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix("module.").or_else(|| rest.strip_prefix("model.")) {
        rest = inner;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    /// A folder with these tensors, each of one element, and this configuration.
    fn ingredient(names: &[&str], config: Option<Value>) -> (tempfile::TempDir, Ingredient) {
        let root = tempfile::tempdir().unwrap();
        let tensors: Vec<_> = names.iter().map(|name| f32s(name, &[1], &[1.0])).collect();
        write_file(&root.path().join("model.safetensors"), &tensors);
        if let Some(config) = config {
            std::fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        }
        let ingredient = Ingredient::open(root.path()).unwrap();
        (root, ingredient)
    }

    fn found(names: &[&str], config: Option<Value>) -> Result<Family, FamilyUnknown> {
        let (_root, ingredient) = ingredient(names, config);
        detect(&ingredient)
    }

    #[test]
    fn each_row_of_names_tells_its_family_under_any_wrapper() {
        for (family, names) in SIGNATURES {
            for prefix in ["", "module.", "model.", "module.model.", "_orig_mod.", "module._orig_mod.", "net.model."] {
                let wrapped: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
                let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
                assert_eq!(found(&wrapped, None), Ok(family), "{wrapped:?}");
            }
        }
        // As in the public ingredients of model-soups: the wrapper holds the tower, not the head.
        let names = [
            "module.model.visual.class_embedding",
            "module.model.visual.transformer.resblocks.0.attn.in_proj_weight",
            "module.classification_head.weight",
        ];
        assert_eq!(found(&names, None), Ok(Family::ClipVit));
    }

    #[test]
    fn a_configuration_tells_the_family() {
        let cases = [
            (serde_json::json!({"model_type": "vit"}), Family::Vit),
            (serde_json::json!({"model_type": "deit"}), Family::Vit),
            (
                serde_json::json!({"model_type": "clip", "architectures": ["CLIPForImageClassification"]}),
                Family::ClipVit,
            ),
            (serde_json::json!({"architecture": "vit_base_patch16_224"}), Family::TimmVit),
            (serde_json::json!({"architecture": "deit3_small_patch16_224"}), Family::TimmVit),
            (serde_json::json!({"architecture": "resnet50"}), Family::Resnet),
            (serde_json::json!({"model_type": "bert"}), Family::Bert),
            (serde_json::json!({"model_type": "xlm-roberta"}), Family::Bert),
            (serde_json::json!({"model_type": "distilbert"}), Family::Bert),
            (serde_json::json!({"model_type": "modernbert"}), Family::Modernbert),
        ];
        for (config, family) in cases {
            assert_eq!(found(&["x"], Some(config.clone())), Ok(family), "{config}");
        }
        // Fields that say nothing of a family leave it to the names.
        assert_eq!(found(SIGNATURES[5].1, Some(serde_json::json!({"num_classes": 2}))), Ok(Family::Resnet));
    }

    #[test]
    fn contradictions_name_both_sides() {
        let fault = found(SIGNATURES[4].1, Some(serde_json::json!({"model_type": "vit"}))).unwrap_err().to_string();
        for part in
            ["config.json says family `vit`", "tensor names say `timm-vit`", "model_type `vit`", "no architecture"]
        {
            assert!(fault.contains(part), "{part} in {fault}");
        }
        let config = serde_json::json!({"architecture": "convnext_tiny"});
        let fault = found(SIGNATURES[5].1, Some(config)).unwrap_err().to_string();
        assert!(fault.contains("a ResNet; tensor names say `resnet`"), "{fault}");
        let config = serde_json::json!({"model_type": "clip", "architectures": ["CLIPModel"]});
        let fault = found(&["x"], Some(config)).unwrap_err().to_string();
        assert!(fault.contains("architectures `CLIPModel`"), "{fault}");
    }

    #[test]
    fn two_candidates_or_none_say_what_was_looked_at() {
        let both: Vec<&str> = SIGNATURES[4].1.iter().chain(SIGNATURES[5].1).copied().collect();
        let fault = found(&both, None).unwrap_err();
        assert!(fault.what.contains("fit `timm-vit` and `resnet`"), "{fault}");
        let config = serde_json::json!({"model_type": "vit"});
        assert!(found(&both, Some(config)).unwrap_err().what.contains("`timm-vit` and `resnet`"));
        // One that is among them decides.
        assert_eq!(found(&both, Some(serde_json::json!({"architecture": "resnet18"}))), Ok(Family::Resnet));

        let fault = found(&["patch_embed.proj.weight", "fc.weight"], None).unwrap_err().to_string();
        assert!(fault.contains("no family fits") && fault.contains("checked: config.json: none"), "{fault}");
        assert!(fault.contains("timm-vit: not found blocks.0.attn.qkv.weight, head.weight"), "{fault}");
        assert!(fault.contains("resnet: not found conv1.weight, bn1.weight"), "{fault}");
    }
}
