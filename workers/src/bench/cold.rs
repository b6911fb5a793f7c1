//! From files that nobody has read to the first model batch: hashing, opening, directions; beside a plain read of the same bytes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use mehl_soup::coefficients::Coefficients;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::{DirectionDtype, Grouping};
use mehl_soup::zoo::LayerGroups;
use mehl_soup_worker::engine::{Inputs, device};
use mehl_soup_worker::hyperplane::{Directions, MixedTensors, Stored, write_soup};
use tch::{Device, Kind, Tensor};

use super::zoo::{self, Size};
use super::{BenchArgs, ROUNDS, lines, median};

/// Ingredients of the zoo: ten gigabytes in all.
const K: usize = 29;
/// Ingredients of the first model batch.
const B: usize = 4;
/// Bytes of one read, as `cat` does it.
const READ: usize = 128 << 10;

/// Makes the zoo if there is none, then measures.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let threads = args.threads.unwrap_or_else(device::cores);
    tch::set_num_threads(threads as i32);
    device::limit_threads(threads);
    zoo::make(&args.out, Size::VitB, K, args.batch)?;
    let out = std::path::absolute(&args.out)?;
    let files: Vec<PathBuf> = (0..K).map(|k| out.join(format!("zoo/k{k:03}/model.safetensors"))).collect();
    let mut bytes = 0;
    for file in &files {
        bytes += file.metadata().with_context(|| file.display().to_string())?.len();
    }
    let (mut plain, mut cold) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        forget(&files)?;
        let began = Instant::now();
        let mut buffer = vec![0; READ];
        for file in &files {
            let mut file = File::open(file)?;
            while file.read(&mut buffer)? > 0 {}
        }
        plain.push(began.elapsed().as_secs_f64());
        forget(&files)?;
        let began = Instant::now();
        first_model_batch(&out)?;
        cold.push(began.elapsed().as_secs_f64());
    }
    let (plain, cold) = (median(plain), median(cold));
    println!(
        "{:.1} GB, not in the system's cache: read {:.2} GB/s; hashed, opened and first model batch of {B} {:.2} GB/s: {:.3} (target at least 0.7)",
        bytes as f64 / 1e9,
        bytes as f64 / 1e9 / plain,
        bytes as f64 / 1e9 / cold,
        plain / cold
    );
    if let Some(file) = &args.lines {
        let line = serde_json::json!({
            "what": "number", "value": plain / cold, "at_least": 0.7,
            "name": format!("cold start of {:.1} GB (hashes, first model batch of {B}) over a plain read, {:.2} GB/s", bytes as f64 / 1e9, bytes as f64 / 1e9 / plain),
        });
        lines::append(file, threads, line)?;
    }
    Ok(())
}

/// Lets the system drop what it has of the files.
pub fn forget(files: &[PathBuf]) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    for file in files {
        let file = File::open(file)?;
        // Pages that are still to be written are not dropped.
        file.sync_all()?;
        // SAFETY: a call on a file that is open.
        let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        anyhow::ensure!(refused == 0, "the system does not drop its cache of a file: error {refused}");
    }
    Ok(())
}

/// What a task does before its first iteration, without scores: no hash is known.
fn first_model_batch(out: &Path) -> anyhow::Result<()> {
    let text = "zoo.ingredients = ['zoo/*']\ndata.learn = 'learn.safetensors'\ndata.select = 'learn.safetensors'\n";
    let spec = parse_spec_text(text, Format::Toml, out)?;
    let inputs = Inputs::open(&spec, Device::Cpu, Kind::Float, None, &mut |_| {})?;
    let groups = LayerGroups::new(Grouping::Tensor, &inputs.layout);
    let mixed = MixedTensors::new(&inputs.layout, &groups, inputs.model.as_ref());
    let members: Vec<usize> = (0..B).collect();
    let mean = Coefficients::mean_of(inputs.zoo.len(), mixed.group_count, &members);
    let mut centre = Vec::with_capacity(mixed.names.len());
    for ((name, &group), &n) in mixed.names.iter().zip(&mixed.groups).zip(&mixed.sizes) {
        let tensor = Tensor::f_zeros([n as i64], (Kind::Float, Device::Cpu))?;
        write_soup(&inputs.zoo, name, &mean.column(group), &tensor)?;
        centre.push(tensor);
    }
    let stored = Stored { device: Device::Cpu, kind: Kind::Float, dtype: DirectionDtype::F32 };
    std::hint::black_box(Directions::new(&inputs.zoo, &members, &mixed, centre, stored)?);
    Ok(())
}
