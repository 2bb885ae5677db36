//! State files: what is cut, damaged or contradicts itself is found.

use std::io::{self, Read};

use bytes::Bytes;
use hvm_runtime::state::file::{
    self, ExportError, FileError, FileHeader, FileImportError, FilePart, FileReader, FileSummary, FileWriter,
    Origin,
};
use hvm_runtime::state::{
    Idempotency, PartitionInfo, PartitionState, ScanHead, StateEngine, StoredResponse, WindowAnswer,
};
use hvm_types::{ByteSize, Digest, Epoch, Meter, ReplicaId, Sequence};

use crate::bed::{LocalBed, keyed, open, record, replica};

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

pub(crate) fn header(stored: u64, answers: u64) -> FileHeader {
    let head = ScanHead {
        epoch: Epoch(1),
        sequence: Sequence(9),
        unix_millis: 1,
        stored: ByteSize(stored),
        answers,
        schema: None,
        meter: Meter::default(),
    };
    FileHeader { partition: replica(0), origin: Origin::default(), head }
}

pub(crate) fn answer(key: &str, sequence: u64) -> WindowAnswer {
    let response = StoredResponse { status: 200, headers: Vec::new(), body: Bytes::from_static(b"ok") };
    let idempotency =
        Idempotency { key: key.parse().expect("a key"), request: Digest::of(b"request"), response };
    WindowAnswer { idempotency, sequence: Sequence(sequence), unix_millis: 5 }
}

/// A file with right checksums, whatever it says.
pub(crate) fn written(header: FileHeader, write: impl FnOnce(&mut FileWriter<Vec<u8>>)) -> Vec<u8> {
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
