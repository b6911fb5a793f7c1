//! Reads a specification: TOML, YAML or JSON in, a [`Spec`] out, or all of its faults with their places.
//!
//! | module | does |
//! |---|---|
//! | `document`, `json` | text to a tree with places; JSON that YAML lacks, to one without |
//! | `section` | takes keys out of a table, collects faults |
//! | `inputs`, `image`, `text`, `soup`, `search`, `compute` | one part of the specification each |
//! | `distribution` | the values of one searched field |
//! | `fault` | what a fault is and how it reads |

mod compute;
mod distribution;
mod document;
mod fault;
mod image;
mod inputs;
mod json;
mod node;
mod search;
mod section;
mod soup;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use self::fault::Faults;
use self::section::Section;
use self::soup::Contradiction;
use super::spec::{Overrides, Spec};
use crate::untrusted::{self, LARGEST_SPEC};

pub use self::document::Format;
pub use self::fault::{Fault, Place, Problem, SpecError, nearest};
pub(super) use self::soup::TOP;
pub use self::soup::resolve_soup;

/// Paths of the keys that were asked for on this thread since the last call.
#[cfg(test)]
pub(super) fn asked_keys() -> std::collections::BTreeSet<String> {
    section::ASKED.take()
}

/// Reads the specification in a file, whose ending (`.toml`, `.yaml`, `.yml`, `.json`) tells its format. Relative paths in it
/// are taken from its folder; whether they exist is not looked at.
///
/// # Errors
/// If the file cannot be read, or with every fault that the specification has.
pub fn parse_spec(path: &Path) -> Result<Spec, SpecError> {
    let name = path.display().to_string();
    let refused =
        |problem| SpecError { file: name.clone(), faults: vec![Fault { place: None, key: String::new(), problem }] };
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let format = Format::of_extension(&extension).ok_or_else(|| {
        let expected = "a file that ends in .toml, .yaml, .yml or .json".to_string();
        refused(Problem::Value { expected, found: format!("`.{extension}`"), nearest: None })
    })?;
    let unreadable =
        |error: std::io::Error| refused(Problem::Unreadable(format!("cannot read the specification: {error}")));
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    if absolute.to_str().is_none() {
        // Results and stored specifications hold paths as text.
        return Err(refused(Problem::Unreadable("cannot use a specification whose path is not UTF-8".into())));
    }
    let text = untrusted::read(&absolute, LARGEST_SPEC).map_err(unreadable)?;
    let text = String::from_utf8(text)
        .map_err(|e| refused(Problem::Unreadable(format!("cannot read the specification: not UTF-8: {e}"))))?;
    let stem = absolute.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    parse(&text, format, absolute.parent().unwrap_or(&absolute), &name, &stem)
}

/// Reads a specification from a text. `folder` is what relative paths in it are taken from; the sweep is named `sweep` unless the text says otherwise.
///
/// # Errors
/// With every fault that the specification has.
pub fn parse_spec_text(text: &str, format: Format, folder: &Path) -> Result<Spec, SpecError> {
    parse(text, format, folder, "sweep", "sweep")
}

fn parse(text: &str, format: Format, folder: &Path, file: &str, default_name: &str) -> Result<Spec, SpecError> {
    let faults = Faults::default();
    let Some(root) = document::read(text, format, &faults) else {
        return Err(faults.into_error(file));
    };
    let mut top = Section::of_node("", &root, &faults);
    let name = top.text("name", "a name").unwrap_or_else(|| default_name.to_string());
    let seed = top.integer("seed", 0..=i64::MAX).unwrap_or(0) as u64;
    let zoo = inputs::zoo(top.section("zoo"), folder);
    let data = inputs::data(top.section("data"), folder);

    let mut soup_section = top.section("soup");
    let search_section = top.section("search");
    let given = soup_section.fields().to_vec();
    // Where the method is searched, that of `[soup]` may never be used, so nothing is contradicted.
    let contradiction =
        if search::searches_method(&search_section) { Contradiction::Tolerated } else { Contradiction::Fault };
    let soup = soup::read(&mut soup_section, seed, &contradiction);
    soup_section.finish();
    let base = search::Base { soup: given, seed, resolved: soup.clone() };
    let soup_given: Overrides =
        base.soup.iter().filter_map(|field| Some((field.key.clone(), field.node.to_json()?))).collect();
    let search = search::search(search_section, &base, &faults);
    let needs_base = search::methods_of(&search, soup.method).into_iter().find(|method| method.facts().needs_base);
    if zoo.base.is_none()
        && let Some(method) = needs_base
    {
        faults.add(None, "zoo.base", Problem::Missing(format!("a path (required with method `{method}`)")));
    }

    let compute = compute::compute(top.section("compute"));
    top.finish();
    faults.into_result(file)?;
    Ok(Spec { name, seed, zoo, data, soup, soup_given, search, compute })
}
