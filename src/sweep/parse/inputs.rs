//! `[zoo]` and `[data]`.

use std::path::{Path, PathBuf};

use super::fault::Problem;
use super::section::Section;
use super::{image, text};
use crate::source;
use crate::sweep::metric::Metric;
use crate::sweep::objective::ObjectiveName;
use crate::sweep::spec::{DataSpec, Family, ZooSpec};

/// Reads `[zoo]`; paths and globs become absolute against `base`.
pub(super) fn zoo(mut section: Section<'_>, base: &Path) -> ZooSpec {
    const INGREDIENTS: &str = "a path or glob";
    if section.field("ingredients").is_none() {
        section.missing("ingredients", "a list of paths or globs");
    }
    let ingredients = section.texts("ingredients", INGREDIENTS).unwrap_or_default();
    let named = Family::NAMED.iter().map(|&(word, family)| (word, Some(family)));
    let words: Vec<_> = std::iter::once(("auto", None)).chain(named).collect();
    let family = section.word("family", &words);
    let architecture = section.text("architecture", "a path").map(|path| absolute(base, path));
    // A family that is itself at fault says nothing about the architecture.
    if section.field("family").is_none() || family.is_some() {
        let torchscript = family == Some(Some(Family::Torchscript));
        match section.field("architecture") {
            None if torchscript => section.missing("architecture", "a path (required with family `torchscript`)"),
            Some(field) if !torchscript && family.flatten().is_some() => {
                section.fault(&field, Problem::Conflict("can only be used with family `torchscript`".into()));
            }
            _ => {}
        }
    }
    let spec = ZooSpec {
        ingredients: ingredients.iter().map(|pattern| absolute_glob(base, pattern)).collect(),
        base: section.text("base", "a path").map(|path| absolute(base, path)),
        // Nothing else has an architecture.
        family: family.flatten().or(architecture.as_ref().map(|_| Family::Torchscript)),
        architecture,
        heads: section.count("heads"),
        activation: section.text("activation", "an activation's name, such as `gelu` or `quick_gelu`"),
        top: top(&mut section),
        keep_duplicates: section.word("duplicates", &[("once", false), ("keep", true)]).unwrap_or(false),
        allow_chance: section.boolean("allow_chance").unwrap_or(false),
    };
    section.finish();
    spec
}

/// Reads `top`.
pub(super) fn top(section: &mut Section<'_>) -> Option<usize> {
    section.count("top")
}

/// A path that means the same whatever the working folder is.
fn absolute(base: &Path, path: impl AsRef<Path>) -> PathBuf {
    source::join(base, path.as_ref())
}

/// A glob that means the same whatever the working folder is; glob characters in the folder's own name stay literal.
fn absolute_glob(base: &Path, pattern: &str) -> String {
    if source::is_absolute(Path::new(pattern)) {
        return pattern.to_string();
    }
    let base = glob::Pattern::escape(&base.to_string_lossy());
    Path::new(&base).join(pattern).to_string_lossy().into_owned()
}

/// Reads `[data]`; paths become absolute against `base`.
pub(super) fn data(mut section: Section<'_>, base: &Path) -> DataSpec {
    let mut path = |key| section.text(key, "a path").map(|path| absolute(base, path));
    let (learn, select, test) = (path("learn"), path("select"), path("test"));
    if section.field("learn").is_none() {
        section.missing("learn", "a path");
    }
    let inputs = section.texts("inputs", "a tensor's name").unwrap_or_else(|| vec!["inputs".into()]);
    let labels = section.text("labels", "a tensor's name").unwrap_or_else(|| "labels".into());
    if let Some(field) = section.field("inputs") {
        let twice = inputs.iter().enumerate().find(|(i, name)| **name == labels || inputs[..*i].contains(*name));
        if let Some((_, name)) = twice {
            section.fault(&field, Problem::Conflict(format!("tensor `{name}` appears twice among inputs and labels")));
        }
    }
    let named = ObjectiveName::NAMED.iter().map(|&(word, objective)| (word, Some(objective)));
    let words: Vec<_> = std::iter::once(("auto", None)).chain(named).collect();
    let objective = section.word("objective", &words).flatten();
    let open = (std::ops::Bound::Excluded(0.0), std::ops::Bound::Excluded(1.0));
    let spec = DataSpec {
        learn: learn.unwrap_or_else(PathBuf::new),
        select,
        test,
        inputs,
        labels,
        select_fraction: section.number("select_fraction", open).unwrap_or(0.3),
        metric: metric(&mut section, objective),
        objective,
        scale: scale(&mut section, objective),
        image: image::image(section.section("image")),
        text: text::text(section.section("text")),
        classes: image::classes(&mut section),
        skip_unreadable: section.boolean("skip_unreadable").unwrap_or(false),
        allow_missing_classes: section.boolean("allow_missing_classes").unwrap_or(false),
    };
    section.finish();
    spec
}

/// Reads `metric`: any metric where the objective is not known yet.
fn metric(section: &mut Section<'_>, objective: Option<ObjectiveName>) -> Metric {
    let words: Vec<(&str, Metric)> = match objective {
        Some(objective) => Metric::all_of(objective.facts()).map(|metric| (metric.name(), metric)).collect(),
        None => Metric::all().map(|metric| (metric.name(), metric)).collect(),
    };
    section.word("metric", &words).unwrap_or(Metric::LOSS)
}

/// Reads `scale`, which only pairs have.
fn scale(section: &mut Section<'_>, objective: Option<ObjectiveName>) -> Option<f64> {
    let above_0 = (std::ops::Bound::Excluded(0.0), std::ops::Bound::Unbounded);
    let scale = section.number("scale", above_0);
    if let (Some(field), Some(objective)) = (section.field("scale"), objective)
        && objective != ObjectiveName::Pairs
    {
        let why = format!("can only be used with objective `pairs`, found objective `{objective}`");
        section.fault(&field, Problem::Conflict(why));
    }
    scale
}
