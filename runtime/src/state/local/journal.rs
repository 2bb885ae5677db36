//! Checks the database's journal before the database reads it.
//!
//! fjall takes whatever it can't read for the end of the journal and cuts the file there, so one flipped bit
//! in the middle would drop all batches after it in silence; and a batch torn by a crash makes it refuse to
//! open. This check knows the difference. The committer syncs each batch before it writes the next, so at
//! most the last one can be torn: an unreadable batch with a readable one after it is damage.
//!
//! The format read here is fjall's journal version 3: batches of `01` item count, sequence number; items
//! `02` type, compression, keyspace, lengths, key, value; `03` XXH3 of the items, `FJL\x03`. Integers are
//! little-endian; space that was allocated ahead is zero.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::layout::{self, Chain};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: &[u8] = b"FJL\x03";
const HIGHEST_SEQNO: u64 = 1 << 62;

/// What must hold of the journal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expected {
    /// The database it belongs to, where known.
    pub(super) database: Option<[u8; 16]>,
    /// Batches that were acknowledged: the journal must not end before, unless it is empty.
    pub(super) acknowledged: u64,
    /// Whether to cut what follows the acknowledged batches.
    pub(super) cut: bool,
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("at byte {offset}: {what}")]
    Damaged { path: PathBuf, offset: usize, what: String },
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Checks all journals in `directory`, oldest first, cuts a torn tail, and returns the last batch's chain.
pub(super) fn check(directory: &Path, expected: Expected) -> Result<Option<Chain>, JournalError> {
    let journals =
        list(directory).map_err(|source| JournalError::Io { path: directory.to_owned(), source })?;
    let mut walk = Walk { expected, ..Walk::default() };
    let mut cuts = Vec::new();
    for (index, path) in journals.iter().enumerate() {
        let io = |source| JournalError::Io { path: path.clone(), source };
        let bytes = fs::read(path).map_err(io)?;
        let newest = index + 1 == journals.len();
        let end = walk.journal(&bytes, newest).map_err(|(offset, what)| JournalError::Damaged {
            path: path.clone(),
            offset,
            what,
        })?;
        if !is_zero(&bytes[end..]) {
            cuts.push((path, end, bytes.len() - end));
        }
    }
    if let Some(chain) = walk.chain
        && chain.count < expected.acknowledged
    {
        let path = journals.last().cloned().unwrap_or_else(|| directory.to_owned());
        return Err(JournalError::Damaged {
            path,
            offset: 0,
            what: lost(chain.count, expected.acknowledged),
        });
    }
    for (path, end, cut) in cuts {
        let io = |source| JournalError::Io { path: path.clone(), source };
        tracing::warn!("{}: {cut} bytes after byte {end} are no whole batch; cut", path.display());
        let file = File::options().write(true).open(path).map_err(io)?;
        file.set_len(end as u64).and_then(|()| file.sync_all()).map_err(io)?;
    }
    Ok(walk.chain)
}

/// What to say when acknowledged batches are missing.
pub(super) fn lost(found: u64, acknowledged: u64) -> String {
    format!(
        "it ends with batch {found}, but batch {acknowledged} was acknowledged; restore the directory, or \
         remove its file `acknowledged` to go on without the missing {}",
        acknowledged - found
    )
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number =
                path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            journals.extend(number.map(|number| (number, path)));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) expected: Expected,
    pub(super) chain: Option<Chain>,
    pub(super) seqno: Option<u64>,
}

impl Walk {
    /// Reads the batches of one journal and returns where they end, or where and how it is damaged.
    pub(super) fn journal(&mut self, bytes: &[u8], newest: bool) -> Result<usize, (usize, String)> {
        let mut position = 0;
        while let Some(batch) = Batch::read(&bytes[position..]) {
            let chain = batch.chain.ok_or_else(|| (position, "a batch of another program".to_owned()))?;
            if self.expected.cut && chain.count > self.expected.acknowledged {
                return Ok(position);
            }
            self.follow(chain, batch.seqno).map_err(|what| (position, what))?;
            position += batch.bytes;
        }
        let rest = &bytes[position..];
        let count = self.chain.map_or(0, |chain| chain.count);
        let at_end = self.chain.is_none() || count == self.expected.acknowledged;
        if is_zero(rest) || (self.expected.cut && at_end) {
            return Ok(position);
        }
        if !newest {
            return Err((position, "an unreadable batch in a closed journal".to_owned()));
        }
        if let Some((offset, later)) = self.find_later(rest, count) {
            let what = format!("an unreadable batch, but batch {later} follows {offset} bytes after it");
            return Err((position, what));
        }
        Ok(position)
    }

    fn follow(&mut self, chain: Chain, seqno: u64) -> Result<(), String> {
        if self.expected.database.is_some_and(|database| database != chain.database) {
            return Err("a batch of another database".to_owned());
        }
        if let Some(before) = self.chain
            && (chain.database != before.database || chain.count != before.count + 1)
        {
            return Err(format!("batch {} follows batch {}", chain.count, before.count));
        }
        if self.seqno.is_some_and(|before| seqno <= before) || seqno > HIGHEST_SEQNO {
            return Err(format!("sequence number {seqno} follows {}", self.seqno.unwrap_or(0)));
        }
        self.chain = Some(chain);
        self.seqno = Some(seqno);
        Ok(())
    }

    /// A readable batch of this database, later than `count`, after the first byte of `bytes`.
    fn find_later(&self, bytes: &[u8], count: u64) -> Option<(usize, u64)> {
        let database = self.chain.map(|chain| chain.database).or(self.expected.database);
        (1..bytes.len()).filter(|&offset| bytes[offset] == START).find_map(|offset| {
            let chain = Batch::read(&bytes[offset..])?.chain?;
            let ours = database.is_none_or(|database| database == chain.database) && chain.count > count;
            ours.then_some((offset, chain.count))
        })
    }
}

struct Batch {
    bytes: usize,
    seqno: u64,
    chain: Option<Chain>,
}

impl Batch {
    /// Reads one whole batch at the start of `bytes`; `None` where there is none that matches its checksum.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        (reader.byte()? == START).then_some(())?;
        let items = reader.u32()?;
        let seqno = u64::from_le_bytes(*reader.array()?);
        let first = bytes.len() - reader.0.len();
        let mut chain = None;
        for _ in 0..items {
            (reader.byte()? == ITEM).then_some(())?;
            // A value, a tombstone or a weak tombstone, uncompressed: the engine has compression off.
            (reader.byte()? <= 2 && reader.byte()? == 0).then_some(())?;
            let _keyspace: &[u8; 8] = reader.array()?;
            let key_bytes = usize::from(u16::from_le_bytes(*reader.array()?));
            let value_bytes = reader.u32()?;
            (reader.u32()? == value_bytes).then_some(())?;
            let key = reader.take(key_bytes)?;
            let value = reader.take(value_bytes as usize)?;
            if layout::is_chain(key) {
                chain = Chain::from_bytes(value);
            }
        }
        let last = bytes.len() - reader.0.len();
        (reader.byte()? == END).then_some(())?;
        let checksum = u64::from_le_bytes(*reader.array()?);
        (reader.take(MAGIC.len())? == MAGIC && xxh3_64(&bytes[first..last]) == checksum).then_some(())?;
        Some(Self { bytes: bytes.len() - reader.0.len(), seqno, chain })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }
}
