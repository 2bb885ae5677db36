//! Writing a state file: header, entries, answers, end.

use std::io::{self, Write};

use hvm_types::Digest;

use super::block::{ANSWERS, BlockWriter, END, ENTRIES, HEADER};
use super::header::{Counts, FileEnd, FileHeader, FileSummary};
use crate::state::WindowAnswer;

/// A block is closed when it has this many bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// A file in the making. Without [`finish`](Self::finish), what was written is no whole file.
pub struct FileWriter<W> {
    blocks: BlockWriter<W>,
    header: FileHeader,
    counts: Counts,
    /// The block in the making: its kind and its bytes.
    open: Option<(u8, Vec<u8>)>,
    bucket: Option<String>,
}

impl<W: Write> FileWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn begin(out: W, header: FileHeader) -> io::Result<Self> {
        let mut blocks = BlockWriter::begin(out)?;
        blocks.block(HEADER, header.to_text().as_bytes())?;
        Ok(Self { blocks, header, counts: Counts::default(), open: None, bucket: None })
    }

    /// Adds a key. All keys come before all answers, in byte order of bucket and key.
    ///
    /// # Errors
    /// Where it can't be written, or is longer than an engine takes.
    pub fn entry(&mut self, bucket: &str, key: &str, value: &[u8]) -> io::Result<()> {
        if self.bucket.as_deref() != Some(bucket) {
            self.close()?;
            self.bucket = Some(bucket.to_owned());
        }
        let block = self.block(ENTRIES)?;
        if block.is_empty() {
            block.push(short(bucket.len())?);
            block.extend_from_slice(bucket.as_bytes());
        }
        block.extend_from_slice(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes());
        block.extend_from_slice(key.as_bytes());
        block.extend_from_slice(&u32::try_from(value.len()).map_err(too_long)?.to_le_bytes());
        block.extend_from_slice(value);
        self.counts.entries += 1;
        self.counts.stored += (key.len() + value.len()) as u64;
        self.close_if_full()
    }

    /// Adds an answer of the idempotency window, the oldest first.
    ///
    /// # Errors
    /// Where it can't be written, or is longer than an engine takes.
    pub fn answer(&mut self, answer: &WindowAnswer) -> io::Result<()> {
        let WindowAnswer { idempotency, sequence, unix_millis } = answer;
        let response = &idempotency.response;
        let block = self.block(ANSWERS)?;
        let key = idempotency.key.as_str();
        block.push(short(key.len())?);
        block.extend_from_slice(key.as_bytes());
        block.extend_from_slice(idempotency.request.as_bytes());
        block.extend_from_slice(&sequence.0.to_le_bytes());
        block.extend_from_slice(&unix_millis.to_le_bytes());
        block.extend_from_slice(&response.status.to_le_bytes());
        let long = |length: usize| Ok::<_, io::Error>(u32::try_from(length).map_err(too_long)?.to_le_bytes());
        block.extend_from_slice(&long(response.headers.len())?);
        for (name, value) in &response.headers {
            block.extend_from_slice(&long(name.len())?);
            block.extend_from_slice(name.as_bytes());
            block.extend_from_slice(&long(value.len())?);
            block.extend_from_slice(value);
        }
        block.extend_from_slice(&long(response.body.len())?);
        block.extend_from_slice(&response.body);
        self.counts.answers += 1;
        self.close_if_full()
    }

    /// Ends the file. What it holds must be what its header says; see [`FileReader`](super::FileReader).
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn finish(mut self) -> io::Result<(W, FileSummary)> {
        self.close()?;
        let end = FileEnd { counts: self.counts, digest: self.blocks.digest() };
        self.blocks.block(END, end.to_text().as_bytes())?;
        let (bytes, digest): (u64, Digest) = (self.blocks.written(), self.blocks.digest());
        let mut out = self.blocks.into_inner();
        out.flush()?;
        Ok((out, FileSummary { header: self.header, entries: self.counts.entries, bytes, digest }))
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The open block, of this kind.
    fn block(&mut self, kind: u8) -> io::Result<&mut Vec<u8>> {
        if self.open.as_ref().is_some_and(|(open, _)| *open != kind) {
            self.close()?;
        }
        Ok(&mut self.open.get_or_insert_with(|| (kind, Vec::new())).1)
    }

    fn close_if_full(&mut self) -> io::Result<()> {
        let is_full = self.open.as_ref().is_some_and(|(_, block)| block.len() >= BLOCK_BYTES);
        if is_full { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((kind, block)) = self.open.take() else { return Ok(()) };
        self.blocks.block(kind, &block)
    }
}

fn short(length: usize) -> io::Result<u8> {
    u8::try_from(length).map_err(too_long)
}

fn too_long(_: std::num::TryFromIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a name, key or value is longer than a state file takes")
}
