//! Seconds of `mehl-soup materialize` for the mean of a zoo: with its files in the page cache, and read from the disk.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mehl_soup::host;
use mehl_soup::runner::engine::SoupEngine;
use mehl_soup_worker::engine::device;
use tch::Device;

use super::cold::forget;
use super::scoring::{FEW, K, make};
use super::{BenchArgs, ROUNDS, Unwatched, engine, lines, median};

/// Between two looks at the program's memory.
const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// Makes the zoo if there is none, then measures.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let threads = args.threads.unwrap_or_else(device::cores);
    let spec = args.out.join("mean.toml");
    let parameters = make(args, &spec, "uniform", FEW)?;
    let coefficients = args.out.join("mean.safetensors");
    fs::write(&coefficients, uniform(&spec, threads)?)?;
    let out = std::path::absolute(&args.out)?;
    let files: Vec<PathBuf> = (0..K).map(|k| out.join(format!("zoo/k{k:03}/model.safetensors"))).collect();
    let (mut warm, mut cold, mut most) = (vec![], vec![], [0; 2]);
    for _ in 0..ROUNDS {
        forget(&files)?;
        // What this reads is in the page cache for the next.
        for (seconds, most) in [&mut cold, &mut warm].into_iter().zip(&mut most) {
            let (took, peak) = materialize(&coefficients, &out.join("mean"))?;
            seconds.push(took);
            *most = peak.max(*most);
        }
    }
    for (cache, seconds, peak) in [("cold", median(cold), most[0]), ("warm", median(warm), most[1])] {
        println!("mean of {K} ViT-B/32 by mehl-soup materialize, {cache}: {seconds:.3} s, {:.0} MB", peak as f64 / 1e6);
        if let Some(file) = &args.lines {
            let line = serde_json::json!({
                "what": "mean", "dtype": "f32", "k": K, "cache": cache, "parameters": parameters,
                "seconds": seconds, "peak_anonymous_bytes": peak,
            });
            lines::append(file, threads, line)?;
        }
    }
    Ok(())
}

/// The coefficients file of the mean.
fn uniform(spec: &Path, threads: usize) -> anyhow::Result<Vec<u8>> {
    let (mut engine, task) = engine(spec, Device::Cpu, threads)?;
    let manifest = engine.scores(None, &mut Unwatched)?;
    Ok(engine.run(&task, &manifest, None, &mut Unwatched)?.coefficients)
}

/// Seconds of the program that stands beside this one, and its largest anonymous memory.
fn materialize(coefficients: &Path, out: &Path) -> anyhow::Result<(f64, u64)> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let program = std::env::current_exe()?.with_file_name("mehl-soup");
    let mut command = Command::new(&program);
    command.arg("materialize").arg(coefficients).arg("--out").arg(out).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak.max(host::memory_of(child.id()).anonymous);
        std::thread::sleep(POLL_INTERVAL);
    };
    let seconds = began.elapsed().as_secs_f64();
    let mut said = String::new();
    child.stderr.take().context("standard error is a pipe")?.read_to_string(&mut said)?;
    ensure!(status.success(), "{} materialize: {status}: {said}", program.display());
    Ok((seconds, peak))
}
