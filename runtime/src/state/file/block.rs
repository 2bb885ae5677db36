//! The blocks that a state file is made of: kind, length, bytes, and checksums (XXH3, 64 bits, seeded with the
//! block's place in the file, so that a block that was moved is damage).

use std::io::{self, Read, Write};

use hvm_types::Digest;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::FileError;
use crate::state::MAX_RECORD_BYTES;

/// What every file begins with; then follows the version.
const MAGIC: [u8; 8] = *b"hvmstate";
/// The version of the format that is written here.
const VERSION: u32 = 1;
/// Longest block: the longest value or answer, and what stands around it.
const MAX_BLOCK_BYTES: u32 = 80 << 20;
const _: () = assert!(MAX_RECORD_BYTES < MAX_BLOCK_BYTES as usize);

const HEAD_BYTES: usize = 9;
const CHECKSUM_BYTES: usize = 8;

/// The first block: text.
pub(super) const HEADER: u8 = 1;
/// Keys and values of one bucket.
pub(super) const ENTRIES: u8 = 2;
/// Answers of the idempotency window.
pub(super) const ANSWERS: u8 = 3;
/// The last block: text.
pub(super) const END: u8 = 4;
/// From here on, a reader that does not know a kind passes over it.
pub(super) const OPTIONAL: u8 = 0x80;

/// Writes blocks and digests them.
pub(super) struct BlockWriter<W> {
    out: W,
    written: u64,
    digest: Sha256,
}

impl<W: Write> BlockWriter<W> {
    /// Writes what every file begins with.
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let mut this = Self { out, written: 0, digest: Sha256::new() };
        this.write(&MAGIC)?;
        this.write(&VERSION.to_le_bytes())?;
        Ok(this)
    }

    pub(super) fn block(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_BLOCK_BYTES);
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "a block of a state file is too long");
        let offset = self.written;
        let head = head(kind, length.ok_or_else(too_long)?, offset);
        self.write(&head)?;
        self.write(payload)?;
        self.write(&checksum(payload, offset).to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.digest.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The digest of everything until now.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest.clone().finalize().into())
    }

    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

/// Reads blocks, checks and digests them.
pub(super) struct BlockReader<R> {
    from: R,
    read: u64,
    digest: Sha256,
}

/// A block that matches its checksums.
pub(super) struct Block {
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
    /// Where it begins.
    pub(super) offset: u64,
    /// The digest of everything before it.
    pub(super) before: Digest,
}

impl Block {
    pub(super) fn damaged(&self, what: impl Into<String>) -> FileError {
        FileError::Damaged { offset: self.offset, what: what.into() }
    }
}

impl<R: Read> BlockReader<R> {
    /// Reads what every file begins with.
    pub(super) fn begin(from: R) -> Result<Self, FileError> {
        let mut this = Self { from, read: 0, digest: Sha256::new() };
        let magic = this.read_some(MAGIC.len())?;
        if !MAGIC.starts_with(&magic) {
            return Err(FileError::NotAStateFile);
        }
        if magic.len() < MAGIC.len() {
            return Err(this.cut());
        }
        let version: [u8; 4] = this.read_exact()?;
        match u32::from_le_bytes(version) {
            VERSION => Ok(this),
            version => Err(FileError::Version { version }),
        }
    }

    pub(super) fn block(&mut self) -> Result<Block, FileError> {
        let (offset, before) = (self.read, self.digest());
        let damaged = |what: String| FileError::Damaged { offset, what };
        let read: [u8; HEAD_BYTES] = self.read_exact()?;
        let [kind, a, b, c, d, ..] = read;
        let length = u32::from_le_bytes([a, b, c, d]);
        if read != head(kind, length, offset) {
            return Err(damaged("the head of a block does not match its checksum".to_owned()));
        }
        if length > MAX_BLOCK_BYTES {
            return Err(damaged(format!("a block says that it has {length} bytes")));
        }
        let length = length as usize;
        let payload = self.read_some(length)?;
        if payload.len() < length {
            return Err(self.cut());
        }
        let read: [u8; CHECKSUM_BYTES] = self.read_exact()?;
        if u64::from_le_bytes(read) != checksum(&payload, offset) {
            return Err(damaged("a block does not match its checksum".to_owned()));
        }
        Ok(Block { kind, payload, offset, before })
    }

    /// Checks that nothing follows, and returns the digest of the whole file.
    pub(super) fn end(&mut self) -> Result<Digest, FileError> {
        let (offset, digest) = (self.read, self.digest());
        if self.read_some(1)?.is_empty() {
            return Ok(digest);
        }
        Err(FileError::Damaged { offset, what: "something follows its end".to_owned() })
    }

    pub(super) const fn read(&self) -> u64 {
        self.read
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest.clone().finalize().into())
    }

    const fn cut(&self) -> FileError {
        FileError::Cut { offset: self.read }
    }

    fn read_exact<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        let bytes = self.read_some(N)?;
        bytes.try_into().map_err(|_| self.cut())
    }

    /// As many bytes as there are, up to `most`. Memory is taken as they come, not as they are promised.
    fn read_some(&mut self, most: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let result = self.from.by_ref().take(most as u64).read_to_end(&mut bytes);
        self.read += bytes.len() as u64;
        self.digest.update(&bytes);
        result.map_err(|source| FileError::Io { offset: self.read, source })?;
        Ok(bytes)
    }
}

fn head(kind: u8, length: u32, offset: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = kind;
    head[1..5].copy_from_slice(&length.to_le_bytes());
    let [a, b, c, d, ..] = checksum(&head[..5], offset).to_le_bytes();
    head[5..].copy_from_slice(&[a, b, c, d]);
    head
}

fn checksum(bytes: &[u8], offset: u64) -> u64 {
    xxh3_64_with_seed(bytes, offset)
}
