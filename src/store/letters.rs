//! Dead letters that are no tickets: kept, so that a person can see what somebody published by mistake. The newest, and the beginning of each.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many are kept.
pub const MOST_LETTERS: usize = 1000;
/// So many bytes of a body are kept.
pub const LARGEST_LETTER: usize = 4 << 10;

/// A dead letter that is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Why the broker made it a dead letter.
    pub reason: String,
    /// Why it is no ticket.
    pub fault: String,
    /// Bytes of its body.
    pub bytes: usize,
    /// Its body, at most the first [`LARGEST_LETTER`] bytes of it; other than text with escapes, as in Rust.
    pub body: String,
    /// Whether the body is text.
    pub is_text: bool,
}

/// One that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLetter {
    /// Milliseconds since 1970 (in memory: since the store was made).
    pub at: u64,
    /// The letter.
    pub letter: Letter,
}

/// Those that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Letters {
    /// How many there ever were.
    pub total: u64,
    /// Newest first.
    pub newest: Vec<KeptLetter>,
}

impl Letter {
    /// What is kept of a message.
    pub fn new(body: &[u8], reason: &str, fault: &str) -> Self {
        let start = &body[..body.len().min(LARGEST_LETTER)];
        let text = match std::str::from_utf8(start) {
            Ok(text) => Some(text),
            // It was cut within a character.
            Err(error) if error.error_len().is_none() && start.len() < body.len() => {
                std::str::from_utf8(&start[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            reason: reason.to_string(),
            fault: fault.to_string(),
            bytes: body.len(),
            body: text.map_or_else(|| start.escape_ascii().to_string(), str::to_string),
            is_text: text.is_some(),
        }
    }
}

/// The letters of one process.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    total: u64,
    /// Newest first.
    letters: VecDeque<KeptLetter>,
}

impl DeadLetters {
    pub(super) fn keep(&mut self, letter: Letter, at: u64) {
        self.total += 1;
        self.letters.push_front(KeptLetter { at, letter });
        self.letters.truncate(MOST_LETTERS);
    }

    pub(super) fn newest(&self, limit: usize) -> Letters {
        Letters { total: self.total, newest: self.letters.iter().take(limit).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_body_is_kept() {
        let text = Letter::new("a\u{1f600}\n".as_bytes(), "rejected", "no");
        assert_eq!((text.bytes, text.body.as_str(), text.is_text), (6, "a\u{1f600}\n", true));
        let bytes = Letter::new(&[0xff, b'a', 0, b'"'], "rejected", "no");
        assert_eq!((bytes.bytes, bytes.body.as_str(), bytes.is_text), (4, r#"\xffa\x00\""#, false));
        // The last character is cut in two: it is left out, and the rest is still text.
        let long = format!("{}\u{1f600} and more", "x".repeat(LARGEST_LETTER - 2));
        let long = Letter::new(long.as_bytes(), "rejected", "no");
        assert_eq!((long.bytes, long.body.len(), long.is_text), (LARGEST_LETTER + 11, LARGEST_LETTER - 2, true));
        // The same at the end of a whole body is no text.
        assert!(!Letter::new(&[b'x', 0xf0, 0x9f], "rejected", "no").is_text);
    }
}
