//! The queue's message: it says that a task can be worked on, and nothing else. The store holds the truth.

use serde::{Deserialize, Serialize};

use super::TaskKey;

/// A claim ticket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ticket {
    /// Version of this format: [`Ticket::VERSION`].
    pub version: u32,
    /// The task.
    pub task_id: TaskKey,
    /// The task's generation; a ticket of an older one is worthless.
    pub generation: u64,
}

/// Why bytes are no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Longer than any ticket.
    #[error("ticket has {found} bytes, expected at most {}", Ticket::LARGEST)]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Not JSON of a ticket.
    #[error("not a ticket: {0}")]
    Malformed(String),
    /// Of another version.
    #[error("ticket has version {found}, this program reads version {}", Ticket::VERSION)]
    Version {
        /// Its version.
        found: u64,
    },
}

impl Ticket {
    /// Version that this program writes and reads.
    pub const VERSION: u32 = 1;
    /// Most bytes of a ticket.
    pub const LARGEST: usize = 1024;

    /// A ticket for a task.
    pub fn new(task_id: TaskKey, generation: u64) -> Self {
        Self { version: Self::VERSION, task_id, generation }
    }

    /// As a message's body.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data serializes")
    }

    /// Reads a message's body.
    ///
    /// # Errors
    /// If it is no ticket, or one of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        if bytes.len() > Self::LARGEST {
            return Err(TicketError::TooLong { found: bytes.len() });
        }
        // The version first: the rest of another version may not parse.
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u64,
        }
        let malformed = |error: serde_json::Error| TicketError::Malformed(error.to_string());
        let OnlyVersion { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != u64::from(Self::VERSION) {
            return Err(TicketError::Version { found: version });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_come_back_and_foreign_bytes_are_told_apart() {
        let ticket = Ticket::new("s1/0007-mehl+".parse().unwrap(), 3);
        assert_eq!(ticket.to_bytes(), br#"{"version":1,"task_id":"s1/0007-mehl+","generation":3}"#);
        assert_eq!(Ticket::from_bytes(&ticket.to_bytes()), Ok(ticket));
        // Fields that a later version adds are passed over.
        assert!(Ticket::from_bytes(br#"{"version":1,"task_id":"s/t","generation":0,"hint":[1]}"#).is_ok());
        assert_eq!(Ticket::from_bytes(br#"{"version":2,"task":7}"#), Err(TicketError::Version { found: 2 }));
        assert_eq!(Ticket::from_bytes(&[b' '; 2000]), Err(TicketError::TooLong { found: 2000 }));
        for bad in ["", "null", "{}", r#"{"version":1}"#, r#"{"version":1,"task_id":"no-sweep","generation":1}"#] {
            assert!(matches!(Ticket::from_bytes(bad.as_bytes()), Err(TicketError::Malformed(_))), "{bad}");
        }
    }
}
