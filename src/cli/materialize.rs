//! `mehl-soup materialize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::Dtype;

use super::exit::{Exit, say};
use super::pool::ServerArgs;
use super::pool::results::coefficients;
use crate::coefficients::{CoefficientsFile, Options, materialize as write_model};
use crate::scheduler::is_sweep_id;
use crate::untrusted::{self, LARGEST_COEFFICIENTS, printable};
use crate::zoo::{HashCache, Zoo};

/// Flags of `materialize`.
#[derive(Debug, Args)]
pub struct MaterializeArgs {
    /// A coefficients.safetensors of a run, or the id of a scheduler's sweep to write its winner
    coefficients: PathBuf,
    /// With a sweep id: write this task instead of the winner
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Output folder. It appears only when the model is complete
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Dtype of float tensors. Default: the dtype of most ingredients
    #[arg(long, value_enum)]
    dtype: Option<FloatType>,
    /// Largest weights file in MB. Default: tensors are divided into files as in most ingredients
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_shard_mb: Option<u64>,
    /// New location of the ingredients (files, folders or globs), if they were moved. They are
    /// identified by content hash
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    zoo: Vec<String>,
    /// Replace an existing output folder
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FloatType {
    F32,
    F16,
    Bf16,
}

impl FloatType {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }
}

/// From a file, or of a sweep if there is no such file and the name is made as those of sweeps are.
fn read(args: &MaterializeArgs) -> Result<Vec<u8>, Exit> {
    let path = &args.coefficients;
    match path.to_str().filter(|name| is_sweep_id(name) && !path.exists()) {
        Some(sweep) => coefficients(&args.server, sweep, args.task.as_deref()),
        None if args.task.is_some() => {
            Err(Exit::Usage.say(format!("{}: --task needs the id of a sweep, found a file", path.display())))
        }
        None => untrusted::read(path, LARGEST_COEFFICIENTS)
            .map_err(|error| Exit::Usage.say(format!("{}: {error}", path.display()))),
    }
}

pub(super) fn materialize(args: &MaterializeArgs) -> Exit {
    let path = args.coefficients.display();
    let bytes = match read(args) {
        Ok(bytes) => bytes,
        Err(exit) => return exit,
    };
    let file = match CoefficientsFile::from_bytes(&bytes) {
        Ok(file) => file,
        Err(error) => return Exit::Usage.say(format!("{path}: {error}")),
    };
    let zoo = if args.zoo.is_empty() {
        None
    } else {
        match Zoo::find(&args.zoo, std::path::Path::new(".")) {
            Ok(found) => {
                found.notes().iter().for_each(|note| eprintln!("{}", printable(note)));
                Some(found.paths)
            }
            Err(error) => return Exit::Usage.say(error),
        }
    };
    let options = Options {
        out: args.out.clone(),
        dtype: args.dtype.map(FloatType::dtype),
        max_shard_bytes: args.max_shard_mb.map(|mb| mb * 1_000_000),
        zoo,
        overwrite: args.overwrite,
        comparisons: vec![],
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let written = write_model(&file, &options, HashCache::from_environment().as_ref(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match written {
        Ok(report) => {
            eprintln!("{} tensors, {} of them mixed, {} bytes", report.tensors, report.mixed, report.bytes);
            say(&report.out.display().to_string());
            Exit::Done
        }
        Err(error) => Exit::Usage.say(error),
    }
}
