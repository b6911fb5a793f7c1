//! Which columns of a table are texts, and which one is the label.

use std::fmt;

use super::rows::Wanted;

/// Columns of texts that are taken without being named, in their order. A column in brackets may be absent.
const USUAL: [&[&str]; 4] =
    [&["text", "[text_pair]"], &["sentence1", "sentence2"], &["sentence"], &["anchor", "positive", "[negative]"]];
/// Columns of labels that are taken without being named.
const LABELS: [&str; 5] = ["label", "labels", "score", "class", "target"];
/// What `data.labels` is where the specification does not name it.
const UNNAMED_LABEL: &str = "labels";

/// The columns that are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Those of texts, in their order.
    pub texts: Vec<String>,
    /// That of the label.
    pub label: Option<String>,
    /// Columns of texts that belong to the choice and are not there: a later row must not have them.
    pub absent: Vec<&'static str>,
}

impl Chosen {
    /// All of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().chain(&self.label).map(String::as_str)
    }

    /// Finds them among the columns that are there.
    ///
    /// # Errors
    /// What was expected and found.
    pub(super) fn among(columns: &[String], wanted: &Wanted<'_>) -> Result<Self, String> {
        let has = |name: &str| columns.iter().any(|column| column == name);
        let found = || columns.join(", ");
        if let Some(twice) = columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(name)) {
            return Err(format!("expected each column once, found `{}` twice", twice.1));
        }
        let texts = match &wanted.spec.text.columns {
            Some(stated) => {
                if let Some(missing) = stated.iter().find(|name| !has(name)) {
                    return Err(format!(
                        "expected the column `{missing}` as data.text.columns says, found {}",
                        found()
                    ));
                }
                stated.clone()
            }
            None => {
                let taken = |usual: &&[&'static str]| -> Option<Vec<&'static str>> {
                    let (all, needed) = sides(usual);
                    needed.iter().all(|name| has(name)).then(|| all.into_iter().filter(|name| has(name)).collect())
                };
                let fitting: Vec<Vec<&str>> = USUAL.iter().filter_map(taken).collect();
                match &fitting[..] {
                    [only] => only.iter().map(ToString::to_string).collect(),
                    [] => {
                        return Err(format!(
                            "expected columns of texts with usual names ({}), found {} (set data.text.columns)",
                            usual_names(),
                            found()
                        ));
                    }
                    several => {
                        let lists: Vec<String> = several.iter().map(|names| names.join(", ")).collect();
                        return Err(format!(
                            "expected one choice of columns of texts, found {} (set data.text.columns)",
                            lists.join("; ")
                        ));
                    }
                }
            }
        };
        let absent = match &wanted.spec.text.columns {
            Some(_) => vec![],
            None => {
                let of = USUAL
                    .iter()
                    .map(|usual| sides(usual).0)
                    .find(|all| texts.iter().all(|text| all.contains(&text.as_str())));
                of.into_iter().flatten().filter(|name| !has(name)).collect()
            }
        };
        let label = wanted.is_labelled.then(|| label(columns, wanted)).transpose()?;
        if let Some(label) = label.as_ref().filter(|label| texts.contains(label)) {
            return Err(format!("column `{label}` cannot be a text and the label (set data.labels)"));
        }
        Ok(Self { texts, label, absent })
    }
}

fn label(columns: &[String], wanted: &Wanted<'_>) -> Result<String, String> {
    let stated = Some(&wanted.spec.labels).filter(|name| *name != UNNAMED_LABEL);
    let fitting: Vec<&String> = match stated {
        Some(stated) => columns.iter().filter(|column| *column == stated).collect(),
        None => columns.iter().filter(|column| LABELS.contains(&column.as_str())).collect(),
    };
    match (&fitting[..], stated) {
        ([only], _) => Ok((*only).clone()),
        ([], Some(stated)) => {
            Err(format!("expected the column `{stated}` as data.labels says, found {}", columns.join(", ")))
        }
        ([], None) => Err(format!(
            "expected a column of labels named {}, found {} (set data.labels)",
            LABELS.join(" or "),
            columns.join(", ")
        )),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            Err(format!("expected one column of labels, found {} (set data.labels)", names.join(", ")))
        }
    }
}

/// All names of a usual choice, and those that must be there.
fn sides<'a>(usual: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let plain = |name: &'a str| name.trim_matches(['[', ']']);
    let all = usual.iter().map(|name| plain(name)).collect();
    (all, usual.iter().filter(|name| !name.starts_with('[')).copied().collect())
}

fn usual_names() -> String {
    let each: Vec<String> = USUAL.iter().map(|usual| usual.join(", ")).collect();
    each.join("; ")
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}
