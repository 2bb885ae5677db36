//! Making a partition of what comes from elsewhere: all of it or nothing.

use bytes::Bytes;
use hvm_types::{ByteSize, Epoch, Meter, ReplicaId, Sequence};

use super::{CommitError, PartitionInfo, ReadError, WindowAnswer};

/// A partition in the making. It can't be seen until it is finished; dropped before that, or after a crash,
/// nothing of it is left but work for the background. What is there under its name meanwhile goes on.
pub trait Import: Send {
    /// Adds keys of a bucket, those of all buckets in byte order of bucket and key.
    ///
    /// # Errors
    /// See [`ImportError`]; the import can't be finished then.
    fn put(&mut self, bucket: &str, entries: Vec<(String, Bytes)>) -> Result<(), ImportError>;

    /// Adds answers to the idempotency window, the oldest first.
    ///
    /// # Errors
    /// See [`ImportError`]; the import can't be finished then.
    fn put_answers(&mut self, answers: Vec<WindowAnswer>) -> Result<(), ImportError>;

    /// Puts the partition in its place, durably and at once. Handles to what stood there find it removed.
    ///
    /// Its epoch is that of the import. Its sequence goes on from `head`; where a partition is replaced that
    /// had more records, it goes on from that one's, so that no two states have the same numbers.
    ///
    /// # Errors
    /// [`ImportError::Fenced`] where a newer epoch has opened the partition since,
    /// [`ImportError::HasRecords`] where records were committed to it since.
    fn finish(self: Box<Self>, head: &ImportHead) -> Result<PartitionInfo, ImportError>;
}

/// What an import starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportHead {
    /// Number of the last record.
    pub sequence: Sequence,
    /// Its time, in milliseconds since 1970.
    pub unix_millis: u64,
    /// The version of the layout of the state, where it is known.
    pub schema: Option<u32>,
    /// Sum of the meters of all records.
    pub meter: Meter,
}

/// Why state could not be imported. What was there before is there unchanged, except after
/// [`Unavailable`](Self::Unavailable): then either that or all of the import is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A newer owner exists: import through that one.
    #[error("import {id} at epoch {epoch}: epoch {newest} owns it")]
    Fenced {
        /// The partition.
        id: ReplicaId,
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The newest epoch.
        newest: Epoch,
    },
    /// The partition has state of its own, and replacing it was not asked for.
    #[error("import {id}: it has state of its own, {sequence} records; replacing them must be asked for")]
    HasRecords {
        /// The partition.
        id: ReplicaId,
        /// Number of its last record.
        sequence: Sequence,
    },
    /// What comes is not the state of a partition: do not retry.
    #[error("import {id}: {what}")]
    Invalid {
        /// The partition.
        id: ReplicaId,
        /// What is wrong with it.
        what: String,
    },
    /// The host's disk is full: retry later.
    #[error("import {id}: {free} are free on the host's disk and {needed} are needed; free some space")]
    StorageFull {
        /// The partition.
        id: ReplicaId,
        /// What is free.
        free: ByteSize,
        /// What must be free.
        needed: ByteSize,
    },
    /// What stands in the partition's place is damaged: remove it first.
    #[error("import {id}: what is there is damaged: {what}")]
    Corrupt {
        /// The partition.
        id: ReplicaId,
        /// What was found.
        what: String,
    },
    /// The engine can't write: look what is there, then retry.
    #[error("import {id}: {reason}")]
    Unavailable {
        /// The partition.
        id: ReplicaId,
        /// Why.
        reason: String,
    },
}

impl ImportError {
    /// What a failed write means for an import.
    pub(crate) fn of_commit(id: &ReplicaId, error: &CommitError) -> Self {
        let id = id.clone();
        match error {
            CommitError::StorageFull { free, needed } => {
                Self::StorageFull { id, free: *free, needed: *needed }
            }
            CommitError::Corrupt { what } => Self::Corrupt { id, what: what.clone() },
            CommitError::Unavailable { reason } => Self::Unavailable { id, reason: reason.clone() },
            other => Self::Unavailable { id, reason: other.to_string() },
        }
    }

    /// What a failed read means for an import.
    pub(crate) fn of_read(id: &ReplicaId, error: ReadError) -> Self {
        Self::of_commit(id, &error.into())
    }
}
