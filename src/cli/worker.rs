//! Starting `mehl-soup-worker`, which has libtorch, in place of this process.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use super::exit::Exit;

/// Names the worker's binary where it is not beside this one.
pub const WORKER_VARIABLE: &str = "MEHL_SOUP_WORKER";

/// Where the worker's program is expected.
fn path() -> std::io::Result<PathBuf> {
    match std::env::var_os(WORKER_VARIABLE) {
        Some(path) => Ok(PathBuf::from(path)),
        None => std::env::current_exe()
            .map(|own| own.with_file_name(format!("mehl-soup-worker{}", std::env::consts::EXE_SUFFIX))),
    }
}

/// Whether the worker's program is where it is expected.
pub fn is_there() -> bool {
    path().is_ok_and(|path| path.is_file())
}

/// Replaces this process by the worker with these arguments; returns only if that fails.
pub fn start(arguments: &[OsString]) -> Exit {
    let path = match path() {
        Ok(path) => path,
        Err(error) => return Exit::Failed.say(format!("cannot find mehl-soup-worker: {error}")),
    };
    let mut command = Command::new(&path);
    command.args(arguments);
    Exit::Failed.say(format!(
        "cannot start {}: {}; build it with `cargo build --release --workspace`, or set \
         {WORKER_VARIABLE} to its path",
        path.display(),
        replace_process(command)
    ))
}

#[cfg(unix)]
fn replace_process(mut command: Command) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    command.exec()
}

#[cfg(not(unix))]
fn replace_process(mut command: Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
