//! Reading a state file: every block is checked before anything of it is passed on, and the end against
//! everything before it.

use std::io::Read;

use bytes::{Buf, Bytes};
use hvm_types::{Digest, Sequence};

use super::FileError;
use super::block::{ANSWERS, Block, BlockReader, END, ENTRIES, HEADER, OPTIONAL};
use super::header::{Counts, FileEnd, FileHeader, FileSummary};
use crate::state::{
    Idempotency, MAX_BUCKET_BYTES, MAX_KEY_BYTES, MAX_RECORD_BYTES, StoredResponse, WindowAnswer,
};

/// Some of what a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePart {
    /// Keys of a bucket, after all that came before.
    Entries {
        /// The bucket.
        bucket: String,
        /// Keys and values.
        entries: Vec<(String, Bytes)>,
    },
    /// Answers of the idempotency window, younger than those that came before.
    Answers(Vec<WindowAnswer>),
}

/// A file that is being read. Nothing of it may be used before [`next_part`](Self::next_part) has returned
/// `None`: only then is the file known to be whole.
pub struct FileReader<R> {
    blocks: BlockReader<R>,
    header: FileHeader,
    counts: Counts,
    /// Bucket and key of the last entry.
    last_entry: Option<(String, String)>,
    last_answer: Option<Sequence>,
    summary: Option<FileSummary>,
}

impl<R: Read> FileReader<R> {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn begin(from: R) -> Result<Self, FileError> {
        let mut blocks = BlockReader::begin(from)?;
        let block = blocks.block()?;
        if block.kind != HEADER {
            return Err(block.damaged("it does not begin with a header"));
        }
        let header = FileHeader::from_text(&block.payload).map_err(|what| block.damaged(what))?;
        let counts = Counts::default();
        Ok(Self { blocks, header, counts, last_entry: None, last_answer: None, summary: None })
    }

    /// What stands at its beginning.
    pub const fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The next part; `None` when the file has ended and is whole.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn next_part(&mut self) -> Result<Option<FilePart>, FileError> {
        while self.summary.is_none() {
            let mut block = self.blocks.block()?;
            let payload = Bytes::from(std::mem::take(&mut block.payload));
            let part = match block.kind {
                ENTRIES => self.entries(Piece(payload)),
                ANSWERS => self.answers(Piece(payload)),
                END => {
                    self.end(&block, &payload)?;
                    break;
                }
                OPTIONAL.. => {
                    self.counts.optional += 1;
                    continue;
                }
                kind => Err(format!("a block is of the unknown kind {kind}")),
            };
            return part.map(Some).map_err(|what| block.damaged(what));
        }
        Ok(None)
    }

    /// What the file holds, once it has ended.
    pub const fn summary(&self) -> Option<&FileSummary> {
        self.summary.as_ref()
    }

    fn entries(&mut self, mut bytes: Piece) -> Result<FilePart, String> {
        if self.counts.answers > 0 {
            return Err("keys follow answers".to_owned());
        }
        let length = usize::from(bytes.u8()?);
        let bucket = bytes.text(length, MAX_BUCKET_BYTES)?;
        let mut entries = Vec::new();
        while !bytes.0.is_empty() {
            let length = usize::from(bytes.u16()?);
            let key = bytes.text(length, MAX_KEY_BYTES)?;
            let length = bytes.length()?;
            let value = bytes.bytes(length, MAX_RECORD_BYTES)?;
            if self.last_entry.as_ref().is_some_and(|(b, k)| (b, k) >= (&bucket, &key)) {
                return Err("its keys are not in order".to_owned());
            }
            self.last_entry = Some((bucket.clone(), key.clone()));
            self.counts.entries += 1;
            self.counts.stored += (key.len() + value.len()) as u64;
            entries.push((key, value));
        }
        if entries.is_empty() {
            Err("a block is empty".to_owned())
        } else {
            Ok(FilePart::Entries { bucket, entries })
        }
    }

    fn answers(&mut self, mut bytes: Piece) -> Result<FilePart, String> {
        let mut answers = Vec::new();
        while !bytes.0.is_empty() {
            let answer = bytes.answer()?;
            let is_later = self.last_answer.is_none_or(|last| last < answer.sequence);
            if !is_later || answer.sequence > self.header.head.sequence {
                return Err("its answers are not in order".to_owned());
            }
            self.last_answer = Some(answer.sequence);
            self.counts.answers += 1;
            answers.push(answer);
        }
        if answers.is_empty() { Err("a block is empty".to_owned()) } else { Ok(FilePart::Answers(answers)) }
    }

    fn end(&mut self, block: &Block, text: &[u8]) -> Result<(), FileError> {
        let end = FileEnd::from_text(text).map_err(|what| block.damaged(what))?;
        if end.digest != block.before {
            return Err(block.damaged("what stands before its end does not match its digest"));
        }
        if end.counts != self.counts {
            return Err(block.damaged("its end counts something else"));
        }
        self.counts.compare(&self.header.head).map_err(|what| block.damaged(what))?;
        let digest: Digest = self.blocks.end()?;
        let (header, entries, bytes) = (self.header.clone(), self.counts.entries, self.blocks.read());
        self.summary = Some(FileSummary { header, entries, bytes, digest });
        Ok(())
    }
}

/// The rest of a block.
struct Piece(Bytes);

impl Piece {
    fn bytes(&mut self, length: usize, most: usize) -> Result<Bytes, String> {
        if length > most || length > self.0.len() {
            return Err(format!("{length} bytes are promised, {} are there and {most} may be", self.0.len()));
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self, length: usize, most: usize) -> Result<String, String> {
        String::from_utf8(self.bytes(length, most)?.to_vec()).map_err(|_| "a name is not text".to_owned())
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.0.try_get_u8().map_err(|_| short())
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.0.try_get_u16_le().map_err(|_| short())
    }

    fn length(&mut self) -> Result<usize, String> {
        self.0.try_get_u32_le().map(|length| length as usize).map_err(|_| short())
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.0.try_get_u64_le().map_err(|_| short())
    }

    fn answer(&mut self) -> Result<WindowAnswer, String> {
        let length = usize::from(self.u8()?);
        let key = self.text(length, MAX_BUCKET_BYTES)?;
        let key = key.parse().map_err(|_| "an idempotency key is not one".to_owned())?;
        let request: [u8; 32] = self.bytes(32, 32)?.as_ref().try_into().map_err(|_| short())?;
        let (sequence, unix_millis) = (Sequence(self.u64()?), self.u64()?);
        let status = self.u16()?;
        let mut headers = Vec::new();
        for _ in 0..self.length()? {
            let length = self.length()?;
            let name = self.text(length, MAX_RECORD_BYTES)?;
            let length = self.length()?;
            headers.push((name, self.bytes(length, MAX_RECORD_BYTES)?));
        }
        let length = self.length()?;
        let body = self.bytes(length, MAX_RECORD_BYTES)?;
        let response = StoredResponse { status, headers, body };
        let idempotency = Idempotency { key, request: Digest::from_bytes(request), response };
        Ok(WindowAnswer { idempotency, sequence, unix_millis })
    }
}

fn short() -> String {
    "a block ends too early".to_owned()
}
