//! From names of classes to the model's outputs.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use mehl_soup::sweep::parse::nearest;
use mehl_soup::zoo::{ClassMap, nfc};
use serde_json::Value;

use super::sources::{Labels, Listing};
use crate::data::DataError;

/// Names of the model's outputs, in their order, in Unicode NFC.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassNames {
    /// One an output.
    pub names: Vec<String>,
    /// Who says so.
    pub source: String,
    /// Why names do not tell outputs, if two outputs have the same name.
    repeated: Option<String>,
    /// Whether the specification says so, and not the model.
    is_stated: bool,
}

impl ClassNames {
    /// What the specification says, else the model's `config.json`, which is in `folder`. `None` if nothing tells.
    ///
    /// # Errors
    /// If a class map is there that cannot be used, with its field and entry.
    pub fn find(
        stated: Option<&[String]>,
        config: Option<&Value>,
        folder: Option<&Path>,
    ) -> Result<Option<Self>, DataError> {
        if let Some(names) = stated {
            let names = names.iter().map(|name| nfc(name)).collect();
            return Ok(Some(Self { names, source: "data.classes".to_string(), repeated: None, is_stated: true }));
        }
        let file = folder.map_or("config.json".into(), |folder| folder.join("config.json").display().to_string());
        let found = config.map(ClassMap::of).transpose().map_err(|fault| DataError::Content {
            file: file.clone(),
            what: format!("{fault} (set data.classes, or correct the file)"),
        })?;
        Ok(found.flatten().map(|map| Self {
            source: format!("{} of {file}", map.field),
            repeated: map.check_unique().err().map(|fault| format!("{file}: {fault}")),
            names: map.names,
            is_stated: false,
        }))
    }

    /// The names of a source, in their sorted order, where nothing else tells.
    fn of_source(names: &[String], listing: &Listing) -> Self {
        let source = listing.path.display().to_string();
        Self { names: names.to_vec(), source, repeated: None, is_stated: false }
    }

    /// The output of each name.
    fn outputs(&self) -> HashMap<&str, i64> {
        self.names.iter().enumerate().map(|(i, name)| (name.as_str(), i as i64)).collect()
    }
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
/// If a class has no output or could have two, or one split lacks a class that another has and `allow_missing` is false.
pub fn assign(listings: &[&Listing], known: Option<&ClassNames>, allow_missing: bool) -> Result<Assigned, DataError> {
    let mut notes = Vec::new();
    let of_learn = match (&listings[0].labels, known) {
        (Labels::Names { names, numbers: None, .. }, None) => {
            notes.push(order_of(names, listings[0]));
            Some(ClassNames::of_source(names, listings[0]))
        }
        _ => None,
    };
    let by_names = known.or(of_learn.as_ref());
    let mut count = by_names.map(|names| (names.names.len(), names.source.clone()));
    let mut labels = Vec::new();
    for listing in listings {
        labels.push(match &listing.labels {
            Labels::Names { names, of, numbers } => {
                let outputs = match numbers {
                    Some(numbers) => numbers_or_names(names, numbers, known, listing, &mut notes)?,
                    None => outputs(names, by_names, listing)?,
                };
                of.iter().map(|&i| outputs[i]).collect()
            }
            Labels::Indices { of, names: None } => {
                check_indices(of, known, listing)?;
                of.clone()
            }
            Labels::Indices { of, names: Some(names) } => {
                let is_shared = |known: &ClassNames| names.iter().any(|name| known.names.contains(name));
                match known {
                    Some(known) if is_shared(known) => {
                        let outputs = outputs(names, Some(known), listing)?;
                        let output = |&i: &i64| usize::try_from(i).ok().and_then(|i| outputs.get(i).copied());
                        of.iter().map(output).collect::<Option<Vec<i64>>>().ok_or_else(|| {
                            let largest = of.iter().max().copied().unwrap_or(0);
                            let expected = names.len();
                            fault(
                                listing,
                                format!(
                                    "expected labels below {expected}, the number of its class \
                                     names, found {largest}"
                                ),
                            )
                        })?
                    }
                    Some(known) => {
                        notes.push(format!(
                            "assumed: class numbers in {} are output numbers, because none of its \
                             class names is in {}",
                            listing.path.display(),
                            known.source
                        ));
                        of.clone()
                    }
                    None => {
                        count.get_or_insert((names.len(), listing.path.display().to_string()));
                        of.clone()
                    }
                }
            }
        });
    }
    if !allow_missing {
        same_classes(listings, &labels, by_names)?;
    }
    Ok(Assigned { labels, count, notes })
}

/// Names that one line shows.
const SHOWN: usize = 4;

/// What is assumed of the order of outputs where only names of classes are there.
fn order_of(names: &[String], listing: &Listing) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).enumerate().map(|(i, name)| format!("{i} is `{name}`")).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    let is_number = |name: &String| name.parse::<u64>().is_ok();
    let as_text = if names.iter().all(is_number) && names.iter().enumerate().any(|(i, name)| name.parse() != Ok(i)) {
        " (numbers sorted as text, as torchvision does)"
    } else {
        ""
    };
    format!(
        "assumed: outputs are the classes of {} in sorted order{as_text}: {}{more}, because \
         neither the model nor data.classes lists them",
        listing.path.display(),
        shown.join(", ")
    )
}

/// The outputs of a table's classes that are whole numbers: those of the model's names if all of them are such names, those of these
/// numbers if none is.
fn numbers_or_names(
    names: &[String],
    numbers: &[i64],
    known: Option<&ClassNames>,
    listing: &Listing,
    notes: &mut Vec<String>,
) -> Result<Vec<i64>, DataError> {
    let Some(known) = known else { return Ok(numbers.to_vec()) };
    let of_name = known.outputs();
    // pandas writes 10.0 for 10 once a column has had a gap.
    let named: Vec<Option<i64>> = names
        .iter()
        .zip(numbers)
        .map(|(name, number)| of_name.get(name.as_str()).or_else(|| of_name.get(number.to_string().as_str())).copied())
        .collect();
    let found: Vec<i64> = named.iter().flatten().copied().collect();
    if found.is_empty() {
        return Ok(numbers.to_vec());
    }
    if let Some(at) = named.iter().position(Option::is_none) {
        if named.iter().zip(numbers).all(|(output, number)| output.is_none_or(|output| output == *number)) {
            return Ok(numbers.to_vec());
        }
        return Err(both_readings(listing, numbers[at], known, None));
    }
    if let Some(why) = &known.repeated {
        return Err(fault(listing, format!("class names cannot be used: {why}")));
    }
    if let Some(at) = found.iter().zip(numbers).position(|(output, number)| output != number) {
        notes.push(format!(
            "assumed: the labels of {} are class names, not output numbers: `{}` is output {} by \
             {}",
            listing.path.display(),
            names[at],
            found[at],
            known.source
        ));
    }
    Ok(found)
}

/// That no number is the name of another output: then it could be meant.
fn check_indices(of: &[i64], known: Option<&ClassNames>, listing: &Listing) -> Result<(), DataError> {
    let Some(known) = known else { return Ok(()) };
    let of_name = known.outputs();
    let used: BTreeSet<i64> = of.iter().copied().collect();
    for number in used {
        if let Some(&output) = of_name.get(number.to_string().as_str())
            && output != number
        {
            return Err(both_readings(listing, number, known, Some(output)));
        }
    }
    Ok(())
}

fn both_readings(listing: &Listing, number: i64, known: &ClassNames, output: Option<i64>) -> DataError {
    let as_name = match output {
        Some(output) => format!("the class of that name, which is output {output}"),
        None => "the name of a class, although other labels are class names".to_string(),
    };
    fault(
        listing,
        format!(
            "label {number} is ambiguous: it can be output {number}, or {as_name} (by {}). Use \
             class names that are not numbers, or list them in data.classes in the order of \
             outputs",
            known.source
        ),
    )
}

/// The output of each name.
fn outputs(names: &[String], known: Option<&ClassNames>, listing: &Listing) -> Result<Vec<i64>, DataError> {
    let Some(known) = known else {
        return Err(fault(listing, "expected class numbers as in learn, found class names".to_string()));
    };
    if let Some(why) = &known.repeated {
        return Err(fault(listing, format!("class names cannot be used: {why}")));
    }
    let index = known.outputs();
    let output = |name: &String| {
        index.get(name.as_str()).copied().ok_or_else(|| {
            let near = nearest(name, known.names.iter().map(String::as_str));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            fault(
                listing,
                format!("class `{name}`: expected one of the {} classes of {}{near}", known.names.len(), known.source),
            )
        })
    };
    names.iter().map(output).collect()
}

/// That every split has every class, and every class folder an image.
fn same_classes(listings: &[&Listing], labels: &[Vec<i64>], names: Option<&ClassNames>) -> Result<(), DataError> {
    for listing in listings {
        if let Labels::Names { names, of, numbers: None } = &listing.labels {
            let used: BTreeSet<usize> = of.iter().copied().collect();
            if let Some(empty) = (0..names.len()).find(|i| !used.contains(i)) {
                return Err(fault(
                    listing,
                    format!(
                        "class `{}` has no image (to continue, set data.allow_missing_classes = \
                         true)",
                        names[empty]
                    ),
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
                    "class {} is missing, but {} has it (to continue, set \
                     data.allow_missing_classes = true)",
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
