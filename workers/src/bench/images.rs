//! Images per second from files to pixels beside torchvision's loader on the same files, and the rate of the warm cache beside a plain read of
//! the same bytes.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::sweep::spec::{Family, Spec};
use mehl_soup_worker::data::images::ImageInputs;
use mehl_soup_worker::data::images::cache::ImageCache;
use mehl_soup_worker::data::images::decode::decode;
use mehl_soup_worker::data::images::resolve::{ModelFacts, resolve};
use mehl_soup_worker::data::images::sources::{Columns, Listing, Source};
use mehl_soup_worker::data::{Data, Kinds};
use mehl_soup_worker::objectives::{Classification, Objective};
use memmap2::Mmap;
use tch::{Device, Kind};

use super::{BenchArgs, ROUNDS, median};

/// Threads here, worker processes there.
const THREADS: usize = 2;
const BATCH: usize = 64;
/// Turns of the cache and the plain read: one is over in a blink.
const PASSES: usize = 31;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/torchvision_loader.py");

/// Makes images if there are none, then measures.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let Some(python) = &args.python else {
        println!(
            "images: not measured; set --python to an interpreter with torchvision \
             (scripts/setup-python-check.sh prints one)"
        );
        return Ok(());
    };
    let folder = args.out.join(format!("images-{}", args.images));
    let mut theirs = Torchvision::start(python, &folder, args.images)?;
    let spec = spec(&folder)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build()?;
    tch::set_num_threads(THREADS as i32);
    pool.install(|| {
        let mut pixels = Vec::new();
        let mut batches = Vec::new();
        let mut loader = Vec::new();
        // One turn each to read the files into the system's memory and to start their workers.
        for round in 0..=ROUNDS {
            let turn = (decode_all(&spec, args.images)?, load_cold(&spec, args.images)?, theirs.epoch()?);
            if round > 0 {
                pixels.push(turn.0);
                batches.push(turn.1);
                loader.push(turn.2);
            }
        }
        let rate = |seconds: &[f64]| args.images as f64 / median(seconds.to_vec());
        println!(
            "images: {} JPEGs of 500 x 375, to 256 and 224 x 224 bilinear, {THREADS} threads here, {THREADS} workers there, {ROUNDS} rounds, medians",
            args.images
        );
        println!("decode, resize, crop                        {:7.0} images/s", rate(&pixels));
        println!("the same, hashed, cached, in f32 batches    {:7.0} images/s", rate(&batches));
        println!("torchvision ImageFolder and DataLoader      {:7.0} images/s", rate(&loader));
        println!(
            "decode, resize, crop over torchvision: {:.2} (target at least 1.5); all of it: {:.2}",
            rate(&pixels) / rate(&loader),
            rate(&batches) / rate(&loader)
        );
        warm_cache(&spec)
    })
}

fn spec(folder: &Path) -> anyhow::Result<Spec> {
    let folder = std::path::absolute(folder)?;
    let text = format!("zoo.ingredients = 'none'\ndata.learn = '{0}'\ndata.select = '{0}'\n", folder.display());
    Ok(parse_spec_text(&text, Format::Toml, &folder)?)
}

/// torchvision's evaluation transform of a ResNet.
fn model() -> ModelFacts<'static> {
    ModelFacts { family: Family::Resnet, input: Some(vec![3, 224, 224]), config: None, folders: vec![] }
}

/// Seconds from files to cropped pixels, which are thrown away.
fn decode_all(spec: &Spec, expected: usize) -> anyhow::Result<f64> {
    let resolved = resolve(&spec.data.image, &model())?;
    let began = Instant::now();
    let listing =
        Listing::open(&Source::find(&spec.data.learn)?, &Columns { image: None, label: None, skip_unreadable: false })?;
    let which: Vec<usize> = (0..listing.samples.len()).collect();
    let done = AtomicUsize::new(0);
    let work = |_, bytes: Result<&[u8], String>| {
        let mut values = vec![0; 3 * 224 * 224];
        let made = bytes
            .and_then(|bytes| decode(bytes, &resolved.pixels))
            .and_then(|image| resolved.pixels.apply(&image, &mut values));
        black_box(&values);
        done.fetch_add(usize::from(made.is_ok()), Ordering::Relaxed);
    };
    listing.for_each(&which, &work, &mut |_| true)?;
    let seconds = began.elapsed().as_secs_f64();
    let done = done.into_inner();
    if done != expected {
        bail!("{}: expected {expected} images, decoded {done}", spec.data.learn.display());
    }
    Ok(seconds)
}

fn load(spec: &Spec, cache: &Path) -> anyhow::Result<Data> {
    let inputs =
        ImageInputs { model: model(), cache: ImageCache { folder: Some(cache.to_path_buf()), bound: u64::MAX } };
    Ok(Data::load(
        &spec.data,
        0,
        Kind::Float,
        &Kinds { images: inputs, text: None },
        &|found| Classification.read_targets(found),
        &mut |_| {},
    )?)
}

/// Seconds from files to normalised batches with nothing in the cache.
fn load_cold(spec: &Spec, expected: usize) -> anyhow::Result<f64> {
    let place = tempfile::tempdir_in(mehl_soup::files::parent_of(&spec.data.learn))?;
    let began = Instant::now();
    let data = load(spec, place.path())?;
    for start in (0..expected).step_by(BATCH) {
        drop(black_box(data.learn.range(start, expected.min(start + BATCH), Device::Cpu)?));
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Bytes per second out of the warm cache, in batches, beside a plain copy out of a map of the same file.
fn warm_cache(spec: &Spec) -> anyhow::Result<()> {
    let place = tempfile::tempdir_in(mehl_soup::files::parent_of(&spec.data.learn))?;
    drop(load(spec, place.path())?);
    let began = Instant::now();
    let data = load(spec, place.path())?;
    let opened = began.elapsed().as_secs_f64();
    let images = data.learn.images().context("the split is of images")?;
    let n = images.samples();
    let entry = std::fs::read_dir(place.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "pixels"))
        .context("the cache has an entry")?;
    let file = File::open(entry)?;
    // SAFETY: read-only, of a file that only this process knows.
    let map = unsafe { Mmap::map(&file) }?;
    let row = 3 * 224 * 224;
    let bytes = (n * row) as f64;
    let order: Vec<usize> = mehl_soup_worker::rng::permutation(0, "bench", &[], n);
    let mut buffer = vec![0; BATCH * row];
    let (mut plain, mut taken, mut normalised) = (Vec::new(), Vec::new(), Vec::new());
    for pass in 0..=PASSES {
        let began = Instant::now();
        for batch in map[..n * row].chunks(BATCH * row) {
            buffer[..batch.len()].copy_from_slice(batch);
            black_box(&buffer);
        }
        let read = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for batch in order.chunks(BATCH) {
            drop(black_box(images.bytes(batch)?));
        }
        let took = began.elapsed().as_secs_f64();
        let began = Instant::now();
        for batch in order.chunks(BATCH) {
            drop(black_box(images.batch(batch, Device::Cpu)?));
        }
        // The first pass brings the pages in.
        if pass > 0 {
            plain.push(bytes / read / 1e9);
            taken.push(bytes / took / 1e9);
            normalised.push(n as f64 / began.elapsed().as_secs_f64());
        }
    }
    println!(
        "warm cache: opened in {opened:.3} s; batches of {BATCH} in random order {:.2} GB/s, plain copy out of the map by one thread {:.2} GB/s; the fastest of {PASSES}",
        fastest(&taken),
        fastest(&plain)
    );
    println!(
        "batches over plain copy: {:.2} (target at least 0.9); normalised to f32 {:.0} images/s",
        fastest(&taken) / fastest(&plain),
        fastest(&normalised)
    );
    Ok(())
}

/// A pass takes about as long as the system's scheduler lets a thread run: where cores are busy, a median says who was interrupted.
fn fastest(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}

/// torchvision's loader in a process of its own, which does an epoch when it is told to.
struct Torchvision {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Torchvision {
    fn start(python: &Path, folder: &Path, images: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .arg(folder)
            .args([images.to_string(), THREADS.to_string(), BATCH.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be started", python.display()))?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("both ends are piped")?;
        let mut started = Self { child, input, output: BufReader::new(output) };
        let ready = started.line()?;
        if ready != "ready" {
            bail!("{SCRIPT}: expected `ready`, found `{ready}`");
        }
        Ok(started)
    }

    /// Seconds of one pass over all files.
    fn epoch(&mut self) -> anyhow::Result<f64> {
        writeln!(self.input, "epoch")?;
        let line = self.line()?;
        line.parse().with_context(|| format!("{SCRIPT}: expected seconds, found `{line}`"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("{SCRIPT}: ended early (its own message is above)");
        }
        Ok(line.trim().to_string())
    }
}

impl Drop for Torchvision {
    fn drop(&mut self) {
        // It has nothing to lose, and its own workers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
