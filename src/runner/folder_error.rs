//! What can be wrong with a run folder.

use std::io;

/// Why a folder cannot be used, or something in it not be kept.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder cannot be made or written.
    #[error("output folder {path}: {source}")]
    NotWritable {
        /// The folder.
        path: String,
        /// The system's message.
        source: io::Error,
    },
    /// Another process works here.
    #[error("output folder {path} is in use by another run")]
    InUse {
        /// The folder.
        path: String,
    },
    /// The folder belongs to another specification.
    #[error(
        "output folder {path} contains another sweep (`{found_name}`, identity {found}); expected identity {expected}; \
         choose another folder, or undo the change to the specification"
    )]
    OtherSpec {
        /// The folder.
        path: String,
        /// Identity of the specification at hand.
        expected: String,
        /// Identity that the folder was begun with.
        found: String,
        /// Name of the sweep that the folder was begun with.
        found_name: String,
    },
    /// A newer version of this program has begun the folder.
    #[error("{path} has version {found}, this program reads up to {expected}: use a newer program")]
    Newer {
        /// The folder.
        path: String,
        /// Version of its identity.
        found: u32,
        /// The latest that this program reads.
        expected: u32,
    },
    /// The folder holds something else.
    #[error("output folder {path} is not empty and contains no sweep; choose another folder")]
    NotASweep {
        /// The folder.
        path: String,
    },
    /// A file of the folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's message.
        source: io::Error,
    },
    /// A file of the folder does not hold what this program wrote.
    #[error("{path} is damaged: {what}; move it away to continue without it")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
}
