//! Tokens a second of learning on a sweep's texts, beside bare forward and backward passes over the same batches.

use std::time::Instant;

use anyhow::{Context, bail};
use mehl_soup::checkpoint::Checkpoint;
use mehl_soup::runner::engine::{Directive, HostError, Progress, SoupEngine, TaskHost};
use mehl_soup::sweep::parse::parse_spec;
use mehl_soup::sweep::spec::{MethodName, ModelBatch, Spec};
use mehl_soup_worker::data::Batch;
use mehl_soup_worker::engine::{Clock, Inputs, data_order, device};
use mehl_soup_worker::families::{Pass, Precision};
use mehl_soup_worker::objectives::{Backward, Course, Leaves, WholeGradient};
use tch::{Device, Kind};

use super::{BenchArgs, BenchDtype, ROUNDS, Unwatched, engine_of, lines, median, until_stopped};

/// Iterations before counting begins, in each round.
const WARM_UP: usize = 3;

/// Learns on the zoo and the texts of `--spec` for some iterations, in turns with bare passes over the same batches.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let path = args.spec.as_deref().context("--part text: expected --spec with a sweep over texts")?;
    let (on, threads) = (device::parse(&args.device)?, args.threads.unwrap_or_else(device::cores));
    tch::set_num_threads(threads as i32);
    device::limit_threads(threads);
    let mut spec = parse_spec(path)?;
    spec.soup.method = MethodName::MehlPlus;
    spec.soup.model_batch = ModelBatch::Fixed(args.model_batch);
    spec.soup.early_stopping = false;
    spec.soup.inner_epochs = 1000;
    for &which in &args.dtype {
        spec.compute.dtype = Some(which.into());
        let measured = measure(&spec, args.iterations, which, on, threads)?;
        let [own, bare] = &measured.seconds.map(median);
        let (tokens, ratio) = (measured.tokens, own / bare);
        let name = which.name();
        println!(
            "{name}: {:.0} tokens/s, bare {:.0}; time over bare {ratio:.3} (target at most {}); {} iterations, {threads} threads",
            tokens / own,
            tokens / bare,
            if which == BenchDtype::F32 { 1.08 } else { 1.15 },
            args.iterations
        );
        if let Some(file) = args.lines.as_deref() {
            let line = serde_json::json!({
                "what": "text", "dtype": name, "batch": spec.soup.batch, "b": args.model_batch, "device": args.device,
                "tokens_per_second": tokens / own, "bare_tokens_per_second": tokens / bare, "ratio_to_bare": ratio,
            });
            lines::append(file, threads, line)?;
        }
    }
    Ok(())
}

/// Seconds of the same batches by both loops, one sum a round, and their tokens.
struct Measured {
    /// Of learning, and of bare passes.
    seconds: [Vec<f64>; 2],
    tokens: f64,
}

fn measure(spec: &Spec, iterations: usize, which: BenchDtype, on: Device, threads: usize) -> anyhow::Result<Measured> {
    // A bare loop in bf16 has parameters in bf16.
    let kind = if which == BenchDtype::Bf16 { Kind::BFloat16 } else { Kind::Float };
    let inputs = Inputs::open(spec, on, kind, None, &mut |_| {})?;
    let learn = &inputs.data.learn;
    if learn.longest().is_none() {
        bail!("--part text: expected texts of many lengths, found samples of one length");
    }
    let order = data_order::of_epoch(learn, spec.soup.batch, spec.soup.seed, &[0, 0, 0]);
    let all = WARM_UP + iterations;
    if order.len() < all * spec.soup.batch {
        let found = order.len() / spec.soup.batch;
        bail!("--iterations: expected at most {} with so few samples", found.saturating_sub(WARM_UP));
    }
    let batches = order.chunks(spec.soup.batch).take(all).map(|indices| learn.batch(indices, on));
    let batches = batches.collect::<Result<Vec<Batch>, _>>()?;
    let lengths = batches[WARM_UP..].iter().filter_map(|batch| batch.inputs.lengths());
    let tokens = lengths.map(|lengths| lengths.f_sum(Kind::Double)?.f_double_value(&[])).sum::<Result<f64, _>>()?;
    let (mut engine, task) = engine_of(spec.clone(), on, threads)?;
    let manifest = engine.scores(None, &mut Unwatched)?;
    let mut measured = Measured { seconds: [vec![], vec![]], tokens };
    for _ in 0..ROUNDS {
        let mut watch = Watch { stop_at: all as u64 + 1, times: vec![] };
        until_stopped(&mut engine, &task, &manifest, &mut watch)?;
        // From the end of the last iteration that warms up to the end of the last.
        let times = &watch.times;
        measured.seconds[0].push((times[all - 1] - times[WARM_UP - 1]).as_secs_f64());
        measured.seconds[1].push(bare(&inputs, &batches, on)?);
    }
    Ok(measured)
}

/// Forward, loss, backward, nothing else.
fn bare(inputs: &Inputs, batches: &[Batch], on: Device) -> anyhow::Result<f64> {
    let leaves = Leaves::all(inputs.model.as_ref());
    let backward = Backward { how: Pass::Learn.with(Precision::Full), course: Course::Whole };
    let mut began = Instant::now();
    for (i, batch) in batches.iter().enumerate() {
        if i == WARM_UP {
            began = Instant::now();
        }
        let (model, objective) = (inputs.model.as_ref(), inputs.objective.as_ref());
        let found = WholeGradient::compute(objective, model, batch, &leaves, None, backward, &mut Clock::new(on))?;
        drop(found);
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Stops a task after so many iterations, and keeps when each ended.
struct Watch {
    stop_at: u64,
    times: Vec<Instant>,
}

impl TaskHost for Watch {
    fn progress(&mut self, progress: &Progress) -> Directive {
        self.times.push(Instant::now());
        if progress.iterations >= self.stop_at { Directive::Stop } else { Directive::Continue }
    }
    fn save(&mut self, _: &Checkpoint) -> Result<(), HostError> {
        Ok(())
    }
    fn note(&mut self, message: &str) {
        eprintln!("note: {message}");
    }
}
