//! What goes into a model, and from part to part of it.

use tch::{Kind, TchError, Tensor};

/// Name of an input whose source does not name it: the default of `data.inputs`.
const UNNAMED: &str = "inputs";

/// What a family expects of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedInput {
    /// Its name, where it has to have one.
    pub name: Option<String>,
    /// What its values are.
    pub kind: InputKind,
    /// Of one sample: what each dimension may be.
    pub dimensions: Vec<Extent>,
    /// Whether the model computes without it too.
    pub optional: bool,
}

/// What the values of an input are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// Floating point numbers.
    Float,
    /// Whole numbers.
    Integer,
}

/// Sizes that a dimension may have, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The smallest.
    pub least: i64,
    /// The largest.
    pub most: i64,
}

impl ExpectedInput {
    /// Floats of one shape, under any name.
    pub fn floats(shape: &[i64]) -> Self {
        let dimensions = shape.iter().map(|&size| Extent { least: size, most: size }).collect();
        Self { name: None, kind: InputKind::Float, dimensions, optional: false }
    }

    /// Whether a sample may have this shape.
    pub fn takes(&self, shape: &[i64]) -> bool {
        self.dimensions.len() == shape.len()
            && self.dimensions.iter().zip(shape).all(|(extent, size)| (extent.least..=extent.most).contains(size))
    }

    /// The shape of a sample, -1 where it varies.
    pub fn shape(&self) -> Vec<i64> {
        let size = |extent: &Extent| if extent.least == extent.most { extent.most } else { -1 };
        self.dimensions.iter().map(size).collect()
    }
}

impl std::fmt::Display for ExpectedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = |extent: &Extent| match extent.least == extent.most {
            true => extent.most.to_string(),
            false => format!("{} to {}", extent.least, extent.most),
        };
        let sizes: Vec<String> = self.dimensions.iter().map(size).collect();
        write!(f, "[{}]", sizes.join(", "))
    }
}

/// What a model takes of some samples: named tensors, and the samples' lengths where they differ.
#[derive(Debug)]
pub struct ModelInputs {
    tensors: Vec<(String, Tensor)>,
    lengths: Option<Tensor>,
}

impl From<Tensor> for ModelInputs {
    /// One input, first dimension N, of samples that all have the same length.
    fn from(tensor: Tensor) -> Self {
        Self::new(vec![(UNNAMED.to_string(), tensor)])
    }
}

impl ModelInputs {
    /// Inputs in the order of `data.inputs`, first dimension N, of samples that all have the same
    /// length.
    pub fn new(tensors: Vec<(String, Tensor)>) -> Self {
        Self { tensors, lengths: None }
    }

    /// The same inputs `[N, T, ...]` of samples with a length each, at most T: `[N]`, i64. What is
    /// behind the length of a sample is padding.
    #[must_use]
    pub fn with_lengths(self, lengths: Tensor) -> Self {
        Self { lengths: Some(lengths), ..self }
    }

    /// The input of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor)
    }

    /// Names of all inputs, in the order of `data.inputs`.
    pub fn names(&self) -> Vec<&str> {
        self.tensors.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// All inputs, in the order of `data.inputs`.
    pub fn tensors(&self) -> Vec<&Tensor> {
        self.tensors.iter().map(|(_, tensor)| tensor).collect()
    }

    /// The input, if there is one only.
    pub fn only(&self) -> Option<&Tensor> {
        match &self.tensors[..] {
            [(_, tensor)] => Some(tensor),
            _ => None,
        }
    }

    /// Lengths of the samples, `[N]`, i64; `None` where all have the same.
    pub fn lengths(&self) -> Option<&Tensor> {
        self.lengths.as_ref()
    }

    /// Where positions are a sample's own and no padding: `[N, T]`, bool, on the device of the
    /// lengths. `None` where all samples have the same length.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn mask(&self) -> Result<Option<Tensor>, TchError> {
        let (Some(lengths), Some((_, first))) = (&self.lengths, self.tensors.first()) else { return Ok(None) };
        let longest = first.size().get(1).copied().unwrap_or(1);
        let positions = Tensor::f_arange(longest, (Kind::Int64, lengths.device()))?;
        positions.f_unsqueeze(0)?.f_lt_tensor(&lengths.f_unsqueeze(1)?).map(Some)
    }
}

/// What goes from part to part of a model.
#[derive(Debug)]
pub struct State {
    /// Values that gradients go through, first dimension N; of the last part, the model's outputs.
    pub hidden: Tensor,
    /// Where positions are a sample's own: `[N, T]`, bool. Nothing is masked without.
    pub mask: Option<Tensor>,
    /// Position of each token in its sample, `[N, T]`, i64; counted from 0 without.
    pub positions: Option<Tensor>,
}

impl From<Tensor> for State {
    /// Without mask and positions.
    fn from(hidden: Tensor) -> Self {
        Self { hidden, mask: None, positions: None }
    }
}

impl State {
    /// The same mask and positions with other values.
    #[must_use]
    pub fn with_hidden(&self, hidden: Tensor) -> Self {
        let same = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::shallow_clone);
        Self { hidden, mask: same(&self.mask), positions: same(&self.positions) }
    }

    /// The same values as a leaf that gets a gradient.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn into_leaf(self) -> Result<Self, TchError> {
        Ok(Self { hidden: self.hidden.f_set_requires_grad(true)?, ..self })
    }
}
