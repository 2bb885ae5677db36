//! The way of a line from a worker to its file and to those who follow.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use hvm_runtime::{LogLevel, LogLine, LogSink, LogSource};
use hvm_types::ReplicaId;
use tokio::sync::{broadcast, oneshot};

use super::file::{self, LogFile};
use super::read::last_lines;
use super::{LogEntry, Prefix, StoredLine};

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 8192;

/// Lines that are written together.
const BATCH_LINES: usize = 1024;

/// Bytes that are appended together, up to the end of a line.
const PIECE_BYTES: usize = 128 << 10;

/// Files that are kept open.
const OPEN_FILES: usize = 64;

/// Live lines that a follower may be behind.
const LIVE_LINES: usize = 4096;

/// The logs of one host.
#[derive(Debug, Clone)]
pub(crate) struct Logs(Arc<Shared>);

/// Logs that could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The directory can't be used.
    #[error("keep logs in {}", folder.display())]
    Folder {
        /// The directory.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer could not be started.
    #[error("start the log writer")]
    Writer(#[source] io::Error),
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    queue: SyncSender<Message>,
    /// Lines that found the queue full, by partition. Only held for counting.
    dropped: Mutex<BTreeMap<ReplicaId, u64>>,
    live: broadcast::Sender<LogEntry>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    Line(ReplicaId, LogLine),
    Remove(ReplicaId),
    /// Answered when everything before it is written.
    Written(oneshot::Sender<()>),
    Stop,
}

impl Logs {
    /// Keeps logs in `folder`, which is there.
    pub(crate) fn start(folder: PathBuf) -> Result<Self, LogsError> {
        let (queue, messages) = sync_channel(QUEUE_LINES);
        let (live, _) = broadcast::channel(LIVE_LINES);
        let dropped = Mutex::default();
        let shared = Arc::new(Shared { folder, queue, dropped, live, writer: Mutex::default() });
        let writer = Writer {
            shared: Arc::clone(&shared),
            files: HashMap::new(),
            number: unix_micros(),
            is_failing: false,
        };
        let thread = thread::Builder::new().name("hvm-logs".to_owned());
        let join = thread.spawn(move || writer.run(&messages)).map_err(LogsError::Writer)?;
        *lock(&shared.writer) = Some(join);
        Ok(Self(shared))
    }

    /// The live lines from now on, and the last `count` kept ones. A line may be in both: its number tells.
    pub(crate) async fn follow(
        &self,
        prefix: Prefix,
        count: usize,
    ) -> Result<(Vec<LogEntry>, broadcast::Receiver<LogEntry>), LogsError> {
        let live = self.0.live.subscribe();
        self.written().await;
        let folder = self.0.folder.clone();
        let lines = tokio::task::spawn_blocking(move || last_lines(&folder, &prefix, count)).await;
        let lines = lines.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let lines = lines.map_err(|source| LogsError::Folder { folder: self.0.folder.clone(), source })?;
        Ok((lines, live))
    }

    /// Deletes a partition's log.
    pub(crate) async fn remove(&self, replica: &ReplicaId) {
        self.send(Message::Remove(replica.clone())).await;
    }

    /// Waits until everything that was logged before is written.
    pub(crate) async fn written(&self) {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Written(sender)).await;
        let _ = receiver.await; // an error means that the writer has ended: nothing waits
    }

    /// Writes what waits and ends the writer.
    pub(crate) async fn stop(&self) {
        self.send(Message::Stop).await;
        let writer = lock(&self.0.writer).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the log writer panicked");
            }
        }
    }

    async fn send(&self, message: Message) {
        let queue = self.0.queue.clone();
        // The queue may be full: waiting is not for an async thread.
        let _ = tokio::task::spawn_blocking(move || queue.send(message)).await;
    }
}

impl LogSink for Logs {
    fn write(&self, replica: &ReplicaId, line: LogLine) {
        match self.0.queue.try_send(Message::Line(replica.clone(), line)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => *lock(&self.0.dropped).entry(replica.clone()).or_default() += 1,
        }
    }
}

/// The writing thread.
struct Writer {
    shared: Arc<Shared>,
    files: HashMap<ReplicaId, LogFile>,
    number: u64,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut next = Some(first);
            let mut batch = Vec::new();
            let mut written = Vec::new();
            let mut must_stop = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Line(replica, line) => batch.push((replica, line)),
                    Message::Written(sender) => written.push(sender),
                    Message::Remove(replica) => {
                        batch.retain(|(other, _)| *other != replica);
                        self.remove(&replica);
                    }
                    Message::Stop => must_stop = true,
                }
                if batch.len() < BATCH_LINES && !must_stop {
                    next = messages.try_recv().ok();
                }
            }
            self.add_dropped(&mut batch);
            self.write(batch);
            for sender in written {
                let _ = sender.send(()); // whoever asked may have gone
            }
            if must_stop {
                return;
            }
        }
    }

    fn add_dropped(&self, batch: &mut Vec<(ReplicaId, LogLine)>) {
        let dropped = std::mem::take(&mut *lock(&self.shared.dropped));
        batch.extend(dropped.into_iter().map(|(replica, count)| {
            let text = format!("{count} lines were dropped: the host could not write them fast enough");
            let unix_millis = unix_micros() / 1000;
            (replica, LogLine { unix_millis, level: LogLevel::Warn, source: LogSource::Hvm, text })
        }));
    }

    fn write(&mut self, batch: Vec<(ReplicaId, LogLine)>) {
        let mut by_replica: BTreeMap<ReplicaId, Vec<u8>> = BTreeMap::new();
        let mut entries = Vec::with_capacity(batch.len());
        for (replica, line) in batch {
            self.number += 1;
            let line = StoredLine::new(self.number, line);
            let bytes = by_replica.entry(replica.clone()).or_default();
            serde_json::to_writer(&mut *bytes, &line).expect("a line is plain text");
            bytes.push(b'\n');
            entries.push(LogEntry { replica, line });
        }
        for (replica, bytes) in by_replica {
            let appended = self.append(&replica, &bytes);
            if let Err(error) = &appended {
                self.files.remove(&replica);
                if !self.is_failing {
                    tracing::warn!(%replica, %error, "log lines can't be written; they are only shown live");
                }
            }
            self.is_failing = appended.is_err();
        }
        for entry in entries {
            let _ = self.shared.live.send(entry); // nobody may be following
        }
    }

    fn append(&mut self, replica: &ReplicaId, bytes: &[u8]) -> io::Result<()> {
        if !self.files.contains_key(replica) {
            if self.files.len() >= OPEN_FILES {
                // Whichever: those that write most are opened again at once.
                let other = self.files.keys().next().cloned();
                other.and_then(|other| self.files.remove(&other));
            }
            let file = LogFile::open(&self.shared.folder, replica)?;
            self.files.insert(replica.clone(), file);
        }
        match self.files.get_mut(replica) {
            Some(file) => pieces(bytes).try_for_each(|lines| file.append(lines)),
            None => Ok(()),
        }
    }

    fn remove(&mut self, replica: &ReplicaId) {
        self.files.remove(replica);
        if let Err(error) = file::remove(&self.shared.folder, replica) {
            tracing::warn!(%replica, %error, "a log can't be deleted");
        }
    }
}

/// Whole lines, in pieces that are small beside a file, so that a file stays within its bound.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let start = bytes.len().min(PIECE_BYTES);
        let end =
            bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| start + at + 1);
        let (piece, rest) = bytes.split_at(end);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder changes one value and can't panic in between.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { unix_millis: 1, level: LogLevel::Info, source: LogSource::Stdout, text: text.to_owned() }
    }

    fn replica(text: &str) -> ReplicaId {
        text.parse().expect("a replica")
    }

    async fn texts(logs: &Logs, prefix: &str, count: usize) -> Vec<String> {
        let prefix = prefix.parse().expect("a prefix");
        let (lines, _) = logs.follow(prefix, count).await.expect("readable");
        lines.into_iter().map(|entry| format!("{} {}", entry.replica, entry.line.text)).collect()
    }

    #[tokio::test]
    async fn lines_survive_a_restart_in_their_order() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let logs = Logs::start(dir.path().to_owned()).expect("started");
        logs.write(&replica("d/g/0"), line("one"));
        logs.write(&replica("d/g/1"), line("two"));
        logs.stop().await;
        let logs = Logs::start(dir.path().to_owned()).expect("started again");
        logs.write(&replica("d/g/0"), line("three"));
        assert_eq!(texts(&logs, "d", 10).await, ["d/g/0 one", "d/g/1 two", "d/g/0 three"]);
        assert_eq!(texts(&logs, "d/g/0", 1).await, ["d/g/0 three"]);
        assert_eq!(texts(&logs, "other", 10).await, Vec::<String>::new());
        logs.stop().await;
    }

    #[tokio::test]
    async fn a_follower_sees_what_is_logged_after_it_asked() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let logs = Logs::start(dir.path().to_owned()).expect("started");
        logs.write(&replica("d/g/0"), line("before"));
        let (stored, mut live) = logs.follow(Prefix::default(), 10).await.expect("readable");
        let last = stored.last().map_or(0, |entry| entry.line.number);
        logs.write(&replica("d/g/0"), line("after"));
        let entry = loop {
            let entry = live.recv().await.expect("a line");
            if entry.line.number > last {
                break entry;
            }
        };
        assert_eq!((stored.len(), entry.line.text.as_str()), (1, "after"));
        logs.stop().await;
    }

    #[tokio::test]
    async fn a_removed_log_is_gone_and_begins_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let logs = Logs::start(dir.path().to_owned()).expect("started");
        logs.write(&replica("d/g/0"), line("old"));
        logs.written().await;
        logs.remove(&replica("d/g/0")).await;
        logs.write(&replica("d/g/0"), line("new"));
        assert_eq!(texts(&logs, "", 10).await, ["d/g/0 new"]);
        logs.stop().await;
    }

    #[test]
    fn pieces_are_whole_lines_and_nothing_is_lost() {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let bytes = line.repeat(1000);
        let pieces: Vec<&[u8]> = pieces(&bytes).collect();
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n") && piece.len() <= PIECE_BYTES + line.len()));
        assert_eq!(pieces.concat(), bytes);
    }

    #[test]
    fn a_full_queue_drops_lines_and_the_log_says_how_many() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (queue, messages) = sync_channel(1);
        let (live, _) = broadcast::channel(LIVE_LINES);
        let folder = dir.path().to_owned();
        let shared =
            Arc::new(Shared { folder, queue, dropped: Mutex::default(), live, writer: Mutex::default() });
        let logs = Logs(Arc::clone(&shared));
        for _ in 0..5 {
            logs.write(&replica("d/g/0"), line("x"));
        }
        drop(logs);
        let stop = shared.queue.clone();
        let writer =
            Writer { shared: Arc::clone(&shared), files: HashMap::new(), number: 0, is_failing: false };
        let running = thread::spawn(move || writer.run(&messages));
        stop.send(Message::Stop).expect("the writer runs");
        running.join().expect("it ends");
        let lines = last_lines(dir.path(), &Prefix::default(), 10).expect("readable");
        let texts: Vec<&str> = lines.iter().map(|entry| entry.line.text.as_str()).collect();
        assert_eq!(texts, ["x", "4 lines were dropped: the host could not write them fast enough"]);
    }
}
