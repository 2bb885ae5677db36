//! `wasi:logging`: lines with a level, to the partition's log.

use super::PartitionLog;
use super::bindings::wasi::logging::logging::{Host, Level};
use crate::worker::give_way_in_time;
use crate::{LogLevel, LogSource};

/// Longest context and message of one call; what follows is cut off. A guest's memory full of line ends would keep
/// its worker from all else.
const MAX_CONTEXT_BYTES: usize = 1 << 10;
/// See [`MAX_CONTEXT_BYTES`].
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The log as the linker wants it.
pub(crate) struct LoggingView<'a>(pub(crate) &'a PartitionLog);

impl Host for LoggingView<'_> {
    async fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        // Taking a long text out of the guest's memory costs more than it counts for.
        give_way_in_time().await;
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Critical => LogLevel::Critical,
        };
        let (context, message) =
            (beginning(&context, MAX_CONTEXT_BYTES), beginning(&message, MAX_MESSAGE_BYTES));
        if context.is_empty() {
            let _all = self.0.guest(level, LogSource::Logging, message);
        } else {
            let _all = self.0.guest(level, LogSource::Logging, &format!("{context}: {message}"));
        }
        Ok(())
    }
}

fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hvm_types::ReplicaId;

    use super::*;
    use crate::{LogLine, LogSink};

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn write(&self, _id: &ReplicaId, line: LogLine) {
            self.0.lock().expect("not poisoned").push(line.text);
        }
    }

    #[tokio::test]
    async fn a_message_without_end_is_cut() {
        let lines = Arc::new(Lines::default());
        let id = "d/g/0".parse().expect("a valid id");
        let log = PartitionLog::new(id, Arc::clone(&lines) as Arc<dyn LogSink>);
        let line = format!("{}\n", "x".repeat(4095));
        LoggingView(&log).log(Level::Info, String::new(), line.repeat(500)).await.expect("no trap");
        assert_eq!(lines.0.lock().expect("not poisoned").len(), MAX_MESSAGE_BYTES / line.len());
    }
}
