//! What headers tell about a zoo, faults included: the report of `mehl-soup inspect`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::ingredient::Ingredient;
use super::layout::{Layout, TensorClass};
use super::mismatch::{Mismatch, compare};

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// In the order given.
    pub ingredients: Vec<InspectionEntry>,
    /// Every difference from the first ingredient that could be opened.
    pub mismatches: Vec<Mismatch>,
    /// Float tensors that are equal in all ingredients; `None` unless contents were read.
    pub frozen: Option<Vec<String>>,
    /// Tensors that are one parameter with an earlier one, and which; `None` unless contents were read.
    pub tied: Option<BTreeMap<String, String>>,
}

/// One ingredient of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InspectionEntry {
    /// File or folder.
    pub path: PathBuf,
    /// Why it cannot be opened, or `None`; then the rest is zero.
    pub fault: Option<String>,
    /// Number of tensors.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Elements by dtype.
    pub dtypes: BTreeMap<String, u64>,
}

/// Opens each ingredient and compares it with the first. Reads headers only; faults become part of the report.
pub fn inspect(paths: &[PathBuf]) -> Inspection {
    let mut first: Option<Ingredient> = None;
    let mut inspection = Inspection { ingredients: Vec::new(), mismatches: Vec::new(), frozen: None, tied: None };
    for path in paths {
        let mut entry = InspectionEntry {
            path: path.clone(),
            fault: None,
            tensors: 0,
            parameters: 0,
            bytes: 0,
            dtypes: BTreeMap::new(),
        };
        match Ingredient::open(path) {
            Err(error) => entry.fault = Some(error.to_string()),
            Ok(ingredient) => {
                for (_, info) in ingredient.tensors() {
                    entry.tensors += 1;
                    entry.parameters += info.numel() as u64;
                    *entry.dtypes.entry(info.dtype.to_string()).or_default() += info.numel() as u64;
                }
                entry.bytes = ingredient.total_bytes();
                match &first {
                    None => first = Some(ingredient),
                    Some(first) => inspection.mismatches.extend(compare(first, &ingredient)),
                }
            }
        }
        inspection.ingredients.push(entry);
    }
    inspection
}

impl Inspection {
    /// Whether all ingredients can be opened and agree.
    pub fn is_sound(&self) -> bool {
        !self.ingredients.is_empty() && self.mismatches.is_empty() && self.ingredients.iter().all(|i| i.fault.is_none())
    }

    /// Adds what contents tell.
    pub fn add_contents(&mut self, layout: &Layout) {
        let frozen = layout.tensors.iter().filter(|t| t.class == TensorClass::Frozen).map(|t| t.name.clone());
        let tied = layout.tensors.iter().filter_map(|t| Some((t.name.clone(), t.tied_to.clone()?)));
        self.frozen = Some(frozen.collect());
        self.tied = Some(tied.collect());
    }
}

/// The report as text for people.
pub fn render(inspection: &Inspection) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["ingredient", "tensors", "parameters", "bytes", "dtypes"]);
    for entry in &inspection.ingredients {
        let dtypes = entry.dtypes.iter().map(|(dtype, n)| format!("{dtype} {n}")).collect::<Vec<_>>().join(", ");
        table.add_row([
            entry.path.display().to_string(),
            entry.tensors.to_string(),
            entry.parameters.to_string(),
            entry.bytes.to_string(),
            entry.fault.as_ref().map_or(dtypes, |_| "cannot be opened".into()),
        ]);
    }
    let mut text = format!("{table}\n");
    let mut section = |title: &str, lines: Vec<String>| {
        let _ = writeln!(text, "\n{title}: {}", if lines.is_empty() { "none" } else { "" }.trim());
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    };
    section("faults", inspection.ingredients.iter().filter_map(|entry| entry.fault.clone()).collect());
    section("differences from the first", inspection.mismatches.iter().map(Mismatch::to_string).collect());
    if let Some(frozen) = &inspection.frozen {
        section("equal in all ingredients (frozen)", frozen.clone());
    }
    if let Some(tied) = &inspection.tied {
        section("tied", tied.iter().map(|(name, to)| format!("{name} = {to}")).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::testing::{f32s, open_zoo, write_file};

    #[test]
    fn faults_and_differences_are_reported_together() {
        let root = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b", "c"].map(|n| root.path().join(format!("{n}.safetensors"))).to_vec();
        write_file(&paths[0], &[f32s("w", &[2], &[1.0, 2.0])]);
        std::fs::write(&paths[1], "nonsense").unwrap();
        write_file(&paths[2], &[f32s("v", &[1], &[1.0])]);
        let report = inspect(&paths);
        assert!(!report.is_sound());
        assert_eq!((report.ingredients[0].parameters, report.ingredients[0].bytes), (2, 8));
        assert!(report.ingredients[1].fault.as_ref().unwrap().contains("b.safetensors"));
        assert_eq!(report.mismatches.len(), 2);
        let text = render(&report);
        assert!(text.contains("tensor `v`: expected none, found one"), "{text}");
        assert!(text.contains("tensor `w`: expected one, found none"), "{text}");
    }

    #[test]
    fn contents_are_added_when_they_were_read() {
        let model = |x| vec![f32s("a", &[2], &[x, x]), f32s("b", &[2], &[x, x]), f32s("z", &[1], &[0.0])];
        let (_root, zoo) = open_zoo(&[model(1.0), model(2.0)]);
        let paths: Vec<PathBuf> = zoo.ingredients().iter().map(|i| i.path().to_path_buf()).collect();
        let mut report = inspect(&paths);
        assert!(report.is_sound());
        report.add_contents(&Layout::new(&zoo, &zoo.hash(None, &mut |_, _| {}).unwrap()).unwrap());
        let text = render(&report);
        assert!(text.contains("b = a") && text.contains("(frozen): \n  z"), "{text}");
    }
}
