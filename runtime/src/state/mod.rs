//! Durable state of partitions: what a command changed, committed as one record before anybody hears of it.
//!
//! [`StateEngine`], [`PartitionState`] and [`Snapshot`] are the interface; [`LocalEngine`] keeps the state on
//! this host's disk, [`SharedEngine`] in an object store. [`Scan`] reads all of a partition, [`Import`] makes one of
//! what comes from elsewhere, [`mod@file`] is the form in which it travels. Every engine must pass the suite
//! `tests/state_engine/conformance.rs`. The rules that all engines keep:
//!
//! - A commit is one record: writes, answer and meter together, durable before its future resolves.
//! - Per partition, records strictly grow in (epoch, sequence). A handle of an older epoch never commits.
//! - A snapshot shows whole committed records only, and every record that was acknowledged before it.
//! - One idempotency key is applied at most once within its window.
//! - Kept records are whole, in order and without gaps.
//! - Damaged state is an error, never a guess.
//!
//! Nothing here knows of guests, requests or routes, and nothing that is stored depends on a clock:
//! time is passed in.

mod answer;
mod engine;
mod error;
pub mod file;
mod history;
mod import;
mod local;
mod record;
mod scan;
mod shared;

pub use answer::{Exchange, Idempotency, IdempotencyKey, IdempotencyWindow, InvalidIdempotencyKey};
pub use answer::{StoredAnswer, StoredResponse};
pub use engine::{CommitFuture, CommitReply, KeyPage, MAX_PAGE_KEYS};
pub use engine::{PartitionInfo, PartitionState, Snapshot, StateEngine};
pub use error::{CommitError, OpenError, ReadError, StartError};
pub use history::{HistoryPage, HistoryWindow, KeptRecord, MAX_PAGE_RECORDS, Retention};
pub use import::{Import, ImportError, ImportHead};
pub use local::{FreeSpace, LocalConfig, LocalEngine};
pub use record::{CommitRecord, MAX_BUCKET_BYTES, MAX_KEY_BYTES, MAX_RECORD_BYTES, SchemaMark, WriteSet};
pub use scan::{AnswerPage, EntryPage, Scan, ScanHead, WindowAnswer};
pub use shared::{IdentityError, S3Config, SharedConfig, SharedEngine, SharedStore};
