//! Reading files that somebody else made: regular files only, never more than a limit. `docs/security.md` lists the limits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Once;

mod confine;
pub mod operator_file;

pub(crate) use confine::lexical;
pub use confine::{Confinement, check_module, check_place, confine};
use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Largest header of a safetensors file, in bytes: the format's own limit.
pub const LARGEST_HEADER: u64 = 100_000_000;
/// Most tensors in one safetensors file. Mixtures of experts, the models with most tensors, have a hundred thousand.
pub const MOST_TENSORS: usize = 500_000;
/// Longest name of a tensor, in bytes.
pub const LONGEST_TENSOR_NAME: usize = 1024;
/// Most dimensions of a tensor: libtorch computes with no more.
pub const MOST_DIMENSIONS: usize = 64;
/// Largest `model.safetensors.index.json`, in bytes; that of a model with a hundred thousand tensors has nine million.
pub const LARGEST_INDEX: u64 = 64 << 20;
/// Most files of one sharded model.
pub const MOST_SHARDS: usize = 10_000;
/// Largest `config.json`, in bytes.
pub const LARGEST_CONFIG: u64 = 16 << 20;
/// Largest tokenizer or other companion file that is copied, in bytes.
pub const LARGEST_COMPANION: u64 = 256 << 20;
/// Largest model card that is read for its licence, in bytes.
pub const LARGEST_CARD: u64 = 1 << 20;
/// Largest specification, in bytes. Specifications are written by hand; what is larger is something else.
pub const LARGEST_SPEC: u64 = 1 << 20;
/// Largest coefficients file, in bytes: a thousand ingredients times ten thousand layer groups are 80 million.
pub const LARGEST_COEFFICIENTS: u64 = 256 << 20;

/// Opens a regular file for reading, through links. Never waits, as opening a pipe would.
///
/// # Errors
/// If there is no such file, it is a folder, pipe, socket or device, it is outside of where this process is [confined](confine) to, or the file
/// system says no.
pub fn open(path: &Path) -> io::Result<File> {
    check_place(path)?;
    let file = open_regular(path)?;
    confine::check_file(path, &file)?;
    Ok(file)
}

/// Opens a regular file without asking whether this process is confined: for files that the
/// operator names, never for files that a specification names.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    raise_file_limit();
    // Before opening: to open some devices does something.
    check_regular(&path.metadata()?)?;
    // It may have become a pipe since then: this flag opens one without its writer, and means nothing for a file.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// The content of a regular file.
///
/// # Errors
/// As [`open`], or if it has more than `limit` bytes, of which then none is kept.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_whole(open(path)?, limit)
}

/// The content of an open file, if it has at most `limit` bytes.
pub(crate) fn read_whole(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let stated = file.metadata()?.len();
    if stated > limit {
        return Err(too_large(limit, stated));
    }
    let mut content = Vec::with_capacity(usize::try_from(stated).unwrap_or(0));
    // It may grow while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(too_large(limit, content.len() as u64));
    }
    Ok(content)
}

/// That a file has more than `limit` bytes.
pub(crate) fn too_large(limit: u64, found: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("expected at most {limit} bytes, found {found}"))
}

fn check_regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let found = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("expected a regular file, found {found}")))
}

/// Allows this process as many open files as it may have: each shard of each ingredient is one, and the usual 1024 would be
/// too few for a large zoo.
fn raise_file_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // If it is refused, opening one file too many says so.
        let _ = setrlimit(Resource::Nofile, limit);
    });
}

/// A text's bytes without the byte order mark that some editors put before UTF-8.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// Text of somebody else's making, for a terminal: control characters, which could move its cursor or change its colours, become `\u{...}`.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "expected at most 4 bytes, found 5");
    }

    #[test]
    fn a_file_of_no_stated_size_is_cut_off_too() {
        // Its metadata says 0 bytes.
        let path = Path::new("/proc/self/maps");
        assert_eq!(read(path, 16).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for (path, found) in
            [(pipe.as_path(), "a pipe"), (root.path(), "a folder"), (Path::new("/dev/zero"), "a device")]
        {
            let error = open(path).unwrap_err().to_string();
            assert_eq!(error, format!("expected a regular file, found {found}"));
        }
    }

    #[test]
    fn terminals_get_no_commands() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\u{9b}é"), "a\\u{1b}[2Jb\\u{d}\nc\\u{9b}é");
    }
}
