//! An `.aimg` file as a source of blobs. Only its headers are read when it is opened; nothing is extracted.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hvm_types::Digest;

use crate::blob::{Blob, BlobSource};

use crate::limit::{MAX_CONTENT_BYTES, MAX_ENTRIES, MAX_INDEX_BYTES};
use crate::oci::check_oci_layout;
use crate::read_error::ReadError;
use crate::tar::{BLOCK, BLOCK_BYTES, Entry, padding, parse_header};

/// Largest `oci-layout`, in bytes.
const MAX_LAYOUT_BYTES: u64 = 4096;

/// An `.aimg` file whose entries are known.
#[derive(Debug)]
pub struct TarSource {
    file: Bytes,
    index: Span,
    blobs: BTreeMap<Digest, Span>,
}

/// Where a content stands in the file.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    size: u64,
}

impl TarSource {
    /// Opens a file and reads its headers.
    ///
    /// # Errors
    /// Where it can't be read, or is not exactly an OCI image layout in the encoding that we write:
    /// other entries, entries twice, sizes beyond the limits, a missing end.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |source| ReadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            let reason = format!("{} is not a regular file", path.display());
            return Err(ReadError::NotAnAppImage { reason });
        }
        Self::read(Bytes::File { file, path: path.to_owned(), size: metadata.len() })
    }

    /// The same for a file that is in memory.
    ///
    /// # Errors
    /// As [`TarSource::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ReadError> {
        Self::read(Bytes::Memory(bytes))
    }

    fn read(file: Bytes) -> Result<Self, ReadError> {
        let mut entries = BTreeMap::new();
        let mut offset = 0;
        loop {
            let block = file.block(offset, entries.is_empty())?;
            if block == [0; BLOCK_BYTES] {
                break;
            }
            let (entry, size) = parse_header(&block, offset)?;
            let span = Span { start: offset + BLOCK, size };
            offset = check_content(&file, entry, span)?;
            if entries.insert(entry, span).is_some() {
                return Err(ReadError::DuplicateEntry { name: entry.to_string() });
            }
            if entries.len() > MAX_ENTRIES {
                let (found, limit) = (entries.len() as u64, MAX_ENTRIES as u64);
                return Err(ReadError::TooLarge { what: "the number of entries".to_owned(), found, limit });
            }
        }
        check_end(&file, offset)?;

        let missing = |name| ReadError::NotAnAppImage { reason: format!("it has no `{name}`") };
        let layout = entries.remove(&Entry::Layout).ok_or_else(|| missing("oci-layout"))?;
        let index = entries.remove(&Entry::Index).ok_or_else(|| missing("index.json"))?;
        check_oci_layout(&file.read_span(layout)?)?;
        let blobs = entries.into_iter().filter_map(|(entry, span)| match entry {
            Entry::Blob(digest) => Some((digest, span)),
            Entry::Layout | Entry::Index => None,
        });
        Ok(Self { blobs: blobs.collect(), file, index })
    }
}

/// Checks that a content is whole, within its limit and padded with zeros; returns where the next entry is.
fn check_content(file: &Bytes, entry: Entry, span: Span) -> Result<u64, ReadError> {
    let limit = match entry {
        Entry::Layout => MAX_LAYOUT_BYTES,
        Entry::Index => MAX_INDEX_BYTES,
        Entry::Blob(_) => MAX_CONTENT_BYTES,
    };
    if span.size > limit {
        return Err(ReadError::TooLarge { what: format!("entry `{entry}`"), found: span.size, limit });
    }
    let end = span.start + span.size;
    let padded = end + padding(span.size);
    if padded > file.size() {
        return Err(ReadError::Truncated { inside: format!("entry `{entry}`") });
    }
    let padding = file.read_span(Span { start: end, size: padded - end })?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(ReadError::Damaged { offset: end, reason: "the padding behind an entry is not zero" });
    }
    Ok(padded)
}

/// A tar file ends with two blocks of zeros; an AppImage has nothing behind them.
fn check_end(file: &Bytes, offset: u64) -> Result<(), ReadError> {
    let second = file.block(offset + BLOCK, false)?;
    if second != [0; BLOCK_BYTES] {
        return Err(ReadError::Damaged { offset: offset + BLOCK, reason: "the end mark is not zero" });
    }
    let end = offset + 2 * BLOCK;
    if file.size() != end {
        return Err(ReadError::Damaged { offset: end, reason: "something stands behind the end mark" });
    }
    Ok(())
}

impl BlobSource for TarSource {
    fn index(&self) -> Result<Vec<u8>, ReadError> {
        self.file.read_span(self.index)
    }

    fn blob(&self, digest: Digest) -> Result<Blob<'_>, ReadError> {
        let span = *self.blobs.get(&digest).ok_or(ReadError::MissingBlob { digest })?;
        Ok(Blob { size: span.size, reader: Box::new(SpanReader { file: &self.file, rest: span }) })
    }

    fn all_blobs(&self) -> Option<Vec<Digest>> {
        Some(self.blobs.keys().copied().collect())
    }
}

/// The file's bytes, readable at any position by many at a time.
enum Bytes {
    File { file: File, path: PathBuf, size: u64 },
    Memory(Vec<u8>),
}

impl Bytes {
    fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File { file, .. } => file.read_at(buffer, offset),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                (&bytes[start..]).read(buffer)
            }
        }
    }

    /// The block at an offset; `first` says whether it would be the file's first.
    fn block(&self, offset: u64, first: bool) -> Result<[u8; BLOCK_BYTES], ReadError> {
        if first && self.size() == 0 {
            return Err(ReadError::NotAnAppImage { reason: "the file is empty".to_owned() });
        }
        if offset + BLOCK > self.size() {
            let inside = format!("the tar header or end mark at byte {offset}");
            return Err(ReadError::Truncated { inside });
        }
        let bytes = self.read_span(Span { start: offset, size: BLOCK })?;
        Ok(bytes.try_into().expect("a span that was read has its size"))
    }

    /// Reads a span whose size was checked.
    fn read_span(&self, span: Span) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::with_capacity(usize::try_from(span.size).unwrap_or_default());
        let path = || match self {
            Self::File { path, .. } => path.clone(),
            Self::Memory(_) => PathBuf::from("the image in memory"),
        };
        SpanReader { file: self, rest: span }
            .read_to_end(&mut bytes)
            .map_err(|source| ReadError::Io { path: path(), source })?;
        if bytes.len() as u64 != span.size {
            // The file became shorter since it was opened.
            return Err(ReadError::Truncated { inside: format!("the bytes from {}", span.start) });
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Memory(bytes) => write!(f, "{} bytes in memory", bytes.len()),
        }
    }
}

struct SpanReader<'a> {
    file: &'a Bytes,
    rest: Span,
}

impl Read for SpanReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.rest.size).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.rest.start)?;
        self.rest = Span { start: self.rest.start + count as u64, size: self.rest.size - count as u64 };
        Ok(count)
    }
}
