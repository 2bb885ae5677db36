//! A guest's standard output and error: lines of the partition's log.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::PartitionLog;
use crate::{LogLevel, LogLine, LogSource};

/// Most bytes that one call takes.
const CHUNK_BYTES: usize = 64 << 10;

/// One of the two streams of an instance. Its clones share the line that is being written.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    source: LogSource,
    level: LogLevel,
    log: Arc<PartitionLog>,
    line: Arc<Mutex<Vec<u8>>>,
}

impl GuestOutput {
    pub(crate) fn stdout(log: &Arc<PartitionLog>) -> Self {
        Self::new(LogSource::Stdout, LogLevel::Info, log)
    }

    pub(crate) fn stderr(log: &Arc<PartitionLog>) -> Self {
        Self::new(LogSource::Stderr, LogLevel::Warn, log)
    }

    fn new(source: LogSource, level: LogLevel, log: &Arc<PartitionLog>) -> Self {
        Self { source, level, log: Arc::clone(log), line: Arc::default() }
    }

    /// Passes on whole lines and keeps the rest until its end comes.
    fn take(&self, mut bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (head, tail) = bytes.split_at(end);
            keep(&mut line, head);
            let passed = self.pass_on(&line);
            line.clear();
            bytes = &tail[1..];
            if !passed {
                // The lines that follow come too late as well.
                let last = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
                self.log.drop_lines(memchr::memchr_iter(b'\n', bytes).count() as u64);
                bytes = &bytes[last..];
            }
        }
        keep(&mut line, bytes);
    }

    fn pass_on(&self, line: &[u8]) -> bool {
        // An empty line would be no line to the log.
        let text = if line.is_empty() { "\n".into() } else { String::from_utf8_lossy(line) };
        self.log.guest(self.level, self.source, &text)
    }
}

/// Appends as much as a line may have and a little more, so that it is seen to be cut.
fn keep(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LogLine::MAX_BYTES + 1).saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        if Arc::strong_count(&self.line) > 1 {
            return;
        }
        let line = std::mem::take(&mut *self.line.lock().unwrap_or_else(PoisonError::into_inner));
        if !line.is_empty() {
            self.pass_on(&line);
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > CHUNK_BYTES {
            return Err(StreamError::trap("a write of more than `check-write` allows"));
        }
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_BYTES)
    }
}

#[async_trait::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::ReplicaId;

    use super::*;
    use crate::LogSink;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn write(&self, _id: &ReplicaId, line: LogLine) {
            self.0.lock().expect("not poisoned").push(line.text);
        }
    }

    #[test]
    fn a_write_of_more_than_was_allowed_is_a_trap() {
        let log = PartitionLog::new("d/g/0".parse().expect("a valid id"), Arc::new(Lines::default()));
        let mut output = GuestOutput::stdout(&log);
        let allowed = output.check_write().expect("open");
        output.write(vec![b'x'; allowed].into()).expect("allowed");
        let more = output.write(vec![b'x'; allowed + 1].into());
        assert!(matches!(more, Err(StreamError::Trap(_))), "{more:?}");
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let lines = Arc::new(Lines::default());
        let id = "d/g/0".parse().expect("a valid id");
        let log = PartitionLog::new(id, Arc::clone(&lines) as Arc<dyn LogSink>);
        let output = GuestOutput::stdout(&log);
        let other = output.clone();
        output.take(b"one\ntw");
        other.take(b"o\n\nrest");
        drop(other);
        drop(output);
        assert_eq!(*lines.0.lock().expect("not poisoned"), ["one", "two", "", "rest"]);
    }
}
