//! Between a blocking reader or writer and a stream of messages: a few pieces wait in between, so that neither
//! side gets far ahead of the other.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hvm_api::limit::CHUNK_MAX_BYTES;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};

/// Pieces that wait.
pub(super) const PIECES_AHEAD: usize = 4;
/// How long the other side may take for a piece. A view of the state must not be held for somebody who has
/// stopped reading.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes into a channel, piece by piece.
pub(super) struct PieceWriter {
    pieces: Sender<Vec<u8>>,
    open: Vec<u8>,
    executor: Handle,
}

impl PieceWriter {
    /// To be used on a thread that may block.
    pub(super) fn new(pieces: Sender<Vec<u8>>, executor: Handle) -> Self {
        Self { pieces, open: Vec::new(), executor }
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.open);
        let sent = self.executor.block_on(self.pieces.send_timeout(piece, PATIENCE));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads any more"))
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_MAX_BYTES - self.open.len());
        self.open.extend_from_slice(&bytes[..taken]);
        if self.open.len() == CHUNK_MAX_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.open.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Reads what comes through a channel. The channel's end is the end of the bytes; an error in it is one here.
pub(super) struct PieceReader {
    pieces: Receiver<io::Result<Bytes>>,
    open: Bytes,
    executor: Handle,
}

impl PieceReader {
    /// To be used on a thread that may block.
    pub(super) fn new(pieces: Receiver<io::Result<Bytes>>, executor: Handle) -> Self {
        Self { pieces, open: Bytes::new(), executor }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.open.is_empty() {
            let next = async { tokio::time::timeout(PATIENCE, self.pieces.recv()).await };
            match self.executor.block_on(next) {
                Ok(Some(piece)) => self.open = piece?,
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the sender has stopped")),
            }
        }
        let length = buffer.len().min(self.open.len());
        self.open.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn what_is_written_on_one_side_is_read_on_the_other() {
        let (sender, mut pieces) = channel(PIECES_AHEAD);
        let (forward, receiver) = channel(PIECES_AHEAD);
        let content: Vec<u8> = (0..CHUNK_MAX_BYTES * 7 + 5).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let expected = content.clone();
        let writer = PieceWriter::new(sender, Handle::current());
        let reader = PieceReader::new(receiver, Handle::current());
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            writer.write_all(&content).and_then(|()| writer.flush())
        });
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            let mut reader = reader;
            reader.read_to_end(&mut read).map(|_| read)
        });
        while let Some(piece) = pieces.recv().await {
            assert!(piece.len() <= CHUNK_MAX_BYTES);
            forward.send(Ok(piece.into())).await.expect("it reads on");
        }
        drop(forward);
        writing.await.expect("no panic").expect("it is written");
        assert_eq!(reading.await.expect("no panic").expect("it is read"), expected);
    }

    #[tokio::test]
    async fn who_stops_reading_or_sending_ends_the_other_side() {
        let (sender, pieces) = channel(PIECES_AHEAD);
        drop(pieces);
        let mut writer = PieceWriter::new(sender, Handle::current());
        let written =
            tokio::task::spawn_blocking(move || writer.write_all(b"x").and_then(|()| writer.flush()));
        assert_eq!(written.await.expect("no panic").expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
        let (sender, receiver) = channel(PIECES_AHEAD);
        sender.send(Err(io::Error::other("it broke"))).await.expect("there is room");
        let mut reader = PieceReader::new(receiver, Handle::current());
        let read = tokio::task::spawn_blocking(move || reader.read(&mut [0]));
        assert!(read.await.expect("no panic").is_err());
    }
}
