//! From names of classes to the model's outputs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::sources::{Labels, Listing};
use crate::data::DataError;

/// Names of the model's outputs, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassNames {
    /// One an output.
    pub names: Vec<String>,
    /// Who says so.
    pub source: String,
}

impl ClassNames {
    /// What the specification says, else the model's `config.json`: `id2label` (unless it holds only transformers' `LABEL_0`, ...), `label2id`, or
    /// timm's `label_names`. `None` if nothing tells.
    pub fn find(stated: Option<&[String]>, config: Option<&Value>) -> Option<Self> {
        if let Some(names) = stated {
            return Some(Self { names: names.to_vec(), source: "data.classes".to_string() });
        }
        let config = config?;
        let found = |names: Option<Vec<String>>, key: &str| {
            names.map(|names| Self { names, source: format!("{key} of config.json") })
        };
        found(id2label(config), "id2label")
            .or_else(|| found(label2id(config), "label2id"))
            .or_else(|| found(label_names(config), "label_names"))
    }
}

fn id2label(config: &Value) -> Option<Vec<String>> {
    let map = config.get("id2label")?.as_object()?;
    let name = |i: usize| map.get(&i.to_string())?.as_str().map(str::to_string);
    let names = (0..map.len()).map(name).collect::<Option<Vec<_>>>()?;
    usable(names)
}

fn label2id(config: &Value) -> Option<Vec<String>> {
    let map = config.get("label2id")?.as_object()?;
    let mut names = vec![None; map.len()];
    for (name, index) in map {
        let index = index.as_u64().or_else(|| index.as_str()?.parse().ok())?;
        *names.get_mut(usize::try_from(index).ok()?)? = Some(name.clone());
    }
    usable(names.into_iter().collect::<Option<Vec<_>>>()?)
}

fn label_names(config: &Value) -> Option<Vec<String>> {
    let cfg = config.get("pretrained_cfg").and_then(|cfg| cfg.get("label_names"));
    let names = config.get("label_names").or(cfg)?.as_array()?;
    usable(names.iter().map(|name| name.as_str().map(str::to_string)).collect::<Option<Vec<_>>>()?)
}

/// Not those that transformers makes up, and no name twice.
fn usable(names: Vec<String>) -> Option<Vec<String>> {
    let made_up = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
    let distinct = names.iter().collect::<BTreeSet<_>>().len() == names.len();
    (!names.is_empty() && !made_up && distinct).then_some(names)
}

/// The classes of all splits as the model's outputs.
#[derive(Debug)]
pub struct Assigned {
    /// One a sample, for each listing.
    pub labels: Vec<Vec<i64>>,
    /// How many classes there are, if they were counted, and who says so: the model must have as many outputs.
    pub count: Option<(usize, String)>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Finds the output of each sample's class. `listings` begins with learn.
///
/// # Errors
/// If a class has no output, or one split lacks a class that another has and `allow_missing` is false.
pub fn assign(listings: &[&Listing], known: Option<&ClassNames>, allow_missing: bool) -> Result<Assigned, DataError> {
    let mut notes = Vec::new();
    let learned = match &listings[0].labels {
        Labels::Names { names, .. } => Some(names.clone()),
        Labels::Indices { .. } => None,
    };
    let of_learn = learned.map(|names| ClassNames { names, source: format!("{}", listings[0].path.display()) });
    let by_names = known.or(of_learn.as_ref());
    if known.is_none()
        && let Some(ClassNames { names, .. }) = &of_learn
        && names.iter().all(|name| name.parse::<u64>().is_ok())
        && names.iter().enumerate().any(|(i, name)| name.parse() != Ok(i))
    {
        notes.push(format!(
            "class names are numbers and sorted as text, as torchvision does: output 0 is `{}`, the last `{}`; data.classes says otherwise",
            names[0],
            names[names.len() - 1]
        ));
    }
    let mut count = by_names.map(|names| (names.names.len(), names.source.clone()));
    let mut labels = Vec::new();
    for listing in listings {
        labels.push(match &listing.labels {
            Labels::Names { names, of } => {
                let outputs = outputs(names, by_names, listing)?;
                of.iter().map(|&i| outputs[i]).collect()
            }
            Labels::Indices { of, names } => {
                let own = names.as_ref().and_then(|names| {
                    let known = known?;
                    let shared = names.iter().filter(|name| known.names.contains(name)).count();
                    (shared > 0).then_some((names, known))
                });
                if let Some((names, known)) = own {
                    let outputs = outputs(names, Some(known), listing)?;
                    let output = |&i: &i64| usize::try_from(i).ok().and_then(|i| outputs.get(i).copied());
                    let found: Option<Vec<i64>> = of.iter().map(output).collect();
                    found.ok_or_else(|| {
                        let largest = of.iter().max().copied().unwrap_or(0);
                        fault(
                            listing,
                            format!("expected labels below {}, as many as it names, found {largest}", names.len()),
                        )
                    })?
                } else {
                    if known.is_some() && names.is_some() {
                        notes.push(format!(
                            "{}: none of its class names is the model's; its numbers are taken for the model's outputs",
                            listing.path.display()
                        ));
                    }
                    if let (None, Some(names)) = (known, names) {
                        count.get_or_insert((names.len(), listing.path.display().to_string()));
                    }
                    of.clone()
                }
            }
        });
    }
    if !allow_missing {
        same_classes(listings, &labels, by_names)?;
    }
    Ok(Assigned { labels, count, notes })
}

/// The output of each name.
fn outputs(names: &[String], known: Option<&ClassNames>, listing: &Listing) -> Result<Vec<i64>, DataError> {
    let Some(known) = known else {
        return Err(fault(listing, "expected labels by number as in learn, found names".to_string()));
    };
    let index: std::collections::HashMap<&str, i64> =
        known.names.iter().enumerate().map(|(i, name)| (name.as_str(), i as i64)).collect();
    let output = |name: &String| {
        index.get(name.as_str()).copied().ok_or_else(|| {
            fault(
                listing,
                format!("class `{name}`: expected one of the {} classes of {}", known.names.len(), known.source),
            )
        })
    };
    names.iter().map(output).collect()
}

/// That every split has every class, and every class folder an image.
fn same_classes(listings: &[&Listing], labels: &[Vec<i64>], names: Option<&ClassNames>) -> Result<(), DataError> {
    for listing in listings {
        if let Labels::Names { names, of } = &listing.labels {
            let used: BTreeSet<usize> = of.iter().copied().collect();
            if let Some(empty) = (0..names.len()).find(|i| !used.contains(i)) {
                return Err(fault(
                    listing,
                    format!("class `{}` has no image (data.allow_missing_classes allows it)", names[empty]),
                ));
            }
        }
    }
    let name = |class: i64| {
        let name = usize::try_from(class).ok().and_then(|i| names?.names.get(i));
        name.map_or_else(|| class.to_string(), |name| format!("`{name}`"))
    };
    let sets: Vec<BTreeSet<i64>> = labels.iter().map(|labels| labels.iter().copied().collect()).collect();
    for (i, listing) in listings.iter().enumerate().skip(1) {
        let missing = |whose: &Listing, class: i64, other: &Listing| {
            fault(
                whose,
                format!(
                    "class {} is missing, which {} has (data.allow_missing_classes allows it)",
                    name(class),
                    other.path.display()
                ),
            )
        };
        if let Some(&class) = sets[0].difference(&sets[i]).next() {
            return Err(missing(listing, class, listings[0]));
        }
        if let Some(&class) = sets[i].difference(&sets[0]).next() {
            return Err(missing(listings[0], class, listing));
        }
    }
    Ok(())
}

fn fault(listing: &Listing, what: String) -> DataError {
    DataError::Content { file: listing.path.display().to_string(), what }
}
