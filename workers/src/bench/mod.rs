//! `make bench`: what is fast, measured beside what it is compared with, in turns in one run.

mod batches;
mod cold;
mod directions;
mod images;
mod iteration;
mod lines;
mod zoo;

use mehl_soup::sweep::spec::ComputeDtype;

use super::BenchArgs;

/// Turns that each side of a comparison has.
const ROUNDS: usize = 3;

/// Runs the parts that are asked for.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if args.part.is_none_or(|part| part == Part::Images) {
        images::run(args)?;
    }
    if args.part.is_none_or(|part| part == Part::Iteration) {
        iteration::run(args)?;
    }
    if args.part == Some(Part::Batches) {
        batches::run(args)?;
    }
    if args.part == Some(Part::Cold) {
        cold::run(args)?;
    }
    if let (None | Some(Part::Directions), Some(spec)) = (args.part, &args.spec) {
        directions::run(args, spec)?;
    }
    Ok(())
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// An iteration of `mehl+` beside a bare one
    Iteration,
    /// Errors of compact directions on the ingredients of a sweep
    Directions,
    /// A model batch of four of 8 to 64 ingredients; needs 6 GB on disk, and is only measured if asked for
    Batches,
    /// From files that nobody has read to the first model batch; needs 10 GB on disk, and is only measured if asked for
    Cold,
    /// Decoding and resizing beside torchvision, and the cache beside a plain read
    Images,
}

/// Dtypes of iterations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchDtype {
    /// `compute.dtype = "f32"`
    F32,
    /// `compute.dtype = "bf16"`
    Bf16,
}

impl BenchDtype {
    fn name(self) -> &'static str {
        ComputeDtype::from(self).as_str()
    }
}

impl From<BenchDtype> for ComputeDtype {
    fn from(dtype: BenchDtype) -> Self {
        match dtype {
            BenchDtype::F32 => Self::F32,
            BenchDtype::Bf16 => Self::Bf16,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
