//! The state of one partition in one file: for backups, and to take it elsewhere.
//!
//! A file holds a partition as of one committed record: every key and value, the idempotency window with its
//! answers, the sum of its meters, and where all that comes from. It is written and read as a stream, in
//! memory that does not grow with it. Each block has a checksum, so that damage is found where it is, and the
//! end has counts and a digest of everything before it, so that a file that was cut is never taken for whole.
//! Decision record 0013 describes every byte.
//!
//! [`export()`] writes what an engine holds, [`import()`] makes a partition of a file, [`verify`] reads a file and
//! [`check()`] a live partition. Files come from outside: whatever a reader is told of lengths is bounded here.

mod block;
mod check;
mod error;
mod export;
mod file_error;
mod header;
mod import;
mod read;
mod write;

pub use check::{check, verify};
pub use error::{ExportError, FileImportError};
pub use export::export;
pub use file_error::FileError;
pub use header::{FileHeader, FileSummary, Origin};
pub use import::import;
pub use read::{FilePart, FileReader};
pub use write::FileWriter;
