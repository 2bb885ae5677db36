//! Why state could not be started, opened, read or committed. Each kind says what the caller should do.

use std::io;
use std::path::PathBuf;

use hvm_types::{ByteSize, Epoch, ReplicaId};

/// Why an engine could not start on a directory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has it.
    #[error(
        "open the state in {}: process {pid} has it open; stop that process or use another directory",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The id of the process, as its lock file says; `unknown` where that can't be read.
        pid: String,
    },
    /// What is there is damaged. Nothing was changed.
    #[error("open the state in {}: it is damaged: {what}", path.display())]
    Corrupt {
        /// The directory or file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The disk is full.
    #[error(
        "open the state in {}: {free} are free on its disk and {needed} are needed; free some space",
        path.display()
    )]
    StorageFull {
        /// The directory.
        path: PathBuf,
        /// What is free.
        free: ByteSize,
        /// What must be free.
        needed: ByteSize,
    },
    /// The operating system refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a partition could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A newer owner exists: do not retry with this epoch.
    #[error("open the state of {id} at epoch {epoch}: epoch {newest} owns it")]
    Fenced {
        /// The partition.
        id: ReplicaId,
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The newest epoch.
        newest: Epoch,
    },
    /// The host's disk is full: retry later.
    #[error("open the state of {id}: {free} are free on the host's disk and {needed} are needed")]
    StorageFull {
        /// The partition.
        id: ReplicaId,
        /// What is free.
        free: ByteSize,
        /// What must be free.
        needed: ByteSize,
    },
    /// Its state is damaged: do not retry; restore it.
    #[error("open the state of {id}: it is damaged: {what}")]
    Corrupt {
        /// The partition.
        id: ReplicaId,
        /// What was found.
        what: String,
    },
    /// The engine can't write: retry later.
    #[error("open the state of {id}: {reason}")]
    Unavailable {
        /// The partition.
        id: ReplicaId,
        /// Why.
        reason: String,
    },
}

/// Why state could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A newer owner exists: stop serving.
    #[error("read state: epoch {newest} owns the partition")]
    Fenced {
        /// The newest epoch.
        newest: Epoch,
    },
    /// The partition was removed.
    #[error("read state: the partition was removed")]
    Removed,
    /// It is damaged: do not retry.
    #[error("read state: it is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// The engine can't read now: retry later.
    #[error("read state: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// Why a record was not committed. After [`Unavailable`](Self::Unavailable) alone it is unknown whether the
/// record will be found after a restart; after all others it is absent for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A newer owner exists: stop serving.
    #[error("commit: epoch {newest} owns the partition")]
    Fenced {
        /// The newest epoch.
        newest: Epoch,
    },
    /// The host's disk is full: answer 507, retry later.
    #[error("commit: {free} are free on the host's disk and {needed} are needed; free some space")]
    StorageFull {
        /// What is free.
        free: ByteSize,
        /// What must be free.
        needed: ByteSize,
    },
    /// The partition would hold more than it may: answer 507.
    #[error("commit: the partition would hold {stored}, more than its limit of {limit}")]
    QuotaExceeded {
        /// What it would hold.
        stored: ByteSize,
        /// Its limit.
        limit: ByteSize,
    },
    /// The record breaks a limit of the engine: do not retry.
    #[error("commit: {what} has {bytes} bytes, more than the {limit} that can be stored")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A record with this idempotency key was committed before: answer with what was stored. Or the state was migrated to
    /// this layout before.
    #[error("commit: its idempotency key, or its migration, was applied before")]
    AlreadyApplied,
    /// Too many records wait: retry soon.
    #[error("commit: {queued} records wait for the disk")]
    Busy {
        /// How many wait.
        queued: usize,
    },
    /// The partition was removed.
    #[error("commit: the partition was removed")]
    Removed,
    /// Its state is damaged: do not retry.
    #[error("commit: the state is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// The engine can't write: retry later, with the same idempotency key.
    #[error("commit: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl CommitError {
    pub(crate) fn stopped() -> Self {
        Self::Unavailable { reason: "the state engine has stopped".to_owned() }
    }
}

impl From<ReadError> for CommitError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Fenced { newest } => Self::Fenced { newest },
            ReadError::Removed => Self::Removed,
            ReadError::Corrupt { what } => Self::Corrupt { what },
            ReadError::Unavailable { reason } => Self::Unavailable { reason },
        }
    }
}
