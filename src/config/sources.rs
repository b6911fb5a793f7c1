//! The layers of a configuration: defaults, file, environment, flags. Each is checked by itself; of each key the last layer that has it wins.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use config::{File, FileFormat, Source, ValueKind};
use serde::{Serialize, Serializer};

use super::env_names;
use super::fault::Fault;
use super::settings::{Preset, SETTINGS, Setting, find};
use super::value::Value;
use crate::operator_file::OperatorFile;
use crate::sweep::parse::nearest;

/// Largest configuration file, in bytes.
const LARGEST: u64 = 1 << 20;

/// Where a value came from. Later ones win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said.
    Default,
    /// This file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// The layers, laid over each other, and what is wrong with them.
#[derive(Debug)]
pub struct Layers {
    found: BTreeMap<&'static str, Found>,
    /// In the order in which they were met.
    pub faults: Vec<Fault>,
}

impl Layers {
    /// The defaults.
    pub fn new() -> Self {
        let mut layers = Self { found: BTreeMap::new(), faults: Vec::new() };
        for setting in SETTINGS {
            if let Preset::Is(text) = setting.default {
                layers.take(setting, Origin::Default, setting.kind.of_text(text));
            }
        }
        layers
    }

    /// A file: TOML, YAML or JSON, by its name.
    pub fn file(&mut self, file: &OperatorFile, path: &Path) {
        let origin = Origin::File(path.to_path_buf());
        match read(file, path) {
            Ok(table) => self.table("", &table, &origin),
            Err(problem) => self.faults.push(Fault { key: String::new(), origin: Some(origin), problem }),
        }
    }

    fn table(&mut self, path: &str, table: &config::Map<String, config::Value>, origin: &Origin) {
        // The crate's tables have no order.
        let sorted: BTreeMap<_, _> = table.iter().collect();
        for (name, value) in sorted {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let is_section = SETTINGS.iter().any(|s| s.key.split_once('.').is_some_and(|(section, _)| section == key));
            match (&value.kind, find(&key)) {
                (kind, Some(setting)) => self.take(setting, origin.clone(), setting.kind.of_file(kind)),
                (ValueKind::Table(inner), None) if is_section => self.table(&key, inner, origin),
                // An empty section of YAML.
                (ValueKind::Nil, None) if is_section => {}
                (_, None) if is_section => {
                    let problem = "expected a table with keys".to_string();
                    self.faults.push(Fault { key, origin: Some(origin.clone()), problem });
                }
                _ => self.unknown(key, origin.clone()),
            }
        }
    }

    /// Variables; those of other programs are passed over.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let mut ours = BTreeMap::new();
        let mut server = None;
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            if let Some(key) = env_names::key_of(name) {
                ours.insert(key, (name.to_string(), value));
            } else if name == env_names::SERVER && !value.is_empty() {
                server = Some((name.to_string(), value));
            }
        }
        if let Some(server) = server {
            ours.entry("client.server".to_string()).or_insert(server);
        }
        for (key, (name, value)) in ours {
            self.text(&key, &value, Origin::Environment(name));
        }
    }

    /// Flags `section.key=value`, and then those with names of their own.
    pub fn flags<'a>(&mut self, set: impl IntoIterator<Item = &'a str>, named: &[(&str, String)]) {
        for assignment in set {
            match assignment.split_once('=') {
                Some((key, value)) => self.text(key.trim(), OsStr::new(value), Origin::Flag),
                None => self.faults.push(Fault {
                    key: "--set".to_string(),
                    origin: None,
                    // What there is may be a secret.
                    problem: "expected section.key=value, found no `=`".to_string(),
                }),
            }
        }
        for (key, value) in named {
            self.text(key, OsStr::new(value), Origin::Flag);
        }
    }

    fn text(&mut self, key: &str, value: &OsStr, origin: Origin) {
        match (find(key), value.to_str()) {
            (None, _) => self.unknown(key.to_string(), origin),
            (Some(setting), None) => self.take(setting, origin, Err("is not UTF-8".to_string())),
            (Some(setting), Some(text)) => self.take(setting, origin, setting.kind.of_text(text)),
        }
    }

    fn unknown(&mut self, key: String, origin: Origin) {
        let near = nearest(&key, SETTINGS.iter().map(|setting| setting.key)).unwrap_or_default();
        let near = match &origin {
            Origin::Environment(_) => env_names::of_key(near),
            _ => near.to_string(),
        };
        self.faults.push(Fault { key, origin: Some(origin), problem: format!("unknown key; did you mean `{near}`?") });
    }

    fn take(&mut self, setting: &'static Setting, origin: Origin, value: Result<Value, String>) {
        match value {
            Ok(value) => {
                self.found.insert(setting.key, Found { value, origin });
            }
            Err(problem) => {
                self.faults.push(Fault { key: setting.key.to_string(), origin: Some(origin), problem });
            }
        }
    }

    /// A value that is made from others, where nobody said.
    pub fn make(&mut self, key: &'static str, value: Value) {
        self.found.entry(key).or_insert(Found { value, origin: Origin::Default });
    }

    /// What a key is; `None` without a value, also where all values were at fault.
    pub fn get(&self, key: &str) -> Option<&Found> {
        self.found.get(key)
    }

    /// Of a value and the file that may hold it in its place, keeps the one of the later layer. Both in one layer contradict each other.
    pub fn settle(&mut self, given: &'static str, file: &'static str) {
        let (Some(a), Some(b)) = (self.found.get(given), self.found.get(file)) else { return };
        match a.origin.rank().cmp(&b.origin.rank()) {
            std::cmp::Ordering::Less => drop(self.found.remove(given)),
            std::cmp::Ordering::Greater => drop(self.found.remove(file)),
            std::cmp::Ordering::Equal => {
                let problem = format!("expected either this key or `{given}`, found both");
                self.faults.push(Fault { key: file.to_string(), origin: Some(b.origin.clone()), problem });
            }
        }
    }
}

/// The messages of parsers may hold a line of the file, and with it a secret: only what is known to hold none is passed on.
fn read(file: &OperatorFile, path: &Path) -> Result<config::Map<String, config::Value>, String> {
    let (format, name) = match path.extension().and_then(OsStr::to_str) {
        Some("toml") => (FileFormat::Toml, "TOML"),
        Some("yaml" | "yml") => (FileFormat::Yaml, "YAML"),
        Some("json") => (FileFormat::Json, "JSON"),
        _ => return Err("expected a file name that ends in .toml, .yaml, .yml or .json".to_string()),
    };
    let bytes = file.read(LARGEST).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_string())?;
    if text.trim().is_empty() {
        return Ok(config::Map::new());
    }
    File::from_str(&text, format).collect().map_err(|error| {
        let place = place(&error, &text).map(|(line, column)| format!(" at line {line}, column {column}"));
        format!("is not valid {name}{}", place.unwrap_or_default())
    })
}

/// Line and column of a syntax error, both from 1 on.
fn place(error: &config::ConfigError, text: &str) -> Option<(usize, usize)> {
    let config::ConfigError::FileParse { cause, .. } = error else { return None };
    if let Some(error) = cause.downcast_ref::<toml::de::Error>() {
        let before = text.get(..error.span()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        return Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1));
    }
    if let Some(error) = cause.downcast_ref::<serde_json::Error>() {
        return Some((error.line(), error.column()));
    }
    // YAML says both in words.
    let words = cause.to_string();
    let number = |name: &str| {
        let (_, rest) = words.rsplit_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    Some((number("line ")?, number("column ")?))
}
