//! What every state engine promises of exports and imports. An engine is added with one line at the end.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hvm_runtime::state::file::{self, FileError, FileImportError, FilePart, FileReader};
use hvm_runtime::state::{
    CommitError, CommitRecord, IdempotencyKey, IdempotencyWindow, ImportError, PartitionInfo, ReadError,
    ScanHead, SchemaMark, StateEngine,
};
use hvm_types::{ByteSize, Digest, Epoch, ReplicaId, Sequence};

use crate::bed::{Bed, LocalBed, get, keyed, open, record, replica};
use crate::state_file::{answer, exported, fill, header, import, parts, written};

fn start(bed: &impl Bed) -> Arc<dyn StateEngine> {
    bed.start(IdempotencyWindow::default())
}

fn a_partition_comes_out_of_a_file_as_it_went_in(from: &impl Bed, to: &impl Bed) {
    let (source, target) = (start(from), start(to));
    let partition = open(&*source, 0, 7);
    fill(&*partition);
    let third = CommitRecord { schema: Some(SchemaMark::Is(3)), ..record(&[]) };
    partition.commit(third).wait().expect("it is committed");
    let (bytes, summary) = exported(&*source, &replica(0));
    assert_eq!(summary.digest, Digest::of(&bytes));
    assert_eq!(file::verify(bytes.as_slice()).expect("it is whole"), summary);
    assert_eq!(exported(&*source, &replica(0)).0, bytes, "the same state gives the same file");

    // Elsewhere it has another name and another owner; a second export differs in nothing else.
    let info = import(&*target, &replica(5), 2, false, bytes.as_slice()).expect("it is imported");
    let before = &source.partitions().expect("a list")[0];
    let expected = PartitionInfo { id: replica(5), epoch: Epoch(2), ..before.clone() };
    assert_eq!((&info, target.partitions().expect("a list")), (&expected, vec![expected.clone()]));
    let (again, _) = exported(&*target, &replica(5));
    assert_eq!(parts(&again).expect("it is whole"), parts(&bytes).expect("it is whole"));

    // It goes on from there: sequences, quota, and keys that were applied before the move.
    let moved = open(&*target, 5, 2);
    assert_eq!(get(&*moved, "large").map(|value| value.len()), Some(3 << 20));
    assert_eq!((moved.meter(), moved.schema()), (partition.meter(), Ok(Some(3))));
    assert_eq!(moved.commit(keyed("key-0", "", &[("a", "1")])).wait(), Err(CommitError::AlreadyApplied));
    let key: IdempotencyKey = "key-39".parse().expect("a key");
    assert_eq!(moved.answer(&key), partition.answer(&key));
    assert_eq!(moved.commit(record(&[("a", "1")])).wait(), Ok(summary.header.head.sequence.next()));
    drop((moved, target));
    let target = start(to);
    let moved = open(&*target, 5, 3);
    assert_eq!(get(&*moved, "").as_deref(), Some("the empty key"));
    let (head, entries) = check(&*target, &replica(5)).expect("nothing is wrong");
    assert_eq!((head.epoch, entries), (Epoch(3), summary.entries + 1));
}

fn check(engine: &dyn StateEngine, id: &ReplicaId) -> Result<(ScanHead, u64), ReadError> {
    file::check(&*engine.scan(id).expect("a read").expect("the partition is there"))
}

fn an_empty_partition_and_none_at_all_are_told_apart(from: &impl Bed, to: &impl Bed) {
    let (source, target) = (start(from), start(to));
    assert!(source.scan(&replica(0)).expect("a read").is_none());
    drop(open(&*source, 0, 1));
    let (bytes, summary) = exported(&*source, &replica(0));
    assert_eq!((summary.entries, summary.header.head.sequence), (0, Sequence(0)));
    // Opened and without a record, it may be filled without being asked to be replaced.
    drop(open(&*target, 0, 4));
    let info = import(&*target, &replica(0), 4, false, bytes.as_slice()).expect("it is imported");
    assert_eq!((info.epoch, info.sequence, info.stored), (Epoch(4), Sequence(0), ByteSize(0)));
}

fn a_key_that_is_answered_twice_is_refused_by_the_engine_and_leaves_nothing(bed: &impl Bed, _: &impl Bed) {
    let engine = start(bed);
    let twice = written(header(0, 2), |file| {
        for sequence in [3, 4] {
            file.answer(&answer("same", sequence)).expect("it is taken");
        }
    });
    file::verify(twice.as_slice()).expect("a reader does not remember all keys");
    let refused = import(&*engine, &replica(0), 1, false, twice.as_slice());
    assert!(matches!(refused, Err(FileImportError::Import(ImportError::Invalid { .. }))), "{refused:?}");
    assert_eq!(engine.partitions(), Ok(Vec::new()));
}

/// Two keys that every record sets to the same value: a view between two records would show it.
fn an_export_under_load_holds_exactly_the_records_up_to_its_sequence(bed: &impl Bed, _: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let padding = "p".repeat(20_000);
    for key in 0..100 {
        partition.commit(record(&[(&format!("m{key}"), &padding)])).wait().expect("it is committed");
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut sequence = partition.sequence().expect("a sequence");
            while !stop.load(Ordering::Relaxed) {
                let next = sequence.next().to_string();
                let keyed = keyed(&format!("key-{next}"), &next, &[("a", &next), ("z", &next)]);
                sequence = partition.commit(keyed).wait().expect("it is committed");
                assert_eq!(sequence.to_string(), next);
            }
            sequence
        });
        let mut last = 0;
        for _ in 0..20 {
            let (bytes, summary) = exported(&*engine, &replica(0));
            let sequence = summary.header.head.sequence.0;
            let mut values = Vec::new();
            let mut answers = 0;
            for part in parts(&bytes).expect("it is whole") {
                match part {
                    FilePart::Entries { entries, .. } => {
                        values.extend(entries.into_iter().filter(|(key, _)| key == "a" || key == "z"))
                    }
                    FilePart::Answers(page) => answers += page.len() as u64,
                }
            }
            if sequence > 100 {
                let value = Bytes::from(sequence.to_string());
                assert_eq!(values, [("a".to_owned(), value.clone()), ("z".to_owned(), value)]);
            }
            assert_eq!(answers, sequence - 100);
            assert!(sequence >= last, "an export went back");
            last = sequence;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().expect("the writer ends").0 > 100, "nothing was written beside the exports");
    });
}

fn an_import_replaces_only_when_asked_and_its_numbers_never_go_back(bed: &impl Bed, _: &impl Bed) {
    let engine = start(bed);
    let old = open(&*engine, 0, 3);
    for key in ["one", "two"] {
        old.commit(keyed(key, key, &[(key, "1")])).wait().expect("it is committed");
    }
    let (bytes, _) = exported(&*engine, &replica(0));
    old.commit(keyed("three", "", &[("three", "1")])).wait().expect("it is committed");

    let refused = import(&*engine, &replica(0), 3, false, bytes.as_slice());
    let expected = ImportError::HasRecords { id: replica(0), sequence: Sequence(3) };
    assert!(matches!(refused, Err(FileImportError::Import(ref error)) if *error == expected), "{refused:?}");
    let refused = import(&*engine, &replica(0), 2, true, bytes.as_slice());
    assert!(matches!(refused, Err(FileImportError::Import(ImportError::Fenced { .. }))), "{refused:?}");
    assert_eq!(old.commit(record(&[("four", "1")])).wait(), Ok(Sequence(4)), "refusals changed nothing");

    let info = import(&*engine, &replica(0), 3, true, bytes.as_slice()).expect("it is imported");
    assert_eq!((info.epoch, info.sequence), (Epoch(3), Sequence(5)), "the replacement counts as a record");
    assert_eq!(old.commit(record(&[("five", "1")])).wait(), Err(CommitError::Removed));
    assert!(old.snapshot().is_err(), "who had the old state open reads the new one");
    let new = open(&*engine, 0, 3);
    assert_eq!([get(&*new, "two"), get(&*new, "three"), get(&*new, "four")], [Some("1".into()), None, None]);
    assert_eq!(new.commit(keyed("one", "", &[("x", "1")])).wait(), Err(CommitError::AlreadyApplied));
    assert_eq!(new.commit(keyed("three", "", &[("x", "1")])).wait(), Ok(Sequence(6)), "that never happened");
    check(&*engine, &replica(0)).expect("nothing is wrong");
}

fn an_import_whose_owner_changes_meanwhile_is_fenced(from: &impl Bed, to: &impl Bed) {
    let (source, target) = (start(from), start(to));
    fill(&*open(&*source, 0, 1));
    let (bytes, summary) = exported(&*source, &replica(0));
    drop(open(&*target, 0, 1));
    let mut begun = target.import(&replica(0), Epoch(1), false).expect("it begins");
    file::import(&mut FileReader::begin(bytes.as_slice()).expect("a file"), &mut *begun).expect("it is read");
    let newer = open(&*target, 0, 2);
    let refused = begun.finish(&(&summary.header.head).into());
    assert!(matches!(refused, Err(ImportError::Fenced { newest: Epoch(2), .. })), "{refused:?}");
    assert_eq!(newer.sequence(), Ok(Sequence(0)));
}

/// Gives some bytes and then fails, as a connection does.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(io::Error::other("the connection broke")),
            read => read,
        }
    }
}

fn an_import_that_breaks_off_or_is_damaged_changes_nothing(from: &impl Bed, to: &impl Bed) {
    let (source, target) = (start(from), start(to));
    fill(&*open(&*source, 0, 1));
    let (bytes, _) = exported(&*source, &replica(0));
    let there = open(&*target, 0, 1);
    there.commit(record(&[("mine", "1")])).wait().expect("it is committed");
    let (before, _) = exported(&*target, &replica(0));
    for length in [0, 11, 3_000, bytes.len() / 2, bytes.len() - 1] {
        let broken = import(&*target, &replica(0), 1, true, Breaks(&bytes[..length]));
        assert!(matches!(broken, Err(FileImportError::File(FileError::Io { .. }))), "{broken:?}");
        let mut damaged = bytes.clone();
        damaged[length] ^= 1;
        assert!(import(&*target, &replica(0), 1, true, damaged.as_slice()).is_err());
    }
    assert_eq!(exported(&*target, &replica(0)).0, before);
    assert_eq!(there.commit(record(&[("mine", "2")])).wait(), Ok(Sequence(2)));
}

macro_rules! transfer_of {
    ($engine:ident, $bed:expr, [$($case:ident,)*]) => {
        mod $engine {
            use super::*;
            $(#[test]
            fn $case() {
                super::$case(&$bed, &$bed);
            })*
        }
    };
}

transfer_of!(
    local,
    LocalBed::new(),
    [
        a_partition_comes_out_of_a_file_as_it_went_in,
        an_empty_partition_and_none_at_all_are_told_apart,
        a_key_that_is_answered_twice_is_refused_by_the_engine_and_leaves_nothing,
        an_export_under_load_holds_exactly_the_records_up_to_its_sequence,
        an_import_replaces_only_when_asked_and_its_numbers_never_go_back,
        an_import_whose_owner_changes_meanwhile_is_fenced,
        an_import_that_breaks_off_or_is_damaged_changes_nothing,
    ]
);
