//! The open database: checked on opening, read through views, written one batch at a time.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::acknowledged::Count;
use super::directory::Directory;
use super::failure::WriteFailure;
use super::journal::{self, Expected, JournalError};
use super::layout::{self, BUCKETS, Chain, Place, SPACES};
use super::tables::{self, TableError};
use crate::OpenFiles;
use crate::state::{ReadError, StartError};

/// A keyspace is flushed to a table when it has this many bytes in memory.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Aim of a table's size. Merging then rewrites some tens of MiB at a time, which the reserve covers.
const TABLE_BYTES: u64 = 8 << 20;
/// Most bytes of journal: what is read again after a crash.
const JOURNAL_BYTES: u64 = 128 << 20;
const WORKER_THREADS: usize = 2;
/// Above these, writing waits for the database's workers: below the numbers at which fjall itself would
/// wait, which it does without end when its workers have failed.
const MOST_SEALED: usize = 2;
const MOST_RUNS: usize = 16;
const STALL_LIMIT: Duration = Duration::from_secs(10);
const STALL_STEP: Duration = Duration::from_millis(2);

/// How fjall's file `version` begins.
const VERSION_MAGIC: &[u8] = b"FJL";

/// What a batch writes: each place once. `None` deletes.
pub(super) type Writes = BTreeMap<Place, Option<Vec<u8>>>;

/// The open database.
pub(super) struct Store {
    spaces: Arc<Spaces>,
    database: Database,
}

/// The keyspaces. They hold the database's files, so the directory stays locked while one of them is used.
struct Spaces {
    keyspaces: Vec<Keyspace>,
    _directory: Arc<Directory>,
}

impl Spaces {
    fn get(&self, place: &Place) -> &Keyspace {
        &self.keyspaces[place.space]
    }
}

impl Store {
    /// Opens or creates the database, and returns it with the chain of its last batch.
    pub(super) fn open(
        directory: &Arc<Directory>,
        cache_bytes: u64,
        count: Option<Count>,
    ) -> Result<(Self, Option<Chain>), StartError> {
        let path = directory.database();
        let batches = count.map_or(0, |count| count.batches);
        let exists = is_finished(&path, batches);
        if !exists {
            clear_unfinished(&path, count)?;
        }
        let expected = Expected {
            database: count.map(|count| count.database),
            acknowledged: batches,
            cut: count.is_some_and(|count| count.failed),
        };
        let last = if exists {
            tables::check(&path)?;
            journal::check(&path, expected)?
        } else {
            None
        };
        let (database, keyspaces) = open_database(&path, cache_bytes)?;
        let spaces = Arc::new(Spaces { keyspaces, _directory: Arc::clone(directory) });
        let this = Self { spaces, database };
        let chain = this.check_marks(&path, last)?;
        let found = chain.map_or(0, |chain| chain.count);
        if found < batches {
            return Err(StartError::Corrupt { path, what: journal::lost(found, batches) });
        }
        Ok((this, chain))
    }

    /// Finds keyspaces that lost batches which others have.
    fn check_marks(&self, path: &Path, last: Option<Chain>) -> Result<Option<Chain>, StartError> {
        let corrupt = |what| StartError::Corrupt { path: path.to_owned(), what };
        let view = self.view();
        let read = |place: &Place| view.get(place).map_err(|error| corrupt(error.to_string()));
        let chain = match read(&layout::chain())? {
            Some(bytes) => {
                Some(Chain::from_bytes(&bytes).ok_or_else(|| corrupt("its chain is not one".to_owned()))?)
            }
            None => None,
        };
        if last.is_some() && last != chain {
            let (of_journal, found) = (last.map_or(0, |c| c.count), chain.map_or(0, |c| c.count));
            return Err(corrupt(format!(
                "its journal ends with batch {of_journal}, its tables with {found}"
            )));
        }
        let marks = chain.map_or([0; SPACES], |chain| chain.marks);
        for (space, expected) in marks.iter().enumerate().take(BUCKETS) {
            let mark = read(&layout::mark(space))?;
            let found = mark.map_or(Some(0), |bytes| Some(u64::from_le_bytes((*bytes).try_into().ok()?)));
            if found != Some(*expected) {
                return Err(corrupt(format!(
                    "keyspace {space} lacks batch {expected}: it ends with {found:?}"
                )));
            }
        }
        Ok(chain)
    }

    /// What is in the database now. Only the committer takes one, between two batches: fjall moves its
    /// visible sequence number while it applies a batch, so a view taken then could show half of it.
    pub(super) fn view(&self) -> View {
        View { snapshot: Arc::new(self.database.snapshot()), spaces: Arc::clone(&self.spaces) }
    }

    /// Whether no view is left: only then can the database be closed and opened again.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.spaces) == 1
    }

    /// Bytes in memory that will need space in tables.
    pub(super) fn unflushed_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    /// Writes one batch and syncs it.
    pub(super) fn commit(&self, writes: Writes) -> Result<(), WriteFailure> {
        self.put(writes, Some(PersistMode::SyncData))
    }

    /// Writes one batch without a sync: for a database that is made anew at the next start.
    pub(super) fn apply(&self, writes: Writes) -> Result<(), WriteFailure> {
        self.put(writes, None)
    }

    fn put(&self, writes: Writes, durability: Option<PersistMode>) -> Result<(), WriteFailure> {
        self.wait_for_workers(&writes)?;
        let mut batch = self.database.batch().durability(durability);
        for (place, value) in writes {
            let space = self.spaces.get(&place);
            match value {
                Some(value) => batch.insert(space, place.key, value),
                None => batch.remove(space, place.key),
            }
        }
        batch.commit().map_err(WriteFailure::from)
    }

    fn wait_for_workers(&self, writes: &Writes) -> Result<(), WriteFailure> {
        let started = Instant::now();
        let mut spaces: Vec<usize> = writes.keys().map(|place| place.space).collect();
        spaces.dedup();
        for space in spaces {
            let space = &self.spaces.keyspaces[space];
            while space.sealed_memtable_count() > MOST_SEALED || space.tree.l0_run_count() > MOST_RUNS {
                // Fails when the workers have: nobody would ever make the room that this waits for.
                self.database.persist(PersistMode::Buffer).map_err(WriteFailure::from)?;
                if started.elapsed() > STALL_LIMIT {
                    return Err(WriteFailure::Stalled);
                }
                std::thread::sleep(STALL_STEP);
            }
        }
        Ok(())
    }
}

/// One consistent state of the database. It keeps the database open; an engine that recovers waits for it.
#[derive(Clone)]
pub(super) struct View {
    snapshot: Arc<fjall::Snapshot>,
    spaces: Arc<Spaces>,
}

impl View {
    pub(super) fn get(&self, place: &Place) -> Result<Option<fjall::Slice>, ReadError> {
        self.snapshot.get(self.spaces.get(place), &place.key).map_err(read_error)
    }

    /// Length of a value.
    pub(super) fn size(&self, place: &Place) -> Result<Option<u64>, ReadError> {
        let size = self.snapshot.size_of(self.spaces.get(place), &place.key).map_err(read_error)?;
        Ok(size.map(u64::from))
    }

    /// Keys that start with the prefix and come after `after`, in byte order.
    pub(super) fn keys(
        &self,
        prefix: &Place,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<fjall::Slice, ReadError>> + use<> {
        let start = prefix.key.clone();
        self.items(prefix, after)
            .map(|item| item.key().map_err(read_error))
            .take_while(move |key| key.as_ref().map_or(true, |key| key.starts_with(&start)))
    }

    /// The same with their values.
    pub(super) fn entries(
        &self,
        prefix: &Place,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(fjall::Slice, fjall::Slice), ReadError>> + use<> {
        let start = prefix.key.clone();
        self.items(prefix, after)
            .map(|item| item.into_inner().map_err(read_error))
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&start)))
    }

    fn items(&self, prefix: &Place, after: Option<&[u8]>) -> fjall::Iter {
        let space = self.spaces.get(prefix);
        match after {
            Some(after) => {
                let from = [after, &[0]].concat();
                self.snapshot.range(space, from.max(prefix.key.clone())..)
            }
            None => self.snapshot.range(space, prefix.key.clone()..),
        }
    }
}

/// Whether the database was made to its end. Its file `version` is the last that is written then; as long as no batch was
/// acknowledged, one that is not whole is a creation that the power ended. Later it is damage, which opening finds.
fn is_finished(path: &Path, batches: u64) -> bool {
    let version = path.join("version");
    version.exists()
        && (batches > 0 || std::fs::read(version).is_ok_and(|bytes| bytes.starts_with(VERSION_MAGIC)))
}

/// Removes what a crash left of a database that was never finished. It held no batch.
fn clear_unfinished(path: &Path, count: Option<Count>) -> Result<(), StartError> {
    if let Some(count) = count
        && count.batches > 0
    {
        return Err(StartError::Corrupt { path: path.to_owned(), what: journal::lost(0, count.batches) });
    }
    if !path.exists() {
        return Ok(());
    }
    if count.is_none() {
        let what = "its file `version` is missing or not whole".to_owned();
        return Err(StartError::Corrupt { path: path.to_owned(), what });
    }
    let io = |source| StartError::Io { action: "remove the unfinished", path: path.to_owned(), source };
    std::fs::remove_dir_all(path).map_err(io)
}

fn open_database(path: &Path, cache_bytes: u64) -> Result<(Database, Vec<Keyspace>), StartError> {
    let open = || {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_cached_files(Some(OpenFiles::read().tables()))
            // The journal's check reads values as they are.
            .journal_compression(fjall::CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKER_THREADS)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).compaction_strategy(Arc::new(
                fjall::compaction::Leveled::default().with_table_target_size(TABLE_BYTES),
            ))
        };
        let names = (0..BUCKETS).map(|bucket| format!("bucket-{bucket}")).chain(["meta".to_owned()]);
        let spaces = names.map(|name| database.keyspace(&name, options)).collect::<Result<_, _>>()?;
        Ok((database, spaces))
    };
    let corrupt = |what| StartError::Corrupt { path: path.to_owned(), what };
    // fjall panics on some damage that it has no error for.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Locked)) => {
            Err(StartError::Locked { path: path.to_owned(), pid: "unknown".to_owned() })
        }
        Ok(Err(error)) => Err(match io_error(error) {
            Ok(source) => StartError::Io { action: "open the database in", path: path.to_owned(), source },
            Err(error) => corrupt(error.to_string()),
        }),
        Err(_) => Err(corrupt("the database can't read it".to_owned())),
    }
}

/// The operating system's error in a database's error, if there is one. An unexpected end of a file is
/// damage, not an error of the operating system. One about a temporary file comes wrapped, with its kind alone.
pub(super) fn io_error(error: fjall::Error) -> Result<io::Error, fjall::Error> {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let is_system = |source: &io::Error| {
        let is_wrapped = source.get_ref().is_some();
        source.raw_os_error().is_some()
            || is_wrapped && !matches!(source.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
    };
    match error {
        fjall::Error::Io(source) if is_system(&source) => Ok(source),
        fjall::Error::Storage(fjall::LsmError::Io(source)) if is_system(&source) => Ok(source),
        error => Err(error),
    }
}

fn read_error(error: fjall::Error) -> ReadError {
    match io_error(error) {
        Ok(source) => ReadError::Unavailable { reason: source.to_string() },
        Err(error) => ReadError::Corrupt { what: error.to_string() },
    }
}

impl From<JournalError> for StartError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Damaged { ref path, .. } => {
                Self::Corrupt { path: path.clone(), what: error.to_string() }
            }
            JournalError::Io { path, source } => Self::Io { action: "check the journal", path, source },
        }
    }
}

impl From<TableError> for StartError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Damaged { path, what } => Self::Corrupt { path, what: what.to_owned() },
            TableError::Io { path, source } => Self::Io { action: "check the tables in", path, source },
        }
    }
}
