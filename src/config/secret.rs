//! Values that are never shown.

use std::fmt;

use serde::{Serialize, Serializer};

use super::fault::{ConfigError, Fault};
use super::sources::Origin;
use crate::operator_file::OperatorFile;
use crate::server_address::ServerAddress;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "(hidden)";
/// Largest file of a secret, in bytes.
const LARGEST: u64 = 64 << 10;

/// A password, a token, or an address with one in it. Nothing shows it but [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret; how long it takes says nothing about how much of it is right.
    pub fn matches(&self, given: &[u8]) -> bool {
        // Hashes are compared in constant time.
        blake3::hash(self.0.as_bytes()) == blake3::hash(given)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Where a secret is. Its file is read when the secret is needed: who reads a shared configuration may not have all files that it names.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// In the configuration itself.
    Given {
        /// The key.
        key: &'static str,
        /// Where its value came from.
        origin: Origin,
        /// The value.
        secret: Secret,
    },
    /// In a file of its own, as Kubernetes mounts them. White space at its ends is not part of it.
    File {
        /// The key that names the file.
        key: &'static str,
        /// Where its value came from.
        origin: Origin,
        /// The file.
        path: OperatorFile,
    },
}

impl SecretSource {
    /// The secret.
    ///
    /// # Errors
    /// If its file cannot be read, is empty, has more than 64 KiB, or is not text.
    pub fn read(&self) -> Result<Secret, ConfigError> {
        match self {
            Self::Given { secret, .. } => Ok(secret.clone()),
            Self::File { path, .. } => read(path).map_err(|why| self.fault(format!("{path}: {why}"))),
        }
    }

    /// The secret as the address of a server. One in a file is read again with each connection.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn address(&self) -> Result<ServerAddress, ConfigError> {
        let now = self.read()?;
        match self {
            Self::Given { .. } => Ok(now.expose().into()),
            Self::File { .. } => {
                let source = self.clone();
                let read = move || source.read().map(|secret| secret.0).map_err(|e| e.to_string());
                Ok(ServerAddress::renewable(read))
            }
        }
    }

    /// A fault of this key, from here.
    pub(super) fn fault(&self, problem: String) -> ConfigError {
        let (Self::Given { key, origin, .. } | Self::File { key, origin, .. }) = self;
        ConfigError::one(Fault { key: (*key).to_string(), origin: Some(origin.clone()), problem })
    }
}

fn read(path: &OperatorFile) -> Result<Secret, String> {
    let bytes = path.read(LARGEST).map_err(|e| e.to_string())?;
    // The error of the conversion holds the bytes.
    let text = String::from_utf8(bytes).map_err(|_| "is not text".to_string())?;
    match text.trim() {
        "" => Err("is empty".to_string()),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_nothing() {
        let secret = Secret::new("hunter2");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
        assert!(secret.matches(b"hunter2") && !secret.matches(b"hunter") && !secret.matches(b""));
    }

    #[test]
    fn files_of_secrets_are_read_without_the_line_end_and_faults_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str| SecretSource::File {
            key: "redis.url_file",
            origin: Origin::Flag,
            path: OperatorFile::new(folder.path().join(name)),
        };
        for (name, content) in [("good", "hunter2\n"), ("empty", " \n"), ("bytes", "hunter2")] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        std::fs::write(folder.path().join("bytes"), b"hunter2\xff").unwrap();
        std::fs::write(folder.path().join("large"), vec![b'h'; 70_000]).unwrap();
        assert_eq!(source("good").read().unwrap().expose(), "hunter2");
        for (name, what) in
            [("empty", "is empty"), ("bytes", "not text"), ("large", "at most 65536"), ("none", "No such")]
        {
            let error = source(name).read().unwrap_err().to_string();
            assert!(error.contains("redis.url_file (flag)") && error.contains(name) && error.contains(what), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
