//! What a zoo holds, from file headers alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::error::ZooError;
use super::ingredient::Ingredient;
use super::mismatches;

/// The report of `mehl-soup inspect`.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// `model_type` of the first ingredient's `config.json`.
    pub model_type: Option<String>,
    /// One row an ingredient.
    pub ingredients: Vec<Row>,
}

/// One ingredient.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Absolute path.
    pub path: PathBuf,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of their elements.
    pub parameters: usize,
    /// Bytes of their contents.
    pub bytes: usize,
    /// Tensors of each dtype.
    pub dtypes: BTreeMap<String, usize>,
    /// What differs from the first ingredient.
    pub mismatches: Vec<String>,
}

/// Reads the headers of all ingredients.
///
/// # Errors
/// If one cannot be opened; that they differ is no error here.
pub fn inspect(paths: &[PathBuf]) -> Result<Inspection, ZooError> {
    let ingredients = paths.iter().map(|path| Ingredient::open(path)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = ingredients.first() else { return Err(ZooError::Empty("zoo".to_string())) };
    let rows = ingredients
        .iter()
        .enumerate()
        .map(|(i, ingredient)| {
            let mut row = Row {
                path: ingredient.path().to_path_buf(),
                tensors: 0,
                parameters: 0,
                bytes: 0,
                dtypes: BTreeMap::new(),
                mismatches: if i == 0 { vec![] } else { mismatches(first, ingredient) },
            };
            for info in ingredient.tensor_names().filter_map(|name| ingredient.info(name)) {
                let elements: usize = info.shape.iter().product();
                row.tensors += 1;
                row.parameters += elements;
                row.bytes += elements * info.dtype.bitsize() / 8;
                *row.dtypes.entry(format!("{:?}", info.dtype)).or_insert(0) += 1;
            }
            row
        })
        .collect();
    let model_type = first.config().and_then(|c| c.get("model_type")?.as_str().map(str::to_string));
    Ok(Inspection { model_type, ingredients: rows })
}

impl Inspection {
    /// For people.
    pub fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["ingredient", "tensors", "parameters", "MB", "dtypes", "differences"]);
        for row in &self.ingredients {
            let dtypes: Vec<String> = row.dtypes.iter().map(|(dtype, n)| format!("{dtype} {n}")).collect();
            table.add_row([
                row.path.display().to_string(),
                row.tensors.to_string(),
                row.parameters.to_string(),
                format!("{:.1}", row.bytes as f64 / 1e6),
                dtypes.join(", "),
                row.mismatches.len().to_string(),
            ]);
        }
        let mut text = table.to_string();
        for mismatch in self.ingredients.iter().flat_map(|row| &row.mismatches) {
            // Writing to a string does not fail.
            let _ = write!(text, "\n{mismatch}");
        }
        text
    }
}
