//! Where the lines of partitions go: what a guest prints or logs, and what the HVM has to say about it.
//! Keeping, rotating and showing them is the embedder's work.

use hvm_types::ReplicaId;

/// Takes the log lines of all partitions. It is called on the thread that runs the guest, so it must neither
/// block nor panic; each partition's lines arrive in their order.
pub trait LogSink: Send + Sync {
    /// Takes one line of one partition.
    fn write(&self, id: &ReplicaId, line: LogLine);
}

/// One line of a partition's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When, in milliseconds since 1970.
    pub unix_millis: u64,
    /// How grave it is.
    pub level: LogLevel,
    /// Who wrote it.
    pub source: LogSource,
    /// The line, without its end, at most [`LogLine::MAX_BYTES`] long.
    pub text: String,
}

impl LogLine {
    /// Longest text of a line in bytes; what follows is cut and marked with `…`.
    pub const MAX_BYTES: usize = 8 << 10;
}

/// How grave a line is: the levels of `wasi:logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// For tracing single steps.
    Trace,
    /// For debugging.
    Debug,
    /// Noteworthy, and expected.
    Info,
    /// Unexpected, and handled.
    Warn,
    /// A request or another unit of work failed.
    Error,
    /// The component can't go on.
    Critical,
}

impl LogLevel {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Who wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogSource {
    /// The guest, to its standard output.
    Stdout,
    /// The guest, to its standard error.
    Stderr,
    /// The guest, through `wasi:logging`.
    Logging,
    /// The HVM itself.
    Hvm,
}

impl LogSource {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Logging => "logging",
            Self::Hvm => "hvm",
        }
    }
}

/// Forwards every line to `tracing`: what an embedder gets that brings no sink of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingSink;

impl LogSink for TracingSink {
    fn write(&self, id: &ReplicaId, line: LogLine) {
        let (source, text) = (line.source.as_str(), line.text);
        match line.level {
            LogLevel::Trace => tracing::trace!(partition = %id, source, "{text}"),
            LogLevel::Debug => tracing::debug!(partition = %id, source, "{text}"),
            LogLevel::Info => tracing::info!(partition = %id, source, "{text}"),
            LogLevel::Warn => tracing::warn!(partition = %id, source, "{text}"),
            LogLevel::Error | LogLevel::Critical => tracing::error!(partition = %id, source, "{text}"),
        }
    }
}
