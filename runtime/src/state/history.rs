//! History: which records a partition keeps whole, and how they are read back.

use std::time::Duration;

use hvm_types::{ByteSize, Epoch, HistorySpec, Meter, RetentionSpec, Sequence};

use super::{Exchange, IdempotencyKey, IdempotencyWindow, WriteSet};

/// What a partition keeps of its past beside its state. It comes with each record, so that a changed setting
/// holds from the next record on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Which records are kept whole; none where it is absent.
    pub history: Option<HistoryWindow>,
    /// How long answers are kept; as the engine is configured where it is absent.
    pub idempotency: Option<IdempotencyWindow>,
}

impl From<&RetentionSpec> for Retention {
    /// What a deployment asks for, with the defaults for what it does not say.
    fn from(spec: &RetentionSpec) -> Self {
        let history = spec.history.map(|history| HistoryWindow {
            records: history.records.map_or(u64::MAX, u64::from),
            bytes: history.bytes.unwrap_or(HistorySpec::DEFAULT_BYTES),
            age: history.age.map_or(Duration::MAX, |age| age.0),
        });
        let idempotency = spec.idempotency.map(|kept| {
            let default = IdempotencyWindow::default();
            IdempotencyWindow {
                answers: kept.answers.map_or(default.answers, u64::from),
                bytes: kept.bytes.unwrap_or(default.bytes),
                age: kept.age.map_or(default.age, |age| age.0),
            }
        });
        Self { history, idempotency }
    }
}

/// How long records are kept, per partition: the oldest go when one of the three is exceeded; the newest stays
/// always. A commit removes a bounded number of them, so a narrowed window takes effect over many commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryWindow {
    /// Most records.
    pub records: u64,
    /// Most bytes of records together.
    pub bytes: ByteSize,
    /// Longest age.
    pub age: Duration,
}

/// Most records in one [`HistoryPage`].
pub const MAX_PAGE_RECORDS: usize = 1_000;

/// Some records of a partition's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The records in the order of their sequences, without gaps.
    pub records: Vec<KeptRecord>,
    /// The oldest record that is kept. Where it is more than one above what was asked to begin after, the records
    /// between are not kept any more. Absent where none is kept.
    pub oldest: Option<Sequence>,
    /// The sequence to go on after: that of the last record here. Absent when no record follows.
    pub next: Option<Sequence>,
}

/// A record as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRecord {
    /// The ownership that committed it.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: Sequence,
    /// Its idempotency key, if the request had one.
    pub key: Option<IdempotencyKey>,
    /// The request's digest and the answer, where they were committed with it.
    pub exchange: Option<Exchange>,
    /// What it wrote.
    pub writes: WriteSet,
    /// What it used.
    pub meter: Meter,
    /// Time of the commit in milliseconds since 1970.
    pub unix_millis: u64,
}
