//! The lines of partitions: taken from the workers without ever blocking them, kept in bounded files that
//! survive a restart, and shown, stored and live.
//!
//! One thread writes. What it can't keep up with is dropped, counted, and said in the log itself.

mod file;
mod prefix;
mod read;
mod sink;
mod stored_line;

pub(crate) use prefix::Prefix;
pub(crate) use sink::Logs;
pub use sink::LogsError;
pub(crate) use stored_line::{LogEntry, StoredLine};
