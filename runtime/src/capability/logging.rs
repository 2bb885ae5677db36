//! `wasi:logging`: lines with a level, to the partition's log.

use super::PartitionLog;
use super::bindings::wasi::logging::logging::{Host, Level};
use crate::{LogLevel, LogSource};

/// The log as the linker wants it.
pub(crate) struct LoggingView<'a>(pub(crate) &'a PartitionLog);

impl Host for LoggingView<'_> {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Critical => LogLevel::Critical,
        };
        let text = if context.is_empty() { message } else { format!("{context}: {message}") };
        self.0.guest(level, LogSource::Logging, &text);
        Ok(())
    }
}
