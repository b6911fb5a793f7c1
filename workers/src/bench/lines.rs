//! Measurements as lines of JSON, as `workers/benches/tables.py` reads them: each says what was measured, on what.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use mehl_soup::sweep::spec::{ComputeDtype, LinearLibrary};
use mehl_soup_worker::engine::{build, linear};
use serde_json::{Value, json};
use tch::{Device, Kind};

/// Instructions that say how fast a processor can be here.
const FLAGS: [&str; 4] = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];

/// Appends a line of this program's to a file: `measured` with who measured it, and where.
pub fn append(file: &Path, threads: usize, measured: Value) -> anyhow::Result<()> {
    let mut line = json!({
        "who": "mehl-soup",
        "device": "cpu",
        "threads": threads,
        "versions": { "mehl-soup": env!("CARGO_PKG_VERSION"), "libtorch": build(Device::Cpu, threads, LinearLibrary::default()).libtorch },
        "machine": machine(),
    });
    if let (Some(line), Value::Object(measured)) = (line.as_object_mut(), measured) {
        line.extend(measured);
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(writeln!(file, "{line}")?)
}

/// Says which library computes linear layers, where that is not libtorch's choice.
pub fn add_linear(line: &mut Value, dtype: ComputeDtype, device: Device) {
    let library = linear::resolve(None, Kind::Float, device).0;
    if dtype == ComputeDtype::F32 && library != LinearLibrary::Libtorch {
        line["linear"] = library.as_str().into();
    }
}

fn machine() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        line.unwrap_or_default().trim().to_string()
    };
    let has = field("flags");
    let flags: Vec<&str> = FLAGS.into_iter().filter(|flag| has.split(' ').any(|own| own == *flag)).collect();
    json!({
        "cpu": field("model name"),
        "cpu_family": field("cpu family"),
        "cpu_model": field("model"),
        "cores": cpu.lines().filter(|line| line.starts_with("processor")).count(),
        "flags": flags,
        "memory_bytes": mehl_soup::host::memory_limit(),
    })
}
