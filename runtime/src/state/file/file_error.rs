//! What is wrong with a state file.

use std::io;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It begins with something else.
    #[error("read a state file: this is none; `hvm state export` makes one")]
    NotAStateFile,
    /// A later version of the format.
    #[error(
        "read a state file: its format is version {version}, this program knows version 1; use a newer one"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// It ends before its end: copy it again.
    #[error("read a state file: it is cut off at byte {offset}; copy or export it again")]
    Cut {
        /// How many bytes there are.
        offset: u64,
    },
    /// It is not what was written: do not use it.
    #[error("read a state file: it is damaged at byte {offset}: {what}; copy or export it again")]
    Damaged {
        /// Where the damaged block begins.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The operating system, or whoever sends it, failed.
    #[error("read a state file at byte {offset}")]
    Io {
        /// How far it was read.
        offset: u64,
        /// Why not further.
        source: io::Error,
    },
}
