//! How ingredients differ where they must not.

use std::fmt;
use std::path::PathBuf;

use safetensors::Dtype;
use serde::Serialize;

use super::element::is_mixable;
use super::ingredient::Ingredient;

/// Ingredients that an error message shows; the rest is counted.
const LINES: usize = 20;
/// Tensors that a line names; the rest is counted.
const NAMED: usize = 3;

/// One difference between an ingredient and the reference, which most others are like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// The ingredient's file or folder.
    pub path: PathBuf,
    /// The tensor.
    pub tensor: String,
    /// What differs.
    pub difference: Difference,
}

/// What differs; `expected` is what the reference has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The reference has the tensor, this ingredient does not.
    Missing,
    /// This ingredient has the tensor, the reference does not.
    Extra,
    /// Shapes differ.
    Shape {
        /// The reference's.
        expected: Vec<usize>,
        /// This ingredient's.
        found: Vec<usize>,
    },
    /// Dtypes differ, and are not both floating point.
    Dtype {
        /// The reference's.
        expected: Dtype,
        /// This ingredient's.
        found: Dtype,
    },
    /// Contents differ in a dtype that cannot be mixed.
    Contents {
        /// The dtype of both.
        dtype: Dtype,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: tensor `{}`: {}", self.path.display(), self.tensor, self.difference)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "expected one, found none"),
            Self::Extra => write!(f, "expected none, found one"),
            Self::Shape { expected, found } => write!(f, "expected shape {expected:?}, found {found:?}"),
            Self::Dtype { expected, found } => write!(f, "expected dtype {expected}, found {found}"),
            Self::Contents { dtype } => {
                write!(f, "expected the same contents, found different ones ({dtype} tensors are copied, not mixed)")
            }
        }
    }
}

/// All differences of a zoo from its reference; never empty inside an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatches {
    /// File or folder of the reference.
    pub reference: PathBuf,
    /// The differences, by ingredient and then tensor.
    pub list: Vec<Mismatch>,
}

impl Mismatches {
    /// One line an ingredient: how many tensors are missing, are not in the reference, and differ, with the first names of each.
    pub fn lines(&self) -> Vec<String> {
        lines(&self.list)
    }
}

/// One line an ingredient, of differences that are sorted by ingredient.
pub(crate) fn lines(differences: &[Mismatch]) -> Vec<String> {
    let of_one = |group: &[Mismatch]| {
        type IsKind = fn(&Difference) -> bool;
        let kinds: [(&str, IsKind); 5] = [
            ("missing", |difference| matches!(difference, Difference::Missing)),
            ("not in the others", |difference| matches!(difference, Difference::Extra)),
            ("of another shape", |difference| matches!(difference, Difference::Shape { .. })),
            ("of another dtype", |difference| matches!(difference, Difference::Dtype { .. })),
            ("with other contents", |difference| matches!(difference, Difference::Contents { .. })),
        ];
        let told = kinds.iter().filter_map(|(what, is_kind)| {
            let of_kind: Vec<&Mismatch> = group.iter().filter(|mismatch| is_kind(&mismatch.difference)).collect();
            let named = of_kind.iter().take(NAMED).map(|mismatch| match &mismatch.difference {
                Difference::Missing | Difference::Extra => format!("`{}`", mismatch.tensor),
                difference => format!("`{}` {difference}", mismatch.tensor),
            });
            let more = if of_kind.len() > NAMED { ", ..." } else { "" };
            let count = of_kind.len();
            let tensors = if count == 1 { "tensor" } else { "tensors" };
            (count > 0).then(|| format!("{count} {tensors} {what} ({}{more})", named.collect::<Vec<_>>().join(", ")))
        });
        format!("{}: {}", group[0].path.display(), told.collect::<Vec<_>>().join(", "))
    };
    differences.chunk_by(|a, b| a.path == b.path).map(of_one).collect()
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "some ingredients differ from {}, which most others match:", self.reference.display())?;
        let lines = self.lines();
        for line in lines.iter().take(LINES) {
            write!(f, "\n  {line}")?;
        }
        if lines.len() > LINES {
            write!(f, "\n  and {} more ingredients", lines.len() - LINES)?;
        }
        write!(f, "\n  (mehl-soup inspect --verbose lists every tensor)")
    }
}

/// All differences in names, shapes and dtypes, by tensor name. Reads headers only.
///
/// Floating point dtypes may differ: they are mixed in one that holds them all.
pub(crate) fn compare(reference: &Ingredient, other: &Ingredient) -> Vec<Mismatch> {
    let mut list = Vec::new();
    let mut found = |tensor: &str, difference| {
        list.push(Mismatch { path: other.path().to_path_buf(), tensor: tensor.to_string(), difference });
    };
    for (name, expected) in reference.tensors() {
        let Some(info) = other.info(name) else {
            found(name, Difference::Missing);
            continue;
        };
        if info.shape != expected.shape {
            found(name, Difference::Shape { expected: expected.shape.clone(), found: info.shape.clone() });
        }
        if info.dtype != expected.dtype && !(is_mixable(info.dtype) && is_mixable(expected.dtype)) {
            found(name, Difference::Dtype { expected: expected.dtype, found: info.dtype });
        }
    }
    for name in other.tensor_names().filter(|name| reference.info(name).is_none()) {
        found(name, Difference::Extra);
    }
    list.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    list
}
