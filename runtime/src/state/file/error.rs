//! Why a partition was not exported, or a file not imported.

use std::io;

use super::FileError;
use crate::state::{ImportError, ReadError};

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
