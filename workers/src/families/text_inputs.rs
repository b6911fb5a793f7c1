//! What text models take: numbers of tokens, which of them are padding, and token types.

use tch::{Kind, TchError, Tensor};

use super::{ExpectedInput, Extent, InputKind, ModelInputs};

/// Numbers of tokens, `[N, T]`, i64.
const IDS: &str = "input_ids";
/// 1 where a token is the sample's own, 0 where it is padding: `[N, T]`, i64.
const MASK: &str = "attention_mask";
/// Which of two texts a token is of: `[N, T]`, i64.
const TYPES: &str = "token_type_ids";

/// What a text model takes at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows of the table of tokens.
    pub vocabulary: i64,
    /// Tokens of one sample.
    pub tokens: i64,
    /// Rows of the table of token types; 0 where there is none.
    pub types: i64,
}

/// The tokens of some samples.
#[derive(Debug)]
pub(super) struct Tokens {
    /// `[N, T]`, i64, as they are in the data.
    pub stored: Tensor,
    /// `[N, T]`, i64; 0 in place of padding.
    pub ids: Tensor,
    /// `[N, T]`, i64; 0 in place of padding. `None`: all are of type 0.
    pub types: Option<Tensor>,
    /// Where tokens are a sample's own: `[N, T]`, bool. `None`: everywhere.
    pub mask: Option<Tensor>,
}

impl Limits {
    /// For [`Model::expected_inputs`](super::Model::expected_inputs).
    pub fn expected(&self) -> Vec<ExpectedInput> {
        let input = |name: &str, optional| ExpectedInput {
            name: Some(name.to_string()),
            kind: InputKind::Integer,
            dimensions: vec![Extent { least: 1, most: self.tokens }],
            optional,
        };
        let types = (self.types > 0).then(|| input(TYPES, true));
        [input(IDS, false), input(MASK, true)].into_iter().chain(types).collect()
    }

    /// The tokens among inputs: `input_ids`, or the only input under any name; optionally
    /// `attention_mask` and `token_type_ids`. Padding is what the mask or the samples' lengths say.
    ///
    /// # Errors
    /// [`TchError::Shape`] if an input is missing, unknown, of another shape or out of range.
    pub fn tokens(&self, inputs: &ModelInputs) -> Result<Tokens, TchError> {
        let fault = |what: String| Err(TchError::Shape(what));
        let known = |name: &&str| *name == IDS || *name == MASK || *name == TYPES && self.types > 0;
        let (only, names) = (inputs.only(), inputs.names());
        if let (None, Some(other)) = (only, names.iter().find(|name| !known(name))) {
            let types = if self.types > 0 { " and `token_type_ids`" } else { "" };
            return fault(format!("input `{other}`: the model takes `input_ids`, `attention_mask`{types}"));
        }
        let Some(stored) = only.or_else(|| inputs.get(IDS)) else {
            return fault(format!("expected an input `input_ids`, found {}", names.join(", ")));
        };
        let size = stored.size();
        let &[_, length] = &size[..] else {
            return fault(format!("input `{}`: expected tokens [N, T], found {size:?}", names[0]));
        };
        if length > self.tokens {
            return fault(format!(
                "expected at most {} tokens a sample, which is what the model has positions for, found {length}: \
                 shorten the samples",
                self.tokens
            ));
        }
        for (name, tensor) in names.iter().zip(inputs.tensors()) {
            if tensor.kind() != Kind::Int64 {
                return fault(format!("input `{name}`: expected whole numbers (i64), found {:?}", tensor.kind()));
            }
            if tensor.size() != size {
                return fault(format!("input `{name}`: expected {size:?} as of the tokens, found {:?}", tensor.size()));
            }
        }
        // A single input is the tokens, whatever it is called.
        let other = |name: &str| inputs.get(name).filter(|_| only.is_none());
        let stated = other(MASK).map(|mask| mask.f_ne(0)).transpose()?;
        let mask = match (stated, inputs.mask()?) {
            (Some(stated), Some(own)) => Some(stated.f_logical_and(&own)?),
            (stated, own) => stated.or(own),
        };
        // What stands in the padding is nobody's: it need not be in any table.
        let own = |values: &Tensor| match &mask {
            Some(mask) => values.f_masked_fill(&mask.f_logical_not()?, 0),
            None => Ok(values.shallow_clone()),
        };
        let ids = own(stored)?;
        let types = other(TYPES).map(own).transpose()?;
        check_range(IDS, &ids, self.vocabulary, "the tokens must be of the model's own tokenizer")?;
        if let Some(types) = &types {
            check_range(TYPES, types, self.types, "the model has no other token types")?;
        }
        Ok(Tokens { stored: stored.shallow_clone(), ids, types, mask })
    }
}

/// That numbers are rows of a table: libtorch says less, and on a GPU stops the process.
fn check_range(name: &str, numbers: &Tensor, rows: i64, why: &str) -> Result<(), TchError> {
    if numbers.numel() == 0 {
        return Ok(());
    }
    let (least, most) = numbers.f_aminmax(None::<i64>, false)?;
    let (least, most) = (least.f_int64_value(&[])?, most.f_int64_value(&[])?);
    if least >= 0 && most < rows {
        return Ok(());
    }
    let found = if least < 0 { least } else { most };
    Err(TchError::Shape(format!("input `{name}`: expected numbers 0 to {}, found {found}: {why}", rows - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { vocabulary: 40, tokens: 4, types: 2 };

    fn row(name: &str, values: &[i64]) -> (String, Tensor) {
        (name.to_string(), Tensor::from_slice(values).view([1, -1]))
    }

    fn values(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(Kind::Int64).view(-1)).unwrap()
    }

    fn fault(tensors: Vec<(String, Tensor)>) -> String {
        LIMITS.tokens(&ModelInputs::new(tensors)).unwrap_err().to_string()
    }

    #[test]
    fn padding_is_what_mask_and_lengths_say_and_its_contents_do_not_matter() {
        let inputs = || vec![row(TYPES, &[1, 0, 1, 99]), row(MASK, &[1, 0, 1, 1]), row(IDS, &[5, -7, 6, 99])];
        let with_lengths = ModelInputs::new(inputs()).with_lengths(Tensor::from_slice(&[3i64]));
        let tokens = LIMITS.tokens(&with_lengths).unwrap();
        assert_eq!(values(tokens.mask.as_ref().unwrap()), [1, 0, 1, 0]);
        assert_eq!((values(&tokens.ids), values(&tokens.stored)), (vec![5, 0, 6, 0], vec![5, -7, 6, 99]));
        assert_eq!(values(tokens.types.as_ref().unwrap()), [1, 0, 1, 0]);
        assert!(fault(inputs()).contains("expected numbers 0 to 39, found 99"));
    }

    #[test]
    fn a_single_input_may_have_any_name() {
        for name in ["inputs", MASK] {
            let tokens = LIMITS.tokens(&ModelInputs::new(vec![row(name, &[3, 4])])).unwrap();
            assert_eq!(values(&tokens.ids), [3, 4]);
            assert!(tokens.mask.is_none() && tokens.types.is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (inputs, says) in [
            (vec![row("a", &[1]), row(IDS, &[1])], "input `a`: the model takes `input_ids`"),
            (vec![row(MASK, &[1]), row(TYPES, &[1])], "expected an input `input_ids`"),
            (vec![row(IDS, &[1, 2]), row(MASK, &[1])], "input `attention_mask`: expected [1, 2] as of the tokens"),
            (vec![row(IDS, &[1, 2, 3, 4, 5])], "expected at most 4 tokens a sample"),
            (vec![row(IDS, &[1, -2])], "expected numbers 0 to 39, found -2"),
            (vec![row(IDS, &[1, 2]), row(TYPES, &[0, 2])], "`token_type_ids`: expected numbers 0 to 1, found 2"),
            (vec![("x".to_string(), Tensor::from_slice(&[1i64]))], "expected tokens [N, T]"),
            (vec![("x".to_string(), Tensor::from_slice(&[1.0]).view([1, 1]))], "expected whole numbers"),
        ] {
            let fault = fault(inputs);
            assert!(fault.contains(says), "`{says}` in {fault}");
        }
    }
}
