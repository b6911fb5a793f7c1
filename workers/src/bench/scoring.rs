//! Scoring, and the greedy soup, whose seconds are those of its scores.

use std::fs;
use std::path::Path;
use std::time::Instant;

use mehl_soup::host;
use mehl_soup::runner::engine::SoupEngine;
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::ComputeDtype;
use mehl_soup::zoo::HashCache;
use mehl_soup_worker::engine::{Inputs, device, memory};
use mehl_soup_worker::families::Precision;
use tch::{Device, Kind};

use super::zoo::{self, Size};
use super::{BenchArgs, ROUNDS, Unwatched, engine, lines, median};

/// Samples that are scored.
const SAMPLES: usize = 64;
/// Samples of learn, which a finished task scores too: so few that they do not count.
pub const FEW: usize = 4;
/// Ingredients.
pub const K: usize = 8;
/// Scores of one model in each round, beside a greedy task.
const BESIDE: usize = 3;
/// Samples a batch.
const BATCHES: [usize; 2] = [16, 64];

/// Makes what is missing of a zoo of `K` ViT-B/32, and a specification of a task without learning. Answers the models'
/// number of values.
pub fn make(args: &BenchArgs, spec: &Path, method: &str, samples: usize) -> anyhow::Result<usize> {
    let config = zoo::make(&args.out, Size::VitB, K, args.batch)?;
    for n in [FEW, samples] {
        zoo::make_samples(&args.out.join(format!("samples-{n}.safetensors")), Size::VitB, n)?;
    }
    let ingredients: Vec<String> = (0..K).map(|k| format!("'zoo/k{k:03}'")).collect();
    let text = format!(
        "[zoo]\nallow_chance = true\ningredients = [{}]\n\
         [data]\nlearn = 'samples-{FEW}.safetensors'\nselect = 'samples-{samples}.safetensors'\n\
         [soup]\nmethod = '{method}'\n[compute]\nscore_batch = {samples}\n",
        ingredients.join(", ")
    );
    fs::write(spec, text)?;
    Ok(Size::VitB.elements(&config))
}

fn open(spec: &Path) -> anyhow::Result<Inputs> {
    let (spec, cache) = (parse_spec(spec)?, HashCache::from_environment());
    Ok(Inputs::open(&spec, Device::Cpu, Kind::Float, cache.as_ref(), &mut |_| {})?)
}

fn use_threads(args: &BenchArgs) -> usize {
    let threads = args.threads.unwrap_or_else(device::cores);
    tch::set_num_threads(threads as i32);
    device::limit_threads(threads);
    threads
}

/// Samples a second of one model, as the engine scores it.
pub fn score(args: &BenchArgs) -> anyhow::Result<()> {
    let threads = use_threads(args);
    let spec = args.out.join("score.toml");
    let parameters = make(args, &spec, "best", SAMPLES)?;
    memory::give_back_freed_pages();
    let before = host::memory().anonymous;
    let inputs = open(&spec)?;
    let mut found = BATCHES.map(|batch| (batch, vec![], 0));
    // One turn that does not count.
    for round in 0..=ROUNDS {
        for (batch, seconds, most) in &mut found {
            memory::give_back_freed_pages();
            let began = Instant::now();
            let (scored, peak) = memory::peak_while(|| inputs.score(&inputs.data.select, *batch, Precision::Full));
            scored?;
            if round > 0 {
                seconds.push(began.elapsed().as_secs_f64());
                *most = peak.max(*most);
            }
        }
    }
    println!("scores of ViT-B/32, 224 px, f32, {SAMPLES} samples, {threads} threads");
    for (batch, seconds, peak) in found {
        let rate = SAMPLES as f64 / median(seconds);
        println!("batch {batch:2}: {rate:.1} samples/s, {:.2} GB", (peak - before) as f64 / 1e9);
        if let Some(file) = &args.lines {
            let mut line = serde_json::json!({
                "what": "score", "dtype": "f32", "batch": batch, "parameters": parameters,
                "samples_per_second": rate, "seconds_per_iteration": batch as f64 / rate,
                "peak_anonymous_bytes": peak, "anonymous_before_bytes": before,
            });
            lines::add_linear(&mut line, ComputeDtype::F32, Device::Cpu);
            lines::append(file, threads, line)?;
        }
    }
    Ok(())
}

/// Seconds of a greedy task beside those of as many scores as there are ingredients.
pub fn greedy(args: &BenchArgs) -> anyhow::Result<()> {
    let threads = use_threads(args);
    let path = args.out.join("greedy.toml");
    let parameters = make(args, &path, "greedy", SAMPLES)?;
    memory::give_back_freed_pages();
    let before = host::memory().anonymous;
    let (mut manifest, mut scores, mut seconds, mut most) = (None::<Manifest>, vec![], vec![], 0);
    for _ in 0..ROUNDS {
        let inputs = open(&path)?;
        for _ in 0..BESIDE {
            let began = Instant::now();
            inputs.score(&inputs.data.select, SAMPLES, Precision::Full)?;
            scores.push(began.elapsed().as_secs_f64());
        }
        drop(inputs);
        memory::give_back_freed_pages();
        let (mut engine, task) = engine(&path, Device::Cpu, threads)?;
        // Ingredients are scored once.
        let scored = engine.scores(manifest.take(), &mut Unwatched)?;
        let manifest = &*manifest.insert(scored);
        memory::give_back_freed_pages();
        let began = Instant::now();
        let (done, peak) = memory::peak_while(|| engine.run(&task, manifest, None, &mut Unwatched));
        done?;
        seconds.push(began.elapsed().as_secs_f64());
        most = peak.max(most);
    }
    let (seconds, scores) = (median(seconds), K as f64 * median(scores));
    println!(
        "greedy soup of {K} ViT-B/32, {SAMPLES} samples, f32, {threads} threads: {seconds:.2} s; {K} scores of one model \
         {scores:.2} s; {:.2} GB\ntime, greedy over its scores: {:.3} (target at most 1.15)",
        (most - before) as f64 / 1e9,
        seconds / scores
    );
    if let Some(file) = &args.lines {
        let mut line = serde_json::json!({
            "what": "greedy", "dtype": "f32", "k": K, "samples": SAMPLES, "parameters": parameters,
            "seconds": seconds, "ratio_to_scores": seconds / scores,
            "peak_anonymous_bytes": most, "anonymous_before_bytes": before,
        });
        lines::add_linear(&mut line, ComputeDtype::F32, Device::Cpu);
        lines::append(file, threads, line)?;
    }
    Ok(())
}
