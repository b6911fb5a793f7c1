//! How ingredients differ where they must not.

use std::fmt;
use std::path::PathBuf;

use safetensors::Dtype;
use serde::Serialize;

use super::ingredient::Ingredient;

/// Lines that an error message shows; the rest is counted.
const LINES: usize = 20;

/// One difference between an ingredient and the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mismatch {
    /// The ingredient's file or folder.
    pub path: PathBuf,
    /// The tensor.
    pub tensor: String,
    /// What differs.
    pub difference: Difference,
}

/// What differs; `expected` is what the first ingredient has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The first ingredient has the tensor, this one does not.
    Missing,
    /// This ingredient has the tensor, the first does not.
    Extra,
    /// Shapes differ.
    Shape {
        /// The first ingredient's.
        expected: Vec<usize>,
        /// This ingredient's.
        found: Vec<usize>,
    },
    /// Dtypes differ.
    Dtype {
        /// The first ingredient's.
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
                write!(f, "expected the same contents, found others ({dtype} is copied, never mixed)")
            }
        }
    }
}

/// All differences of a zoo from its first ingredient; never empty inside an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatches {
    /// File or folder of the first ingredient.
    pub first: PathBuf,
    /// The differences, by ingredient and then tensor.
    pub list: Vec<Mismatch>,
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ingredients differ from the first, {}:", self.first.display())?;
        for mismatch in self.list.iter().take(LINES) {
            write!(f, "\n  {mismatch}")?;
        }
        if self.list.len() > LINES {
            write!(f, "\n  and {} more", self.list.len() - LINES)?;
        }
        Ok(())
    }
}

/// All differences in names, shapes and dtypes, by tensor name. Reads headers only.
pub(crate) fn compare(first: &Ingredient, other: &Ingredient) -> Vec<Mismatch> {
    let mut list = Vec::new();
    let mut found = |tensor: &str, difference| {
        list.push(Mismatch { path: other.path().to_path_buf(), tensor: tensor.to_string(), difference });
    };
    for (name, expected) in first.tensors() {
        let Some(info) = other.info(name) else {
            found(name, Difference::Missing);
            continue;
        };
        if info.shape != expected.shape {
            found(name, Difference::Shape { expected: expected.shape.clone(), found: info.shape.clone() });
        }
        if info.dtype != expected.dtype {
            found(name, Difference::Dtype { expected: expected.dtype, found: info.dtype });
        }
    }
    for name in other.tensor_names().filter(|name| first.info(name).is_none()) {
        found(name, Difference::Extra);
    }
    list.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    list
}
