//! Texts as data: which rows are taken, what becomes of them, and what is refused.

use std::fs;
use std::path::PathBuf;

use mehl_soup::sweep::objective::ObjectiveName;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup_worker::data::images::ImageInputs;
use mehl_soup_worker::data::images::cache::ImageCache;
use mehl_soup_worker::data::images::resolve::ModelFacts;
use mehl_soup_worker::data::text::TextFacts;
use mehl_soup_worker::data::text::cache::TokenCache;
use mehl_soup_worker::data::{Data, Kinds};
use mehl_soup_worker::objectives::{self, Classification, Objective};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::support::fixture;

/// A folder with data, and a model of which only the tokenizer is there.
struct Place {
    root: TempDir,
    config: serde_json::Value,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = serde_json::json!({ "pad_token_id": 0, "id2label": { "0": "cat", "1": "dog" } });
        Self { root, config }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self, data: &str) -> Result<Data, String> {
        let text = format!("zoo.ingredients = 'zoo/*'\n[data]\n{data}");
        let spec = parse_spec_text(&text, Format::Toml, self.root.path()).unwrap();
        let folders = vec![fixture("tokenizers/wordpiece")];
        let model = ModelFacts {
            family: mehl_soup::sweep::spec::Family::Torchscript,
            input: None,
            config: Some(&self.config),
            folders: folders.clone(),
        };
        let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(String::from).to_vec();
        let kinds = Kinds {
            images: ImageInputs { model, cache: ImageCache { folder: None, bound: 0 } },
            text: Some(TextFacts {
                folders,
                config: Some(&self.config),
                inputs,
                positions: Some(24),
                vocabulary: None,
                cache: TokenCache { folder: Some(self.root.path().join("cache")), bound: 1 << 30 },
            }),
        };
        let objective: Box<dyn Objective> = match spec.data.objective {
            None => Box::new(Classification),
            Some(ObjectiveName::MultiLabel) => objectives::of(mehl_soup::sweep::objective::Objective::MultiLabel),
            Some(ObjectiveName::Score) => objectives::of(mehl_soup::sweep::objective::Objective::Score),
            Some(_) => objectives::of(mehl_soup::sweep::objective::Objective::Regression),
        };
        let targets = |found| objective.read_targets(found);
        Data::load(&spec.data, 3, Kind::Float, &kinds, &targets, &mut |_| {}).map_err(|error| error.to_string())
    }

    fn cached(&self) -> usize {
        fs::read_dir(self.root.path().join("cache")).map_or(0, Iterator::count)
    }

    fn refuses(&self, data: &str, says: &[&str]) {
        let said = self.load(data).err().unwrap_or_else(|| panic!("{data}: not refused"));
        for text in says {
            assert!(said.contains(text), "expected `{text}` in: {said}");
        }
    }
}

fn ints(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.contiguous().view(-1)).unwrap()
}

const ROWS: [(&str, &str); 4] = [
    ("The cat sat on the mat, and the dog did not.", "cat"),
    ("An owl", "dog"),
    ("the mat and the cat", "dog"),
    ("a dog", "cat"),
];

fn jsonl(rows: &[(&str, &str)]) -> String {
    rows.iter()
        .map(|(text, label)| serde_json::json!({ "id": 7, "text": text, "label": label }).to_string() + "\n")
        .collect()
}

const BOTH: &str = "learn = 'learn.jsonl'\nselect = 'select.jsonl'";

fn both(rows: &[(&str, &str)]) -> Place {
    let place = Place::new();
    place.write("learn.jsonl", jsonl(rows));
    let others: Vec<(String, &str)> = rows.iter().map(|(text, label)| (format!("{text} mat"), *label)).collect();
    let others: Vec<(&str, &str)> = others.iter().map(|(text, label)| (text.as_str(), *label)).collect();
    place.write("select.jsonl", jsonl(&others));
    place
}

#[test]
fn batches_are_padded_to_their_longest_text_and_samples_are_in_the_order_of_lengths() {
    let place = both(&ROWS);
    let data = place.load(BOTH).unwrap();
    let batch = data.learn.range(0, 4, Device::Cpu).unwrap();
    let lengths = ints(batch.inputs.lengths().unwrap());
    assert!(lengths.is_sorted_by(|a, b| a >= b) && lengths[0] > lengths[3], "{lengths:?}");
    let longest = lengths[0];
    let ids = batch.inputs.get("input_ids").unwrap();
    // Rounded up to a multiple of 16, but to no more than the model takes.
    assert_eq!(ids.size(), [4, ((longest + 15) / 16 * 16).min(24)]);
    // The labels went with their texts.
    let order = [0, 2, 1, 3].map(|row| i64::from(ROWS[row as usize].1 == "dog"));
    assert_eq!(ints(&batch.targets), order);
    let (mask, of_lengths) = (batch.inputs.get("attention_mask").unwrap(), batch.inputs.mask().unwrap().unwrap());
    assert_eq!(ints(mask), ints(&of_lengths.to_kind(Kind::Int64)));
    assert_eq!(ints(&(ids * (1 - mask))).iter().sum::<i64>(), 0, "padding is the pad token");
    // Alone, a text has no padding, and the same tokens.
    for (i, length) in lengths.iter().enumerate() {
        let alone = data.learn.batch(&[i], Device::Cpu).unwrap();
        let alone = alone.inputs.get("input_ids").unwrap();
        assert_eq!(ints(&alone.narrow(1, 0, *length)), ints(&ids.get(i as i64).narrow(0, 0, *length)));
    }
    assert_eq!(data.learn.longest(), Some(longest as usize));
    let tried = data.learn.batch_of_length(&[0, 1], 24, Device::Cpu).unwrap();
    assert_eq!(tried.inputs.get("input_ids").unwrap().size(), [2, 24]);
}

#[test]
fn pairs_have_types_and_formats_say_the_same() {
    let place = Place::new();
    let pairs = [("The cat", "sat on the mat", 0), ("an owl", "and a dog", 1), ("did not", "the mat", 1)];
    let json: String = pairs
        .iter()
        .map(|(a, b, label)| serde_json::json!({ "text": a, "text_pair": b, "label": label }).to_string() + "\n")
        .collect();
    let table = |tab: char| {
        let rows = pairs.iter().map(|(a, b, label)| format!("{label}{tab}{a}{tab}{b}\r\n"));
        format!("\u{feff}label{tab}text{tab}text_pair\r\n{}", rows.collect::<String>())
    };
    place.write("learn.jsonl", json);
    place.write("learn.csv", table(','));
    place.write("learn.tsv", table('\t'));
    let load = |ending: &str| {
        let data = place.load(&format!("learn = 'learn.{ending}'\nselect = 'learn.{ending}'")).unwrap();
        let batch = data.learn.range(0, 3, Device::Cpu).unwrap();
        let of = |name: &str| ints(batch.inputs.get(name).unwrap());
        (of("input_ids"), of("token_type_ids"), ints(&batch.targets))
    };
    let expected = load("jsonl");
    assert!(expected.1.contains(&1) && expected.1[0] == 0);
    assert_eq!((load("csv"), load("tsv")), (expected.clone(), expected));
    assert_eq!(place.cached(), 1, "whatever the format, the texts are the same");
}

#[test]
fn tokens_are_cached_and_labels_are_not_part_of_the_key() {
    let place = both(&ROWS);
    let first = place.load(BOTH).unwrap();
    let entries = place.cached();
    assert_eq!(entries, 2);
    let again = place.load(BOTH).unwrap();
    assert_eq!(first.entries, again.entries);
    let relabelled: Vec<(&str, &str)> =
        ROWS.iter().map(|(text, label)| (*text, if *label == "cat" { "dog" } else { "cat" })).collect();
    place.write("learn.jsonl", jsonl(&relabelled));
    let other = place.load(BOTH).unwrap();
    assert_ne!(first.entries[0].hash, other.entries[0].hash);
    assert_eq!(place.cached(), entries);
    let ids = |data: &Data| ints(data.select.range(0, 4, Device::Cpu).unwrap().inputs.get("input_ids").unwrap());
    let sound = ids(&first);
    drop((first, again, other));
    // A damaged entry is made anew.
    for entry in fs::read_dir(place.root.path().join("cache")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let mended = place.load(BOTH).unwrap();
    assert_eq!(ids(&mended), sound);
}

#[test]
fn long_texts_are_refused_unless_truncation_is_stated() {
    let long = "cat ".repeat(40);
    let place = both(&[("a cat", "cat"), (&long, "dog"), ("dog", "dog"), (&long, "cat")]);
    place.refuses(
        BOTH,
        &[
            "learn.jsonl: line 2: expected at most 24 tokens, as the model takes, found ",
            "so are 2 of 4 texts",
            "data.text.max_length = 24",
        ],
    );
    let data = place.load(&format!("{BOTH}\ntext.max_length = 10")).unwrap();
    assert_eq!(data.learn.longest(), Some(10));
    assert!(
        data.notes.iter().any(|note| note.contains("2 of 4 texts were truncated to 10 tokens")),
        "{:?}",
        data.notes
    );
    let left = place.load(&format!("{BOTH}\ntext.max_length = 10\ntext.truncate = 'left'")).unwrap();
    assert_ne!(data.entries, left.entries);
}

#[test]
fn bad_rows_are_named_and_can_be_skipped() {
    let sound = jsonl(&ROWS);
    for (line, says) in [
        ("{\"text\": \"cat\"", "line 5: expected a JSON object: EOF"),
        ("[1]", "line 5: invalid type"),
        ("{\"text\": \"cat\"}", "line 5: `label`: expected a label, found nothing"),
        ("{\"text\": 3, \"label\": \"cat\"}", "line 5: `text`: expected a text, found a whole number"),
        ("{\"text\": \" \", \"label\": \"cat\"}", "line 5: `text`: expected a text, found an empty one"),
        ("{\"label\": \"cat\", \"text\": null}", "line 5: `text`: expected a text, found nothing"),
        ("{\"text\": \"a\", \"text\": \"b\", \"label\": \"cat\"}", "line 5: expected `text` once, found it twice"),
        (
            "{\"text\": \"a\", \"text_pair\": \"b\", \"label\": \"cat\"}",
            "line 5: expected no `text_pair`, as the first line has none, found one",
        ),
        ("{\"text\": {\"a\": 1}, \"label\": \"cat\"}", "line 5: `text`: expected a text, found an object"),
    ] {
        let place = both(&ROWS);
        place.write("learn.jsonl", format!("{sound}{line}\n{sound}"));
        place.refuses(BOTH, &["learn.jsonl: ", says, "data.skip_unreadable = true"]);
        let data = place.load(&format!("{BOTH}\nskip_unreadable = true")).unwrap();
        assert_eq!(data.learn.samples(), 8);
        let note =
            format!("1 of 9 rows could not be used and were skipped; the first is {}", place.root.path().display());
        assert!(data.notes.iter().any(|said| said.contains(&note)), "{:?}", data.notes);
    }
    let place = both(&ROWS);
    let long = format!("{{\"text\": \"{}\", \"label\": \"cat\"}}", "a".repeat(17 << 20));
    place.write("learn.jsonl", format!("{sound}{long}\n{sound}"));
    place.refuses(BOTH, &["line 5: expected at most 16 MiB, found more"]);
    assert_eq!(place.load(&format!("{BOTH}\nskip_unreadable = true")).unwrap().learn.samples(), 8);
}

#[test]
fn columns_are_not_guessed() {
    let place = both(&ROWS);
    let one = |line: &str| place.write("learn.jsonl", format!("{line}\n{line}\n"));
    one(r#"{"review": "cat", "label": "cat"}"#);
    place.refuses(
        BOTH,
        &[
            "learn.jsonl: line 1: expected columns of texts with usual names",
            "found review, label",
            "data.text.columns",
        ],
    );
    assert!(place.load(&format!("{BOTH}\ntext.columns = ['text']")).is_err());
    one(r#"{"text": "cat", "sentence": "cat", "label": "cat"}"#);
    place.refuses(BOTH, &["expected one choice of columns of texts, found text; sentence"]);
    one(r#"{"text": "cat", "label": "cat", "score": 1}"#);
    place.refuses(BOTH, &["expected one column of labels, found label, score (set data.labels)"]);
    one(r#"{"text": "cat"}"#);
    place.refuses(BOTH, &["expected a column of labels named label or labels"]);
    one(r#"{"text": "cat", "label": "bird"}"#);
    place.refuses(BOTH, &["`bird`"]);
    place.write("learn.jsonl", "{\"text\": \"cat\", \"label\": \"cat\"}\n{\"text\": \"cat\", \"label\": 1}\n");
    place.refuses(BOTH, &["learn.jsonl: line 2: label: expected labels of one type, found names and numbers"]);
    place.write("learn.jsonl", "");
    place.refuses(BOTH, &["expected a JSON object in each line, found no line"]);
    place.write("learn.csv", "text,label\n\"cat,cat\n");
    place.refuses("learn = 'learn.csv'\nselect = 'select.jsonl'", &["learn.csv: row 1: expected 2 columns"]);
    place.write("learn.csv", "text,label\n\"");
    let unclosed = format!("text,label\n\"{}", "cat ".repeat(5 << 20));
    place.write("learn.csv", unclosed);
    place.refuses("learn = 'learn.csv'\nselect = 'select.jsonl'", &["expected rows of at most 16 MiB"]);
}

#[test]
fn each_text_of_a_pair_is_a_row_of_its_own() {
    let place = Place::new();
    let rows = [("a cat", "the cat and the mat", "an owl"), ("did not", "it is", "a dog and an owl")];
    let lines =
        rows.map(|(a, b, c)| serde_json::json!({ "anchor": a, "positive": b, "negative": c }).to_string() + "\n");
    place.write("learn.jsonl", lines.concat());
    let pairs = "learn = 'learn.jsonl'\nselect = 'learn.jsonl'\nobjective = 'pairs'";
    let data = place.load(pairs).unwrap();
    let batch = data.learn.range(0, 2, Device::Cpu).unwrap();
    assert_eq!((data.learn.samples(), batch.texts), (2, 3));
    let ids = batch.inputs.get("input_ids").unwrap();
    assert_eq!(ids.size()[0], 6);
    let alone = |text: &str| {
        place.write("alone.jsonl", serde_json::json!({ "text": text, "label": "cat" }).to_string() + "\n");
        let alone = "learn = 'alone.jsonl'\nselect = 'alone.jsonl'\nallow_missing_classes = true";
        let one = place.load(alone).unwrap().learn.range(0, 1, Device::Cpu).unwrap();
        let length = ints(one.inputs.lengths().unwrap())[0];
        ints(&one.inputs.get("input_ids").unwrap().narrow(1, 0, length))
    };
    // Row t * n + i is text t of sample i; samples are in the order of their longest texts.
    let lengths = ints(batch.inputs.lengths().unwrap());
    let texts = [rows[1].0, rows[0].0, rows[1].1, rows[0].1, rows[1].2, rows[0].2];
    let by_sample = if ints(&ids.get(0).narrow(0, 0, lengths[0])) == alone(rows[1].0) { [0, 1] } else { [1, 0] };
    for (row, length) in lengths.iter().enumerate() {
        let text = texts[row / 2 * 2 + by_sample[row % 2]];
        assert_eq!(ints(&ids.get(row as i64).narrow(0, 0, *length)), alone(text), "{text}");
    }
    place.write("learn.jsonl", jsonl(&ROWS));
    place.refuses(pairs, &["objective `pairs`: expected two or more columns of texts", "found text"]);
}

#[test]
fn targets_are_read_as_the_objective_needs_them() {
    let place = both(&ROWS);
    let lines = |labels: [&str; 3]| {
        let line =
            |(i, label): (usize, &str)| format!("{{\"text\": \"{}\", \"label\": {label}}}\n", "cat ".repeat(3 - i));
        labels.into_iter().enumerate().map(line).collect::<String>()
    };
    let load = |labels, objective: &str| {
        place.write("learn.jsonl", lines(labels));
        place.load(&format!("learn = 'learn.jsonl'\nselect = 'learn.jsonl'\nobjective = '{objective}'"))
    };
    let targets = |labels, objective: &str| -> Vec<f32> {
        let data = load(labels, objective).unwrap_or_else(|error| panic!("{error}"));
        Vec::try_from(data.learn.targets.to_kind(Kind::Float).contiguous().view(-1)).unwrap()
    };
    let refused = |labels, objective: &str| load(labels, objective).err().expect("it is refused");
    // The classes are `cat` and `dog`.
    assert_eq!(targets(["[\"dog\"]", "[]", "[\"cat\", \"dog\"]"], "multi-label"), [0.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(targets(["[0]", "[1]", "[1, 1]"], "multi-label"), [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert!(refused(["[0, 1]", "[]", "[]"], "multi-label").contains("line 1: label: two numbers 0 and 1 can be"));
    assert!(refused(["[]", "[\"owl\"]", "[]"], "multi-label").contains("line 2: label: class `owl`"));
    assert!(refused(["[]", "[]", "[2]"], "multi-label").contains("line 3: label: expected classes 0 to 1, found 2"));
    assert!(refused(["1", "[]", "[]"], "multi-label").contains("expected a list of classes, found a whole number"));
    assert_eq!(targets(["0.5", "3", "\"-1e2\""], "regression"), [0.5, 3.0, -100.0]);
    assert!(refused(["0.5", "\"x\"", "1"], "regression").contains("line 2: label: expected a number, found `x`"));
    assert!(refused(["0.5", "1.5", "1"], "score").contains("label"));
}

fn never_panics(name: &str, bytes: &[u8]) {
    let place = both(&ROWS);
    place.write(name, bytes);
    for skip in ["", "\nskip_unreadable = true"] {
        drop(place.load(&format!("learn = '{name}'\nselect = 'select.jsonl'{skip}")));
    }
}

/// Bytes that are nearly a sound file: pieces of one, in any order, with bytes between them.
fn spoiled(sound: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let piece =
        (0..sound.len(), 0..24_usize, proptest::collection::vec(any::<u8>(), 0..3)).prop_map(|(at, length, extra)| {
            let end = (at + length).min(sound.len());
            [&sound.as_bytes()[at..end], &extra].concat()
        });
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

const JSON: &str = "{\"text\": \"a cat\", \"label\": \"cat\"}\n{\"text\": \"\\ud83d\\ude00 dog\", \"label\": \"dog\", \"x\": [1, {}]}\n";
const TABLE: &str = "text,label\r\na cat,cat\r\n\"a, \"\"dog\"\"\n\",dog\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn spoiled_jsonl_is_read_or_refused(bytes in spoiled(JSON)) {
        never_panics("learn.jsonl", &bytes);
    }

    #[test]
    fn spoiled_tables_are_read_or_refused(bytes in spoiled(TABLE)) {
        never_panics("learn.csv", &[b"text,label\n", &bytes[..]].concat());
    }

    #[test]
    fn any_text_is_tokenized(text in "\\PC{1,40}") {
        let place = both(&[(&text, "cat"), ("a dog", "dog")]);
        drop(place.load(&format!("{BOTH}\ntext.max_length = 8")));
    }
}
