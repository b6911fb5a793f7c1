//! The fuzzers' corpora in `fuzz/corpus`, and mutations of them, through the same entry points: what is checked where no fuzzer runs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{blob, counter, entry, floats, raw};
use mehl_soup::coefficients::{About, Coefficients, CoefficientsFile, IngredientRef, Statistic};
use mehl_soup::fuzzing;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::Dtype;

type Target = fn(&[u8]);
const TARGETS: [(&str, Target); 4] = [
    ("spec", fuzzing::spec),
    ("weights", fuzzing::weights),
    ("shard_index", fuzzing::shard_index),
    ("coefficients", fuzzing::coefficients),
];

fn corpus_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// All of a target's inputs, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(corpus_folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus for {target}");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_input_of_the_corpora() {
    for (name, target) in TARGETS {
        for (path, bytes) in corpus(name) {
            let checked = std::panic::catch_unwind(|| target(&bytes));
            assert!(checked.is_ok(), "{}", path.display());
        }
    }
}

/// Each target accepts some of its corpus: otherwise the invariants of what is accepted are never looked at.
#[test]
fn the_seeds_that_should_be_accepted_are() {
    let spec = |bytes: &[u8]| {
        let format = [
            mehl_soup::sweep::parse::Format::Toml,
            mehl_soup::sweep::parse::Format::Yaml,
            mehl_soup::sweep::parse::Format::Json,
        ][usize::from(bytes[0] % 3)];
        let text = std::str::from_utf8(&bytes[1..]).unwrap();
        mehl_soup::sweep::parse::parse_spec_text(text, format, Path::new("/folder"))
            .map(drop)
            .map_err(|e| e.to_string())
    };
    for (path, bytes) in corpus("spec") {
        if path.file_name().unwrap().to_str().unwrap().starts_with("good") {
            assert_eq!(spec(&bytes), Ok(()), "{}", path.display());
        }
    }
    for (path, bytes) in corpus("coefficients") {
        if path.file_name().unwrap().to_str().unwrap().starts_with("good") {
            CoefficientsFile::from_bytes(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in corpus("weights") {
        if path.file_name().unwrap().to_str().unwrap().starts_with("good") {
            let copy = root.path().join("x.safetensors");
            fs::write(&copy, bytes).unwrap();
            mehl_soup::zoo::Ingredient::open(&copy).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

/// One step away from an input.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    /// The end of another input of the corpus from a place on.
    Splice(Index, Index, Index),
    /// The first eight bytes, a header's length where there is one.
    Length(u64),
    /// What the first eight bytes say, changed by a little.
    LengthBy(i64),
    /// Digits are where counts, shapes and offsets are.
    Digit(Index, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::*;
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Flip(at, 1 << bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Set(at, byte)),
        any::<Index>().prop_map(Cut),
        (any::<Index>(), 1..40usize).prop_map(|(at, n)| Remove(at, n)),
        (any::<Index>(), 1..40usize, 1..200usize).prop_map(|(at, n, times)| Repeat(at, n, times)),
        (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(a, b, c)| Splice(a, b, c)),
        prop_oneof![any::<u64>(), 0..2000u64].prop_map(Length),
        (-40..40i64).prop_map(LengthBy),
        (any::<Index>(), b'0'..=b'9').prop_map(|(at, digit)| Digit(at, digit)),
    ]
}

fn apply(mutation: &Mutation, bytes: &mut Vec<u8>, corpus: &[(PathBuf, Vec<u8>)]) {
    if bytes.is_empty() {
        return;
    }
    let n = bytes.len();
    match mutation {
        Mutation::Flip(at, bit) => bytes[at.index(n)] ^= bit,
        Mutation::Set(at, byte) => bytes[at.index(n)] = *byte,
        Mutation::Cut(at) => bytes.truncate(at.index(n)),
        Mutation::Remove(at, count) => drop(bytes.drain(at.index(n)..n.min(at.index(n) + count))),
        Mutation::Repeat(at, count, times) => {
            let at = at.index(n);
            let part = bytes[at..n.min(at + count)].repeat(*times);
            bytes.splice(at..at, part);
        }
        Mutation::Splice(at, which, from) => {
            let other = &corpus[which.index(corpus.len())].1;
            bytes.truncate(at.index(n));
            bytes.extend(&other[from.index(other.len() + 1)..]);
        }
        Mutation::Length(length) => {
            if let Some(prefix) = bytes.first_chunk_mut::<8>() {
                *prefix = length.to_le_bytes();
            }
        }
        Mutation::LengthBy(by) => {
            if let Some(prefix) = bytes.first_chunk_mut::<8>() {
                *prefix = u64::from_le_bytes(*prefix).wrapping_add_signed(*by).to_le_bytes();
            }
        }
        Mutation::Digit(at, digit) => {
            let digits: Vec<usize> = (0..n).filter(|&i| bytes[i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                bytes[digits[at.index(digits.len())]] = *digit;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn mutations_of_the_corpora(which in 0..TARGETS.len(), seed in any::<Index>(), mutations in vec(mutation(), 1..5)) {
        thread_local! {
            static CORPORA: Vec<Vec<(PathBuf, Vec<u8>)>> = TARGETS.iter().map(|(name, _)| corpus(name)).collect();
        }
        let (_, target) = TARGETS[which];
        let bytes = CORPORA.with(|corpora| {
            let corpus = &corpora[which];
            let mut bytes = corpus[seed.index(corpus.len())].1.clone();
            mutations.iter().for_each(|mutation| apply(mutation, &mut bytes, corpus));
            bytes
        });
        target(&bytes);
    }

    #[test]
    fn any_bytes(which in 0..TARGETS.len(), bytes in vec(any::<u8>(), 0..300)) {
        TARGETS[which].1(&bytes);
    }
}

/// Writes the seeds that are files of formats; those that fuzzers found stay as they are. Run by choice after a format has changed:
/// `cargo test --release --test library write_seeds -- --ignored`.
#[test]
#[ignore = "writes to fuzz/corpus"]
fn write_seeds() {
    let put = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(corpus_folder(target)).unwrap();
        fs::write(corpus_folder(target).join(name), bytes).unwrap();
    };
    // Specifications.
    let toml = "name = 'n'\nseed = 3\n[zoo]\ningredients = ['z/*', '/a/b']\nfamily = 'auto'\ntop = 5\n[data]\nlearn = 'l'\nselect = 's'\n\
                [soup]\nmethod = 'mehl+'\nbatch = 64\n[search]\nstrategy = 'random'\ntasks = 8\npoints = [{ batch = 3 }]\n\
                [search.space]\nlearning_rate = { log_uniform = [1e-3, 0.1] }\nmodel_batch = [2, 4, 'auto']\n[compute]\nthreads = 2\n";
    let yaml = "zoo:\n  ingredients: [z/*]\ndata: {learn: l}\nsoup:\n  method: hl\nsearch:\n  strategy: grid\n  space:\n    batch: [1, 2]\n";
    let json =
        r#"{"zoo": {"ingredients": ["z/*"]}, "data": {"learn": "l", "select_fraction": 0.5}, "soup": {"seed": 7}}"#;
    for (name, prefix, text) in [
        ("good.toml", "0", toml.to_string()),
        ("good.yaml", "1", yaml.to_string()),
        ("good.json", "2", json.to_string()),
        ("aliases.yaml", "1", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n".to_string()),
        ("deep.toml", "0", format!("a = {}", "[".repeat(300))),
        ("deep.yaml", "1", "- ".repeat(300)),
        ("deep.json", "2", "{\"a\":".repeat(300)),
        ("tags.yaml", "1", "!!int x: !!float .nan\n? [a, b]\n: |\n  c\n".to_string()),
        ("dotted.toml", "0", format!("a{} = 1\n[a.b]\n", ".a".repeat(100))),
        ("accents.toml", "0", "zoo = ['é', \"\\u00e9\"]\n= é\n".to_string()),
    ] {
        put("spec", name, format!("{prefix}{text}").as_bytes());
    }
    // Weights.
    let tensors = [
        floats("a.weight", Dtype::F32, &[2, 3], &[1.0; 6]),
        floats("b", Dtype::BF16, &[2], &[0.5; 2]),
        counter("n", 7),
    ];
    put("weights", "good", &blob(&tensors));
    put("weights", "good-unsorted", &raw(format!("{{{},{}}}", entry("a", "[2]", 2, 4), entry("b", "[2]", 0, 2)), 4));
    let four_bits = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}}"#;
    put("weights", "good-four-bits", &raw(four_bits, 3));
    put("weights", "empty-tensors", &raw(format!("{{{},{}}}", entry("e", "[0,9]", 0, 0), entry("f", "[0]", 0, 0)), 0));
    put("weights", "twice", &raw(format!("{{{0},{0}}}", entry("a", "[2]", 0, 2)), 2));
    put("weights", "overlap", &raw(format!("{{{},{}}}", entry("a", "[3]", 0, 3), entry("b", "[3]", 1, 4)), 4));
    put("weights", "overflow", &raw(format!("{{{}}}", entry("a", "[4294967296,4294967296,16]", 0, 4)), 4));
    let part = (1u64 << 61) - 1;
    let around: Vec<String> =
        (0..8).map(|i| entry(&i.to_string(), &format!("[{part}]"), i * part, (i + 1) * part)).collect();
    put("weights", "wraps", &raw(format!("{{{}}}", around.join(",")), 0));
    put("weights", "deep", &raw("{\"a\":".repeat(300), 0));
    let unknown_key = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"other":9e999}}"#;
    put("weights", "unknown-key", &raw(unknown_key, 1));
    put("weights", "long-header", &u64::MAX.to_le_bytes());
    // Shard indexes.
    let good = r#"{"metadata":{"total_size":8},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    let outside =
        r#"{"weight_map":{"a":"../x","b":"/etc/x","c":"sub/x","d":"./x","e":"..","f":"","g":"x/","h":"a\u0000b"}}"#;
    let twice = r#"{"weight_map":{"a":"x","\u0061":"y"}}"#;
    let deep = format!(r#"{{"metadata":{}{},"weight_map":{{}}}}"#, "[".repeat(300), "]".repeat(300));
    for (name, text) in [("good", good), ("outside", outside), ("twice", twice), ("deep", &deep)] {
        put("shard_index", name, text.as_bytes());
    }
    // Coefficients.
    let ingredient =
        |name: &str| IngredientRef { name: name.into(), path: format!("/z/{name}").into(), hash: "00".into() };
    let mut file = CoefficientsFile {
        coefficients: Coefficients::from_values(2, 2, vec![0.25, 1.5, 0.75, -0.5]).unwrap(),
        statistics: Default::default(),
        about: About {
            objective: Default::default(),
            version: About::VERSION,
            program: "mehl-soup".into(),
            sweep: "s".into(),
            task_id: "0001-mehl+".into(),
            method: "mehl+".into(),
            hyperparameters: serde_json::json!({"batch": 2, "model_batch": "auto"}),
            seed: 1,
            family: "vit".into(),
            ingredients: vec![ingredient("a"), ingredient("b")],
            has_base: false,
            groups: vec!["g".into(), "h".into()],
            tensors: [("w".to_string(), 0), ("v".to_string(), 1)].into(),
            scores: None,
            notes: vec!["note".into()],
            data: vec![],
            better_than_best_ingredient: Some(true),
        },
    };
    put("coefficients", "good", &file.to_bytes());
    file.statistics = [("n.running_var".to_string(), Statistic { shape: vec![2], values: vec![0.5, 1.0] })].into();
    put("coefficients", "good-statistics", &file.to_bytes());
    file.coefficients = Coefficients::from_values(2, 2, vec![f64::NAN, 1.5, 0.75, -0.5]).unwrap();
    put("coefficients", "not-finite", &file.to_bytes());
    file.about.version = 99;
    put("coefficients", "version", &file.to_bytes());
}
