//! Commands against a scheduler.
//!
//! | file | commands |
//! |---|---|
//! | `submit` | `submit`, and following a sweep |
//! | `status` | `status`, `logs` |
//! | `results` | `results`, and coefficients for `materialize` |
//! | `actions` | `cancel`, `pause`, `resume`, `retry`, `delete` |

pub(super) mod actions;
pub(super) mod results;
pub(super) mod status;
pub(super) mod submit;

use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use crate::client::{Client, ClientError, ClientSettings};
use crate::config::{Config, ConfigArgs};
use crate::task::is_id;

/// Flags of every command against a scheduler.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// Address of the scheduler. Overrides MEHL_SOUP_SERVER and `client.server`
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the scheduler's token. Overrides `client.token_file`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ServerArgs {
    /// The client that the flags and the configuration make.
    pub(super) fn client(&self) -> Result<Client, Exit> {
        let mut flags: Vec<(&str, String)> = Vec::new();
        if let Some(server) = &self.server {
            flags.push(("client.server", server.clone()));
        }
        if let Some(file) = &self.token_file {
            flags.push(("client.token_file", file.display().to_string()));
        }
        let config = Config::load(&self.config, &flags).map_err(|error| Exit::Usage.say(error))?;
        let token = config.client.token().map_err(|error| Exit::Usage.say(error))?;
        let (server, timeout, ca_file) =
            (config.client.server.clone(), config.client.timeout, config.client.ca_file.clone());
        Client::new(ClientSettings { server, token, timeout, ca_file }).map_err(|error| failed(&error))
    }
}

/// Prints why a request failed.
pub(super) fn failed(error: &ClientError) -> Exit {
    match error {
        ClientError::Setup(_) | ClientError::Refused { .. } => Exit::Usage.say(error),
        ClientError::Unavailable { .. } | ClientError::Strange { .. } => Exit::Failed.say(error),
    }
}

/// A sweep's id, as it goes into an address.
pub(super) fn sweep_id(text: &str) -> Result<String, String> {
    if is_id(text) { Ok(text.to_string()) } else { Err("expected a sweep id, as `submit` prints it".to_string()) }
}
