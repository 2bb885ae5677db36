//! Why a state file could not be written, read or imported.

use std::io;

use crate::state::{ImportError, ReadError};

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

/// Why a partition was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Its state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was read does not fit what the partition counts.
    #[error("export state: it is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// The file could not be written.
    #[error("write a state file")]
    Write(#[from] io::Error),
}

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
pub enum FileImportError {
    /// The file is not whole.
    #[error(transparent)]
    File(#[from] FileError),
    /// The engine did not take it.
    #[error(transparent)]
    Import(#[from] ImportError),
}
