//! Exit codes and error messages of the programs.

use std::process::{ExitCode, Termination};

use crate::runner::local::RunError;
use crate::untrusted::printable;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All done.
    Done,
    /// The request was valid, but something failed.
    Failed,
    /// Wrong usage, input or output folder.
    Usage,
    /// Stopped by Ctrl-C or SIGTERM; checkpoints are kept.
    Stopped,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            // What shells show for a process that ended by SIGINT.
            Self::Stopped => 130,
        }
    }

    /// Prints an error to stderr and returns its exit code.
    pub fn say(self, message: impl std::fmt::Display) -> Self {
        eprintln!("error: {}", printable(&message.to_string()));
        self
    }
}

/// Ends the process at once, without exit handlers. Those of libtorch take away what a thread may
/// still compute with, and such a process ends by SIGSEGV.
pub fn leave(exit: Exit) -> ! {
    use std::io::Write;
    drop((std::io::stdout().flush(), std::io::stderr().flush()));
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(exit.code())) }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Prints data to stdout. A closed stdout is ignored.
pub fn say(data: &str) {
    use std::io::Write;
    let written = writeln!(std::io::stdout(), "{}", data.trim_end());
    drop(written);
}

/// Prints why a run ended.
pub fn run_error(error: &RunError) -> Exit {
    match error {
        RunError::Input(_) | RunError::Folder(_) | RunError::Host(_) => Exit::Usage.say(error),
        RunError::Internal(_) => Exit::Failed.say(error),
        RunError::Stopped => {
            eprintln!("{error}");
            Exit::Stopped
        }
    }
}
