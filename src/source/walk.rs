//! Patterns, for a source that can only list folders.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::{FileSource, GlobError};

/// No wildcard matches a hidden entry. Letters in parts with wildcards match in
/// either case.
pub(super) const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: false, require_literal_separator: true, require_literal_leading_dot: true };

/// Whether a part of a pattern has wildcards.
pub(super) fn is_wild(part: &str) -> bool {
    part.contains(['*', '?', '['])
}

/// Paths of a source that a whole pattern matches, sorted. Folders are listed only where a wildcard
/// needs it.
///
/// # Errors
/// If the pattern is invalid, or the source refuses a path that it leads to.
pub(super) fn glob<S: FileSource + ?Sized>(source: &S, pattern: &Path) -> Result<Vec<PathBuf>, GlobError> {
    let text = pattern.to_str().ok_or_else(|| GlobError::Pattern("it is not UTF-8".to_string()))?;
    Pattern::new(text).map_err(|fault| GlobError::Pattern(fault.msg.to_string()))?;
    source.check(pattern).map_err(|fault| GlobError::Io { path: pattern.to_path_buf(), source: fault })?;
    let parts: Vec<Component<'_>> = pattern.components().collect();
    let mut found = Vec::new();
    expand(source, PathBuf::new(), &parts, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Adds what is below `place` and matches `rest`.
fn expand<S: FileSource + ?Sized>(
    source: &S,
    place: PathBuf,
    rest: &[Component<'_>],
    found: &mut Vec<PathBuf>,
) -> Result<(), GlobError> {
    let Some((part, rest)) = rest.split_first() else {
        if source.has(&place) {
            found.push(place);
        }
        return Ok(());
    };
    let text = part.as_os_str().to_str().unwrap_or_default();
    if !is_wild(text) {
        return expand(source, place.join(part), rest, found);
    }
    if !source.is_folder(&place) {
        return Ok(());
    }
    let is_any_depth = text == "**";
    let pattern = Pattern::new(text).map_err(|fault| GlobError::Pattern(fault.msg.to_string()))?;
    let matches = |name: &OsStr| {
        let is_match = |name: &str| is_any_depth || pattern.matches_with(name, OPTIONS);
        name.to_str().is_some_and(|name| !name.starts_with('.') && is_match(name))
    };
    if is_any_depth {
        expand(source, place.clone(), rest, found)?;
    }
    for entry in source.list(&place).map_err(|source| GlobError::Io { path: place.clone(), source })? {
        if !entry.file_name().is_some_and(matches) {
            continue;
        }
        source.check(&entry).map_err(|fault| GlobError::Io { path: entry.clone(), source: fault })?;
        match is_any_depth {
            // The same part again, for folders within this one.
            true if source.is_folder(&entry) => {
                let again: Vec<Component<'_>> = std::iter::once(*part).chain(rest.iter().copied()).collect();
                expand(source, entry, &again, found)?;
            }
            true => {}
            false => expand(source, entry, rest, found)?,
        }
    }
    Ok(())
}
