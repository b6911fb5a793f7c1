//! From a specification's patterns to paths of ingredients.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ZooError;
use super::folder::{NoWeights, find_weights, is_pickle};
use crate::source::{self, GlobError};

/// What patterns name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The ingredients, sorted by path, each once.
    pub paths: Vec<PathBuf>,
    /// What a glob matched besides, by path.
    pub passed_over: Vec<PassedOver>,
}

/// Something that a glob matched and that is no ingredient.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PassedOver {
    /// The file or folder.
    pub path: PathBuf,
    /// Why it is no ingredient.
    pub reason: String,
}

/// Lines about what was passed over; the rest is counted.
const LINES: usize = 20;

impl Found {
    /// What was passed over, one line each.
    pub fn notes(&self) -> Vec<String> {
        let line = |one: &PassedOver| format!("skipped: {}: {}", one.path.display(), one.reason);
        let mut lines: Vec<String> = self.passed_over.iter().take(LINES).map(line).collect();
        if self.passed_over.len() > LINES {
            lines.push(format!("skipped: {} more files and folders", self.passed_over.len() - LINES));
        }
        lines
    }
}

/// See [`Zoo::find`](super::Zoo::find).
pub(super) fn resolve(patterns: &[String], base: &Path) -> Result<Found, ZooError> {
    let base = source::of(base).absolute(base).map_err(ZooError::io(base))?;
    let (mut paths, mut passed_over) = (BTreeSet::new(), BTreeSet::new());
    for pattern in patterns {
        let plain = source::join(&base, Path::new(pattern));
        let files = source::of(&plain);
        files.check(&plain).map_err(ZooError::io(&plain))?;
        // What exists under that very name is meant, even if the name has brackets in it.
        if files.has(&plain) {
            match kind(&plain) {
                Ok(()) => drop(paths.insert(tidy(&plain)?)),
                Err(NoWeights::Other(reason) | NoWeights::Ambiguous(reason)) => {
                    return Err(ZooError::NotAnIngredient { path: plain, reason });
                }
            }
            continue;
        }
        let entries = glob_paths(pattern, &base)?;
        if entries.is_empty() {
            return Err(ZooError::NoMatch { pattern: pattern.clone(), base });
        }
        for entry in entries {
            match kind(&entry) {
                Ok(()) => drop(paths.insert(tidy(&entry)?)),
                Err(NoWeights::Other(reason)) => drop(passed_over.insert(PassedOver { path: tidy(&entry)?, reason })),
                Err(NoWeights::Ambiguous(reason)) => return Err(ZooError::NotAnIngredient { path: entry, reason }),
            }
        }
    }
    let found = Found { paths: paths.into_iter().collect(), passed_over: passed_over.into_iter().collect() };
    if found.paths.is_empty() && !patterns.is_empty() {
        let all = patterns.join("`, `");
        let mut reason = format!("`{all}` match no `.safetensors` file and no folder with a safetensors model");
        for line in found.notes() {
            reason.push_str("\n  ");
            reason.push_str(&line);
        }
        return Err(ZooError::NotAnIngredient { path: base, reason });
    }
    if found.paths.is_empty() {
        return Err(ZooError::Empty);
    }
    Ok(found)
}

/// Paths that a glob matches, sorted, all of them where this process may look. Relative patterns start from `base`.
///
/// # Errors
/// If the pattern is invalid, or leads where this process may not look.
pub fn glob_paths(pattern: &str, base: &Path) -> Result<Vec<PathBuf>, ZooError> {
    source::of(&source::join(base, Path::new(pattern))).glob(pattern, base).map_err(|fault| match fault {
        GlobError::Pattern(reason) => ZooError::Pattern { pattern: pattern.into(), reason },
        GlobError::Io { path, source } => ZooError::Io { path, source },
    })
}

/// Whether a file or folder is an ingredient, by names alone.
fn kind(path: &Path) -> Result<(), NoWeights> {
    if source::of(path).is_folder(path) {
        return find_weights(path).map(drop);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.extension().is_none_or(|ending| ending != "safetensors") {
        return Err(NoWeights::Other(if is_pickle(&name) {
            "a pickle. Pickles can run code and are never opened: convert it with `python -m mehl_soup convert`"
                .to_string()
        } else {
            "expected a `.safetensors` file or a folder with a safetensors model".to_string()
        }));
    }
    if name.starts_with("adapter_model") {
        return Err(NoWeights::Other(
            "the weights of an adapter, not of a model: merge it into its base model first".to_string(),
        ));
    }
    Ok(())
}

/// The path with its folder resolved, so that two spellings are one ingredient; its own name stays, even of a link.
fn tidy(path: &Path) -> Result<PathBuf, ZooError> {
    let files = source::of(path);
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(files.canonical(parent).map_err(ZooError::io(path))?.join(name)),
        _ => files.canonical(path).map_err(ZooError::io(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::zoo::testing::{f32s, write_file};

    fn zoo() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["zoo/b", "zoo/a", "zoo/.hidden", "zoo[1]/c"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            write_file(&root.path().join(folder).join("model.safetensors"), &[f32s("w", &[1], &[1.0])]);
        }
        fs::create_dir(root.path().join("zoo/no-model")).unwrap();
        fs::write(root.path().join("zoo/notes.txt"), "").unwrap();
        root
    }

    fn names(root: &Path, patterns: &[&str]) -> Result<Vec<String>, ZooError> {
        let patterns: Vec<String> = patterns.iter().map(|p| p.to_string()).collect();
        let root = root.canonicalize().unwrap();
        let strip = |p: PathBuf| p.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        Ok(resolve(&patterns, &root)?.paths.into_iter().map(strip).collect())
    }

    #[test]
    fn matches_are_sorted_and_given_once_and_what_is_no_ingredient_is_passed_over() {
        let root = zoo();
        let found = names(root.path(), &["zoo/b", "zoo/*", "./zoo/../zoo/a", "zoo/a"]).unwrap();
        assert_eq!(found, ["zoo/a", "zoo/b"]);
        let all = resolve(&["zoo/*".to_string()], root.path()).unwrap().notes();
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(
            all[0].contains("zoo/no-model: the folder is empty") && all[1].contains("zoo/notes.txt: expected"),
            "{all:?}"
        );
        assert_eq!(names(root.path(), &["zoo/*/*.safetensors"]).unwrap().len(), 2);
    }

    #[test]
    fn brackets_in_names_are_no_wildcards_where_they_exist() {
        let root = zoo();
        assert_eq!(names(root.path(), &["zoo[1]/c"]).unwrap(), ["zoo[1]/c"]);
        assert_eq!(names(&root.path().join("zoo[1]"), &["*"]).unwrap(), ["c"]);
    }

    #[test]
    fn every_pattern_must_match_and_something_must_remain() {
        let root = zoo();
        let error = |patterns: &[&str]| names(root.path(), patterns).unwrap_err();
        assert!(matches!(error(&["zoo/*", "other/*"]), ZooError::NoMatch { pattern, .. } if pattern == "other/*"));
        assert!(matches!(error(&["absent"]), ZooError::NoMatch { pattern, .. } if pattern == "absent"));
        assert!(matches!(error(&["zoo/notes.txt"]), ZooError::NotAnIngredient { .. }));
        assert!(matches!(error(&["zoo/no-model", "zoo/*"]), ZooError::NotAnIngredient { .. }));
        assert!(matches!(error(&["zoo/no*"]), ZooError::NotAnIngredient { .. }));
        assert!(matches!(error(&["zoo/***"]), ZooError::Pattern { .. }));
        assert!(matches!(error(&[]), ZooError::Empty));
    }
}
