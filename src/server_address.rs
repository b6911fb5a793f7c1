//! Addresses of servers. They hold a user and a password, so nothing shows them.

use std::sync::Arc;

/// Where a server is, with the user and the password to use there.
///
/// An address that comes from a file is read anew for each connection, so a password that was
/// rotated is taken from the file without a restart.
#[derive(Clone)]
pub struct ServerAddress {
    read: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
    may_change: bool,
}

impl ServerAddress {
    /// An address that `read` gives, each time it is needed. The error is a sentence for a person
    /// and holds no part of the address.
    pub fn renewable(read: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), may_change: true }
    }

    /// The address as it is now.
    ///
    /// # Errors
    /// If its file cannot be read now.
    pub fn read(&self) -> Result<String, String> {
        (self.read)()
    }

    /// Whether reading it again can give another one.
    pub fn may_change(&self) -> bool {
        self.may_change
    }
}

impl From<String> for ServerAddress {
    fn from(address: String) -> Self {
        Self { read: Arc::new(move || Ok(address.clone())), may_change: false }
    }
}

impl From<&str> for ServerAddress {
    fn from(address: &str) -> Self {
        address.to_string().into()
    }
}
