//! The guest's log on standard error, written by a thread of its own: a guest never waits for a terminal.

use std::io::Write as _;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use hvm_runtime::{LogLine, LogSink};
use hvm_types::ReplicaId;

/// Lines that may wait to be written; further ones are lost.
const MAX_WAITING: usize = 4096;

/// Writes lines to standard error.
pub(super) struct LogLines {
    /// `None` is sent after the last line.
    lines: SyncSender<Option<String>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl LogLines {
    /// Starts the thread.
    pub(super) fn start() -> Self {
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let writer = std::thread::spawn(move || {
            while let Ok(Some(line)) = waiting.recv() {
                let line: String = line;
                // Whoever closed standard error does not want to read it.
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        });
        Self { lines, writer: Mutex::new(Some(writer)) }
    }

    /// Waits until every line is written. Further ones are lost.
    pub(super) fn finish(&self) {
        // Both fail only where the thread has ended before.
        let _ = self.lines.send(None);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = writer.map(JoinHandle::join);
    }
}

impl LogSink for LogLines {
    fn write(&self, id: &ReplicaId, line: LogLine) {
        let (level, source) = (line.level.as_str(), line.source.as_str());
        // Generations and epochs mean nothing here; what the HVM has to complain of does.
        if source == "hvm" && level == "info" {
            return;
        }
        // Where the terminal is too slow, lines are lost rather than requests delayed.
        let _ = self.lines.try_send(Some(format!("{id} {level} {source}: {}\n", printable(&line.text))));
    }
}

/// A guest's text without what would steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        assert_eq!(printable("a\tb\u{1b}[2J\rc"), "a\tb\u{fffd}[2J\u{fffd}c");
    }
}
