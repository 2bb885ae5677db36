//! Why a store did not do what was asked.

use std::path::PathBuf;

use hvm_api::ErrorKind;

use super::{LeaseId, Revision};

/// A failed operation of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key of a transaction was not as expected. Nothing was written.
    #[error("write `{key}`: it was changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
    },
    /// A transaction or key above the limits, or one that writes a key twice. Nothing was written.
    #[error("write {what}: {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// What the limit is.
        limit: String,
    },
    /// A watch began before what the store remembers, or fell behind.
    #[error("watch from revision {}: the store remembers changes after {} only", after.0, oldest.0)]
    Compacted {
        /// Where it began.
        after: Revision,
        /// Where it may begin.
        oldest: Revision,
    },
    /// The lease has ended or never was.
    #[error("use lease {}: it has ended", lease.0)]
    LeaseExpired {
        /// The lease.
        lease: LeaseId,
    },
    /// Another process has the directory.
    #[error(
        "open {directory}: another process uses it; stop that process, or choose another data directory",
        directory = directory.display()
    )]
    DirectoryInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory can't be made.
    #[error("make {directory}; check its path and owner", directory = directory.display())]
    DirectoryUnusable {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store could not be reached, or its disk did not do what was asked.
    #[error("{operation} the store")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    pub(crate) fn unavailable(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { operation, source: source.into() }
    }

    /// What the caller can do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } | Self::Compacted { .. } => ErrorKind::Conflict,
            Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::LeaseExpired { .. } => ErrorKind::NotFound,
            Self::DirectoryInUse { .. } | Self::DirectoryUnusable { .. } | Self::Unavailable { .. } => {
                ErrorKind::Unavailable
            }
        }
    }
}
