//! What a model batch costs from its first byte read to its fold, for more and more ingredients: with b fixed it must not depend on K.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::host;
use mehl_soup::runner::engine::{Directive, HostError, Progress, SoupEngine, TaskHost};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup_worker::engine::{device, memory};
use tch::Device;

use super::zoo::{self, Size};
use super::{BenchArgs, ROUNDS, Unwatched, engine, lines, median, until_stopped};

/// Ingredients of each zoo.
const KS: [usize; 4] = [8, 16, 32, 64];
/// Ingredients of a model batch.
const B: usize = 4;
/// Model batches that count, after one that does not: the first centre is the mean of all ingredients.
const COUNTED: usize = 3;
/// Passes over the two batches of learn data, each model batch.
const INNER_EPOCHS: usize = 3;

/// Makes the zoo if there is none, then measures each K in turns.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let threads = args.threads.unwrap_or_else(device::cores);
    let out = args.out.join("small");
    let config = zoo::make(&out, Size::VitS, KS[KS.len() - 1], args.batch)?;
    let elements = Size::VitS.elements(&config);
    memory::give_back_freed_pages();
    let before = host::memory().anonymous;
    let mut found: BTreeMap<usize, Cost> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for k in KS {
            memory::give_back_freed_pages();
            let cost = found.entry(k).or_default();
            let (ran, peak) = memory::peak_while(|| measure(&out, k, args.batch, threads, cost));
            ran?;
            cost.peak = cost.peak.max(peak);
        }
    }
    println!("ViT-S/32, {elements} values, b = {B}, batch {}, f32, {threads} threads", args.batch);
    for (k, cost) in &found {
        let seconds = median(cost.seconds.clone());
        println!("K = {k:2}: {seconds:.3} s a model batch, {:.2} GB", (cost.peak - before) as f64 / 1e9);
        if let Some(file) = &args.lines {
            let line = serde_json::json!({
                "what": "mehl+", "dtype": "f32", "direction_dtype": "f32", "batch": args.batch, "parameters": elements, "k": k, "b": B,
                "seconds_per_iteration": seconds / (2 * INNER_EPOCHS) as f64,
                "samples_per_second": (2 * INNER_EPOCHS * args.batch) as f64 / seconds,
                "model_batch_seconds": cost.seconds,
                "peak_anonymous_bytes": cost.peak, "anonymous_before_bytes": before,
                "stored_bytes": B * elements * 4,
            });
            lines::append(file, threads, line)?;
        }
    }
    let medians: Vec<f64> = found.values().map(|cost| median(cost.seconds.clone())).collect();
    let (low, high) = medians.iter().fold((f64::INFINITY, 0f64), |(low, high), &m| (low.min(m), high.max(m)));
    println!("dearest over cheapest: {:.3} (target at most 1.05)", high / low);
    Ok(())
}

/// What was found for one K.
#[derive(Default)]
struct Cost {
    /// Of each counted model batch.
    seconds: Vec<f64>,
    /// Largest anonymous memory.
    peak: u64,
    /// Scores of the ingredients, which are computed once.
    manifest: Option<Manifest>,
}

fn measure(out: &std::path::Path, k: usize, batch: usize, threads: usize, cost: &mut Cost) -> anyhow::Result<()> {
    let names: Vec<String> = (0..k).map(|k| format!("\"zoo/k{k:03}\"")).collect();
    let path = out.join(format!("k{k}.toml"));
    let text = format!(
        "[zoo]\nallow_chance = true\ningredients = [{}]\n[data]\nlearn = \"learn.safetensors\"\nselect = \"learn.safetensors\"\n\
         [soup]\nmethod = \"mehl+\"\nmodel_batch = {B}\nbatch = {batch}\ninner_epochs = {INNER_EPOCHS}\nouter_epochs = 4\nearly_stopping = false\n\
         [compute]\ndtype = \"f32\"\n",
        names.join(", ")
    );
    fs::write(&path, text)?;
    let (mut engine, task) = engine(&path, Device::Cpu, threads)?;
    let scored = engine.scores(cost.manifest.take(), &mut Unwatched)?;
    let mut watch = FoldHost { folds: vec![] };
    until_stopped(&mut engine, &task, cost.manifest.insert(scored), &mut watch)?;
    cost.seconds.extend(watch.folds.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).take(COUNTED));
    Ok(())
}

/// Notes when each model batch was folded, and stops a task after enough of them.
struct FoldHost {
    folds: Vec<Instant>,
}

impl TaskHost for FoldHost {
    fn progress(&mut self, _: &Progress) -> Directive {
        if self.folds.len() > COUNTED { Directive::Stop } else { Directive::Continue }
    }
    fn save(&mut self, state: &Checkpoint) -> Result<(), HostError> {
        if state.finished.len() > self.folds.len() {
            self.folds.push(Instant::now());
        }
        Ok(())
    }
    fn note(&mut self, message: &str) {
        eprintln!("note: {message}");
    }
}
