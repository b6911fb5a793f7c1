//! What an encoder of texts gives: logits of its head, or an embedding.

use mehl_soup::zoo::{Ingredient, Zoo};
use serde_json::Value;
use tch::{TchError, Tensor};

use super::sentence::{self, Sentence};
use super::{FamilyError, State, expected};

/// What the last part gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outputs {
    /// Logits `[N, classes]` of a head for sequence classification.
    Logits {
        /// As the head's shape says.
        classes: i64,
    },
    /// An embedding `[N, width]`, as a folder of sentence-transformers says.
    Embedding(Sentence),
}

impl Outputs {
    /// What the ingredients of a zoo give. `head` is the name of the weight that gives logits.
    ///
    /// # Errors
    /// If there is neither a head nor a folder of sentence-transformers, or both, or another head;
    /// if folders differ.
    pub(super) fn find(zoo: &Zoo, head: &str) -> Result<Self, FamilyError> {
        let first = &zoo.ingredients()[0];
        let fault = |what: String| FamilyError::Config { file: first.path().display().to_string(), what };
        let classes = first.info(head).map(|info| info.shape.first().map_or(0, |&n| n as i64));
        match (sentence::read_all(zoo)?, classes) {
            (Some(_), Some(_)) => Err(fault(format!(
                "expected an embedding, as {} says, or a head for sequence classification, found both: take {} away for \
                 a soup of classifiers, or save the embedding models without {head}",
                sentence::MODULES,
                sentence::MODULES
            ))),
            (Some(sentence), None) => Ok(Self::Embedding(sentence)),
            (None, Some(classes)) => {
                expected::agree(zoo, &["/architectures"])?;
                check_class(first)?;
                Ok(Self::Logits { classes })
            }
            (None, None) => Err(fault(format!(
                "expected a head for sequence classification ({head}) or {} of sentence-transformers, found neither: \
                 give fine-tuned models with a head, or save the encoders with sentence-transformers. For any other \
                 output make a graph: `python -m mehl_soup export {} --out exported`, then zoo.architecture = \
                 \"exported\" (docs/architectures.md)",
                sentence::MODULES,
                first.path().display()
            ))),
        }
    }

    /// Classes; `None` for an embedding.
    pub fn classes(&self) -> Option<i64> {
        match self {
            Self::Logits { classes } => Some(*classes),
            Self::Embedding(_) => None,
        }
    }

    /// The embedding of the last tokens `[N, T, width]`.
    pub(super) fn embed(&self, state: &State) -> Result<Tensor, TchError> {
        match self {
            Self::Logits { .. } => Err(TchError::Shape("a model with a head has no embedding".to_string())),
            Self::Embedding(sentence) => sentence.embed(state),
        }
    }
}

/// Heads for other tasks have the same names: `architectures` tells them.
fn check_class(first: &Ingredient) -> Result<(), FamilyError> {
    let class = first.config().and_then(|json| json.pointer("/architectures/0")).and_then(Value::as_str);
    match class {
        Some(class) if !class.ends_with("ForSequenceClassification") => Err(expected::config_fault(first)(format!(
            "architectures: expected a class for sequence classification, found `{class}`: make a graph of it with \
             `python -m mehl_soup export {} --out exported`, then zoo.architecture = \"exported\" \
             (docs/architectures.md)",
            first.path().display()
        ))),
        _ => Ok(()),
    }
}
