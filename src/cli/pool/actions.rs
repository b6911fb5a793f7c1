//! `mehl-soup cancel`, `pause`, `resume`, `retry` and `delete`.

use clap::Args;

use super::{ServerArgs, failed, sweep_id};
use crate::api_types::ChangedBody;
use crate::cli::exit::Exit;

/// Flags of what is done to sweeps.
#[derive(Debug, Args)]
pub struct ActionArgs {
    /// Ids of the sweeps
    #[arg(required = true, value_parser = sweep_id)]
    sweeps: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Applies `action` to each sweep in turn. Stops at the first error.
pub(in crate::cli) fn act(args: &ActionArgs, action: &str) -> Exit {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    for sweep in &args.sweeps {
        match client.post::<ChangedBody>(&format!("/v1/sweeps/{sweep}/{action}"), None::<&()>) {
            Ok(body) => eprintln!(
                "{sweep}: {action}; {} tasks changed now, running tasks follow within an iteration",
                body.changed
            ),
            Err(error) => return failed(&error),
        }
    }
    Exit::Done
}

/// Deletes sweeps that have ended, with all their results.
pub(in crate::cli) fn delete(args: &ActionArgs) -> Exit {
    let client = match args.server.client() {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    for sweep in &args.sweeps {
        if let Err(error) = client.delete(&format!("/v1/sweeps/{sweep}")) {
            return failed(&error);
        }
        eprintln!("{sweep}: deleted");
    }
    Exit::Done
}
