//! How fast weights are hashed and mixed from the page cache. Run by choice:
//! `cargo test --release --test library read_speed:: -- --ignored --nocapture`.
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use mehl_soup::coefficients::mix_tensor;
use mehl_soup::zoo::Zoo;

/// Elements of each tensor, 128 MiB in F32; this many tensors make a file of 1 GiB.
const ELEMENTS: usize = 32 << 20;
const TENSORS: usize = 8;
const ROUNDS: usize = 7;

/// A file of finite values, written in pieces.
fn write(path: &Path) {
    let bytes = ELEMENTS * 4;
    let entry = |t: usize| {
        let (from, to) = (t * bytes, (t + 1) * bytes);
        format!(r#""t{t}":{{"dtype":"F32","shape":[{ELEMENTS}],"data_offsets":[{from},{to}]}}"#)
    };
    let header = format!("{{{}}}", (0..TENSORS).map(entry).collect::<Vec<_>>().join(","));
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    for i in 0..ELEMENTS * TENSORS {
        out.write_all(&((i % 1013) as f32 * 1e-3).to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}

#[test]
#[ignore = "a measurement: writes a file of 1 GiB"]
fn hashing_and_mixing_a_gibibyte() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("large.safetensors");
    write(&path);
    let zoo = Zoo::open(&[path]).unwrap();
    let gib = (ELEMENTS * TENSORS * 4) as f64 / f64::from(1 << 30);
    let mut out = vec![0f32; ELEMENTS];
    for round in 0..ROUNDS {
        let begin = Instant::now();
        zoo.hash(None, &mut |_, _| {}).unwrap();
        let hashed = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        for t in 0..TENSORS {
            mix_tensor(&zoo, &format!("t{t}"), &[0.5], &mut out).unwrap();
        }
        let mixed = begin.elapsed().as_secs_f64();
        println!("round {round}: hash {:.3} GiB/s, mix {:.3} GiB/s", gib / hashed, gib / mixed);
    }
}
