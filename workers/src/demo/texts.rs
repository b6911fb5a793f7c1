//! A user's own texts as data of a zoo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mehl_soup::sweep::image_spec::ImageSpec;
use mehl_soup::sweep::metric::Metric;
use mehl_soup::sweep::spec::{ComputeSpec, DataSpec};
use mehl_soup::sweep::text_spec::TextSpec;
use mehl_soup::zoo::HashCache;
use serde_json::json;

use super::DemoError;
use super::splits::{self, NAMES};
use super::trainee::{Edge, Trainee};
use super::write::write;
use super::zoo::Material;
use crate::data::Split;
use crate::data::images::sources::Source;
use crate::data::text::{self, Written};
use crate::engine::text_facts;
use crate::objectives::{Classification, Objective};

/// Texts with classes, each once.
pub struct TextFile {
    path: PathBuf,
    rows: Vec<Written>,
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
}

/// The texts of a file, cut in splits.
pub struct Texts<'a> {
    file: &'a TextFile,
    splits: [Vec<usize>; 5],
    /// Hash of the texts and their labels.
    pub hash: String,
}

impl TextFile {
    /// Reads the texts. One that is there twice is used once.
    ///
    /// # Errors
    /// If a row cannot be used, equal texts have different labels, or there are fewer than two classes.
    pub fn open(path: &Path, tell: &mut dyn FnMut(&str)) -> Result<Self, DemoError> {
        let fault = |what: String| DemoError::Input(format!("{}: {what}", path.display()));
        let all = text::written(&Source::find(path)?, &data_spec(path, None))?;
        let before = all.len();
        let mut labels: BTreeMap<Vec<String>, String> = BTreeMap::new();
        let mut rows = Vec::new();
        for row in all {
            match labels.get(&row.texts) {
                None => {
                    labels.insert(row.texts.clone(), row.label.clone());
                    rows.push(row);
                }
                Some(label) if *label == row.label => {}
                Some(label) => {
                    return Err(fault(format!(
                        "expected one label for equal texts, found `{label}` and `{}` for `{:.60}`",
                        row.label, row.texts[0]
                    )));
                }
            }
        }
        if rows.len() < before {
            tell(&format!("{}: {} texts are copies of others and were skipped", path.display(), before - rows.len()));
        }
        let classes: BTreeSet<&String> = rows.iter().map(|row| &row.label).collect();
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        match &classes[..] {
            [] => Err(fault("expected texts of at least two classes, found no text".to_string())),
            [only] => Err(fault(format!("expected texts of at least two classes, found only `{only}`"))),
            _ => Ok(Self { path: path.to_path_buf(), rows, classes }),
        }
    }

    /// Cuts the texts in splits. `base_is_trained`: nothing is left to be trained on the base split, and ingredients are trained
    /// on it too.
    ///
    /// # Errors
    /// If a class has too few.
    pub fn cut(&self, seed: u64, base_is_trained: bool, tell: &mut dyn FnMut(&str)) -> Result<Texts<'_>, DemoError> {
        let number = |label: &String| self.classes.binary_search(label).unwrap_or(0) as i64;
        let labels: Vec<i64> = self.rows.iter().map(|row| number(&row.label)).collect();
        let mut splits = splits::stratified(&labels, self.classes.len(), seed).map_err(|(class, found)| {
            DemoError::Input(format!(
                "{}: class `{}`: expected at least {} different texts (one each for {}), found {found}",
                self.path.display(),
                self.classes[class],
                NAMES.len(),
                NAMES.join(", ")
            ))
        })?;
        if base_is_trained {
            let base = std::mem::take(&mut splits[0]);
            splits[1].extend(base);
            splits[1].sort_unstable();
        }
        let mut hasher = blake3::Hasher::new();
        for row in &self.rows {
            hasher.update(json!([row.texts, row.label]).to_string().as_bytes());
        }
        let sizes: Vec<String> = NAMES.iter().zip(&splits).map(|(name, of)| format!("{} {name}", of.len())).collect();
        tell(&format!("{} texts of {} classes: {}", self.rows.len(), self.classes.len(), sizes.join(", ")));
        Ok(Texts { file: self, splits, hash: hasher.finalize().to_hex().to_string() })
    }
}

impl Texts<'_> {
    /// Writes the sweep's splits to `data/*.jsonl`, and those of training to `training/*.jsonl`; what is there is kept.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), DemoError> {
        for (at, name) in NAMES.iter().enumerate() {
            let path = file(folder, at);
            if path.exists() || self.splits[at].is_empty() {
                continue;
            }
            let line = |&row: &usize| {
                let Written { texts, label } = &self.file.rows[row];
                let row = match &texts[..] {
                    [text, pair] => json!({ "text": text, "text_pair": pair, "label": label }),
                    texts => json!({ "text": texts.first(), "label": label }),
                };
                format!("{row}\n")
            };
            let content: String = self.splits[at].iter().map(line).collect();
            write(&path, content.as_bytes()).map_err(|error| match error {
                DemoError::Io { source, .. } => DemoError::Io { path: format!("{name}: {}", path.display()), source },
                other => other,
            })?;
        }
        Ok(())
    }

    /// What is trained with: the files that were written, tokenized as the model's folder says.
    ///
    /// # Errors
    /// If a file or the tokenizer is at fault.
    pub fn material(
        &self,
        folder: &Path,
        model: &Trainee,
        longest: usize,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Material, DemoError> {
        let cache = HashCache::from_environment();
        let facts = text_facts(model.zoo(), model.model(), cache.as_ref(), ComputeSpec::default_image_cache())
            .ok_or_else(|| DemoError::Input("expected a model that takes texts".to_string()))?;
        let positions = facts.positions.unwrap_or(longest);
        let spec = data_spec(folder, Some(longest.min(positions)));
        let wanted: Vec<usize> = [0, 1, 3].into_iter().filter(|&at| !self.splits[at].is_empty()).collect();
        let sources = wanted.iter().map(|&at| Source::find(&file(folder, at))).collect::<Result<Vec<_>, _>>()?;
        let loaded = text::load(&sources, &spec, &facts, &|found| Classification.read_targets(found), tell)?;
        loaded.notes.iter().for_each(|note| tell(note));
        let mut splits: BTreeMap<usize, Split> =
            wanted.into_iter().zip(loaded.splits.into_iter().map(|own| own.split)).collect();
        let mut take =
            |at: usize| splits.remove(&at).ok_or_else(|| DemoError::Input("a split has no texts".to_string()));
        let (train, select) = (take(1)?, take(3)?);
        // A base that needs no training has no split of its own.
        let base = take(0).or_else(|_| train.subset(&[]).map_err(DemoError::from))?;
        Ok(Material { base, train, select, edge: Edge::Nearest })
    }
}

fn file(folder: &Path, split: usize) -> PathBuf {
    let place = if split < 2 { "training" } else { "data" };
    folder.join(place).join(format!("{}.jsonl", NAMES[split]))
}

fn data_spec(learn: &Path, longest: Option<usize>) -> DataSpec {
    DataSpec {
        learn: learn.to_path_buf(),
        select: None,
        test: None,
        inputs: vec!["inputs".to_string()],
        labels: "labels".to_string(),
        select_fraction: 0.3,
        metric: Metric::LOSS,
        objective: None,
        scale: None,
        image: ImageSpec::default(),
        text: TextSpec { max_length: longest, ..TextSpec::default() },
        classes: None,
        skip_unreadable: false,
        allow_missing_classes: false,
    }
}
