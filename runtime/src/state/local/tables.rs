//! Checks the lists of tables before the database reads them.
//!
//! Each keyspace has a file `current` that names the newest list of its tables, `v` and a number, with the
//! list's checksum; lsm-tree does not compare the checksum. A flipped bit there hides a table or all of its
//! entries, and the database then deletes the tables that it takes for left over. A keyspace without `current`
//! it deletes whole. So all of this is checked first. Blocks of tables have checksums that are compared when
//! they are read.
//!
//! Integers are little-endian. `current`: number (8 bytes), XXH3 of the list (16), 0. A table ends with `SFA!`,
//! 01, 00, XXH3 (16), position (8) and length (8) of its contents, which are `TOC!`, a count (4) and entries.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

const TRAILER_BYTES: usize = 38;
const SMALLEST_ENTRY_BYTES: u64 = 18;

/// Why the tables can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("{}: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Checks all keyspaces of the database.
pub(super) fn check(database: &Path) -> Result<(), TableError> {
    for keyspace in list(&database.join("keyspaces"))? {
        if keyspace.is_dir() {
            check_keyspace(&keyspace)?;
        }
    }
    Ok(())
}

fn check_keyspace(keyspace: &Path) -> Result<(), TableError> {
    let tables = keyspace.join("tables");
    let tables = if tables.is_dir() { list(&tables)? } else { Vec::new() };
    let current = keyspace.join("current");
    match fs::read(&current) {
        Ok(bytes) => check_list(keyspace, &current, &bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Without tables it is a keyspace whose creation was interrupted.
            if let Some(table) = tables.first() {
                let what = "the keyspace of this table has no file `current`";
                return Err(TableError::Damaged { path: table.clone(), what });
            }
        }
        Err(source) => return Err(TableError::Io { path: current, source }),
    }
    tables.iter().try_for_each(|table| check_contents(table))
}

fn check_list(keyspace: &Path, current: &Path, bytes: &[u8]) -> Result<(), TableError> {
    let damaged = |path: &Path, what| TableError::Damaged { path: path.to_owned(), what };
    let parse = || {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (checksum, kind) = rest.split_first_chunk::<16>()?;
        (kind == [0]).then(|| (u64::from_le_bytes(*number), u128::from_le_bytes(*checksum)))
    };
    let (number, checksum) = parse().ok_or_else(|| damaged(current, "it names no list of tables"))?;
    let list = keyspace.join(format!("v{number}"));
    match fs::read(&list) {
        Ok(bytes) if xxh3_128(&bytes) == checksum => Ok(()),
        Ok(_) => Err(damaged(&list, "the list of tables does not match its checksum")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(damaged(current, "it names a list of tables that does not exist"))
        }
        Err(source) => Err(TableError::Io { path: list, source }),
    }
}

/// Refuses a table whose contents would have more entries than they have room for: the reader makes room for
/// as many as it says, and without memory for them the process would be aborted. All else the reader finds.
fn check_contents(table: &Path) -> Result<(), TableError> {
    let io = |source| TableError::Io { path: table.to_owned(), source };
    let file = File::open(table).map_err(io)?;
    let Some(position) = file.metadata().map_err(io)?.len().checked_sub(TRAILER_BYTES as u64) else {
        return Ok(());
    };
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, position).map_err(io)?;
    let (_, numbers) = trailer.split_at(TRAILER_BYTES - 16);
    let ([at, length], _) = numbers.as_chunks::<8>() else { return Ok(()) };
    let mut start = [0; 8];
    if file.read_exact_at(&mut start, u64::from_le_bytes(*at)).is_err() {
        return Ok(());
    }
    let (magic, count) = start.split_at(4);
    let count = count.iter().rev().fold(0, |count, byte| count << 8 | u64::from(*byte));
    if magic == b"TOC!" && count * SMALLEST_ENTRY_BYTES > u64::from_le_bytes(*length) {
        let what = "its contents have more entries than room";
        return Err(TableError::Damaged { path: table.to_owned(), what });
    }
    Ok(())
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, TableError> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    entries.map_err(|source| TableError::Io { path: directory.to_owned(), source })
}
