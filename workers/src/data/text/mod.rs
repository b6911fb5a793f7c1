//! Texts as data: read row by row, tokenized once into a cache, mapped into memory.
//!
//! | module | does |
//! |---|---|
//! | `rows` | the rows of a source, whatever its format: `jsonl`, `delimited`, `parquet` |
//! | `columns` | which columns are texts, which one is the label |
//! | `labels` | labels of rows |
//! | `tokenizer` | the ingredients' tokenizer and its limits |
//! | [`cache`] | tokens on disk |
//! | [`stored`] | batches of what is cached |
//!
//! A source is read twice where it is not in the cache: once for its identity, once for its tokens. Samples are in the order of
//! their lengths, so that neighbours need little padding.

pub mod cache;
mod columns;
mod delimited;
mod jsonl;
mod labels;
mod parquet;
mod rows;
pub mod stored;
mod tokenizer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mehl_soup::sweep::objective::ObjectiveName;
use mehl_soup::sweep::spec::DataSpec;
use rayon::prelude::*;
use serde_json::Value;

use self::cache::{Entry, TokenCache};
use self::labels::Targets;
use self::rows::{Cell, Place, Wanted, named};
use self::stored::{IDS, MASK, StoredTokens, TYPES};
use self::tokenizer::{Encoded, TextTokenizer};
use super::images::LoadedImages;
use super::images::classes::{self, Assigned, ClassNames};
use super::images::sources::{Listing, Source};
use super::{DataError, Loaded, ReadTargets, Split};

/// Of what tokens are, whatever the key says besides: another number makes them anew.
const VERSION: u32 = 1;
/// Rows that are tokenized at a time.
const ROWS_A_TURN: usize = 4096;
/// Between two words about progress.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What is known of the model before texts are read.
pub struct TextFacts<'a> {
    /// Folders of the ingredients that have one, in order.
    pub folders: Vec<PathBuf>,
    /// `config.json` of the first ingredient.
    pub config: Option<&'a Value>,
    /// Names of the inputs that the model takes, `input_ids` among them.
    pub inputs: Vec<String>,
    /// Most tokens of a sample that it takes, where it says so.
    pub positions: Option<usize>,
    /// Rows of its embedding of tokens, where they can be told.
    pub vocabulary: Option<usize>,
    /// Where tokens are kept.
    pub cache: TokenCache,
}

/// Loads splits of texts; the first is learn.
///
/// # Errors
/// If a source, a row (unless `data.skip_unreadable`), the tokenizer, a label or the cache is at fault, with its name.
pub fn load(
    sources: &[Source],
    spec: &DataSpec,
    model: &TextFacts<'_>,
    read: ReadTargets<'_>,
    note: &mut dyn FnMut(&str),
) -> Result<LoadedImages, DataError> {
    let names = input_names(model)?;
    let tokenizer = TextTokenizer::open(&spec.text, model)?;
    let objective = spec.objective.unwrap_or_default();
    let wanted = Wanted { spec, is_labelled: objective != ObjectiveName::Pairs };
    let mut notes = Vec::new();
    let mut scanned = Vec::new();
    for source in sources {
        scanned.push(Scanned::of(source, &wanted, &mut notes)?);
    }
    let (labels, count) = targets(sources, &scanned, spec, model, &mut notes)?;
    let pad = model.config.and_then(|config| config.get("pad_token_id")).and_then(Value::as_i64).unwrap_or(0);
    let mut splits = Vec::new();
    for ((source, own), labels) in sources.iter().zip(&scanned).zip(labels) {
        let key = own.key(&tokenizer);
        let entry = match model.cache.find(&key) {
            Some(entry) => entry,
            None => own.tokenize(source, &wanted, &tokenizer, &key, &model.cache, note)?,
        };
        own.check_lengths(source, &entry, &tokenizer, &mut notes)?;
        let each = own.encodings;
        let length = |row: usize| (0..each).map(|text| entry.length(row * each + text)).max().unwrap_or(0);
        let mut order: Vec<usize> = (0..own.hashes.len()).collect();
        order.sort_by_key(|&row| (std::cmp::Reverse(length(row)), row));
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.as_bytes());
        let targets = labels.in_order(&order, &mut hasher)?;
        let targets = match objective {
            // There are none.
            ObjectiveName::Pairs => targets,
            _ => read(targets).map_err(|what| rows::content(&source.path, format!("label: {what}")))?,
        };
        let rows = order.iter().map(|&row| own.hashes[row]).collect();
        let tokens = StoredTokens::new(Arc::new(entry), order, each, names.clone(), pad, model.positions);
        splits.push(Loaded {
            split: Split::of_tokens(tokens, targets),
            hash: hasher.finalize().to_hex().to_string(),
            rows,
        });
    }
    Ok(LoadedImages { splits, classes: count, notes })
}

/// How many classes there are, and who says so.
type Count = Option<(usize, String)>;

/// The targets of each source's rows, as the objective needs them.
fn targets(
    sources: &[Source],
    scanned: &[Scanned],
    spec: &DataSpec,
    model: &TextFacts<'_>,
    notes: &mut Vec<String>,
) -> Result<(Vec<Targets>, Count), DataError> {
    let at = |source: &Source, own: &Scanned, (row, what): labels::Fault| DataError::Content {
        file: named(source, own.places[row]),
        what: format!("label: {what}"),
    };
    let known = || ClassNames::find(spec.classes.as_deref(), model.config, model.folders.first().map(PathBuf::as_path));
    let both = || sources.iter().zip(scanned);
    match spec.objective.unwrap_or_default() {
        ObjectiveName::Classification => {
            let mut listings = Vec::new();
            for (source, own) in both() {
                let labels = labels::classes(&own.labels).map_err(|fault| at(source, own, fault))?;
                let path = source.path.clone();
                listings.push(Listing { path, samples: vec![], labels, parquet: vec![], notes: vec![] });
            }
            let known = known()?;
            let listings: Vec<&Listing> = listings.iter().collect();
            let Assigned { labels, count, notes: of_classes } =
                classes::assign(&listings, known.as_ref(), spec.allow_missing_classes)?;
            notes.extend(of_classes);
            Ok((labels.into_iter().map(Targets::Classes).collect(), count))
        }
        ObjectiveName::MultiLabel => {
            let known = known()?;
            let number = |key: &str| model.config?.get(key)?.as_u64().map(|number| number as usize);
            let count = known.as_ref().map(|known| known.names.len()).or_else(|| number("num_labels"));
            let count = count.ok_or_else(|| DataError::Content {
                file: spec.learn.display().to_string(),
                what: "expected the names of the classes in config.json (id2label), found none (set data.classes)"
                    .into(),
            })?;
            let sets = both().map(|(source, own)| {
                labels::sets(&own.labels, known.as_ref(), count).map_err(|fault| at(source, own, fault))
            });
            Ok((sets.map(|sets| sets.map(Targets::Sets)).collect::<Result<_, _>>()?, None))
        }
        ObjectiveName::Regression | ObjectiveName::Score => {
            let numbers =
                both().map(|(source, own)| labels::numbers(&own.labels).map_err(|fault| at(source, own, fault)));
            Ok((numbers.map(|numbers| numbers.map(Targets::Numbers)).collect::<Result<_, _>>()?, None))
        }
        ObjectiveName::Pairs => Ok((scanned.iter().map(|_| Targets::None).collect(), None)),
    }
}

/// A row as a person wrote it: its texts, and the name or number of its class.
pub struct Written {
    /// One or two.
    pub texts: Vec<String>,
    /// As a text.
    pub label: String,
}

/// All rows of a source, in its order, into memory.
///
/// # Errors
/// If the source or a row (unless `data.skip_unreadable`) is at fault.
pub fn written(source: &Source, spec: &DataSpec) -> Result<Vec<Written>, DataError> {
    let mut rows = Vec::new();
    rows::for_each(source, &Wanted { spec, is_labelled: true }, &mut |chosen, place, cells| {
        let refused = |what| DataError::Content { file: named(source, place), what };
        let (texts, label) = match cells.and_then(|cells| taken(cells, chosen)) {
            Err(_) if spec.skip_unreadable => return Ok(()),
            row => row.map_err(refused)?,
        };
        let label = match label {
            Cell::Text(name) => name,
            Cell::Whole(number) => number.to_string(),
            other => {
                return Err(refused(format!(
                    "label: expected the name or number of a class, found {}",
                    other.described()
                )));
            }
        };
        rows.push(Written { texts, label });
        Ok(())
    })?;
    Ok(rows)
}

/// The inputs of the model that texts give.
fn input_names(model: &TextFacts<'_>) -> Result<Vec<String>, DataError> {
    match model.inputs.iter().find(|name| ![IDS, MASK, TYPES].contains(&name.as_str())) {
        None => Ok(model.inputs.clone()),
        Some(other) => Err(DataError::Content {
            file: "data.learn".to_string(),
            what: format!("texts give {IDS}, {MASK} and {TYPES}; the model expects `{other}` too (use a tensor file)"),
        }),
    }
}

/// What is known of a source after it was read once.
struct Scanned {
    places: Vec<Place>,
    /// blake3 of each row's texts.
    hashes: Vec<blake3::Hash>,
    labels: Vec<Cell>,
    /// Encodings of a row: one of all its texts, or one of each.
    encodings: usize,
}

impl Scanned {
    fn of(source: &Source, wanted: &Wanted<'_>, notes: &mut Vec<String>) -> Result<Self, DataError> {
        let mut own = Self { places: vec![], hashes: vec![], labels: vec![], encodings: 1 };
        let mut skipped: Option<(usize, String)> = None;
        let chosen = rows::for_each(source, wanted, &mut |chosen, place, cells| match cells
            .and_then(|cells| taken(cells, chosen))
        {
            Ok((texts, label)) => {
                own.places.push(place);
                own.hashes.push(hash(&texts));
                own.labels.push(label);
                Ok(())
            }
            Err(why) if wanted.spec.skip_unreadable => {
                let (count, _) = skipped.get_or_insert_with(|| (0, format!("{}: {why}", named(source, place))));
                *count += 1;
                Ok(())
            }
            Err(why) => Err(DataError::Content {
                file: named(source, place),
                what: format!("{why} (to skip such rows, set data.skip_unreadable = true)"),
            }),
        })?;
        own.encodings = encodings(source, &chosen, wanted)?;
        if own.hashes.is_empty() {
            let first = skipped.map_or(String::new(), |(_, first)| format!("; the first is {first}"));
            return Err(rows::content(&source.path, format!("expected rows that can be used, found none{first}")));
        }
        if let Some((count, first)) = skipped {
            let all = own.hashes.len() + count;
            let path = source.path.display();
            notes.push(format!(
                "{path}: {count} of {all} rows could not be used and were skipped; the first is {first}"
            ));
        }
        Ok(own)
    }

    /// Key of the cached tokens. Labels are not in it.
    fn key(&self, tokenizer: &TextTokenizer) -> String {
        let mut hasher = blake3::Hasher::new();
        let how = serde_json::to_string(&(VERSION, &tokenizer.hash, tokenizer.limit, tokenizer.side, self.encodings))
            .unwrap_or_default();
        hasher.update(how.as_bytes());
        for hash in &self.hashes {
            hasher.update(hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn tokenize(
        &self,
        source: &Source,
        wanted: &Wanted<'_>,
        tokenizer: &TextTokenizer,
        key: &str,
        cache: &TokenCache,
        note: &mut dyn FnMut(&str),
    ) -> Result<Entry, DataError> {
        let mut writer = cache.begin(key)?;
        let (mut turn, mut done, mut said): (Vec<Vec<String>>, usize, _) = (Vec::new(), 0, Instant::now());
        let changed = || rows::content(&source.path, "its content changed while it was read".to_string());
        let mut write = |turn: &mut Vec<Vec<String>>, done: &mut usize| -> Result<(), DataError> {
            let encode = |texts: &Vec<String>| match self.encodings {
                1 => tokenizer.encode(texts).map(|one| vec![one]),
                _ => texts.iter().map(|text| tokenizer.encode(std::slice::from_ref(text))).collect(),
            };
            let encoded: Vec<Result<Vec<Encoded>, String>> = turn.par_iter().map(encode).collect();
            for (texts, encoded) in turn.drain(..).zip(encoded) {
                if self.hashes.get(*done) != Some(&hash(&texts)) {
                    return Err(changed());
                }
                let place = self.places[*done];
                let refused = |what| DataError::Content { file: named(source, place), what };
                for text in &encoded.map_err(refused)? {
                    writer.add(text)?;
                }
                *done += 1;
            }
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                note(&format!("{}: tokenizing: {done} of {}", source.path.display(), self.hashes.len()));
            }
            Ok(())
        };
        rows::for_each(source, wanted, &mut |chosen, _, cells| {
            if let Ok((texts, _)) = cells.and_then(|cells| taken(cells, chosen)) {
                turn.push(texts);
            }
            if turn.len() == ROWS_A_TURN { write(&mut turn, &mut done) } else { Ok(()) }
        })?;
        write(&mut turn, &mut done)?;
        if done != self.hashes.len() {
            return Err(changed());
        }
        writer.finish()
    }

    /// That the model takes all texts; how many were truncated is noted.
    fn check_lengths(
        &self,
        source: &Source,
        entry: &Entry,
        tokenizer: &TextTokenizer,
        notes: &mut Vec<String>,
    ) -> Result<(), DataError> {
        let (each, n) = (self.encodings, self.hashes.len() * self.encodings);
        let at = |text: usize| named(source, self.places[text / each]);
        if let (truncated @ 1.., Some(limit)) = (entry.description.truncated, tokenizer.limit) {
            notes.push(format!("{}: {truncated} of {n} texts were truncated to {limit} tokens", source.path.display()));
        }
        if let Some(empty) = (0..n).find(|&text| entry.length(text) == 0) {
            let what = "expected tokens, found none: the tokenizer makes none of this text".to_string();
            return Err(DataError::Content { file: at(empty), what });
        }
        let Some(most) = tokenizer.positions else { return Ok(()) };
        let long: Vec<usize> = (0..n).filter(|&text| entry.length(text) > most).collect();
        match long.first() {
            None => Ok(()),
            Some(&first) => Err(DataError::Content {
                file: at(first),
                what: format!(
                    "expected at most {most} tokens, as the model takes, found {}; so are {} of {n} texts (to truncate them, \
                     set data.text.max_length = {most})",
                    entry.length(first),
                    long.len()
                ),
            }),
        }
    }
}

/// How often a row is encoded.
///
/// # Errors
/// If the objective needs more texts, or the tokenizer takes fewer.
fn encodings(source: &Source, chosen: &columns::Chosen, wanted: &Wanted<'_>) -> Result<usize, DataError> {
    let texts = chosen.texts.len();
    match wanted.spec.objective {
        Some(ObjectiveName::Pairs) if texts < 2 => {
            let what = format!(
                "objective `pairs`: expected two or more columns of texts, such as anchor and positive, found {chosen} (set \
                 data.text.columns)"
            );
            Err(rows::content(&source.path, what))
        }
        Some(ObjectiveName::Pairs) => Ok(texts),
        _ if texts > 2 => {
            let what = format!("expected one or two columns of texts, found {chosen} (set data.text.columns)");
            Err(rows::content(&source.path, what))
        }
        _ => Ok(1),
    }
}

/// Texts and label of a row.
fn taken(mut cells: Vec<Cell>, chosen: &columns::Chosen) -> Result<(Vec<String>, Cell), String> {
    let label = match &chosen.label {
        None => Cell::Missing,
        Some(name) => match cells.pop() {
            None | Some(Cell::Missing) => return Err(format!("`{name}`: expected a label, found nothing")),
            Some(label) => label,
        },
    };
    let texts = cells.into_iter().zip(&chosen.texts).map(|(cell, name)| match cell {
        Cell::Text(text) if text.trim().is_empty() => Err(format!("`{name}`: expected a text, found an empty one")),
        Cell::Text(text) => Ok(text),
        other => Err(format!("`{name}`: expected a text, found {}", other.described())),
    });
    Ok((texts.collect::<Result<_, _>>()?, label))
}

/// Of a row's texts, each with its length, so that no two rows have the same bytes.
fn hash(texts: &[String]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize()
}
