//! What the fuzzers in `fuzz/` and `tests/library/fuzz_corpus.rs` call: each function takes any bytes, must return, and panics only
//! where something was accepted that should not have been.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::SafeTensors;

use crate::coefficients::CoefficientsFile;
use crate::source::is_plain_name;
use crate::sweep::expand::expand;
use crate::sweep::parse::{Format, parse_spec_text};
use crate::sweep::spec::{Distribution, Spec, Strategy};
use crate::untrusted::{LONGEST_TENSOR_NAME, MOST_SHARDS, MOST_TENSORS};
use crate::zoo::{parse_header, parse_index};

/// Most tasks of a specification that are spanned here: a grid of the most that are allowed takes seconds.
const MOST_TASKS: u128 = 64;

/// A specification: the first byte tells the format (modulo 3: TOML, YAML, JSON), the rest is the text. What is accepted
/// survives being stored, and spans tasks with different names.
pub fn spec(data: &[u8]) {
    let Some((format, text)) = data.split_first() else { return };
    let format = [Format::Toml, Format::Yaml, Format::Json][usize::from(format % 3)];
    let Ok(text) = std::str::from_utf8(text) else { return };
    let spec = match parse_spec_text(text, format, Path::new("/folder")) {
        Ok(spec) => spec,
        Err(error) => {
            assert!(!error.faults.is_empty(), "refused without a reason");
            assert!(error.to_string().len() < 64 << 10, "a message without end");
            return;
        }
    };
    let stored = serde_json::to_string(&spec).expect("a specification is plain data");
    let read: Spec = serde_json::from_str(&stored).expect("what was stored is read");
    assert_eq!(read, spec, "storing changed it");
    assert_eq!(read.identity(), spec.identity());
    let drawn = match spec.search.strategy {
        Strategy::Random | Strategy::Asha => spec.search.tasks as u128,
        // Fields that depend on the method make it fewer.
        Strategy::Grid => spec.search.space.iter().fold(1, |n: u128, (_, d)| n.saturating_mul(values(d))),
    };
    if drawn.saturating_add(spec.search.points.len() as u128) <= MOST_TASKS {
        let tasks = expand(&spec);
        let ids: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids.len(), tasks.len(), "two tasks of one name");
    }
}

/// Values of a searched field in a grid, counted apart from the program.
fn values(distribution: &Distribution) -> u128 {
    let whole = |low: i64, high: i64, step: i64| (i128::from(high) - i128::from(low)) / i128::from(step) + 1;
    match distribution {
        Distribution::Choice(values) => values.len() as u128,
        Distribution::Int(low, high) => whole(*low, *high, 1).unsigned_abs(),
        Distribution::StepInt(low, high, step) => whole(*low, *high, *step).unsigned_abs(),
        Distribution::StepUniform(low, high, step) | Distribution::StepLogUniform(low, high, step) => {
            ((high - low) / step).ceil() as u128 + 1
        }
        Distribution::Uniform(..) | Distribution::LogUniform(..) | Distribution::LogInt(..) => 1,
        Distribution::When(methods, of) => {
            assert!(!methods.is_empty() && of.methods().is_none(), "a condition of nothing, or within another");
            values(of)
        }
    }
}

/// A safetensors file. What is accepted lies within the file, and the safetensors crate accepts it too and reads the same.
pub fn weights(data: &[u8]) {
    let Ok((start, header)) = parse_header(data) else { return };
    let names = header.offset_keys();
    assert!(names.len() <= MOST_TENSORS);
    let theirs = SafeTensors::deserialize(data).expect("what is accepted here is a safetensors file");
    assert_eq!(theirs.len(), names.len());
    let mut end = 0;
    for name in &names {
        let info = header.info(name).expect("a name of the same header");
        let (from, to) = info.data_offsets;
        assert_eq!(from, end, "a gap or an overlap");
        let bytes = data.get(start + from..start + to).expect("data within the file");
        assert!(name.len() <= LONGEST_TENSOR_NAME && !name.chars().any(char::is_control));
        let view = theirs.tensor(name).expect("the same names");
        assert_eq!((view.dtype(), view.shape(), view.data()), (info.dtype, info.shape.as_slice(), bytes));
        end = to;
    }
    assert_eq!(start + end, data.len(), "bytes that belong to no tensor");
}

/// A shard index. What is accepted has bounded numbers, and a shard that counts as a plain name stays in its folder.
pub fn shard_index(data: &[u8]) {
    let Ok(tensors) = parse_index(data) else { return };
    assert!(tensors.values().collect::<BTreeSet<_>>().len() <= MOST_SHARDS);
    for shard in tensors.values().filter(|shard| is_plain_name(shard)) {
        let path = Path::new("/folder").join(shard);
        assert_eq!(path.parent(), Some(Path::new("/folder")), "{shard}");
        assert!(path.file_name().is_some_and(|name| name == shard.as_str()), "{shard}");
    }
    let index = serde_json::json!({ "weight_map": tensors }).to_string();
    assert_eq!(parse_index(index.as_bytes()), Ok(tensors), "writing changed it");
}

/// A coefficients file, as it is and with its digest set right, without which no change of the numbers would get far. What is
/// accepted is written and read again as the same.
pub fn coefficients(data: &[u8]) {
    accepted_coefficients(data);
    let Ok((start, _)) = parse_header(data) else { return };
    let marker = br#"\"digest\":\""#;
    let Some(at) = data[..start].windows(marker.len()).position(|window| window == marker) else { return };
    let digest = blake3::hash(&data[start..]).to_hex();
    let mut right = data.to_vec();
    if let Some(place) = right[..start].get_mut(at + marker.len()..at + marker.len() + digest.len()) {
        place.copy_from_slice(digest.as_bytes());
        accepted_coefficients(&right);
    }
}

fn accepted_coefficients(data: &[u8]) {
    let Ok(file) = CoefficientsFile::from_bytes(data) else { return };
    assert!(file.coefficients.values().iter().all(|value| value.is_finite()));
    assert!(file.coefficients.groups() > 0 && file.coefficients.ingredients() > 0);
    assert!(file.about.tensors.values().all(|group| *group < file.coefficients.groups()));
    let written = file.to_bytes();
    let read = CoefficientsFile::from_bytes(&written).expect("what was written is read");
    assert_eq!(read, file, "writing changed it");
    assert_eq!(read.to_bytes(), written, "one value has two spellings");
}
