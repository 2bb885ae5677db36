//! A line as it stands in a file: one JSON object per line, so that people and programs can read it.

use hvm_runtime::LogLine;
use hvm_types::ReplicaId;
use serde::{Deserialize, Serialize};

/// A kept line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLine {
    /// Grows with every line of this host, also over a restart: it orders lines, and tells a stored line from
    /// a live one.
    pub(crate) number: u64,
    pub(crate) unix_millis: u64,
    pub(crate) level: String,
    pub(crate) source: String,
    pub(crate) text: String,
}

/// A line and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) replica: ReplicaId,
    pub(crate) line: StoredLine,
}

impl StoredLine {
    pub(crate) fn new(number: u64, line: LogLine) -> Self {
        Self {
            number,
            unix_millis: line.unix_millis,
            level: line.level.as_str().to_owned(),
            source: line.source.as_str().to_owned(),
            text: line.text,
        }
    }
}
