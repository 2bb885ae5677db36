//! How many batches were acknowledged, in a file beside the database.
//!
//! A journal alone can't tell a batch that was torn by a crash from one that was acknowledged and then
//! damaged. This count can: it is written after the sync and before the answers. It is not synced itself, so
//! it outlives the process but may be behind after a power cut; then it only proves less.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

const BYTES: usize = 33;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// The database it belongs to.
    pub(super) database: [u8; 16],
    /// Batches that were acknowledged.
    pub(super) batches: u64,
    /// Whether the batch after these failed: what the journal holds of it is cut, because after a failed
    /// sync the page cache may show bytes that are not on the disk.
    pub(super) failed: bool,
}

impl Count {
    pub(super) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&self.database);
        bytes[16..24].copy_from_slice(&self.batches.to_le_bytes());
        bytes[24] = u8::from(self.failed);
        let checksum = xxh3_64(&bytes[..25]);
        bytes[25..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_last_chunk::<8>()?;
        let (database, rest) = content.split_first_chunk::<16>()?;
        let (batches, failed) = rest.split_first_chunk::<8>()?;
        let [failed @ (0 | 1)] = *failed else { return None };
        (xxh3_64(content) == u64::from_le_bytes(*checksum)).then(|| Self {
            database: *database,
            batches: u64::from_le_bytes(*batches),
            failed: failed == 1,
        })
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Acknowledged {
    path: PathBuf,
    file: File,
}

impl Acknowledged {
    /// Reads the file. Absent or unreadable, it proves nothing: its loss alone loses no state.
    pub(super) fn read(path: &Path) -> io::Result<Option<Count>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let count = Count::from_bytes(&bytes);
        if count.is_none() {
            tracing::warn!("{} is damaged; it is written anew", path.display());
        }
        Ok(count)
    }

    /// Opens the file and writes the count, durably. An old file keeps its place on the disk, so that this
    /// passes on a full disk.
    pub(super) fn open(path: &Path, count: Count) -> io::Result<Self> {
        let is_new = !path.exists();
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let this = Self { path: path.to_owned(), file };
        this.write_durably(count)?;
        if is_new && let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(this)
    }

    /// Writes the count and syncs it. A note of a failure has to be gone from the disk before another batch is
    /// acknowledged: found after a power cut, it would cut that batch.
    pub(super) fn write_durably(&self, count: Count) -> io::Result<()> {
        self.write(count)?;
        self.file.sync_data()
    }

    pub(super) fn write(&self, count: Count) -> io::Result<()> {
        self.file.write_all_at(&count.to_bytes(), 0)
    }

    /// Notes that a batch failed. A failure of the note itself is logged: the disk is failing anyway.
    pub(super) fn write_failed(&self, count: Count) {
        let note = self.write_durably(Count { failed: true, ..count });
        if let Err(error) = note {
            tracing::warn!(%error, "the failed batch was not noted in {}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_reads_back_and_damage_proves_nothing() {
        let count = Count { database: [3; 16], batches: 77, failed: true };
        let bytes = count.to_bytes();
        assert_eq!(Count::from_bytes(&bytes), Some(count));
        for bit in 0..BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Count::from_bytes(&damaged), None, "bit {bit}");
        }
    }
}
