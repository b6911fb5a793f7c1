//! `mehl-soup report`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, say};
use super::pool::{ServerArgs, failed};
use crate::files::write_atomic;
use crate::report::{Report, plots, read_folder, read_pool, render};
use crate::scheduler::is_sweep_id;

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder of a run, or id of a scheduler's sweep. It can be unfinished: the report shows the
    /// results so far
    #[arg(value_name = "DIR|SWEEP")]
    sweep: PathBuf,
    /// Output: one self-contained HTML file. An existing file is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write the plots as SVG files to this folder. It is created if missing; files of the same
    /// names are replaced
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// From a folder, or of a sweep if there is no such folder and the name is made as those of sweeps are.
fn read(args: &ReportArgs) -> Result<Report, Exit> {
    let path = &args.sweep;
    match path.to_str().filter(|name| is_sweep_id(name) && !path.exists()) {
        Some(sweep) => read_pool(&args.server.client()?, sweep).map_err(|error| failed(&error)),
        None => read_folder(path).map_err(|error| Exit::Usage.say(error)),
    }
}

pub(super) fn report(args: &ReportArgs) -> Exit {
    match write(args) {
        Ok(()) => Exit::Done,
        Err(exit) => exit,
    }
}

fn write(args: &ReportArgs) -> Result<(), Exit> {
    let report = read(args)?;
    let page = render(&report).map_err(|error| Exit::Failed.say(error))?;
    let cannot = |path: &Path, error: std::io::Error| Exit::Usage.say(format!("{}: {error}", path.display()));
    if let Some(folder) = &args.plots {
        std::fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
        for plot in plots(&report).map_err(|error| Exit::Failed.say(error))? {
            let path = folder.join(format!("{}.svg", plot.name));
            write_atomic(&path, plot.file().as_bytes()).map_err(|error| cannot(&path, error))?;
        }
    }
    write_atomic(&args.out, page.as_bytes()).map_err(|error| cannot(&args.out, error))?;
    say(&args.out.display().to_string());
    Ok(())
}
