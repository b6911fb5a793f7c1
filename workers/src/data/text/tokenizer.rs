//! The ingredients' own tokenizer (`tokenizer.json`), and how long texts may be.

use std::path::{Path, PathBuf};

use mehl_soup::source;
use mehl_soup::sweep::text_spec::{Side, TextSpec};
use mehl_soup::untrusted::{LARGEST_CONFIG, without_mark};
use serde_json::Value;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, PostProcessor, Tokenizer};

use super::TextFacts;
use super::rows::content;
use crate::data::DataError;

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// Of sentence-transformers: how long texts may be.
const SENTENCES: &str = "sentence_bert_config.json";
/// Largest tokenizer that is read, in bytes: those of 250,000 pieces take 17 MB.
const LARGEST_TOKENIZER: u64 = 256 << 20;

/// A tokenizer with its limits.
pub(super) struct TextTokenizer {
    inner: Tokenizer,
    /// blake3 of the tokenizer's file, hexadecimal.
    pub hash: String,
    /// Most tokens of a text; longer ones are truncated.
    pub limit: Option<usize>,
    /// From where.
    pub side: Side,
    /// Most tokens that the model takes, where it says so.
    pub positions: Option<usize>,
}

/// A text, or a pair of texts, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    /// Special ones included.
    pub ids: Vec<u32>,
    /// Where the second text begins; their number if there is none.
    pub second: usize,
    /// Whether tokens were removed.
    pub is_truncated: bool,
}

impl TextTokenizer {
    /// Opens the tokenizer that all ingredients have.
    ///
    /// # Errors
    /// If an ingredient has none, two differ, the file cannot be used, its vocabulary is larger than the model's, or a limit is more
    /// than the model takes.
    pub(super) fn open(spec: &TextSpec, model: &TextFacts<'_>) -> Result<Self, DataError> {
        let [first, others @ ..] = &model.folders[..] else {
            return Err(DataError::Content {
                file: "zoo.ingredients".to_string(),
                what: format!("texts need the ingredients' {FILE}, and they are single files, not folders"),
            });
        };
        let bytes = read(first)?;
        for other in others {
            let found = read(other)?;
            if found != bytes {
                check_same((first, &bytes), (other, &found))?;
            }
        }
        let path = first.join(FILE);
        let mut inner = Tokenizer::from_bytes(&bytes)
            .map_err(|error| content(&path, format!("is no tokenizer that can be read: {error}")))?;
        inner.with_padding(None);
        let vocabulary = inner.get_vocab_size(true);
        if let Some(rows) = model.vocabulary.filter(|rows| vocabulary > *rows) {
            return Err(content(
                &path,
                format!("expected at most {rows} tokens, the rows of the model's embedding, found {vocabulary}"),
            ));
        }
        let (limit, side) = (limit(spec, model)?, side(spec, model)?);
        inner.with_truncation(None).map_err(|error| content(&path, error.to_string()))?;
        let special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        if let Some(limit) = limit.filter(|limit| *limit <= special) {
            let what = format!("expected more than the {special} special tokens of a pair of texts, found {limit}");
            return Err(DataError::Content { file: "data.text.max_length".to_string(), what });
        }
        let hash = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self { inner, hash, limit, side, positions: model.positions })
    }

    /// Tokens of one text, or of two together.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub(super) fn encode(&self, texts: &[String]) -> Result<Encoded, String> {
        let refused = |error: tokenizers::Error| format!("cannot be tokenized: {error}");
        let alone = |text: &String| self.inner.encode(text.as_str(), false).map_err(refused);
        let (one, two) = match texts {
            [one] => (alone(one)?, None),
            [one, two] => (alone(one)?, Some(alone(two)?)),
            _ => return Err(format!("expected one or two texts, found {}", texts.len())),
        };
        let count = |one: &Encoding, two: &Option<Encoding>| one.len() + two.as_ref().map_or(0, Encoding::len);
        let before = count(&one, &two);
        // The tokenizer's own truncation stops each text early, and then takes other texts for the longer one.
        let (one, two) = match self.limit {
            None => (one, two),
            Some(limit) => {
                let special =
                    self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(two.is_some()));
                let direction = match self.side {
                    Side::Left => TruncationDirection::Left,
                    Side::Right => TruncationDirection::Right,
                };
                let (max_length, strategy) = (limit.saturating_sub(special), TruncationStrategy::LongestFirst);
                let how = TruncationParams { max_length, direction, strategy, stride: 0 };
                truncate_encodings(one, two, &how).map_err(refused)?
            }
        };
        let is_truncated = count(&one, &two) < before;
        let encoding = self.inner.post_process(one, two, true).map_err(refused)?;
        let ids = encoding.get_ids().to_vec();
        let second = encoding.get_type_ids().iter().position(|&of| of == 1).unwrap_or(ids.len());
        if encoding.get_type_ids()[second..].contains(&0) {
            return Err("the tokenizer mixes the tokens of two texts, which is not supported".to_string());
        }
        Ok(Encoded { ids, second, is_truncated })
    }
}

fn read(folder: &Path) -> Result<Vec<u8>, DataError> {
    let path = folder.join(FILE);
    source::of(&path).read(&path, LARGEST_TOKENIZER).map_err(|error| {
        match error.kind() {
        std::io::ErrorKind::NotFound => content(
            &path,
            "not found: texts are tokenized by it. Make one: `python -c \"from transformers import AutoTokenizer as T; \
             T.from_pretrained('FOLDER').save_pretrained('FOLDER')\"`"
                .to_string(),
        ),
        _ => DataError::Io { file: path.display().to_string(), source: error },
    }
    })
}

/// That two tokenizers whose bytes differ are the same but for padding and truncation, which are set here.
fn check_same((first, a): (&Path, &[u8]), (other, b): (&Path, &[u8])) -> Result<(), DataError> {
    let path = other.join(FILE);
    let parsed = |bytes: &[u8], path: &Path| {
        serde_json::from_slice::<Value>(bytes).map_err(|error| content(path, format!("is not JSON: {error}")))
    };
    let (mut a, mut b) = (parsed(a, &first.join(FILE))?, parsed(b, &path)?);
    for value in [&mut a, &mut b] {
        for key in ["padding", "truncation"] {
            value.as_object_mut().map(|object| object.remove(key));
        }
    }
    match difference(&a, &b, String::new()) {
        None => Ok(()),
        Some((place, a, b)) => Err(content(
            &path,
            format!("expected the tokenizer of {}, found a difference at {place}: {b} and not {a}", first.display()),
        )),
    }
}

/// The first difference of two values: its place, and both sides, shortened.
fn difference(a: &Value, b: &Value, place: String) -> Option<(String, String, String)> {
    let shown = |value: Option<&Value>| {
        let text = value.map_or("nothing".to_string(), Value::to_string);
        text.chars().take(60).collect::<String>()
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let place = format!("{place}/{key}");
            match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => difference(a, b, place),
                (a, b) => Some((place, shown(a), shown(b))),
            }
        }),
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|i| {
            let place = format!("{place}/{i}");
            match (a.get(i), b.get(i)) {
                (Some(a), Some(b)) => difference(a, b, place),
                (a, b) => Some((place, shown(a), shown(b))),
            }
        }),
        (a, b) => (a != b).then(|| (place, shown(Some(a)), shown(Some(b)))),
    }
}

/// Most tokens of a text: what is stated, else what folders of sentence-transformers say.
fn limit(spec: &TextSpec, model: &TextFacts<'_>) -> Result<Option<usize>, DataError> {
    if let Some(stated) = spec.max_length {
        return match model.positions {
            Some(positions) if stated > positions => Err(DataError::Content {
                file: "data.text.max_length".to_string(),
                what: format!("expected at most {positions} tokens, as the model takes, found {stated}"),
            }),
            _ => Ok(Some(stated)),
        };
    }
    let of = |value: &Value| value.get("max_seq_length").and_then(Value::as_u64).map(|most| most as usize);
    let found = agreed(&model.folders, SENTENCES, "max_seq_length", of)?;
    Ok(found.map(|most| model.positions.map_or(most, |positions| most.min(positions))))
}

/// Where texts are truncated: what is stated, else what the tokenizers' configuration says, else at their end.
fn side(spec: &TextSpec, model: &TextFacts<'_>) -> Result<Side, DataError> {
    if let Some(stated) = spec.truncate {
        return Ok(stated);
    }
    let of = |value: &Value| match value.get("truncation_side").and_then(Value::as_str) {
        Some("left") => Some(Side::Left),
        Some(_) => Some(Side::Right),
        None => None,
    };
    Ok(agreed(&model.folders, CONFIG, "truncation_side", of)?.unwrap_or(Side::Right))
}

/// What a file of each folder says, which must be the same in all.
fn agreed<T: PartialEq + std::fmt::Debug>(
    folders: &[PathBuf],
    name: &str,
    field: &str,
    of: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, DataError> {
    let mut first = None;
    for folder in folders {
        let path = folder.join(name);
        let found = match source::of(&path).read(&path, LARGEST_CONFIG) {
            Ok(bytes) => {
                let value: Value = serde_json::from_slice(without_mark(&bytes))
                    .map_err(|error| content(&path, format!("is not JSON: {error}")))?;
                of(&value)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(DataError::Io { file: path.display().to_string(), source }),
        };
        match &first {
            None => first = Some(found),
            Some(before) if *before != found => {
                let what = format!(
                    "{field}: expected {before:?} as in {}, found {found:?} (set it in [data.text])",
                    folders[0].display()
                );
                return Err(content(&path, what));
            }
            Some(_) => {}
        }
    }
    Ok(first.flatten())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;
    use crate::data::text::cache::TokenCache;

    #[derive(Deserialize)]
    struct Case {
        texts: Vec<String>,
        max_length: Option<usize>,
        truncate: Side,
        ids: Vec<u32>,
        types: Vec<u8>,
    }

    fn fixture(kind: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(kind)
    }

    fn facts(folders: Vec<PathBuf>) -> TextFacts<'static> {
        let cache = TokenCache { folder: None, bound: 0 };
        TextFacts { folders, config: None, inputs: vec![], positions: Some(64), vocabulary: None, cache }
    }

    fn refused(spec: &TextSpec, facts: &TextFacts<'_>) -> String {
        TextTokenizer::open(spec, facts).err().expect("it is refused").to_string()
    }

    #[test]
    fn tokens_are_those_of_transformers() {
        for kind in ["wordpiece", "bpe", "unigram"] {
            let golden = fs::read(fixture(kind).join("golden.json")).unwrap();
            let cases: Vec<Case> = serde_json::from_slice(&golden).unwrap();
            assert!(cases.len() > 60);
            for case in cases {
                let spec = TextSpec { max_length: case.max_length, truncate: Some(case.truncate), columns: None };
                let tokenizer = TextTokenizer::open(&spec, &facts(vec![fixture(kind)])).unwrap();
                let found = tokenizer.encode(&case.texts).unwrap();
                assert_eq!(found.ids, case.ids, "{kind}: {:?}", case.texts);
                let types: Vec<u8> = (0..found.ids.len()).map(|i| u8::from(i >= found.second)).collect();
                assert_eq!(types, case.types, "{kind}: {:?}", case.texts);
            }
        }
    }

    #[test]
    fn truncation_is_told() {
        let spec = TextSpec { max_length: Some(4), ..TextSpec::default() };
        let tokenizer = TextTokenizer::open(&spec, &facts(vec![fixture("wordpiece")])).unwrap();
        let encode = |text: &str| tokenizer.encode(&[text.to_string()]).unwrap();
        assert_eq!((encode("the cat").ids.len(), encode("the cat").is_truncated), (4, false));
        assert_eq!((encode("the cat the").ids.len(), encode("the cat the").is_truncated), (4, true));
    }

    #[test]
    fn tokenizers_that_cannot_be_used_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, text: &str| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(FILE), text).unwrap();
            folder
        };
        let sound = fs::read_to_string(fixture("wordpiece").join(FILE)).unwrap();
        let plain = TextSpec::default();
        let same = folder("same", &sound.replace("\"padding\":", "\"padding\": "));
        assert!(TextTokenizer::open(&plain, &facts(vec![fixture("wordpiece"), same.clone()])).is_ok());
        let other = folder("other", &sound.replace("\"lowercase\": true", "\"lowercase\": false"));
        let said = refused(&plain, &facts(vec![same.clone(), other]));
        assert!(said.contains("a difference at /normalizer/lowercase: false and not true"), "{said}");
        let said = refused(&plain, &facts(vec![folder("torn", &sound[..500])]));
        assert!(said.contains("is no tokenizer that can be read"), "{said}");
        let said = refused(&plain, &facts(vec![root.path().to_path_buf()]));
        assert!(said.contains("tokenizer.json: not found") && said.contains("AutoTokenizer"), "{said}");
        let said = refused(&plain, &facts(vec![]));
        assert!(said.contains("they are single files, not folders"), "{said}");
        let small = TextFacts { vocabulary: Some(10), ..facts(vec![same.clone()]) };
        assert!(
            refused(&plain, &small).contains("expected at most 10 tokens, the rows of the model's embedding, found ")
        );
        let short = TextSpec { max_length: Some(3), ..TextSpec::default() };
        assert!(refused(&short, &facts(vec![same.clone()])).contains("expected more than the 3 special tokens"));
        let long = TextSpec { max_length: Some(65), ..TextSpec::default() };
        let said = refused(&long, &facts(vec![same.clone()]));
        assert!(
            said.contains("data.text.max_length: expected at most 64 tokens, as the model takes, found 65"),
            "{said}"
        );
    }

    #[test]
    fn limits_are_those_of_the_ingredients_unless_stated() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str, most: u32| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::copy(fixture("bpe").join(FILE), folder.join(FILE)).unwrap();
            fs::write(folder.join(SENTENCES), format!("{{\"max_seq_length\": {most}}}")).unwrap();
            fs::write(folder.join(CONFIG), "{\"truncation_side\": \"left\"}").unwrap();
            folder
        };
        let (a, b) = (folder("a", 32), folder("b", 48));
        let own = TextTokenizer::open(&TextSpec::default(), &facts(vec![a.clone()])).unwrap();
        assert_eq!((own.limit, own.side), (Some(32), Side::Left));
        let said = refused(&TextSpec::default(), &facts(vec![a.clone(), b.clone()]));
        assert!(said.contains("max_seq_length: expected Some(32) as in"), "{said}");
        let spec = TextSpec { max_length: Some(9), truncate: Some(Side::Right), columns: None };
        let stated = TextTokenizer::open(&spec, &facts(vec![a, b])).unwrap();
        assert_eq!((stated.limit, stated.side), (Some(9), Side::Right));
    }
}
