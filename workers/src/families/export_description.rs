//! What `python -m mehl_soup export` writes beside a graph: `export.json`, and `BLAKE3SUMS` with the hashes of both.
//!
//! `docs/formats.md` has the fields.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::untrusted::LARGEST_CONFIG;
use serde::Deserialize;
use tch::TchError;

use super::FamilyError;
use super::state::{ExpectedInput, Extent, InputKind};

/// Name of the description, by which a folder is known as an export.
const DESCRIPTION: &str = "export.json";
const GRAPH: &str = "graph.pt";
const SUMS: &str = "BLAKE3SUMS";
const FORMAT: &str = "mehl-soup export";
const VERSION: u32 = 1;
/// Largest graph, in bytes. It holds no weights, but constants.
const LARGEST_GRAPH: u64 = 4 << 30;
/// The command that makes an export.
pub(super) const COMMAND: &str = "python -m mehl_soup export";

/// An exported folder, whose files are those that were written together.
pub(super) struct Export {
    /// The graph's file.
    pub graph_path: PathBuf,
    /// What is in it.
    pub graph: Vec<u8>,
    /// Its blake3, in hexadecimal.
    pub graph_hash: String,
    /// The blake3 of the description.
    pub description_hash: String,
    /// The description.
    pub description: Description,
}

/// The fields of `export.json` that are used here.
#[derive(Debug, Deserialize)]
pub(super) struct Description {
    format: String,
    version: u32,
    inputs: Vec<DescribedInput>,
    /// What the graph gives.
    #[serde(default)]
    pub outputs: Outputs,
    /// Number of logits, or width of an embedding.
    pub classes: i64,
    /// Name on disk of each parameter of the graph.
    pub tensors: BTreeMap<String, String>,
    /// Names on disk of running means and variances.
    pub statistics: BTreeSet<String>,
    /// Names on disk of other values that no gradient goes to.
    pub buffers: BTreeSet<String>,
    /// Names on disk of what the library does not load.
    pub unused: BTreeSet<String>,
    /// BLAKE3 of tensors on disk that are constants of the graph.
    #[serde(default)]
    pub constants: BTreeMap<String, String>,
    /// Fewest samples for statistics of a batch.
    pub least_batch: i64,
    /// Whether the graph has methods in bf16, and what they take in f32.
    #[serde(default)]
    pub bf16: Option<DescribedBf16>,
    /// Versions of what made the graph.
    pub versions: BTreeMap<String, String>,
}

/// What a graph gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outputs {
    /// A number for each class.
    #[default]
    Logits,
    /// A vector for each text.
    Embeddings,
}

/// How the graph's methods in bf16 are called.
#[derive(Debug, Deserialize)]
pub(super) struct DescribedBf16 {
    /// Names on disk of the parameters that they take in f32; they take all others in bf16.
    pub in_f32: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct DescribedInput {
    name: String,
    dtype: String,
    dimensions: Vec<DescribedDimension>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DescribedDimension {
    Fixed(i64),
    Between { least: i64, most: i64 },
    Batch {},
}

impl Description {
    /// What the graph takes.
    pub fn inputs(&self) -> Vec<ExpectedInput> {
        let extent = |dimension: &DescribedDimension| match dimension {
            DescribedDimension::Fixed(size) => Some(Extent { least: *size, most: *size }),
            DescribedDimension::Between { least, most } => Some(Extent { least: *least, most: *most }),
            DescribedDimension::Batch {} => None,
        };
        let input = |described: &DescribedInput| ExpectedInput {
            name: Some(described.name.clone()),
            kind: if described.dtype.starts_with("float") { InputKind::Float } else { InputKind::Integer },
            dimensions: described.dimensions.iter().filter_map(extent).collect(),
            optional: false,
        };
        self.inputs.iter().map(input).collect()
    }
}

/// Reads and checks a folder; `None` if it is no export.
///
/// # Errors
/// If a file is missing, changed or of another version.
pub(super) fn read(folder: &Path) -> Result<Option<Export>, FamilyError> {
    let path = folder.join(DESCRIPTION);
    let fault = |path: &Path, what: String| FamilyError::Config { file: path.display().to_string(), what };
    let text = match source::of(&path).read(&path, LARGEST_CONFIG) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(fault(&path, error.to_string())),
    };
    let read = |name: &str, limit| {
        let path = folder.join(name);
        source::of(&path)
            .read(&path, limit)
            .map_err(|error| fault(&path, format!("{error}; make the folder again with `{COMMAND}`")))
    };
    let (sums, graph) = (read(SUMS, LARGEST_CONFIG)?, read(GRAPH, LARGEST_GRAPH)?);
    let sums = String::from_utf8_lossy(&sums);
    let mut hashes = Vec::new();
    for (name, content) in [(DESCRIPTION, &text), (GRAPH, &graph)] {
        let found = blake3::hash(content).to_hex().to_string();
        let stated = sums.lines().find_map(|line| line.split_once("  ").filter(|(_, of)| *of == name));
        match stated {
            Some((hash, _)) if hash == found => hashes.push(found),
            _ => {
                let expected = stated.map_or("none", |(hash, _)| hash);
                return Err(fault(
                    &folder.join(name),
                    format!(
                        "was changed after the export: expected blake3 {expected} as in {SUMS}, found {found}; \
                         make the folder again with `{COMMAND}`"
                    ),
                ));
            }
        }
    }
    let [description_hash, graph_hash] = <[String; 2]>::try_from(hashes).unwrap_or_default();
    let description: Description = serde_json::from_slice(&text)
        .map_err(|error| fault(&path, format!("is no description of an export: {error}")))?;
    if description.format != FORMAT || description.version != VERSION {
        return Err(fault(
            &path,
            format!(
                "expected `{FORMAT}` of version {VERSION}, found `{}` of version {}; make the folder again with `{COMMAND}`",
                description.format, description.version
            ),
        ));
    }
    Ok(Some(Export { graph_path: folder.join(GRAPH), graph, graph_hash, description_hash, description }))
}

/// Whether a text is in a file.
pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What a file is that libtorch does not take as a module, in words.
pub(super) fn what_else(bytes: &[u8]) -> &'static str {
    if !bytes.starts_with(b"PK") {
        return "a file that torch did not write as an archive";
    }
    if holds(bytes, "serialized_exported_program") || holds(bytes, "models/model.json") {
        return "a program of torch.export, which libtorch cannot run here";
    }
    "a file of torch.save (a state dict or a pickled model)"
}

/// To be used in `map_err`: an error of libtorch about a file.
pub(super) fn torch_fault(path: &Path) -> impl Fn(TchError) -> FamilyError {
    let file = path.display().to_string();
    move |source| FamilyError::Torch { file: file.clone(), source }
}
