//! What the tensors of BERT, RoBERTa and DistilBERT are called.

/// Names of one of the three; those of the base model are without its prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct BertNames {
    /// For manifests: which of the three.
    pub naming: &'static str,
    /// What the base model's names begin with in a model that has a head.
    pub prefix: &'static str,
    /// Blocks, followed by a number.
    pub blocks: &'static str,
    /// Query, key and value of a block.
    pub projections: [&'static str; 3],
    /// Product after attention, and the norm of its sum.
    pub mixed: [&'static str; 2],
    /// Two products of the perceptron, and the norm of its sum.
    pub perceptron: [&'static str; 3],
    /// The head: a product of the first token, and that which gives the logits.
    pub head: [&'static str; 2],
    /// Whether the head's first product is part of the base model.
    pub head_in_base: bool,
    /// Whether ReLU is between the head's products; else the hyperbolic tangent.
    pub head_is_relu: bool,
}

/// BERT and MiniLM.
pub(super) const BERT: BertNames = BertNames {
    naming: "bert",
    prefix: "bert.",
    blocks: "encoder.layer",
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    mixed: ["attention.output.dense", "attention.output.LayerNorm"],
    perceptron: ["intermediate.dense", "output.dense", "output.LayerNorm"],
    head: ["pooler.dense", "classifier"],
    head_in_base: true,
    head_is_relu: false,
};

/// RoBERTa and XLM-R.
pub(super) const ROBERTA: BertNames = BertNames {
    naming: "roberta",
    prefix: "roberta.",
    head: ["classifier.dense", "classifier.out_proj"],
    head_in_base: false,
    ..BERT
};

/// DistilBERT.
pub(super) const DISTILBERT: BertNames = BertNames {
    naming: "distilbert",
    prefix: "distilbert.",
    blocks: "transformer.layer",
    projections: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    mixed: ["attention.out_lin", "sa_layer_norm"],
    perceptron: ["ffn.lin1", "ffn.lin2", "output_layer_norm"],
    head: ["pre_classifier", "classifier"],
    head_in_base: false,
    head_is_relu: true,
};

/// Other heads and buffers that are saved beside a model and take no part in its outputs, without
/// the base model's prefix where they are in it.
pub(super) fn is_idle(name: &str) -> bool {
    const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];
    const HEADS: [&str; 7] =
        ["pooler.", "cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."];
    BUFFERS.contains(&name) || HEADS.iter().any(|head| name.starts_with(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_idle() {
        for name in ["cls.predictions.bias", "lm_head.dense.weight", "pooler.dense.bias", "embeddings.position_ids"] {
            assert!(is_idle(name), "{name}");
        }
        for name in ["classifier.weight", "embeddings.extra.weight", "extra.weight", "clsx.weight"] {
            assert!(!is_idle(name), "{name}");
        }
    }
}
