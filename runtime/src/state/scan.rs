//! Reading everything that a partition holds, page by page: what exports, copies and checks are made of.

use bytes::Bytes;
use hvm_types::{ByteSize, Epoch, Meter, Sequence};

use super::{Idempotency, ReadError};

/// A consistent view of all that a partition holds. It holds old versions on the disk while it lives.
pub trait Scan: Send {
    /// The numbers of this view.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn head(&self) -> Result<ScanHead, ReadError>;

    /// The buckets that hold a key, in byte order.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn buckets(&self) -> Result<Vec<String>, ReadError>;

    /// Keys of a bucket with their values, those after `cursor`: as many as fit `max_bytes`, and at least
    /// one where there is one.
    ///
    /// # Errors
    /// Where the state can't be read.
    fn entries(&self, bucket: &str, cursor: Option<&str>, max_bytes: usize) -> Result<EntryPage, ReadError>;

    /// Answers of the idempotency window, those after `cursor`: as many as fit `max_bytes`, and at least one
    /// where there is one.
    ///
    /// # Errors
    /// Where the state can't be read, or the window does not fit together.
    fn answers(&self, cursor: Option<u64>, max_bytes: usize) -> Result<AnswerPage, ReadError>;
}

/// Numbers that belong to one view of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanHead {
    /// The newest epoch that opened it.
    pub epoch: Epoch,
    /// Number of its last record.
    pub sequence: Sequence,
    /// Time of that record, in milliseconds since 1970; 0 where there is none.
    pub unix_millis: u64,
    /// Bytes of its keys and values.
    pub stored: ByteSize,
    /// Answers in its idempotency window.
    pub answers: u64,
    /// The version of the layout of its state, where a record said one.
    pub schema: Option<u32>,
    /// Sum of the meters of all its records.
    pub meter: Meter,
}

/// Some keys of a bucket with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// Keys and values, in byte order of the keys.
    pub entries: Vec<(String, Bytes)>,
    /// The cursor to go on with: the last key here. Absent when no key follows.
    pub next: Option<String>,
}

/// Some answers of an idempotency window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerPage {
    /// The answers, the oldest first.
    pub answers: Vec<WindowAnswer>,
    /// The cursor to go on with, which only the engine understands. Absent when no answer follows.
    pub next: Option<u64>,
}

/// One answer of an idempotency window, complete enough to be kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowAnswer {
    /// Key, request and answer.
    pub idempotency: Idempotency,
    /// The record that applied it.
    pub sequence: Sequence,
    /// Time of that record, in milliseconds since 1970.
    pub unix_millis: u64,
}
