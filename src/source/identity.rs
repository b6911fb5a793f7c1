//! The state of a file, told without reading it.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// State of a file. Two states that are equal are the same contents, as far as the source can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Bytes.
    pub size: u64,
    /// What changes when the contents do.
    pub version: Version,
}

/// How a source tells two states of a file apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// By what a file system knows. Times are seconds and nanoseconds since 1970.
    Inode {
        /// Device of the file.
        device: u64,
        /// Number of the inode on it.
        inode: u64,
        /// When the contents were changed. A program can set it back.
        modified: (i64, i64),
        /// When the inode was changed. Nobody can set it back.
        changed: (i64, i64),
    },
    /// By a word of the source's own, such as an ETag, which is another for each write.
    Tag(String),
}

/// A file beside an earlier [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it was.
    Same,
    /// Only the inode's own time differs: a new link or mode, or a write whose time was set back.
    /// The contents tell.
    Touched(Identity),
    /// Another file or other contents, in words.
    Changed(String),
}

impl Identity {
    /// What became of the file, from its state now, or from why that cannot be told.
    pub fn compare(&self, now: io::Result<Identity>) -> State {
        use Version::{Inode, Tag};
        let now = match now {
            Ok(now) => now,
            Err(error) => return State::Changed(error.to_string()),
        };
        if now == *self {
            return State::Same;
        }
        let replaced = || State::Changed("it was replaced by another file".to_string());
        let written = || State::Changed("it was modified".to_string());
        let resized = |now: &Identity| State::Changed(format!("expected {} bytes, found {}", self.size, now.size));
        match (&self.version, &now.version) {
            (Inode { device, inode, modified, .. }, Inode { device: d, inode: i, modified: m, .. }) => {
                if (device, inode) != (d, i) {
                    replaced()
                } else if self.size != now.size {
                    resized(&now)
                } else if modified != m {
                    written()
                } else {
                    State::Touched(now)
                }
            }
            (Tag(_), Tag(_)) if self.size != now.size => resized(&now),
            (Tag(_), Tag(_)) => written(),
            _ => replaced(),
        }
    }

    /// Whether every later change gives another identity: the last one is not so recent that the
    /// next could hide in the resolution of the file system's clock.
    pub fn is_settled(&self) -> bool {
        match &self.version {
            Version::Inode { changed, .. } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
                changed.0 < now - 1
            }
            Version::Tag(_) => true,
        }
    }

    /// Bytes that are others for another identity: for the keys of caches, which outlive the
    /// process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.version {
            Version::Inode { device, inode, modified, changed } => {
                for number in [*device, *inode, self.size] {
                    bytes.extend(number.to_le_bytes());
                }
                for number in [modified.0, modified.1, changed.0, changed.1] {
                    bytes.extend(number.to_le_bytes());
                }
            }
            Version::Tag(tag) => {
                bytes.extend(self.size.to_le_bytes());
                bytes.extend(tag.as_bytes());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(size: u64, tag: &str) -> Identity {
        Identity { size, version: Version::Tag(tag.to_string()) }
    }

    fn file(size: u64, inode: u64, modified: i64, changed: i64) -> Identity {
        let version = Version::Inode { device: 1, inode, modified: (modified, 0), changed: (changed, 0) };
        Identity { size, version }
    }

    #[test]
    fn what_became_of_a_file_is_said() {
        let said = |then: &Identity, now: Identity| match then.compare(Ok(now)) {
            State::Same => "same".to_string(),
            State::Touched(_) => "touched".to_string(),
            State::Changed(how) => how,
        };
        let then = file(5, 7, 100, 100);
        assert_eq!(said(&then, file(5, 7, 100, 100)), "same");
        assert_eq!(said(&then, file(5, 7, 100, 101)), "touched");
        assert_eq!(said(&then, file(5, 7, 101, 101)), "it was modified");
        assert_eq!(said(&then, file(4, 7, 101, 101)), "expected 5 bytes, found 4");
        assert_eq!(said(&then, file(5, 8, 100, 100)), "it was replaced by another file");
        assert_eq!(said(&then, tagged(5, "a")), "it was replaced by another file");
        assert_eq!(said(&tagged(5, "a"), tagged(5, "a")), "same");
        assert_eq!(said(&tagged(5, "a"), tagged(5, "b")), "it was modified");
        assert_eq!(said(&tagged(5, "a"), tagged(6, "b")), "expected 5 bytes, found 6");
        let gone = then.compare(Err(io::Error::other("it is gone")));
        assert_eq!(gone, State::Changed("it is gone".to_string()));
    }

    /// Caches of hashes that earlier programs wrote have these keys.
    #[test]
    fn bytes_of_an_identity_stay() {
        let version = Version::Inode { device: 1, inode: 2, modified: (4, 5), changed: (6, -7) };
        let expected = [1i64, 2, 3, 4, 5, 6, -7].map(i64::to_le_bytes).concat();
        assert_eq!(Identity { size: 3, version }.to_bytes(), expected);
        assert_eq!(tagged(3, "ab").to_bytes(), [&3u64.to_le_bytes()[..], b"ab"].concat());
    }

    #[test]
    fn a_recent_change_is_not_settled() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!(!file(1, 1, 0, now).is_settled() && file(1, 1, 0, now - 5).is_settled());
        assert!(tagged(1, "a").is_settled());
    }
}
