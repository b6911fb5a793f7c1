//! `mehl-soup inspect`: everything that a run would refuse, without a run.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::{Exit, say};
use super::{Format, worker};
use crate::sweep::parse::parse_spec;
use crate::sweep::spec::{Grouping, Spec, ZooSpec};
use crate::untrusted::printable;
use crate::zoo::{Depth, HashCache, Zoo, inspect as look, render};

/// Flags of `inspect`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
What is read, and what it shows:
  default      headers and configurations, some kB per file: family, tensors,
               parameters, dtypes, bytes; tensors that are missing, extra or of
               another shape than in most ingredients; whether class names agree;
               whether the model is supported, and what is assumed about it
  --hash       every byte once; hashes are cached (MEHL_SOUP_CACHE_DIR): tensors
               that are frozen, tied or running statistics, ingredients that are
               equal, values that are not finite
  --distances  every float tensor once, with some MB of memory per thread:
               distance from the mean, |theta_k - mean| / |mean|, and outliers:
               modified z-score above 3.5 (Iglewicz and Hoaglin 1993)
  --data SPEC  all ingredients and all data of the specification: labels, classes,
               images (decoded once, then cached). Nothing is scored

Exit codes: 0 a run would accept the zoo, 1 a run would refuse it or distances
cannot be computed, 2 wrong usage or missing files.")]
pub struct InspectArgs {
    /// Ingredients: files, folders, globs
    #[arg(required_unless_present = "data")]
    zoo: Vec<String>,
    /// Inspect the ingredients and the data of this specification instead
    #[arg(long, value_name = "SPEC", conflicts_with = "zoo")]
    data: Option<PathBuf>,
    /// Also read all contents: find frozen and tied tensors, equal ingredients, and values that are
    /// not finite
    #[arg(long)]
    hash: bool,
    /// Also read all contents: show each ingredient's distance from the mean, and outliers
    #[arg(long)]
    distances: bool,
    /// Parts of the model for which distances are shown
    #[arg(long, value_enum, default_value_t = Group::Block, requires = "distances")]
    group: Group,
    /// List differences between ingredients tensor by tensor
    #[arg(long)]
    verbose: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Group {
    /// Each tensor
    Tensor,
    /// Each transformer block or stage
    Block,
    /// The whole model
    Model,
}

/// Checks that need the models, which only the worker has.
pub struct Checks {
    /// What a run assumes about a zoo's model, or why the model is not supported.
    pub model: fn(&Zoo, &ZooSpec) -> Result<Vec<String>, String>,
    /// Opens all inputs of a run. Returns the run's notes, or why it would fail.
    pub inputs: CheckInputs,
}

/// Opens all inputs of a specification; the closure gets progress messages. Returns notes, or why a
/// run would fail.
pub type CheckInputs = fn(&Spec, &mut dyn FnMut(&str)) -> Result<Vec<String>, String>;

/// Starts the worker, which has the models. If it is not installed, reports without its checks.
pub(super) fn check_and_start(args: &InspectArgs) -> Exit {
    if args.data.is_some() || worker::is_there() {
        return worker::start(&std::env::args_os().skip(1).collect::<Vec<_>>());
    }
    inspect(args, None)
}

/// Prints the report.
pub fn inspect(args: &InspectArgs, checks: Option<&Checks>) -> Exit {
    let spec = match args.data.as_deref().map(parse_spec).transpose() {
        Ok(spec) => spec,
        Err(error) => return Exit::Usage.say(error),
    };
    let patterns = spec.as_ref().map_or(&args.zoo, |spec| &spec.zoo.ingredients);
    let found = match Zoo::find(patterns, Path::new(".")) {
        Ok(found) => found,
        Err(error) => return Exit::Usage.say(error),
    };
    let stated = spec.as_ref().map_or_else(|| ZooSpec::of(patterns.clone()), |spec| spec.zoo.clone());
    let check = checks.map(|checks| move |zoo: &Zoo| (checks.model)(zoo, &stated));
    let cache = HashCache::from_environment();
    let depth = Depth {
        hash: args.hash.then_some(cache.as_ref()),
        distances: args.distances.then_some(match args.group {
            Group::Tensor => Grouping::Tensor,
            Group::Block => Grouping::Block,
            Group::Model => Grouping::Model,
        }),
        family: spec.as_ref().and_then(|spec| spec.zoo.family),
        classes_stated: spec.as_ref().is_some_and(|spec| spec.data.classes.is_some()),
        model: check.as_ref().map(|check| check as _),
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {bytes}/{total_bytes} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut report = look(&found, &depth, &mut |what, done, total| {
        bar.set_message(what);
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    if let (Some(spec), Some(checks)) = (&spec, checks)
        && report.is_sound()
    {
        match (checks.inputs)(spec, &mut |what| eprintln!("{}", printable(what))) {
            Ok(notes) => {
                // What the zoo alone told is said there too.
                report.notes.retain(|note| !notes.contains(note));
                report.notes.extend(notes);
            }
            Err(fault) => report.data_fault = Some(fault),
        }
    }
    match args.format {
        Format::Table => {
            let width = comfy_table::Table::new().width().unwrap_or(160);
            say(&printable(&render(&report, width, args.verbose)));
        }
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    if report.is_sound() { Exit::Done } else { Exit::Failed }
}
