//! The windows on disk: a journal of records, each with its length and checksum (XXH3, 64 bits).
//!
//! A file begins with the sum of all windows before it. When it holds an hour it is followed by the next one, so that
//! a window stands in exactly one file, and a file and its windows sum to everything. The file before the newest is
//! kept for the windows in it, older ones go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Window;
use crate::data_dir::replace_file;

/// What every file begins with.
const MAGIC: &[u8] = b"hvm usage 1\n";
/// Length and checksum.
const HEAD_BYTES: usize = 4 + 8;
/// Windows in one file.
const MAX_WINDOWS_PER_FILE: usize = 720;

/// Meters that can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The disk refused.
    #[error("read or write the meters in {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error(
        "read the meters in {}: the file is damaged at byte {at}; restore it, or move it away to begin at zero",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
}

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// Everything before this file.
    Before(Window),
    Window(Window),
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    number: u64,
    file: File,
    /// Length up to the last whole record.
    bytes: u64,
    windows: usize,
}

/// What stands in the journal.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The sum of all windows; `None` where there is no journal yet.
    pub(super) sum: Option<Window>,
    /// The newest windows, the oldest first.
    pub(super) windows: Vec<Window>,
}

impl Journal {
    /// Reads the journal in `folder` and opens it for appending; where there is none, begins one with `empty`.
    pub(super) fn open(folder: PathBuf, empty: Window) -> Result<(Self, Kept), UsageError> {
        let numbers = numbers(&folder)?;
        let Some(newest) = numbers.last().copied() else {
            let journal = Self::begin(folder, 1, empty)?;
            return Ok((journal, Kept::default()));
        };
        let mut windows = Vec::new();
        if let Some(before) = numbers.iter().rev().nth(1) {
            windows = read(&path_of(&folder, *before))?.windows;
        }
        let path = path_of(&folder, newest);
        let mut content = read(&path)?;
        let mut sum = content.before;
        content.windows.iter().for_each(|window| sum.join(window));
        let count = content.windows.len();
        windows.append(&mut content.windows);
        let file = open_at(&path, content.bytes)?;
        let journal = Self { folder, number: newest, file, bytes: content.bytes, windows: count };
        Ok((journal, Kept { sum: Some(sum), windows }))
    }

    fn begin(folder: PathBuf, number: u64, before: Window) -> Result<Self, UsageError> {
        let path = path_of(&folder, number);
        let content = [MAGIC, &encode(&Record::Before(before))].concat();
        replace_file(&path, &content).map_err(|source| UsageError::Io { path: path.clone(), source })?;
        let bytes = content.len() as u64;
        let file = open_at(&path, bytes)?;
        Ok(Self { folder, number, file, bytes, windows: 0 })
    }

    /// Makes a window durable. `sum` tells that of all windows before it. Where this fails, the window does not stand
    /// in the journal. Blocks on the disk.
    pub(super) fn append(&mut self, window: &Window, sum: impl FnOnce() -> Window) -> Result<(), UsageError> {
        if self.windows >= MAX_WINDOWS_PER_FILE {
            *self = Self::begin(self.folder.clone(), self.number + 1, sum())?;
            self.forget_before(self.number - 1);
        }
        let record = encode(&Record::Window(window.clone()));
        let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            let path = path_of(&self.folder, self.number);
            // Half a record must not stand before the next one.
            if let Ok(file) = open_at(&path, self.bytes) {
                self.file = file;
            }
            return Err(UsageError::Io { path, source });
        }
        self.bytes += record.len() as u64;
        self.windows += 1;
        Ok(())
    }

    fn forget_before(&self, number: u64) {
        for old in numbers(&self.folder).unwrap_or_default().into_iter().filter(|old| *old < number) {
            if let Err(error) = fs::remove_file(path_of(&self.folder, old)) {
                tracing::warn!(%error, "an old file of the meters could not be removed; it is tried again later");
            }
        }
    }
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.journal"))
}

fn numbers(folder: &Path) -> Result<Vec<u64>, UsageError> {
    let failed = |source| UsageError::Io { path: folder.to_owned(), source };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".journal")?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a file for appending after its first `bytes`; what stands behind them goes.
fn open_at(path: &Path, bytes: u64) -> Result<File, UsageError> {
    let open = || -> io::Result<File> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    open().map_err(|source| UsageError::Io { path: path.to_owned(), source })
}

fn encode(record: &Record) -> Vec<u8> {
    let fields = postcard::to_stdvec(record).expect("plain fields always serialize");
    let length = u32::try_from(fields.len()).expect("a window is bounded by the number of partitions");
    [&length.to_le_bytes(), xxh3_64(&fields).to_le_bytes().as_slice(), &fields].concat()
}

/// One file's content.
struct Content {
    before: Window,
    windows: Vec<Window>,
    /// Length up to the last whole record.
    bytes: u64,
}

fn read(path: &Path) -> Result<Content, UsageError> {
    let bytes = fs::read(path).map_err(|source| UsageError::Io { path: path.to_owned(), source })?;
    let damaged = |at| UsageError::Damaged { path: path.to_owned(), at };
    let mut at = MAGIC.len();
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(0));
    }
    let mut before = None;
    let mut windows = Vec::new();
    while at < bytes.len() {
        match decode(&bytes[at..]) {
            Ok((record, length)) => {
                match (record, &before) {
                    (Record::Before(sum), None) => before = Some(sum),
                    (Record::Window(window), Some(_)) => windows.push(window),
                    _ => return Err(damaged(at)),
                }
                at += length;
            }
            // The end of the file was being written when the machine stopped.
            Err(NoRecord::Torn) => break,
            Err(NoRecord::Damaged) => return Err(damaged(at)),
        }
    }
    // The file came into being whole, with its first record.
    let before = before.ok_or_else(|| damaged(MAGIC.len()))?;
    Ok(Content { before, windows, bytes: at as u64 })
}

enum NoRecord {
    /// It reaches to the end of the file or beyond.
    Torn,
    Damaged,
}

fn decode(bytes: &[u8]) -> Result<(Record, usize), NoRecord> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(NoRecord::Torn)?;
    let (checksum, rest) = rest.split_first_chunk::<8>().ok_or(NoRecord::Torn)?;
    let length = u32::from_le_bytes(*length) as usize;
    let fields = rest.get(..length).ok_or(NoRecord::Torn)?;
    let is_last = length == rest.len() || bytes.iter().all(|byte| *byte == 0);
    let no_record = || if is_last { NoRecord::Torn } else { NoRecord::Damaged };
    if xxh3_64(fields) != u64::from_le_bytes(*checksum) {
        return Err(no_record());
    }
    let record = postcard::from_bytes(fields).map_err(|_| no_record())?;
    Ok((record, HEAD_BYTES + length))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hvm_types::Meter;

    use super::*;

    fn window(number: u64) -> Window {
        let meter = Meter { succeeded: number, ..Meter::default() };
        Window {
            from_unix_millis: number * 1_000,
            to_unix_millis: number * 1_000 + 1_000,
            process_cpu: Duration::from_millis(number),
            host_cpu: Duration::from_millis(number),
            partitions: [("d/g/0".parse().expect("a replica"), meter)].into(),
        }
    }

    fn open(dir: &tempfile::TempDir) -> (Journal, Kept) {
        Journal::open(dir.path().to_owned(), Window::starting_at(7)).expect("a journal")
    }

    fn counted(sum: &Window) -> u64 {
        sum.partitions.values().map(|meter| meter.succeeded).sum()
    }

    #[test]
    fn a_journal_reads_back_over_many_files_and_keeps_two() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut journal, kept) = open(&dir);
        assert!(kept.sum.is_none());
        let mut sum = Window::starting_at(7);
        let count = 3 * MAX_WINDOWS_PER_FILE as u64 + 2;
        for number in 1..=count {
            journal.append(&window(number), || sum.clone()).expect("appended");
            sum.join(&window(number));
        }
        let (_, kept) = open(&dir);
        assert_eq!(kept.sum, Some(sum));
        assert_eq!(kept.windows.len(), MAX_WINDOWS_PER_FILE + 2);
        assert_eq!(kept.windows.last(), Some(&window(count)));
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn a_torn_end_costs_the_last_window_only_and_the_next_one_follows_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut journal, _) = open(&dir);
        journal.append(&window(1), Window::default).expect("appended");
        let whole = journal.bytes;
        journal.append(&window(2), Window::default).expect("appended");
        let path = path_of(dir.path(), 1);
        let bytes = fs::read(&path).expect("a file");
        for length in usize::try_from(whole).expect("small")..bytes.len() {
            fs::write(&path, &bytes[..length]).expect("torn");
            let (mut journal, kept) = open(&dir);
            assert_eq!(kept.sum.as_ref().map(counted), Some(1), "cut to {length} bytes");
            journal.append(&window(5), Window::default).expect("appended");
            assert_eq!(open(&dir).1.sum.as_ref().map(counted), Some(6), "cut to {length} bytes");
        }
    }

    #[test]
    fn damage_before_the_end_is_refused_by_name_and_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut journal, _) = open(&dir);
        let first = usize::try_from(journal.bytes).expect("small");
        journal.append(&window(1), Window::default).expect("appended");
        let second = usize::try_from(journal.bytes).expect("small");
        journal.append(&window(2), Window::default).expect("appended");
        let path = path_of(dir.path(), 1);
        let bytes = fs::read(&path).expect("a file");
        for flipped in [MAGIC.len() + HEAD_BYTES, first + HEAD_BYTES, second - 1] {
            let mut damaged = bytes.clone();
            damaged[flipped] ^= 1;
            fs::write(&path, damaged).expect("damaged");
            let error = Journal::open(dir.path().to_owned(), Window::default()).expect_err("damage");
            assert!(matches!(error, UsageError::Damaged { at, .. } if at <= flipped), "{error}");
            assert!(error.to_string().contains("0000000001.journal"), "{error}");
        }
    }
}
