//! Seconds of an iteration by phase, beside a bare forward and backward pass of the same model in the same process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::host;
use mehl_soup::runner::engine::{Directive, HostError, Progress, SoupEngine, TaskHost};
use mehl_soup::sweep::manifest::Manifest;
use mehl_soup::sweep::spec::DirectionDtype;
use mehl_soup_worker::data::Batch;
use mehl_soup_worker::engine::{Clock, allocations, device, dtype, linear, memory};
use mehl_soup_worker::families::{Model, Pass, Precision, Vit, VitConfig};
use mehl_soup_worker::objectives::{Backward, Classification, Course, Leaves, WholeGradient};
use tch::{Device, Kind, Tensor};

use super::zoo::{self, Size};
use super::{BenchArgs, BenchDtype, ROUNDS, Unwatched, engine, lines, median, until_stopped};

/// What loops are measured on, and how long.
struct Setup<'a> {
    size: Size,
    /// Folder of the zoo.
    out: PathBuf,
    device: &'a str,
    on: Device,
    threads: usize,
    ingredients: usize,
    model_batch: usize,
    batch: usize,
    dtypes: &'a [BenchDtype],
    recompute: bool,
    direction_dtype: &'a str,
    rounds: usize,
    /// Iterations before counting begins, in each round.
    warm_up: usize,
    /// Counted iterations of each round.
    iterations: usize,
    lines: Option<&'a std::path::Path>,
}

/// ViT-B/32, as the flags say.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    measure(&Setup {
        size: Size::VitB,
        out: args.out.clone(),
        device: &args.device,
        on: device::parse(&args.device)?,
        threads: args.threads.unwrap_or_else(device::cores),
        ingredients: args.ingredients,
        model_batch: args.model_batch,
        batch: args.batch,
        dtypes: &args.dtype,
        recompute: args.recompute,
        direction_dtype: &args.direction_dtype,
        rounds: ROUNDS,
        warm_up: 2,
        iterations: args.iterations,
        lines: args.lines.as_deref(),
    })
}

/// The demo's model, where an iteration is all overhead: f32, one thread unless the flags say otherwise.
pub fn small(args: &BenchArgs) -> anyhow::Result<()> {
    measure(&Setup {
        size: Size::Demo,
        out: args.out.join("demo"),
        device: "cpu",
        on: Device::Cpu,
        threads: args.threads.unwrap_or(1),
        ingredients: 8,
        model_batch: 4,
        batch: 32,
        dtypes: &[BenchDtype::F32],
        recompute: false,
        direction_dtype: "f32",
        rounds: 5,
        warm_up: 20,
        iterations: 200,
        lines: args.lines.as_deref(),
    })
}

/// Makes the zoo if there is none, then measures.
fn measure(setup: &Setup<'_>) -> anyhow::Result<()> {
    let (threads, on) = (setup.threads, setup.on);
    tch::set_num_threads(threads as i32);
    device::limit_threads(threads);
    let config = zoo::make(&setup.out, setup.size, setup.ingredients, setup.batch)?;
    // What libtorch and this program take before any model is there; both loops are counted from it, as what one frees the next takes again.
    memory::give_back_freed_pages();
    let before = host::memory().anonymous;
    let mut manifest = None;
    let mut loops: Vec<(Loop, Measured)> = vec![];
    for &dtype in setup.dtypes {
        for (engine, recompute) in [(false, false), (true, false), (false, true), (true, true)] {
            if setup.recompute || !recompute {
                loops.push((Loop { dtype, engine, recompute }, Measured::default()));
            }
        }
    }
    // In turns, so that whatever else the machine does meets all.
    for _ in 0..setup.rounds {
        for (which, measured) in &mut loops {
            // Memory is that of the first round.
            let known = (measured.anonymous, measured.on_device);
            memory::give_back_freed_pages();
            allocations::give_back(on);
            allocations::reset_peak(on);
            if which.engine {
                soup(setup, before, *which, &mut manifest, measured)?;
            } else {
                bare(setup, &config, before, *which, measured)?;
            }
            measured.on_device = allocations::device_memory(on).map(|memory| memory.peak);
            if known.0 > 0 {
                (measured.anonymous, measured.on_device) = known;
            }
        }
    }
    let elements = setup.size.elements(&config);
    report(setup, elements, &loops);
    if let Some(file) = setup.lines {
        for (which, measured) in &loops {
            let mut line = line(setup, *which, measured, before, elements);
            let bare = loops.iter().find(|(bare, _)| *bare == Loop { engine: false, ..*which });
            if let (true, Some((_, bare))) = (which.engine, bare) {
                // In turns in one process: other runs' bare loops met another machine.
                line["ratio_to_bare"] = (median(measured.seconds.clone()) / median(bare.seconds.clone())).into();
            }
            lines::append(file, threads, line)?;
        }
    }
    Ok(())
}

fn line(setup: &Setup<'_>, which: Loop, measured: &Measured, before: u64, elements: usize) -> serde_json::Value {
    let seconds = median(measured.seconds.clone());
    let mut line = serde_json::json!({
        "what": if which.engine { "mehl+" } else { "bare" },
        "dtype": which.dtype.name(),
        "batch": setup.batch,
        "parameters": elements,
        "seconds_per_iteration": seconds,
        "samples_per_second": setup.batch as f64 / seconds,
        "device": setup.device,
        "peak_device_bytes": measured.on_device,
        "peak_anonymous_bytes": measured.anonymous + before,
        "anonymous_before_bytes": before,
    });
    lines::add_linear(&mut line, which.dtype.into(), setup.on);
    if which.recompute {
        line["recompute"] = true.into();
    }
    if setup.size == Size::Demo {
        line["model"] = "small".into();
    }
    if which.engine {
        line["k"] = setup.ingredients.into();
        line["b"] = setup.model_batch.into();
        // What it does not know, the specification was refused for.
        let stated: DirectionDtype = serde_json::from_value(setup.direction_dtype.into()).unwrap_or_default();
        let stored = stated.resolve(which.dtype == BenchDtype::Bf16);
        // As `soup.direction_dtype` is documented: values, and a scale of two bytes for 64 of the whole numbers.
        let bytes = match stored {
            DirectionDtype::Bf16 => 2.0,
            DirectionDtype::Int8 => 66.0 / 64.0,
            DirectionDtype::Int4 => 34.0 / 64.0,
            DirectionDtype::Auto | DirectionDtype::F32 => 4.0,
        };
        line["direction_dtype"] = serde_json::to_value(stored).unwrap_or_default();
        line["stored_bytes"] = ((setup.model_batch * elements) as f64 * bytes).into();
    }
    line
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loop {
    dtype: BenchDtype,
    /// `mehl+`, or a bare loop.
    engine: bool,
    /// Whether activations are computed anew for the backward pass.
    recompute: bool,
}

impl Loop {
    fn name(self) -> String {
        let engine = if self.engine { "mehl+" } else { "bare" };
        let recompute = if self.recompute { ", recompute" } else { "" };
        format!("{engine} {}{recompute}", self.dtype.name())
    }
}

/// What one loop took, over all rounds.
#[derive(Default)]
struct Measured {
    /// Seconds of each iteration.
    seconds: Vec<f64>,
    /// Sums of seconds by phase.
    phases: Vec<(&'static str, f64)>,
    /// Iterations that the phases are sums over.
    iterations: u64,
    /// Largest anonymous memory, without what was there before any model.
    anonymous: u64,
    /// Most that was in tensors on the device, if that is not the host.
    on_device: Option<u64>,
}

impl Measured {
    fn add_phases(&mut self, phases: &[(&'static str, f64)], iterations: u64) {
        for (name, seconds) in phases {
            match self.phases.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += seconds,
                None => self.phases.push((name, *seconds)),
            }
        }
        self.iterations += iterations;
    }
}

/// Forward, loss, backward, nothing else: of a model whose parameters and gradients are themselves in the dtype. With `recompute`, of one as the engine has it.
fn bare(
    setup: &Setup<'_>,
    config: &VitConfig,
    before: u64,
    which: Loop,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let kind = match which.dtype {
        BenchDtype::Bf16 if !which.recompute => Kind::BFloat16,
        _ => Kind::Float,
    };
    let (on, classes, warm_up) = (setup.on, setup.size.classes() as i64, setup.warm_up);
    let mut parameters = BTreeMap::new();
    for (name, shape) in config.tensors(classes) {
        let scale = if name.contains("layernorm") && name.ends_with("weight") { 0.0 } else { 0.02 };
        let tensor = Tensor::f_randn(&shape, (Kind::Float, on))?.f_mul_scalar(scale)?;
        let tensor = if scale == 0.0 { tensor.f_add_scalar(1.0)? } else { tensor };
        parameters.insert(name, tensor.f_to_kind(kind)?.f_set_requires_grad(true)?);
    }
    let model = Vit::from_parameters(config.clone(), classes, parameters);
    // As the engine chooses it.
    model.use_linear_library(linear::resolve(None, kind, on).0);
    let leaves = Leaves::all(&model);
    let (batch, [channels, height, width]) = (setup.batch as i64, setup.size.image());
    let images = Tensor::f_randn([batch, channels, height, width], (Kind::Float, on))?.f_to_kind(kind)?;
    let targets = Tensor::f_arange(batch, (Kind::Int64, on))?.f_remainder(classes)?;
    let batch = Batch::new(images.into(), targets);
    let precision = if kind == Kind::Float { dtype::precision(which.dtype.into()) } else { Precision::Full };
    let course = if which.recompute { Course::ByParts { recompute: true } } else { Course::Whole };
    let backward = Backward { how: Pass::Learn.with(precision), course };
    let (ran, peak) = memory::peak_while(|| -> anyhow::Result<()> {
        let mut clock = Clock::new(on);
        for i in 0..warm_up + setup.iterations {
            if i == warm_up {
                clock = Clock::new(on);
            }
            clock.begin_iteration();
            let began = Instant::now();
            let found = WholeGradient::compute(&Classification, &model, &batch, &leaves, None, backward, &mut clock)?;
            let seconds = began.elapsed().as_secs_f64();
            drop(found);
            clock.end_iteration();
            if i >= warm_up {
                measured.seconds.push(seconds);
            }
        }
        measured.add_phases(&clock.phases().named(), clock.phases().iterations);
        Ok(())
    });
    ran?;
    measured.anonymous = measured.anonymous.max(peak.saturating_sub(before));
    Ok(())
}

/// Stops a task after so many iterations.
struct IterationHost {
    stop_at: u64,
    last: Option<Instant>,
    seconds: Vec<f64>,
}

impl TaskHost for IterationHost {
    fn progress(&mut self, progress: &Progress) -> Directive {
        let now = Instant::now();
        if let Some(last) = self.last {
            self.seconds.push((now - last).as_secs_f64());
        }
        self.last = Some(now);
        if progress.iterations >= self.stop_at { Directive::Stop } else { Directive::Continue }
    }
    fn save(&mut self, _: &Checkpoint) -> Result<(), HostError> {
        Ok(())
    }
    fn note(&mut self, message: &str) {
        eprintln!("note: {message}");
    }
}

/// `mehl+` on the same model.
fn soup(
    setup: &Setup<'_>,
    before: u64,
    which: Loop,
    known: &mut Option<Manifest>,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let spec_path = setup.out.join("bench.toml");
    let text = format!(
        "[zoo]\nallow_chance = true\ningredients = [\"zoo/*\"]\n[data]\nlearn = \"learn.safetensors\"\nselect = \"learn.safetensors\"\n\
         [soup]\nmethod = \"mehl+\"\nmodel_batch = {}\nbatch = {}\ndirection_dtype = \"{}\"\ninner_epochs = 1000\nearly_stopping = false\n\
         [compute]\ndtype = \"{}\"\nrecompute = {}\n",
        setup.model_batch,
        setup.batch,
        setup.direction_dtype,
        which.dtype.name(),
        which.recompute
    );
    fs::write(&spec_path, text)?;
    let (mut engine, task) = engine(&spec_path, setup.on, setup.threads)?;
    // Ingredients are scored once.
    let scored = engine.scores(known.take(), &mut Unwatched)?;
    let manifest = &*known.insert(scored);
    let mut seconds = vec![];
    // A short attempt to warm up, then one that counts.
    for iterations in [setup.warm_up, setup.iterations + 1] {
        let mut watch = IterationHost { stop_at: iterations as u64, last: None, seconds: vec![] };
        let (ran, peak) = memory::peak_while(|| until_stopped(&mut engine, &task, manifest, &mut watch));
        ran?;
        seconds = watch.seconds;
        measured.anonymous = measured.anonymous.max(peak.saturating_sub(before));
    }
    measured.seconds.extend(seconds);
    measured.add_phases(&engine.phases.named(), engine.phases.iterations);
    Ok(())
}

fn report(setup: &Setup<'_>, elements: usize, loops: &[(Loop, Measured)]) {
    println!(
        "{}, {elements} values, {} ingredients, model batch {}, directions in {}, batch {}, {} threads, {} rounds of {} iterations after {}",
        setup.size.name(),
        setup.ingredients,
        setup.model_batch,
        setup.direction_dtype,
        setup.batch,
        setup.threads,
        setup.rounds,
        setup.iterations,
        setup.warm_up
    );
    println!("seconds an iteration (median); mean seconds by phase; anonymous memory");
    for (which, measured) in loops {
        let phases: Vec<String> = measured
            .phases
            .iter()
            .filter(|(_, sum)| *sum > 0.0)
            .map(|(phase, sum)| format!("{phase} {:.6}", sum / measured.iterations as f64))
            .collect();
        let (seconds, memory) = (median(measured.seconds.clone()), measured.anonymous as f64 / 1e9);
        let on_device = measured.on_device.map(|bytes| format!(", on the device {:.2} GB", bytes as f64 / 1e9));
        let on_device = on_device.unwrap_or_default();
        println!("{:22} {seconds:.6} s; {}; {memory:.2} GB{on_device}", which.name(), phases.join(", "));
    }
    let find = |dtype, engine, recompute| {
        loops.iter().find(|(which, _)| *which == Loop { dtype, engine, recompute }).map(|(_, measured)| measured)
    };
    let ratio = |what: &str, of: Option<&Measured>, to: Option<&Measured>| {
        if let (Some(of), Some(to)) = (of, to) {
            println!("time, {what}: {:.3}", median(of.seconds.clone()) / median(to.seconds.clone()));
        }
    };
    let f32_target = if setup.size == Size::Demo { 1.5 } else { 1.08 };
    for (dtype, target) in [(BenchDtype::F32, f32_target), (BenchDtype::Bf16, 1.15)] {
        let (bare, soup) = (find(dtype, false, false), find(dtype, true, false));
        let name = dtype.name();
        ratio(&format!("mehl+ over bare in {name} (target at most {target})"), soup, bare);
        ratio(&format!("mehl+ in {name}, recompute over kept activations"), find(dtype, true, true), soup);
        // What a pass of a small model takes besides weights is not to be told from everything else's memory.
        if let (Some(bare), Some(soup), true) = (bare, soup, setup.size != Size::Demo) {
            let above = (soup.anonymous as f64 - bare.anonymous as f64) / (elements * 4) as f64;
            let limit = setup.model_batch + 3;
            println!("memory, mehl+ above bare in {name}: {above:.2} x D x 4 bytes (target at most {limit})");
        }
    }
    for (what, engine) in [("bare", false), ("mehl+", true)] {
        let of = |dtype| find(dtype, engine, false);
        ratio(&format!("{what}, f32 over bf16"), of(BenchDtype::F32), of(BenchDtype::Bf16));
    }
}
