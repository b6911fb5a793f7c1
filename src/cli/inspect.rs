//! `mehl-soup inspect`.

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::Format;
use super::exit::{Exit, say};
use crate::sweep::spec::Grouping;
use crate::untrusted::printable;
use crate::zoo::{Depth, HashCache, Zoo, inspect as look, render};

/// Flags of `inspect`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
What is read, and what it costs:
  by default   headers and config.json, some kB a file: family, tensors,
               parameters, dtypes, bytes; what is missing, extra, reshaped or retyped
               against the first ingredient
  --hash       every byte once, remembered (MEHL_SOUP_CACHE_DIR): which tensors
               are frozen, tied or running statistics, which ingredients are
               equal, which values are not finite
  --distances  every float tensor once, in some MB of memory a thread: distance
               from the mean of all, |theta_k - mean| / |mean|, and who stands
               out: modified z-score beyond 3.5 (Iglewicz and Hoaglin 1993)

Exit codes: 0 nothing speaks against this zoo, 2 a run would refuse it, or
distances that were asked for cannot be had.")]
pub struct InspectArgs {
    /// Ingredients: files, folders, globs
    #[arg(required = true)]
    zoo: Vec<String>,
    /// Read all contents too: frozen and tied tensors, equal ingredients, values that are not finite
    #[arg(long)]
    hash: bool,
    /// Read all contents too: how far each ingredient is from the mean, and which stand out
    #[arg(long)]
    distances: bool,
    /// Parts of the model that distances are told of
    #[arg(long, value_enum, default_value_t = Group::Block, requires = "distances")]
    group: Group,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Group {
    /// Every tensor
    Tensor,
    /// Every transformer block or stage
    Block,
    /// The model as a whole
    Model,
}

pub(super) fn inspect(args: &InspectArgs) -> Exit {
    let paths = match Zoo::resolve(&args.zoo, std::path::Path::new(".")) {
        Ok(paths) => paths,
        Err(error) => return Exit::Usage.say(error),
    };
    let cache = HashCache::from_environment();
    let depth = Depth {
        hash: args.hash.then_some(cache.as_ref()),
        distances: args.distances.then_some(match args.group {
            Group::Tensor => Grouping::Tensor,
            Group::Block => Grouping::Block,
            Group::Model => Grouping::Model,
        }),
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {bytes}/{total_bytes} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = look(&paths, &depth, &mut |what, done, total| {
        bar.set_message(what);
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match args.format {
        Format::Table => {
            let width = comfy_table::Table::new().width().unwrap_or(160);
            say(&printable(&render(&report, width)));
        }
        Format::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => say(&json),
            Err(error) => return Exit::Failed.say(error),
        },
    }
    // Differences between ingredients are what a run would refuse.
    if report.is_sound() { Exit::Done } else { Exit::Usage }
}
