//! Reading a specification: TOML, YAML or JSON. All faults are told at once, each with its place.

mod node;
mod section;
mod soup;
mod space;

use std::fmt;
use std::path::{Path, PathBuf};

use node::{Node, Place, Value};
pub use section::Fault;
use section::{Faults, Section};

use super::spec::{ComputeSpec, DataSpec, Family, Metric, Overrides, Spec, ZooSpec};

pub(super) use soup::resolve as resolve_soup;

/// How a specification is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// TOML.
    Toml,
    /// YAML, of which JSON is a part.
    Yaml,
}

/// A specification with faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// The file.
    pub file: String,
    /// What is wrong; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            f.write_str(&self.file)?;
            if fault.place.line > 0 {
                write!(f, ":{}:{}", fault.place.line, fault.place.column)?;
            }
            let space = if fault.key.is_empty() { "" } else { " " };
            write!(f, ": {}{space}{}", fault.key, fault.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}

/// Reads a specification from a file; its ending says how it is written (`.toml`, `.yaml`, `.yml`, `.json`).
///
/// Paths in it are taken from the file's folder. Whether they exist is not looked at.
///
/// # Errors
/// All faults at once.
pub fn parse_spec(path: &Path) -> Result<Spec, SpecError> {
    let file = path.display().to_string();
    let fault = |what: String| SpecError {
        file: file.clone(),
        faults: vec![Fault { place: Place::default(), key: String::new(), what }],
    };
    let syntax = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => Syntax::Toml,
        Some("yaml" | "yml" | "json") => Syntax::Yaml,
        _ => return Err(fault("expected a file that ends in .toml, .yaml, .yml or .json".to_string())),
    };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let base = std::path::absolute(path).map_err(|error| fault(error.to_string()))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("sweep");
    parse_spec_text(&text, syntax, base.parent().unwrap_or(Path::new("/")), stem)
        .map_err(|faults| SpecError { file: file.clone(), faults })
}

/// Reads a specification from a text; `base` is the absolute folder its paths are taken from, `name` its name if it states none.
///
/// # Errors
/// All faults at once, in the text's order.
pub fn parse_spec_text(text: &str, syntax: Syntax, base: &Path, name: &str) -> Result<Spec, Vec<Fault>> {
    let parsed = match syntax {
        Syntax::Toml => node::from_toml(text),
        Syntax::Yaml => node::from_yaml(text),
    };
    let root = parsed.map_err(|error| vec![Fault { place: error.place, key: String::new(), what: error.what }])?;
    let mut faults = Faults::default();
    let spec = read(&root, base, name, &mut faults);
    if faults.0.is_empty() {
        return Ok(spec);
    }
    faults.0.sort_by_key(|fault| fault.place);
    Err(faults.0)
}

fn read(root: &Node, base: &Path, name: &str, faults: &mut Faults) -> Spec {
    let mut section = Section::new("", Some(root), faults);
    let name = section.text("name", faults).unwrap_or(name).to_string();
    let seed = section.whole("seed", 0, faults).unwrap_or(0);
    let zoo = read_zoo(section.get("zoo"), base, faults);
    let data = read_data(section.get("data"), base, faults);
    let soup_node = section.get("soup");
    let search_node = section.get("search");
    let compute = read_compute(section.get("compute"), faults);
    section.finish(faults);
    let soup_given: Overrides = match soup_node.map(|node| &node.value) {
        Some(Value::Table(fields)) => fields.iter().map(|(key, _, value)| (key.clone(), value.to_json())).collect(),
        _ => Overrides::new(),
    };
    let search = space::read(search_node, &soup_given, faults);
    let searched = search.space.iter().any(|(key, _)| key == "method" || key == "layer_groups")
        || search.points.iter().any(|p| p.contains_key("method") || p.contains_key("layer_groups"));
    let soup = soup::read(soup_node, seed, searched, faults);
    Spec { name, seed, zoo, data, soup, soup_given, search, compute }
}

fn absolute(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}

fn read_zoo(node: Option<&Node>, base: &Path, faults: &mut Faults) -> ZooSpec {
    let mut section = Section::new("zoo", node, faults);
    let ingredients = section.texts("ingredients", faults);
    if ingredients.is_none() && section.get("ingredients").is_none() {
        section.missing("ingredients", faults);
    }
    let words = [("auto", None), ("vit", Some(Family::Vit)), ("torchscript", Some(Family::Torchscript))];
    let family = section.word("family", &words, faults).flatten();
    let place = section.get("architecture").map(|node| node.place);
    let architecture = section.text("architecture", faults).map(|path| absolute(base, path));
    match (family, place) {
        (Some(Family::Torchscript), None) => section.missing("architecture", faults),
        (Some(Family::Torchscript), _) | (_, None) => {}
        (_, Some(place)) => {
            faults.add(place, "zoo.architecture", "expected only with family = \"torchscript\"");
        }
    }
    let top = section.whole("top", 1, faults).map(|top| top as usize);
    section.finish(faults);
    let ingredients = ingredients.unwrap_or_default();
    let ingredients =
        ingredients.iter().map(|pattern| absolute(base, pattern).to_string_lossy().into_owned()).collect();
    ZooSpec { ingredients, family, architecture, top }
}

fn read_data(node: Option<&Node>, base: &Path, faults: &mut Faults) -> DataSpec {
    let mut section = Section::new("data", node, faults);
    let learn = section.text("learn", faults).map(|path| absolute(base, path));
    if learn.is_none() && section.get("learn").is_none() {
        section.missing("learn", faults);
    }
    let data = DataSpec {
        learn: learn.unwrap_or_default(),
        select: section.text("select", faults).map(|path| absolute(base, path)),
        test: section.text("test", faults).map(|path| absolute(base, path)),
        inputs: section.texts("inputs", faults).unwrap_or_else(|| vec!["inputs".to_string()]),
        labels: section.text("labels", faults).unwrap_or("labels").to_string(),
        select_fraction: section
            .number("select_fraction", |v| v > 0.0 && v < 1.0, "a number between 0 and 1", faults)
            .unwrap_or(0.3),
        metric: section
            .word("metric", &[("loss", Metric::Loss), ("accuracy", Metric::Accuracy)], faults)
            .unwrap_or(Metric::Loss),
    };
    section.finish(faults);
    data
}

fn read_compute(node: Option<&Node>, faults: &mut Faults) -> ComputeSpec {
    let mut section = Section::new("compute", node, faults);
    let place = section.get("devices").map(|node| node.place);
    let devices = section.texts("devices", faults).unwrap_or_else(|| vec!["cpu".to_string()]);
    for device in &devices {
        let numbered = device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u16>().is_ok());
        if !matches!(device.as_str(), "cpu" | "cuda") && !numbered {
            let what = format!("expected cpu, cuda or cuda:N, found `{device}`");
            faults.add(place.unwrap_or_default(), "compute.devices", what);
        }
    }
    let memory_bytes = section.get("memory").and_then(|node| {
        let bytes = match &node.value {
            Value::Int(bytes) => u64::try_from(*bytes).ok().filter(|bytes| *bytes > 0),
            Value::Text(text) => bytes_of(text),
            _ => None,
        };
        if bytes.is_none() {
            let what = format!("expected bytes, or a text such as 8GiB, found {}", node.shown());
            faults.add(node.place, "compute.memory", what);
        }
        bytes
    });
    let compute = ComputeSpec {
        devices,
        threads: section.whole("threads", 1, faults).map(|n| n as usize),
        memory_bytes,
        checkpoint_seconds: section
            .number("checkpoint_seconds", |v| v >= 0.0, "a number of at least 0", faults)
            .unwrap_or(10.0),
        score_batch: section.whole("score_batch", 1, faults).unwrap_or(256) as usize,
    };
    section.finish(faults);
    compute
}

/// `8GiB`, `500 MB`.
fn bytes_of(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let factor: u64 = match unit.trim() {
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes >= 1.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests;
