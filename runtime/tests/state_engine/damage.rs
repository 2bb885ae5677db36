//! Damaged state files: a torn tail is cut, damage elsewhere is an error, and no read is ever wrong.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hvm_runtime::state::{LocalEngine, PartitionState, ReadError, StartError, StateEngine};
use hvm_types::Sequence;

use crate::bed::{LocalBed, Numbers, config, get, open, record};

const RECORDS: usize = 30;

/// State after some commits of one partition, with what a crash after each would have left.
struct Recorded {
    bed: LocalBed,
    /// Where the journal ended after each batch.
    ends: Vec<usize>,
    /// The file `acknowledged` after each batch.
    counts: Vec<Vec<u8>>,
    journal: Vec<u8>,
}

impl Recorded {
    fn new() -> Self {
        let bed = LocalBed::new();
        let engine = bed.engine();
        let partition = open(&engine, 0, 1);
        let (mut ends, mut counts) = (Vec::new(), Vec::new());
        let mut note = || {
            ends.push(read_journal(&bed.path()).len());
            counts.push(fs::read(bed.path().join("acknowledged")).expect("the count"));
        };
        note();
        for i in 1..=RECORDS {
            let value = "x".repeat(i * 37 % 900);
            let writes = [("last", i.to_string()), (&*format!("key-{i:03}"), value)];
            let writes = writes.each_ref().map(|(key, value)| (*key, value.as_str()));
            assert!(partition.commit(record(&writes)).wait().is_ok());
            note();
        }
        let journal = read_journal(&bed.path());
        drop((partition, engine));
        Self { bed, ends, counts, journal }
    }

    /// A copy of the state with this journal and, unless a power cut lost it, this count.
    fn copy(&self, journal: &[u8], count: Option<&[u8]>) -> LocalBed {
        let copy = LocalBed::new();
        copy_directory(&self.bed.path(), &copy.path());
        fs::write(journal_path(&copy.path()), journal).expect("the journal is written");
        let path = copy.path().join("acknowledged");
        match count {
            Some(count) => fs::write(path, count).expect("the count is written"),
            None => fs::remove_file(path).expect("the count is removed"),
        }
        copy
    }
}

fn journal_path(state: &Path) -> PathBuf {
    state.join("fjall/0.jnl")
}

/// The journal up to its last byte that is not zero: each batch ends with one.
fn read_journal(state: &Path) -> Vec<u8> {
    // All tests here stay far below the space that is allocated ahead.
    const READ_BYTES: usize = 1 << 20;
    let file = fs::File::open(journal_path(state)).expect("the journal");
    let mut bytes = vec![0; READ_BYTES];
    let read = file.read_at(&mut bytes, 0).expect("the journal is read");
    bytes.truncate(read);
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    assert!(end < READ_BYTES, "the journal is longer than the test reads");
    bytes.truncate(end);
    bytes
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if entry.path().extension().is_none_or(|extension| extension != "jnl") {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Checks that exactly the first `records` are there.
fn check_prefix(bed: &LocalBed, records: usize, context: &str) {
    let engine = bed.engine();
    let partition = open(&engine, 0, 2);
    check_records(&*partition, records, context);
    // And it goes on from there.
    assert!(partition.commit(record(&[("last", "new")])).wait().is_ok(), "{context}");
    drop((partition, engine));
    assert_eq!(get(&*open(&bed.engine(), 0, 2), "last").as_deref(), Some("new"), "{context}");
}

fn check_records(partition: &dyn PartitionState, records: usize, context: &str) {
    assert_eq!(partition.sequence(), Ok(Sequence(records as u64)), "{context}");
    let expected = (records > 0).then(|| records.to_string());
    assert_eq!(get(partition, "last"), expected, "{context}");
    for i in 1..=RECORDS {
        let expected = (i <= records).then(|| "x".repeat(i * 37 % 900));
        assert_eq!(get(partition, &format!("key-{i:03}")), expected, "{context}, record {i}");
    }
}

fn refusal(bed: &LocalBed) -> Option<StartError> {
    LocalEngine::start(config(&bed.path())).err()
}

#[test]
fn a_journal_that_was_cut_in_a_batch_ends_with_the_batch_before() {
    let recorded = Recorded::new();
    let mut numbers = Numbers::printed();
    for round in 0..40 {
        // The crash: some batches are acknowledged, the next one is torn at some byte.
        let acknowledged = numbers.below(RECORDS);
        let (end, next) = (recorded.ends[acknowledged], recorded.ends[acknowledged + 1]);
        let cut = if round % 8 == 0 { end } else { end + numbers.below(next - end) };
        let count = (round % 3 > 0).then(|| recorded.counts[acknowledged].as_slice());
        let copy = recorded.copy(&recorded.journal[..cut], count);
        check_prefix(&copy, acknowledged, &format!("cut at {cut}, batch {end}..{next}"));
    }
}

#[test]
fn a_garbled_last_batch_is_cut() {
    let recorded = Recorded::new();
    let mut numbers = Numbers::printed();
    for round in 0..40 {
        let acknowledged = numbers.below(RECORDS);
        let (end, next) = (recorded.ends[acknowledged], recorded.ends[acknowledged + 1]);
        let mut journal = recorded.journal[..next].to_vec();
        let from = end + numbers.below(next - end);
        let to = from + 1 + numbers.below(next - from);
        // The database's checksum does not cover its own number of a batch. With a higher one the batch, which nobody was
        // told of, is as whole as before, and all later ones still follow it.
        if from >= end + 5 && to <= end + 13 {
            continue;
        }
        for byte in &mut journal[from..to] {
            // Pages arrive in any order: some are zero, some hold what was there before.
            *byte = if round % 2 == 0 { 0 } else { *byte ^ 0x5a };
        }
        // Space that was allocated ahead follows, now and then with old bytes in it.
        journal.resize(next + 70_000, 0);
        if round % 4 == 0 {
            journal.extend((0..500).map(|_| numbers.next().to_le_bytes()[0]));
        }
        let unchanged = journal[..next] == recorded.journal[..next];
        let copy = recorded.copy(&journal, Some(&recorded.counts[acknowledged]));
        let expected = acknowledged + usize::from(unchanged);
        check_prefix(&copy, expected, &format!("garbled {from}..{to} of batch {end}..{next}"));
    }
}

#[test]
fn a_flipped_bit_before_the_last_batch_is_found_and_nothing_is_changed() {
    let recorded = Recorded::new();
    let mut numbers = Numbers::printed();
    let last = recorded.ends[RECORDS - 1];
    for round in 0..60 {
        let mut journal = recorded.journal.clone();
        // The first batch's sequence number alone may be lowered unseen: nothing stands before it.
        let bit = 13 * 8 + numbers.below((last - 13) * 8);
        journal[bit / 8] ^= 1 << (bit % 8);
        let count = (round % 2 == 0).then(|| recorded.counts[RECORDS].as_slice());
        let copy = recorded.copy(&journal, count);
        let error = refusal(&copy);
        assert!(matches!(error, Some(StartError::Corrupt { .. })), "bit {bit}: {error:?}");
        assert_eq!(read_journal(&copy.path()), journal, "bit {bit}: the evidence was changed");
    }
}

#[test]
fn an_acknowledged_batch_that_is_missing_at_the_end_is_found() {
    let recorded = Recorded::new();
    let mut numbers = Numbers::printed();
    for _ in 0..20 {
        let kept = numbers.below(RECORDS);
        let cut = recorded.ends[kept] + numbers.below(20);
        let copy = recorded.copy(&recorded.journal[..cut], Some(&recorded.counts[RECORDS]));
        let error = refusal(&copy).map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("was acknowledged"), "cut at {cut}: {error}");
        // What the message says to do works.
        fs::remove_file(copy.path().join("acknowledged")).expect("the count is removed");
        check_prefix(&copy, kept, &format!("accepted at {cut}"));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_files_is_never_read_as_data() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let partition = open(&engine, 0, 1);
    let mut numbers = Numbers::printed();
    let value = |i: usize| format!("{i}-").repeat(20_000);
    // More than one memtable, so that some of it is in tables.
    const KEYS: usize = 260;
    for i in 0..KEYS {
        assert!(partition.commit(record(&[(&format!("key-{i}"), &value(i))])).wait().is_ok());
    }
    drop((partition, engine));
    let mut files = Vec::new();
    list_files(&bed.path().join("fjall"), &mut files);
    let tables =
        files.iter().filter(|file| file.components().any(|part| part.as_os_str() == "tables")).count();
    assert!(tables > 2, "nothing was written to tables: {files:?}");
    let (mut refused, mut unreadable, mut intact) = (0, 0, 0);
    for _ in 0..30 {
        let file = &files[numbers.below(files.len())];
        let original = read_used(file);
        if original.is_empty() {
            continue;
        }
        let bit = numbers.below(original.len() * 8);
        let copy = LocalBed::new();
        copy_everything(&bed.path(), &copy.path());
        let target = copy.path().join(file.strip_prefix(bed.path()).expect("below the state"));
        let mut damaged = original;
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&target, damaged).expect("the damage is done");
        match std::panic::catch_unwind(|| read_all(&copy, KEYS, value)) {
            Ok(Ok(())) => intact += 1,
            Ok(Err(Unreadable::Start)) => refused += 1,
            Ok(Err(Unreadable::Read)) => unreadable += 1,
            Err(_) => panic!("bit {bit} of {} was read as data, or panicked", file.display()),
        }
    }
    eprintln!("{refused} refused at start, {unreadable} at a read, {intact} in bytes that are not read");
    assert!(refused + unreadable > 0, "no damage was ever noticed");
}

enum Unreadable {
    Start,
    Read,
}

fn read_all(bed: &LocalBed, keys: usize, value: impl Fn(usize) -> String) -> Result<(), Unreadable> {
    let engine = LocalEngine::start(config(&bed.path())).map_err(|error| match error {
        StartError::Corrupt { .. } | StartError::Io { .. } => Unreadable::Start,
        error => panic!("{error}"),
    })?;
    let partition =
        engine.open(&crate::bed::replica(0), hvm_types::Epoch(1)).map_err(|_| Unreadable::Read)?;
    assert_eq!(partition.sequence(), Ok(Sequence(keys as u64)));
    let snapshot = partition.snapshot().expect("a snapshot");
    for i in 0..keys {
        match snapshot.get("default", &format!("key-{i}")) {
            Ok(found) => assert!(found.as_deref() == Some(value(i).as_bytes()), "key {i} is wrong"),
            Err(ReadError::Corrupt { .. } | ReadError::Unavailable { .. }) => return Err(Unreadable::Read),
            Err(error) => panic!("{error}"),
        }
    }
    Ok(())
}

fn list_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { list_files(&path, files) } else { files.push(path) }
    }
    files.sort();
}

fn copy_everything(from: &Path, to: &Path) {
    let mut files = Vec::new();
    list_files(from, &mut files);
    for file in files {
        let target = to.join(file.strip_prefix(from).expect("below the directory"));
        fs::create_dir_all(target.parent().expect("a parent")).expect("a directory");
        fs::write(target, read_used(&file)).expect("a copy");
    }
}

/// A file without the zeros at the end of a journal, which are space that was allocated ahead.
fn read_used(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).expect("the file");
    if file.extension().is_some_and(|extension| extension == "jnl") {
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    bytes
}

#[test]
fn a_lost_table_or_journal_is_found() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    for i in 0..8 {
        assert!(open(&engine, i, 1).commit(record(&[("a", "1")])).wait().is_ok());
    }
    drop(engine);
    let without_journal = LocalBed::new();
    copy_directory(&bed.path(), &without_journal.path());
    let error = refusal(&without_journal);
    assert!(matches!(error, Some(StartError::Corrupt { .. })), "{error:?}");
    let without_database = LocalBed::new();
    fs::create_dir_all(without_database.path()).expect("a directory");
    fs::copy(bed.path().join("acknowledged"), without_database.path().join("acknowledged")).expect("a copy");
    let error = refusal(&without_database);
    assert!(matches!(error, Some(StartError::Corrupt { .. })), "{error:?}");
}

#[test]
fn a_damaged_list_of_tables_is_found_before_tables_are_deleted_for_it() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    assert!(open(&engine, 0, 1).commit(record(&[("a", "1")])).wait().is_ok());
    drop(engine);
    let mut numbers = Numbers::printed();
    let mut files = Vec::new();
    for keyspace in fs::read_dir(bed.path().join("fjall/keyspaces")).expect("the keyspaces") {
        let keyspace = keyspace.expect("an entry").path();
        let current = keyspace.join("current");
        let bytes = fs::read(&current).expect("the file");
        let number = u64::from_le_bytes(*bytes.first_chunk().expect("a number"));
        files.extend([current, keyspace.join(format!("v{number}"))]);
    }
    assert!(files.len() > 30, "{files:?}");
    for _ in 0..100 {
        let file = &files[numbers.below(files.len())];
        let original = fs::read(file).expect("the file");
        let bit = numbers.below(original.len() * 8);
        let mut damaged = original.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(file, damaged).expect("the damage is done");
        let error = refusal(&bed);
        assert!(
            matches!(error, Some(StartError::Corrupt { .. })),
            "bit {bit} of {}: {error:?}",
            file.display()
        );
        fs::write(file, original).expect("the damage is undone");
    }
    // Of a keyspace with tables the file is missed, before the database deletes the keyspace.
    let meta = bed.path().join("fjall/keyspaces/0");
    fs::rename(meta.join("current"), meta.join("gone")).expect("the file goes");
    assert!(matches!(refusal(&bed), Some(StartError::Corrupt { .. })));
    fs::rename(meta.join("gone"), meta.join("current")).expect("the file comes back");
    assert_eq!(get(&*open(&bed.engine(), 0, 1), "a").as_deref(), Some("1"));
}

#[test]
fn a_first_start_that_the_power_ended_is_made_again_and_later_the_same_is_damage() {
    for left in [b"".as_slice(), b"FJ", b"\0\0\0\0"] {
        let bed = LocalBed::new();
        drop(bed.engine());
        let version = bed.path().join("fjall/version");
        fs::write(&version, left).expect("the version is written");
        assert!(refusal(&bed).is_none(), "{left:?}: nothing was acknowledged");
        let engine = bed.engine();
        assert!(open(&engine, 0, 1).commit(record(&[("key", "value")])).wait().is_ok());
        drop(engine);
        fs::write(&version, left).expect("the version is written");
        assert!(
            matches!(refusal(&bed), Some(StartError::Corrupt { .. })),
            "{left:?}: a record was acknowledged"
        );
    }
}
