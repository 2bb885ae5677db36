//! State files: what an engine holds goes into one and comes out of it again, and what is not whole is found.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hvm_runtime::state::file::{
    self, ExportError, FileError, FileHeader, FileImportError, FilePart, FileReader, FileSummary, FileWriter,
    Origin,
};
use hvm_runtime::state::{
    CommitError, Idempotency, IdempotencyKey, ImportError, PartitionInfo, PartitionState, ScanHead,
    StateEngine, StoredResponse, WindowAnswer,
};
use hvm_types::{ByteSize, Digest, Epoch, Meter, ReplicaId, Sequence};

use crate::bed::{LocalBed, get, keyed, open, record, replica};

pub(crate) fn exported(engine: &dyn StateEngine, id: &ReplicaId) -> (Vec<u8>, FileSummary) {
    let scan = engine.scan(id).expect("a read").expect("the partition is there");
    let origin = Origin { app: Some("ledger 1.0.0".to_owned()), ..Origin::default() };
    file::export(&*scan, id, origin, Vec::new()).expect("it is exported")
}

pub(crate) fn import(
    engine: &dyn StateEngine,
    id: &ReplicaId,
    epoch: u64,
    replace: bool,
    from: impl Read,
) -> Result<PartitionInfo, FileImportError> {
    let mut import = engine.import(id, Epoch(epoch), replace)?;
    let summary = file::import(&mut FileReader::begin(from)?, &mut *import)?;
    Ok(import.finish(&(&summary.header.head).into())?)
}

/// All parts of a file.
pub(crate) fn parts(bytes: &[u8]) -> Result<Vec<FilePart>, FileError> {
    let mut reader = FileReader::begin(bytes)?;
    let mut parts = Vec::new();
    while let Some(part) = reader.next_part()? {
        parts.push(part);
    }
    Ok(parts)
}

/// Keys in several buckets, of many sizes, some deleted again, and answers.
pub(crate) fn fill(partition: &dyn PartitionState) {
    for round in 0..40 {
        let mut record = keyed(&format!("key-{round}"), &format!("answer {round}"), &[]);
        for bucket in ["", "default", "a", "zz", "äöü"] {
            for key in 0..8 {
                let value = vec![b'v'; (round * 97 + key * 13) % 5_000];
                record.writes.put(bucket, &format!("{}-{key}", round % 23), Bytes::from(value));
            }
        }
        record.writes.put("default", "", Bytes::from_static(b"the empty key"));
        record.writes.delete("a", &format!("{}-3", (round + 1) % 23));
        partition.commit(record).wait().expect("the record is committed");
    }
    let large = "x".repeat(3 << 20);
    partition.commit(record(&[("large", &large)])).wait().expect("the record is committed");
}

#[test]
fn a_partition_comes_out_of_a_file_as_it_went_in() {
    let (from, to) = (LocalBed::new(), LocalBed::new());
    let (source, target) = (from.engine(), to.engine());
    let partition = open(&source, 0, 7);
    fill(&*partition);
    let (bytes, summary) = exported(&source, &replica(0));
    assert_eq!(summary.digest, Digest::of(&bytes));
    assert_eq!(file::verify(bytes.as_slice()).expect("it is whole"), summary);
    assert_eq!(exported(&source, &replica(0)).0, bytes, "the same state gives the same file");

    // Elsewhere it has another name and another owner; a second export differs in nothing else.
    let info = import(&target, &replica(5), 2, false, bytes.as_slice()).expect("it is imported");
    let before = &source.partitions().expect("a list")[0];
    let expected = PartitionInfo { id: replica(5), epoch: Epoch(2), ..before.clone() };
    assert_eq!((&info, target.partitions().expect("a list")), (&expected, vec![expected.clone()]));
    let (again, _) = exported(&target, &replica(5));
    assert_eq!(parts(&again).expect("it is whole"), parts(&bytes).expect("it is whole"));

    // It goes on from there: sequences, quota, and keys that were applied before the move.
    let moved = open(&target, 5, 2);
    assert_eq!(get(&*moved, "large").map(|value| value.len()), Some(3 << 20));
    assert_eq!(moved.meter(), partition.meter());
    assert_eq!(moved.commit(keyed("key-0", "", &[("a", "1")])).wait(), Err(CommitError::AlreadyApplied));
    let key: IdempotencyKey = "key-39".parse().expect("a key");
    assert_eq!(moved.answer(&key), partition.answer(&key));
    assert_eq!(moved.commit(record(&[("a", "1")])).wait(), Ok(summary.header.head.sequence.next()));
    drop((moved, target));
    let target = to.engine();
    let moved = open(&target, 5, 3);
    assert_eq!(get(&*moved, "").as_deref(), Some("the empty key"));
    let (head, entries) = check(&target, &replica(5)).expect("nothing is wrong");
    assert_eq!((head.epoch, entries), (Epoch(3), summary.entries + 1));
}

fn check(engine: &dyn StateEngine, id: &ReplicaId) -> Result<(ScanHead, u64), hvm_runtime::state::ReadError> {
    file::check(&*engine.scan(id).expect("a read").expect("the partition is there"))
}

#[test]
fn an_empty_partition_and_none_at_all_are_told_apart() {
    let (from, to) = (LocalBed::new(), LocalBed::new());
    let (source, target) = (from.engine(), to.engine());
    assert!(source.scan(&replica(0)).expect("a read").is_none());
    drop(open(&source, 0, 1));
    let (bytes, summary) = exported(&source, &replica(0));
    assert_eq!((summary.entries, summary.header.head.sequence), (0, Sequence(0)));
    // Opened and without a record, it may be filled without being asked to be replaced.
    drop(open(&target, 0, 4));
    let info = import(&target, &replica(0), 4, false, bytes.as_slice()).expect("it is imported");
    assert_eq!((info.epoch, info.sequence, info.stored), (Epoch(4), Sequence(0), ByteSize(0)));
}

#[test]
fn a_file_cut_anywhere_is_never_taken_for_whole() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let partition = open(&engine, 0, 1);
    for round in 0..60 {
        let padding = "p".repeat(round * 40);
        let record = keyed(&format!("key-{round}"), &padding, &[(&format!("k{round}"), &padding)]);
        partition.commit(record).wait().expect("the record is committed");
    }
    let (bytes, _) = exported(&engine, &replica(0));
    for length in (0..bytes.len()).step_by(512).chain(bytes.len() - 600..bytes.len()).chain(0..600) {
        match file::verify(&bytes[..length]) {
            Err(FileError::Cut { offset }) => assert_eq!(offset, length as u64),
            other => panic!("cut to {length} bytes: {other:?}"),
        }
    }
    let more = [&bytes[..], b"\0"].concat();
    let error = file::verify(more.as_slice()).expect_err("something follows").to_string();
    assert!(error.contains("something follows its end"), "{error}");
}

#[test]
fn a_flipped_bit_anywhere_is_found_at_its_block() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let partition = open(&engine, 0, 1);
    for round in 0..20 {
        let record = keyed(&format!("key-{round}"), "body", &[("a", "1"), (&format!("b{round}"), "2")]);
        partition.commit(record).wait().expect("the record is committed");
    }
    let (bytes, _) = exported(&engine, &replica(0));
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match file::verify(damaged.as_slice()) {
            Err(FileError::Damaged { offset, .. }) => {
                assert!(offset <= bit as u64 / 8, "bit {bit} was found at {offset}");
            }
            Err(FileError::NotAStateFile) => assert!(bit < 8 * 8),
            Err(FileError::Version { .. }) => assert!((8 * 8..12 * 8).contains(&bit)),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

fn header(stored: u64, answers: u64) -> FileHeader {
    let head = ScanHead {
        epoch: Epoch(1),
        sequence: Sequence(9),
        unix_millis: 1,
        stored: ByteSize(stored),
        answers,
        meter: Meter::default(),
    };
    FileHeader { partition: replica(0), origin: Origin::default(), head }
}

fn answer(key: &str, sequence: u64) -> WindowAnswer {
    let response = StoredResponse { status: 200, headers: Vec::new(), body: Bytes::from_static(b"ok") };
    let idempotency =
        Idempotency { key: key.parse().expect("a key"), request: Digest::of(b"request"), response };
    WindowAnswer { idempotency, sequence: Sequence(sequence), unix_millis: 5 }
}

/// A file with right checksums, whatever it says.
fn written(header: FileHeader, write: impl FnOnce(&mut FileWriter<Vec<u8>>)) -> Vec<u8> {
    let mut writer = FileWriter::begin(Vec::new(), header).expect("memory takes it");
    write(&mut writer);
    writer.finish().expect("memory takes it").0
}

#[test]
fn a_file_that_contradicts_itself_is_refused_though_its_checksums_are_right() {
    let damage =
        |bytes: Vec<u8>| file::verify(bytes.as_slice()).expect_err("it contradicts itself").to_string();
    let two = |first: (&'static str, &'static str), second: (&'static str, &'static str)| {
        written(header(6, 0), |file| {
            for (bucket, key) in [first, second] {
                file.entry(bucket, key, b"12").expect("it is taken");
            }
        })
    };
    file::verify(two(("a", "b"), ("a", "c")).as_slice()).expect("it is whole");
    for (first, second) in [(("a", "b"), ("a", "b")), (("a", "c"), ("a", "b")), (("b", "a"), ("a", "a"))] {
        assert!(damage(two(first, second)).contains("not in order"), "{first:?} {second:?}");
    }
    let said = damage(written(header(7, 0), |file| file.entry("a", "b", b"12").expect("it is taken")));
    assert!(said.contains("its keys and values have 3 bytes and it counts 7"), "{said}");
    let said = damage(written(header(0, 2), |file| file.answer(&answer("k", 3)).expect("it is taken")));
    assert!(said.contains("it has 1 answers and counts 2"), "{said}");
    for sequences in [[3, 3], [4, 3], [3, 10]] {
        let said = damage(written(header(0, 2), |file| {
            for (key, sequence) in ["k", "l"].into_iter().zip(sequences) {
                file.answer(&answer(key, sequence)).expect("it is taken");
            }
        }));
        assert!(said.contains("answers are not in order"), "{sequences:?}: {said}");
    }
}

#[test]
fn a_key_that_is_answered_twice_is_refused_by_the_engine_and_leaves_nothing() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let twice = written(header(0, 2), |file| {
        for sequence in [3, 4] {
            file.answer(&answer("same", sequence)).expect("it is taken");
        }
    });
    file::verify(twice.as_slice()).expect("a reader does not remember all keys");
    let refused = import(&engine, &replica(0), 1, false, twice.as_slice());
    assert!(matches!(refused, Err(FileImportError::Import(ImportError::Invalid { .. }))), "{refused:?}");
    assert_eq!(engine.partitions(), Ok(Vec::new()));
}

/// Two keys that every record sets to the same value: a view between two records would show it.
#[test]
fn an_export_under_load_holds_exactly_the_records_up_to_its_sequence() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let partition = open(&engine, 0, 1);
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
            let (bytes, summary) = exported(&engine, &replica(0));
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

#[test]
fn an_import_replaces_only_when_asked_and_its_numbers_never_go_back() {
    let bed = LocalBed::new();
    let engine = bed.engine();
    let old = open(&engine, 0, 3);
    for key in ["one", "two"] {
        old.commit(keyed(key, key, &[(key, "1")])).wait().expect("it is committed");
    }
    let (bytes, _) = exported(&engine, &replica(0));
    old.commit(keyed("three", "", &[("three", "1")])).wait().expect("it is committed");

    let refused = import(&engine, &replica(0), 3, false, bytes.as_slice());
    let expected = ImportError::HasRecords { id: replica(0), sequence: Sequence(3) };
    assert!(matches!(refused, Err(FileImportError::Import(ref error)) if *error == expected), "{refused:?}");
    let refused = import(&engine, &replica(0), 2, true, bytes.as_slice());
    assert!(matches!(refused, Err(FileImportError::Import(ImportError::Fenced { .. }))), "{refused:?}");
    assert_eq!(old.commit(record(&[("four", "1")])).wait(), Ok(Sequence(4)), "refusals changed nothing");

    let info = import(&engine, &replica(0), 3, true, bytes.as_slice()).expect("it is imported");
    assert_eq!((info.epoch, info.sequence), (Epoch(3), Sequence(5)), "the replacement counts as a record");
    assert_eq!(old.commit(record(&[("five", "1")])).wait(), Err(CommitError::Removed));
    assert!(old.snapshot().is_err(), "who had the old state open reads the new one");
    let new = open(&engine, 0, 3);
    assert_eq!([get(&*new, "two"), get(&*new, "three"), get(&*new, "four")], [Some("1".into()), None, None]);
    assert_eq!(new.commit(keyed("one", "", &[("x", "1")])).wait(), Err(CommitError::AlreadyApplied));
    assert_eq!(new.commit(keyed("three", "", &[("x", "1")])).wait(), Ok(Sequence(6)), "that never happened");
    check(&engine, &replica(0)).expect("nothing is wrong");
}

#[test]
fn an_import_whose_owner_changes_meanwhile_is_fenced() {
    let (from, to) = (LocalBed::new(), LocalBed::new());
    let (source, target) = (from.engine(), to.engine());
    fill(&*open(&source, 0, 1));
    let (bytes, summary) = exported(&source, &replica(0));
    drop(open(&target, 0, 1));
    let mut begun = target.import(&replica(0), Epoch(1), false).expect("it begins");
    file::import(&mut FileReader::begin(bytes.as_slice()).expect("a file"), &mut *begun).expect("it is read");
    let newer = open(&target, 0, 2);
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

#[test]
fn an_import_that_breaks_off_or_is_damaged_changes_nothing() {
    let (from, to) = (LocalBed::new(), LocalBed::new());
    let (source, target) = (from.engine(), to.engine());
    fill(&*open(&source, 0, 1));
    let (bytes, _) = exported(&source, &replica(0));
    let there = open(&target, 0, 1);
    there.commit(record(&[("mine", "1")])).wait().expect("it is committed");
    let (before, _) = exported(&target, &replica(0));
    for length in [0, 11, 3_000, bytes.len() / 2, bytes.len() - 1] {
        let broken = import(&target, &replica(0), 1, true, Breaks(&bytes[..length]));
        assert!(matches!(broken, Err(FileImportError::File(FileError::Io { .. }))), "{broken:?}");
        let mut damaged = bytes.clone();
        damaged[length] ^= 1;
        assert!(import(&target, &replica(0), 1, true, damaged.as_slice()).is_err());
    }
    assert_eq!(exported(&target, &replica(0)).0, before);
    assert_eq!(there.commit(record(&[("mine", "2")])).wait(), Ok(Sequence(2)));
}

#[test]
fn a_full_disk_under_an_export_is_an_error_and_no_file() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let bed = LocalBed::new();
    let engine = bed.engine();
    fill(&*open(&engine, 0, 1));
    let scan = engine.scan(&replica(0)).expect("a read").expect("the partition is there");
    let failed = file::export(&*scan, &replica(0), Origin::default(), Full(100_000)).err();
    assert!(matches!(failed, Some(ExportError::Write(_))), "{failed:?}");
}
