//! `mehl-soup merge`: a mean or any fixed mix, from files alone.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::{Exit, say};
use super::materialize::FloatType;
use crate::coefficients::{Options, fixed_mix, merge as write_mix};
use crate::untrusted::printable;
use crate::zoo::{HashCache, Layout, Zoo, config_faults, mixed_dtypes, resolve_objective};

/// Flags of `merge`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Needs no data: nothing is learned or scored, so the result can be worse than each
ingredient. Works with any architecture, if all ingredients have tensors of the
same names and shapes. Use `mehl-soup run` to learn the weights.")]
pub struct MergeArgs {
    /// Ingredients: files, folders, globs
    #[arg(required = true)]
    zoo: Vec<String>,
    /// Output folder. It appears only when the model is complete
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// One weight per ingredient, in the order of sorted paths. They must sum to 1 and can be
    /// negative. Default: equal weights (the mean)
    #[arg(long, value_name = "W,W,...", value_delimiter = ',', allow_hyphen_values = true)]
    weights: Vec<f64>,
    /// Count each of several ingredients with equal contents. By default they count once; with
    /// --weights each always counts
    #[arg(long)]
    keep_duplicates: bool,
    /// Dtype of float tensors. Default: the dtype of most ingredients
    #[arg(long, value_enum)]
    dtype: Option<FloatType>,
    /// Largest weights file in MB. Default: tensors are divided into files as in most ingredients
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_shard_mb: Option<u64>,
    /// Replace an existing output folder
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn merge(args: &MergeArgs) -> Exit {
    match write(args) {
        Ok(()) => Exit::Done,
        Err(error) => Exit::Usage.say(error),
    }
}

fn write(args: &MergeArgs) -> Result<(), String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let found = Zoo::find(&args.zoo, std::path::Path::new(".")).map_err(text)?;
    let zoo = Zoo::open(&found.paths).map_err(text)?;
    // Whatever names of classes cannot be used for, they have to agree.
    let faults = config_faults(zoo.ingredients(), false);
    if let Some(first) = faults.first() {
        let more = if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() };
        return Err(format!("{first}{more}"));
    }
    // Models for other problems are not mixed.
    resolve_objective(zoo.ingredients(), None).map_err(text)?;
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {bytes}/{total_bytes} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let progress = |what: &'static str| {
        let bar = bar.clone();
        move |done, total| {
            bar.set_message(what);
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let cache = HashCache::from_environment();
    let hashes = zoo.hash(cache.as_ref(), &mut progress("hashing")).map_err(text)?;
    let mut notes = found.notes();
    notes.extend(zoo.ingredients().iter().flat_map(|ingredient| ingredient.notes().iter().cloned()));
    let (zoo, hashes) = if args.keep_duplicates || !args.weights.is_empty() {
        (zoo, hashes)
    } else {
        let (zoo, hashes, equal) = zoo.without_duplicates(hashes);
        let note = |names: &Vec<String>| {
            format!("equal contents, counted once (change with --keep-duplicates): {}", names.join(" = "))
        };
        notes.extend(equal.iter().map(note));
        (zoo, hashes)
    };
    notes.extend(mixed_dtypes(zoo.ingredients()));
    let layout = Layout::new(&zoo, &hashes).map_err(text)?;
    let weights = (!args.weights.is_empty()).then_some(args.weights.as_slice());
    let file = fixed_mix(&zoo, &hashes, &layout, weights, notes).map_err(text)?;
    for note in &file.about.notes {
        eprintln!("note: {}", printable(note));
    }
    for (k, ingredient) in zoo.ingredients().iter().enumerate() {
        eprintln!("{:8.4}  {}", file.coefficients.get(k, 0), printable(ingredient.name()));
    }
    let options = Options {
        out: args.out.clone(),
        dtype: args.dtype.map(FloatType::dtype),
        max_shard_bytes: args.max_shard_mb.map(|mb| mb * 1_000_000),
        zoo: None,
        overwrite: args.overwrite,
        comparisons: vec![],
    };
    let written = write_mix(&zoo, &layout, &file, &options, &mut progress("writing"));
    bar.finish_and_clear();
    let report = written.map_err(text)?;
    eprintln!("{} tensors, {} of them mixed, {} bytes", report.tensors, report.mixed, report.bytes);
    say(&report.out.display().to_string());
    Ok(())
}
