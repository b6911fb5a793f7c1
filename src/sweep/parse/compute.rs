//! `[compute]`.

use bytesize::ByteSize;

use super::node::Value;
use super::section::{Section, wrong};
use crate::sweep::spec::{ComputeDtype, ComputeSpec, LinearLibrary};

/// Longest time that is taken, in seconds (30 years): still a `Duration`.
pub(super) const LONGEST_SECONDS: f64 = 1e9;

/// Largest `compute.paired_tasks`: each may have a megabyte.
const MOST_PAIRED: i64 = 1000;

/// Reads `[compute]`.
pub(super) fn compute(mut section: Section<'_>) -> ComputeSpec {
    let spec = ComputeSpec {
        devices: devices(&mut section),
        threads: section.integer("threads", 1..=4096).map(|threads| threads as usize),
        dtype: dtype(&mut section),
        linear: linear(&mut section),
        recompute: section.boolean("recompute").unwrap_or(false),
        memory_bytes: size(&mut section, "memory", 1),
        checkpoint_seconds: section.number("checkpoint_seconds", 0.0..=LONGEST_SECONDS).unwrap_or(10.0),
        score_batch: section.count("score_batch").unwrap_or(256),
        image_cache_bytes: size(&mut section, "image_cache", 0).unwrap_or_else(ComputeSpec::default_image_cache),
        paired_tasks: section
            .integer("paired_tasks", 0..=MOST_PAIRED)
            .map_or_else(ComputeSpec::default_paired_tasks, |tasks| tasks as usize),
    };
    section.finish();
    spec
}

fn dtype(section: &mut Section<'_>) -> Option<ComputeDtype> {
    let stated = [ComputeDtype::F32, ComputeDtype::F64, ComputeDtype::Bf16].map(|dtype| (dtype.as_str(), Some(dtype)));
    let [f32, f64, bf16] = stated;
    section.word("dtype", &[("auto", None), f32, f64, bf16]).flatten()
}

fn linear(section: &mut Section<'_>) -> Option<LinearLibrary> {
    let [libtorch, onednn] =
        [LinearLibrary::Libtorch, LinearLibrary::Onednn].map(|library| (library.as_str(), Some(library)));
    section.word("linear", &[("auto", None), libtorch, onednn]).flatten()
}

fn devices(section: &mut Section<'_>) -> Vec<String> {
    const DEVICE: &str = "`cpu`, `cuda` or `cuda:` and a number";
    let Some(devices) = section.texts("devices", DEVICE) else { return vec!["cpu".into()] };
    if let Some(field) = section.field("devices") {
        let items = match &field.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(field.node),
        };
        for (i, item) in items.iter().enumerate() {
            if let Value::Text(device) = &item.value
                && !is_device(device)
            {
                section.fault_at(item.place, &format!("{}[{i}]", field.path), wrong(DEVICE, item));
            }
        }
    }
    devices
}

fn is_device(device: &str) -> bool {
    let number = |n: &str| n.len() <= 3 && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    matches!(device, "cpu" | "cuda") || device.strip_prefix("cuda:").is_some_and(number)
}

/// Bytes, as a whole number or in words like `8GiB`.
fn size(section: &mut Section<'_>, key: &'static str, least: u64) -> Option<u64> {
    let field = section.field(key)?;
    let bytes = match &field.node.value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        Value::Text(text) => text.parse::<ByteSize>().ok().map(|size| size.as_u64()),
        _ => None,
    };
    match bytes {
        Some(bytes) if bytes >= least => Some(bytes),
        _ => section.refuse(&field, "a number of bytes, or a size such as `8GiB` or `8GB`"),
    }
}
