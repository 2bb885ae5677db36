//! The floors of everything durable: a log that is appended to and synced, and the database that the state engine
//! stands on, without the engine.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

/// Bytes of key and value of one record, here and in the commits that are measured.
pub const RECORD_BYTES: usize = KEY_BYTES + VALUE_BYTES;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 112;
const KEY_BYTES: usize = 16;
/// Keys that records go round: few enough to be rewritten, as state is.
const KEYS: u64 = 10_000;

/// The key of a record, by its number.
#[must_use]
pub fn key(number: u64) -> String {
    format!("{:0KEY_BYTES$}", number % KEYS)
}

/// A folder on the disk that this program is on: elsewhere may be memory, where syncing costs nothing.
///
/// # Panics
/// Where it can't be made.
#[must_use]
pub fn folder() -> tempfile::TempDir {
    let program = std::env::current_exe().expect("a program knows where it is");
    let parent = program.parent().expect("a program is in a folder");
    tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(parent)
        .expect("the target directory can be written to")
}

/// Bytes of the log, written ahead; then it begins anew.
const LOG_BYTES: usize = 64 << 20;

/// A log without any structure: the least that makes a record durable. Its file is written ahead, so that syncing it
/// is the record alone and not the file's new length too: databases do the same.
#[derive(Debug)]
pub struct RawLog {
    file: File,
    records: Vec<u8>,
    at: usize,
    _folder: tempfile::TempDir,
}

impl Default for RawLog {
    fn default() -> Self {
        let folder = folder();
        let file = File::create(folder.path().join("log")).expect("a new file");
        file.write_all_at(&vec![0; LOG_BYTES], 0).and_then(|()| file.sync_all()).expect("room on the disk");
        Self { file, records: Vec::new(), at: 0, _folder: folder }
    }
}

impl RawLog {
    /// Writes so many records with one write and one fdatasync.
    ///
    /// # Panics
    /// Where the disk fails.
    pub fn append(&mut self, records: usize) {
        self.records.resize(records * RECORD_BYTES, b'r');
        if self.at + self.records.len() > LOG_BYTES {
            self.at = 0;
        }
        let written = self.file.write_all_at(&self.records, self.at as u64);
        written.and_then(|()| self.file.sync_data()).expect("an own file");
        self.at += self.records.len();
    }
}

/// fjall as it is, with one keyspace.
pub struct BareFjall {
    database: Database,
    space: Keyspace,
    next: u64,
    _folder: tempfile::TempDir,
}

impl Default for BareFjall {
    fn default() -> Self {
        let folder = folder();
        let open = |path: &Path| {
            // As the state engine does.
            let builder = Database::builder(path).journal_compression(fjall::CompressionType::None);
            let database = builder.open()?;
            let space = database.keyspace("state", KeyspaceCreateOptions::default)?;
            fjall::Result::Ok((database, space))
        };
        let (database, space) = open(&folder.path().join("fjall")).expect("a new database");
        Self { database, space, next: 0, _folder: folder }
    }
}

impl BareFjall {
    /// Commits so many records in one batch, synced.
    ///
    /// # Panics
    /// Where the disk fails.
    pub fn commit(&mut self, records: usize) {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..records {
            batch.insert(&self.space, key(self.next), [b'r'; VALUE_BYTES]);
            self.next += 1;
        }
        batch.commit().expect("room on the disk");
    }
}
