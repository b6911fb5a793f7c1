//! What settings take: from text (environment, flags), and from the values of a file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::ValueKind;

/// Longest value that is repeated in a message, in characters.
const TOLD: usize = 100;

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Letters, digits and `+ - . _`.
    Name,
    /// A secret text.
    Secret,
    /// A secret address that begins with one of these schemes.
    Url(&'static [&'static str]),
    /// A file.
    Path,
    /// An IP address and a port to listen on.
    Address,
    /// The same, or empty.
    MaybeAddress,
    /// Address of an HTTP server.
    Server,
    /// A device to compute on.
    Device,
    /// Whole seconds from the first to the second.
    Seconds(u64, u64),
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// Bytes from the first to the second.
    Bytes(u64, u64),
    /// Absolute paths of folders.
    Folders,
    /// BLAKE3 hashes.
    Hashes,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A value that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text of any kind; empty only where the kind allows it.
    Text(String),
    /// A number.
    Number(u64),
    /// A list.
    List(Vec<String>),
}

impl Kind {
    /// Whether values of it are never shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Url(_))
    }

    /// What it takes, in words.
    pub fn expected(self) -> String {
        match self {
            Self::Name => "letters, digits and `+ - . _`".to_string(),
            Self::Secret => "a secret".to_string(),
            Self::Url(schemes) => {
                let schemes: Vec<_> = schemes.iter().map(|scheme| format!("`{scheme}://`")).collect();
                format!("an address that begins with {}", schemes.join(", "))
            }
            Self::Path => "a path".to_string(),
            Self::Address => "an IP address with a port".to_string(),
            Self::MaybeAddress => "an IP address with a port, or nothing".to_string(),
            Self::Server => "an address that begins with `http://` or `https://`".to_string(),
            Self::Device => "`cpu`, `cuda` or `cuda:` and a number".to_string(),
            Self::Seconds(least, most) => format!("{least} to {most} seconds"),
            Self::Count(least, most) => format!("{least} to {most}"),
            Self::Bytes(least, most) => format!("{least} to {most} bytes"),
            Self::Folders => "a list of absolute paths".to_string(),
            Self::Hashes => "a list of hashes".to_string(),
            Self::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "),
        }
    }

    /// A value from text, as the environment and flags have it: lists are cut at commas.
    ///
    /// # Errors
    /// What was expected, and what was found unless it is secret.
    pub fn of_text(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Seconds(..) | Self::Count(..) | Self::Bytes(..) => match text.trim().parse() {
                Ok(number) => self.of_number(number),
                Err(_) => Err(self.refuse(text)),
            },
            Self::Folders | Self::Hashes => {
                self.of_list(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(String::from).collect())
            }
            _ if self.takes(text) => Ok(Value::Text(text.to_string())),
            _ => Err(self.refuse(text)),
        }
    }

    /// A value from a file, which has types of its own.
    ///
    /// # Errors
    /// What was expected, and what was found unless it is secret.
    pub fn of_file(self, value: &ValueKind) -> Result<Value, String> {
        let is_number = matches!(self, Self::Seconds(..) | Self::Count(..) | Self::Bytes(..));
        match (value, self) {
            (ValueKind::I64(number), _) if is_number => {
                u64::try_from(*number).map_err(|_| self.refuse(&number.to_string())).and_then(|n| self.of_number(n))
            }
            (ValueKind::U64(number), _) if is_number => self.of_number(*number),
            (ValueKind::Array(items), Self::Folders | Self::Hashes) => {
                let text = |item: &config::Value| match &item.kind {
                    ValueKind::String(text) => Ok(text.clone()),
                    other => Err(format!("expected a list of text, found {} in it", words(other))),
                };
                self.of_list(items.iter().map(text).collect::<Result<_, _>>()?)
            }
            (ValueKind::String(_), Self::Folders | Self::Hashes) => {
                Err(format!("expected {}, found text", self.expected()))
            }
            (ValueKind::String(text), _) if !is_number => self.of_text(text),
            (other, _) => Err(format!("expected {}, found {}", self.expected(), words(other))),
        }
    }

    fn of_number(self, number: u64) -> Result<Value, String> {
        match self {
            Self::Seconds(least, most) | Self::Count(least, most) | Self::Bytes(least, most)
                if (least..=most).contains(&number) =>
            {
                Ok(Value::Number(number))
            }
            _ => Err(self.refuse(&number.to_string())),
        }
    }

    fn of_list(self, items: Vec<String>) -> Result<Value, String> {
        for item in &items {
            match self {
                Self::Folders if !Path::new(item).is_absolute() => {
                    return Err(format!("expected absolute paths, found `{}`", cut(item)));
                }
                Self::Hashes if blake3::Hash::from_hex(item).is_err() => {
                    return Err(format!("expected 64 hexadecimal digits each, found `{}`", cut(item)));
                }
                _ => {}
            }
        }
        Ok(Value::List(items))
    }

    /// Whether a text is one.
    fn takes(self, text: &str) -> bool {
        match self {
            Self::Name => crate::task::is_id(text),
            // Control characters in a header or an address are a mistake at best.
            Self::Secret => !text.is_empty() && !text.chars().any(char::is_control),
            Self::Url(schemes) => {
                !text.chars().any(char::is_control)
                    && text
                        .split_once("://")
                        .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty())
            }
            Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::MaybeAddress => text.is_empty() || text.parse::<SocketAddr>().is_ok(),
            Self::Server => {
                let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
                // A user and password in it would be shown with it.
                rest.is_some_and(|rest| {
                    let host = rest.split('/').next().unwrap_or_default();
                    !host.is_empty() && !rest.contains(['@', '?', '#', ' ']) && !rest.chars().any(char::is_control)
                })
            }
            Self::Device => {
                let number = |n: &str| (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
                matches!(text, "cpu" | "cuda") || text.strip_prefix("cuda:").is_some_and(number)
            }
            Self::Word(words) => words.contains(&text),
            Self::Seconds(..) | Self::Count(..) | Self::Bytes(..) | Self::Folders | Self::Hashes => false,
        }
    }

    fn refuse(self, found: &str) -> String {
        match self {
            _ if self.is_secret() => format!("expected {}", self.expected()),
            // What looks like an address may hold a password.
            Self::Server if found.contains('@') => {
                format!("expected {}, without user and password: tokens have their own key", self.expected())
            }
            _ => format!("expected {}, found `{}`", self.expected(), cut(found)),
        }
    }
}

impl Value {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Number(number) => (*number).into(),
            Self::List(items) => items.clone().into(),
        }
    }

    /// A path.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Number(_) | Self::List(_) => PathBuf::new(),
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TOLD) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

fn words(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_take_what_they_say() {
        let hash = "0".repeat(64);
        for (kind, good, bad) in [
            (Kind::Name, vec!["mehl-soup", "a.b"], vec!["", "a b", ".a", "a/b"]),
            (Kind::Secret, vec!["x", "with space"], vec!["", "a\nb"]),
            (
                Kind::Url(&["redis", "rediss", "redis+sentinel"]),
                vec!["redis://h", "redis+sentinel://u:p@h:1,i/name", "rediss://u:p@h:1/2"],
                vec!["", "redis:h", "http://h", "redis://"],
            ),
            (Kind::Address, vec!["127.0.0.1:1", "[::]:7070", "0.0.0.0:0"], vec!["", "localhost:1", "127.0.0.1"]),
            (Kind::MaybeAddress, vec!["", "127.0.0.1:1"], vec!["x"]),
            (Kind::Server, vec!["http://h", "https://h:1/p"], vec!["", "h:1", "http://", "http://u:p@h", "ftp://h"]),
            (Kind::Device, vec!["cpu", "cuda", "cuda:1"], vec!["", "gpu", "cuda:", "cuda:x"]),
            (Kind::Word(&["text", "json"]), vec!["text", "json"], vec!["", "JSON", "xml"]),
            (Kind::Seconds(2, 9), vec!["2", " 9 "], vec!["", "1", "10", "2.5", "-3", "two"]),
            (Kind::Folders, vec!["", "/a,/b", "/a"], vec!["a", "/a,b"]),
            (Kind::Hashes, vec!["", hash.as_str()], vec!["0", "zz"]),
        ] {
            for text in good {
                assert!(kind.of_text(text).is_ok(), "{kind:?} {text}");
            }
            for text in bad {
                let error = kind.of_text(text).unwrap_err();
                assert!(error.starts_with("expected"), "{kind:?} {text}: {error}");
            }
        }
    }

    #[test]
    fn values_of_files_have_their_types() {
        let number = Kind::Seconds(1, 9);
        assert_eq!(number.of_file(&ValueKind::I64(3)), Ok(Value::Number(3)));
        assert!(number.of_file(&ValueKind::I64(-3)).unwrap_err().ends_with("found `-3`"));
        assert!(number.of_file(&ValueKind::String("3".into())).unwrap_err().ends_with("found text"));
        assert!(Kind::Name.of_file(&ValueKind::I64(3)).unwrap_err().ends_with("found a number"));
        let list = ValueKind::Array(vec!["/a,b".into()]);
        assert_eq!(Kind::Folders.of_file(&list), Ok(Value::List(vec!["/a,b".to_string()])));
        assert!(Kind::Folders.of_file(&ValueKind::Array(vec![3.into()])).is_err());
        assert!(Kind::Folders.of_file(&ValueKind::String("/a".into())).is_err());
    }

    #[test]
    fn secrets_are_not_repeated() {
        for (kind, text) in [
            (Kind::Secret, "hunter2\u{7}"),
            (Kind::Url(&["redis"]), "http://u:hunter2@h"),
            (Kind::Server, "http://u:hunter2@h"),
        ] {
            assert!(!kind.of_text(text).unwrap_err().contains("hunter2"));
        }
        let number = ValueKind::I64(31337);
        assert!(!Kind::Secret.of_file(&number).unwrap_err().contains("31337"));
    }
}
