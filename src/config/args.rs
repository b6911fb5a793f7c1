//! Flags of every command that is configured.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

/// Flags of every command that is configured.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file: TOML, YAML or JSON. Default: the file in MEHL_SOUP_CONFIG, if set
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting; overrides file and environment. Can be repeated. Other users of this machine can
    /// see it: pass secrets as files
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<Assignment>,
}

/// `section.key=value`, not looked at yet. May hold a secret: never shown.
#[derive(Clone)]
pub struct Assignment(String);

impl Assignment {
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Assignment {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.split_once('=').map_or("...", |(key, _)| key))
    }
}
