//! What every state engine promises. An engine is added with one line at the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hvm_runtime::state::{
    CommitError, CommitRecord, IdempotencyWindow, OpenError, PartitionState, ReadError, SchemaMark,
    StateEngine,
};
use hvm_types::{ByteSize, Digest, Epoch, Sequence};

use crate::bed::{Bed, LocalBed, SharedBed, get, keyed, open, record, replica};
use crate::history::*;
use crate::s3::S3Bed;

fn start(bed: &impl Bed) -> Arc<dyn StateEngine> {
    bed.start(IdempotencyWindow::default())
}

fn commit(partition: &dyn PartitionState, writes: &[(&str, &str)]) -> Sequence {
    partition.commit(record(writes)).wait().expect("the record is committed")
}

fn key(text: &str) -> hvm_runtime::state::IdempotencyKey {
    text.parse().expect("a valid key")
}

fn what_was_acknowledged_is_there_after_a_restart(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    assert_eq!(partition.sequence(), Ok(Sequence(0)));
    assert_eq!(commit(&*partition, &[("a", "1"), ("b", "2")]), Sequence(1));
    assert_eq!(commit(&*partition, &[("a", "3")]), Sequence(2));
    drop((partition, engine));

    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    assert_eq!(partition.sequence(), Ok(Sequence(2)));
    assert_eq!(partition.snapshot().expect("a snapshot").sequence(), Sequence(2));
    assert_eq!(get(&*partition, "a").as_deref(), Some("3"));
    assert_eq!(get(&*partition, "b").as_deref(), Some("2"));
    assert_eq!(commit(&*partition, &[]), Sequence(3), "sequences go on");
}

fn a_snapshot_stays_as_it_was_taken(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    commit(&*partition, &[("a", "1")]);
    let before = partition.snapshot().expect("a snapshot");
    for i in 0..100 {
        commit(&*partition, &[("a", "2"), (&format!("new-{i}"), "x")]);
    }
    assert_eq!(before.sequence(), Sequence(1));
    assert_eq!(before.get("default", "a"), Ok(Some(Bytes::from_static(b"1"))));
    assert_eq!(before.get("default", "new-0"), Ok(None));
    assert_eq!(before.list_keys("default", None, 10).expect("a page").keys, ["a"]);
    assert_eq!(get(&*partition, "a").as_deref(), Some("2"));
}

fn a_snapshot_never_shows_half_a_record(bed: &impl Bed) {
    const RECORDS: u64 = 300;
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 1..=RECORDS {
                let value = i.to_string();
                let sequence = commit(&*partition, &[("a", &value), ("m", &value), ("z", &value)]);
                let seen = partition.snapshot().expect("a snapshot").sequence();
                assert!(seen >= sequence, "record {sequence} was acknowledged but the view ends with {seen}");
            }
        });
        let mut last = Sequence(0);
        while !writer.is_finished() {
            let snapshot = partition.snapshot().expect("a snapshot");
            let expected = match snapshot.sequence() {
                Sequence(0) => None,
                sequence => Some(Bytes::from(sequence.to_string())),
            };
            for key in ["z", "a", "m"] {
                assert_eq!(snapshot.get("default", key), Ok(expected.clone()), "at {}", snapshot.sequence());
            }
            assert!(snapshot.sequence() >= last, "a view went back");
            last = snapshot.sequence();
        }
        writer.join().expect("the writer ends");
    });
}

fn records_are_committed_in_the_order_of_their_calls(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let futures: Vec<_> = (1..=500_u64).map(|i| partition.commit(record(&[("a", &i.to_string())]))).collect();
    for (i, future) in (1..).zip(futures) {
        assert_eq!(future.wait(), Ok(Sequence(i)));
    }
    assert_eq!(get(&*partition, "a").as_deref(), Some("500"));
}

fn the_version_of_the_layout_goes_with_its_record(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    assert_eq!(partition.schema(), Ok(None));
    commit(&*partition, &[("a", "1")]);
    assert_eq!(partition.schema(), Ok(None), "nobody said one");
    let marked = |mark, writes| CommitRecord { schema: Some(mark), ..record(writes) };
    let migrated = |version, writes| marked(SchemaMark::Migrated(version), writes);
    assert_eq!(partition.commit(migrated(2, &[("a", "2")])).wait(), Ok(Sequence(2)));
    let again = partition.commit(migrated(2, &[("a", "twice")])).wait();
    assert_eq!(again, Err(CommitError::AlreadyApplied), "no migration is applied twice");
    assert_eq!(partition.commit(marked(SchemaMark::Is(2), &[])).wait(), Ok(Sequence(3)));
    assert_eq!(partition.schema(), Ok(Some(2)));
    let too_much = CommitRecord { quota: ByteSize(0), ..migrated(3, &[("a", "more than before")]) };
    assert!(matches!(partition.commit(too_much).wait(), Err(CommitError::QuotaExceeded { .. })));
    assert_eq!(partition.schema(), Ok(Some(2)), "the record that said another was refused");
    commit(&*partition, &[("b", "1")]);
    drop((partition, engine));

    let engine = start(bed);
    let partition = open(&*engine, 0, 2);
    assert_eq!(partition.schema(), Ok(Some(2)), "it outlives the engine and the owner");
    assert_eq!(get(&*partition, "a").as_deref(), Some("2"));
    let stored = partition.stored_bytes().expect("a size");
    commit(&*partition, &[]);
    assert_eq!(partition.stored_bytes(), Ok(stored), "quotas don't count it");
    drop(partition);
    engine.remove(&replica(0)).expect("removed");
    assert_eq!(open(&*engine, 0, 3).schema(), Ok(None), "it went with the partition");
}

fn a_newer_epoch_fences_the_older_one(bed: &impl Bed) {
    let engine = start(bed);
    let old = open(&*engine, 0, 3);
    commit(&*old, &[("a", "old")]);
    let new = open(&*engine, 0, 4);
    let newest = Epoch(4);
    assert_eq!(old.commit(record(&[("a", "stale")])).wait(), Err(CommitError::Fenced { newest }));
    assert_eq!(old.snapshot().err(), Some(ReadError::Fenced { newest }));
    assert_eq!(old.answer(&key("k")), Err(ReadError::Fenced { newest }));
    assert_eq!(commit(&*new, &[("b", "new")]), Sequence(2), "the sequence goes on in the new epoch");
    let refused = engine.open(&replica(0), Epoch(3)).err();
    assert_eq!(refused, Some(OpenError::Fenced { id: replica(0), epoch: Epoch(3), newest }));
    drop((old, new, engine));

    let engine = start(bed);
    assert!(engine.open(&replica(0), Epoch(3)).is_err(), "the epoch was not durable");
    let again = open(&*engine, 0, 4);
    assert_eq!(get(&*again, "a").as_deref(), Some("old"));
    assert_eq!(get(&*again, "b").as_deref(), Some("new"));
}

fn an_epoch_without_a_commit_fences_too(bed: &impl Bed) {
    let engine = start(bed);
    drop(open(&*engine, 0, 9));
    drop(engine);
    let engine = start(bed);
    assert!(engine.open(&replica(0), Epoch(8)).is_err());
    assert_eq!(engine.partitions().expect("a list")[0].epoch, Epoch(9));
}

fn records_queued_before_a_fence_are_whole_or_absent(bed: &impl Bed) {
    let engine = start(bed);
    let old = open(&*engine, 0, 1);
    let futures: Vec<_> = (0..200).map(|i| old.commit(record(&[(&format!("k{i}"), "v")]))).collect();
    let new = open(&*engine, 0, 2);
    let sequence = new.sequence().expect("a sequence");
    let mut fenced = false;
    for (i, future) in futures.into_iter().enumerate() {
        let committed = future.wait();
        assert_eq!(get(&*new, &format!("k{i}")).is_some(), committed.is_ok(), "record {i}");
        assert!(!(fenced && committed.is_ok()), "record {i} passed the fence");
        assert!(
            committed.as_ref().is_ok_and(|s| *s <= sequence) || committed.is_err(),
            "record {i} came after the fence"
        );
        fenced |= committed.is_err();
    }
}

fn opening_with_the_same_epoch_goes_on(bed: &impl Bed) {
    let engine = start(bed);
    let first = open(&*engine, 0, 1);
    commit(&*first, &[("a", "1")]);
    let second = open(&*engine, 0, 1);
    assert_eq!(commit(&*second, &[("a", "2")]), Sequence(2));
    assert_eq!(commit(&*first, &[("a", "3")]), Sequence(3));
    assert_eq!(get(&*second, "a").as_deref(), Some("3"));
}

fn partitions_and_buckets_are_separate(bed: &impl Bed) {
    let engine = start(bed);
    let partitions: Vec<_> = (0..40).map(|i| open(&*engine, i, 1)).collect();
    for (i, partition) in partitions.iter().enumerate() {
        let mut record = record(&[("k", &i.to_string())]);
        record.writes.put("defaul", "tk", Bytes::from_static(b"other bucket"));
        partition.commit(record).wait().expect("the record is committed");
    }
    for (i, partition) in partitions.iter().enumerate() {
        assert_eq!(get(&**partition, "k"), Some(i.to_string()));
        let snapshot = partition.snapshot().expect("a snapshot");
        assert_eq!(snapshot.list_keys("default", None, 10).expect("a page").keys, ["k"]);
        assert_eq!(snapshot.list_keys("defaul", None, 10).expect("a page").keys, ["tk"]);
        assert_eq!(snapshot.list_keys("defaultk", None, 10).expect("a page").keys, [""; 0]);
    }
}

fn keys_are_listed_in_pages(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let mut record = record(&[]);
    for i in 0..25 {
        record.writes.put("default", &format!("key-{i:02}"), Bytes::new());
    }
    partition.commit(record).wait().expect("the record is committed");
    let mut deletion = crate::bed::record(&[]);
    deletion.writes.delete("default", "key-07");
    partition.commit(deletion).wait().expect("the record is committed");
    let snapshot = partition.snapshot().expect("a snapshot");
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = snapshot.list_keys("default", cursor.as_deref(), 8).expect("a page");
        assert!(page.keys.len() <= 8);
        listed.extend(page.keys);
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..25).filter(|i| *i != 7).map(|i| format!("key-{i:02}")).collect();
    assert_eq!((listed, pages), (expected, 3));
    assert_eq!(snapshot.get("default", "key-07"), Ok(None));
    assert_eq!(snapshot.get("default", "key-08"), Ok(Some(Bytes::new())), "an empty value is a value");
}

fn stored_bytes_count_what_is_there(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let stored = || partition.stored_bytes().expect("a size");
    commit(&*partition, &[("ab", "123"), ("c", "4567")]);
    assert_eq!(stored(), ByteSize(10));
    commit(&*partition, &[("ab", "1")]);
    assert_eq!(stored(), ByteSize(8));
    let mut deletion = record(&[]);
    deletion.writes.delete("default", "c");
    deletion.writes.delete("default", "never was");
    partition.commit(deletion).wait().expect("the record is committed");
    assert_eq!(stored(), ByteSize(3));
    let both = [partition.commit(record(&[("x", "12345")])), partition.commit(record(&[("x", "1")]))];
    assert_eq!(both.map(|future| future.wait()), [Ok(Sequence(4)), Ok(Sequence(5))]);
    assert_eq!(stored(), ByteSize(5));
}

fn a_quota_refuses_growth_and_lets_shrinking_pass(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let with_quota = |writes: &[(&str, &str)], quota| {
        partition.commit(CommitRecord { quota: ByteSize(quota), ..record(writes) }).wait()
    };
    assert_eq!(with_quota(&[("a", "123456789")], 10), Ok(Sequence(1)));
    let refused = with_quota(&[("a", "1"), ("b", "123456789")], 10);
    assert_eq!(refused, Err(CommitError::QuotaExceeded { stored: ByteSize(12), limit: ByteSize(10) }));
    assert_eq!(get(&*partition, "a").as_deref(), Some("123456789"), "a refused record leaves nothing");
    assert_eq!(get(&*partition, "b"), None);
    assert_eq!(
        with_quota(&[("a", "12345678")], 5),
        Ok(Sequence(2)),
        "it shrinks, so it passes above the quota"
    );
}

fn a_repeated_idempotency_key_gets_its_answer_and_is_not_applied(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    assert_eq!(partition.answer(&key("k1")), Ok(None));
    let first = keyed("k1", "first", &[("a", "1")]);
    assert_eq!(partition.commit(first).wait(), Ok(Sequence(1)));
    let again = keyed("k1", "second", &[("a", "2")]);
    assert_eq!(partition.commit(again.clone()).wait(), Err(CommitError::AlreadyApplied));
    let together = [
        partition.commit(keyed("k2", "x", &[("b", "1")])),
        partition.commit(keyed("k2", "y", &[("b", "2")])),
    ];
    let together = together.map(|future| future.wait());
    assert_eq!(together, [Ok(Sequence(2)), Err(CommitError::AlreadyApplied)]);
    drop((partition, engine));

    let engine = start(bed);
    let partition = open(&*engine, 0, 2);
    assert_eq!(partition.commit(again).wait(), Err(CommitError::AlreadyApplied));
    let answer = partition.answer(&key("k1")).expect("a read").expect("an answer");
    assert_eq!((answer.request, answer.sequence), (Digest::of(b"k1"), Sequence(1)));
    assert_eq!((answer.response.status, &*answer.response.body), (201, b"first".as_slice()));
    assert_eq!(answer.response.headers, [("content-type".to_owned(), Bytes::from_static(b"text/plain"))]);
    assert_eq!(get(&*partition, "a").as_deref(), Some("1"));
    assert_eq!(get(&*partition, "b").as_deref(), Some("1"));
}

fn the_idempotency_window_drops_the_oldest(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow { answers: 5, ..IdempotencyWindow::default() });
    let partition = open(&*engine, 0, 1);
    for i in 0..20 {
        partition.commit(keyed(&format!("k{i}"), "", &[])).wait().expect("the record is committed");
    }
    let kept: Vec<_> =
        (0..20).filter(|i| partition.answer(&key(&format!("k{i}"))).expect("a read").is_some()).collect();
    assert_eq!(kept, [15, 16, 17, 18, 19]);
    assert_eq!(engine.partitions().expect("a list")[0].answers, 5);
    let again = partition.commit(keyed("k0", "", &[])).wait();
    assert_eq!(again, Ok(Sequence(21)), "a key that left the window is new");
}

fn the_idempotency_window_ages(bed: &impl Bed) {
    let engine =
        bed.start(IdempotencyWindow { age: Duration::from_secs(10), ..IdempotencyWindow::default() });
    let partition = open(&*engine, 0, 1);
    let at = |seconds: u64, name: &str| {
        let record = CommitRecord { unix_millis: seconds * 1000, ..keyed(name, "", &[]) };
        partition.commit(record).wait().expect("the record is committed");
    };
    let is_kept = |name: &str| partition.answer(&key(name)).expect("a read").is_some();
    at(100, "a");
    at(105, "b");
    at(110, "c");
    assert!(is_kept("a"), "at the limit it is kept");
    at(112, "d");
    assert_eq!([is_kept("a"), is_kept("b"), is_kept("c"), is_kept("d")], [false, true, true, true]);
    at(200, "e");
    assert_eq!([is_kept("b"), is_kept("c"), is_kept("d"), is_kept("e")], [false, false, false, true]);
}

fn the_idempotency_window_bounds_its_bytes_and_keeps_the_newest(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow { bytes: ByteSize(1000), ..IdempotencyWindow::default() });
    let partition = open(&*engine, 0, 1);
    for name in ["a", "b", "c"] {
        partition.commit(keyed(name, &"x".repeat(400), &[])).wait().expect("the record is committed");
    }
    let is_kept = |name: &str| partition.answer(&key(name)).expect("a read").is_some();
    assert_eq!([is_kept("a"), is_kept("b"), is_kept("c")], [false, true, true]);
    partition.commit(keyed("d", &"x".repeat(5000), &[])).wait().expect("the record is committed");
    assert_eq!([is_kept("b"), is_kept("c"), is_kept("d")], [false, false, true]);
}

fn what_breaks_a_limit_is_refused(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let long = "k".repeat(5000);
    assert!(matches!(partition.commit(record(&[(&long, "")])).wait(), Err(CommitError::TooLarge { .. })));
    let mut wide = record(&[]);
    wide.writes.put(&long, "k", Bytes::new());
    assert!(matches!(partition.commit(wide).wait(), Err(CommitError::TooLarge { .. })));
    let mut huge = record(&[]);
    huge.writes.put("default", "k", Bytes::from(vec![0; 65 << 20]));
    assert!(matches!(partition.commit(huge).wait(), Err(CommitError::TooLarge { .. })));
    assert_eq!(partition.snapshot().expect("a snapshot").get(&long, "k"), Ok(None));
    assert_eq!(partition.sequence(), Ok(Sequence(0)));
}

fn a_removed_partition_starts_empty(bed: &impl Bed) {
    let engine = start(bed);
    let (removed, kept) = (open(&*engine, 0, 7), open(&*engine, 1, 7));
    for partition in [&removed, &kept] {
        partition.commit(keyed("k", "", &[("a", "1")])).wait().expect("the record is committed");
    }
    engine.remove(&replica(0)).expect("the partition is removed");
    engine.remove(&replica(0)).expect("removing what does not exist is no error");
    assert_eq!(removed.commit(record(&[("a", "2")])).wait(), Err(CommitError::Removed));
    assert_eq!(removed.snapshot().err(), Some(ReadError::Removed));
    let ids: Vec<_> = engine.partitions().expect("a list").into_iter().map(|info| info.id).collect();
    assert_eq!(ids, [replica(1)]);
    let again = open(&*engine, 0, 1);
    assert_eq!((again.sequence(), get(&*again, "a")), (Ok(Sequence(0)), None));
    assert_eq!(again.answer(&key("k")), Ok(None));
    drop((removed, kept, again, engine));

    let engine = start(bed);
    assert_eq!(get(&*open(&*engine, 0, 1), "a"), None);
    assert_eq!(get(&*open(&*engine, 1, 7), "a").as_deref(), Some("1"));
}

fn meters_and_sizes_add_up_over_restarts(bed: &impl Bed) {
    for round in 1..=3_u64 {
        let engine = start(bed);
        let partition = open(&*engine, 3, 1);
        for _ in 0..10 {
            commit(&*partition, &[("a", "12")]);
        }
        let info = engine.partitions().expect("a list").remove(0);
        assert_eq!((info.id, info.sequence, info.stored), (replica(3), Sequence(10 * round), ByteSize(3)));
        assert_eq!(info.meter.succeeded, 10 * round);
    }
}

fn handles_that_outlive_the_engine_are_refused(bed: &impl Bed) {
    let engine = start(bed);
    let partition = open(&*engine, 0, 1);
    let queued = partition.commit(record(&[("a", "1")]));
    drop(engine);
    assert_eq!(queued.wait(), Ok(Sequence(1)), "what was queued is committed first");
    assert!(matches!(partition.commit(record(&[])).wait(), Err(CommitError::Unavailable { .. })));
    assert!(matches!(partition.snapshot().err(), Some(ReadError::Unavailable { .. })));
    assert_eq!(get(&*open(&*start(bed), 0, 1), "a").as_deref(), Some("1"));
}

macro_rules! conformance {
    ($engine:ident, $bed:expr, [$($case:ident,)*]) => {
        mod $engine {
            use super::*;
            $(#[test]
            fn $case() {
                super::$case(&$bed);
            })*
        }
    };
}

macro_rules! conformance_of {
    ($engine:ident, $bed:expr) => {
        conformance!(
            $engine,
            $bed,
            [
                what_was_acknowledged_is_there_after_a_restart,
                a_snapshot_stays_as_it_was_taken,
                a_snapshot_never_shows_half_a_record,
                records_are_committed_in_the_order_of_their_calls,
                a_newer_epoch_fences_the_older_one,
                the_version_of_the_layout_goes_with_its_record,
                an_epoch_without_a_commit_fences_too,
                records_queued_before_a_fence_are_whole_or_absent,
                opening_with_the_same_epoch_goes_on,
                partitions_and_buckets_are_separate,
                keys_are_listed_in_pages,
                stored_bytes_count_what_is_there,
                a_quota_refuses_growth_and_lets_shrinking_pass,
                a_repeated_idempotency_key_gets_its_answer_and_is_not_applied,
                the_idempotency_window_drops_the_oldest,
                the_idempotency_window_ages,
                the_idempotency_window_bounds_its_bytes_and_keeps_the_newest,
                what_breaks_a_limit_is_refused,
                a_removed_partition_starts_empty,
                meters_and_sizes_add_up_over_restarts,
                handles_that_outlive_the_engine_are_refused,
                nothing_is_kept_unless_a_record_asks_for_it,
                kept_records_are_whole_and_in_order_over_restarts,
                history_is_read_in_pages_from_any_record,
                history_is_bounded_by_count_over_restarts,
                history_is_bounded_by_age_and_bytes,
                a_changed_history_holds_from_the_next_record_on,
                history_is_always_an_unbroken_end,
                records_strictly_grow_in_epoch_and_sequence,
                history_of_a_fenced_owner_is_not_read,
                a_record_brings_its_own_idempotency_window,
                an_answer_stays_in_its_window_over_restarts,
            ]
        );
    };
}

conformance_of!(local, LocalBed::new());
conformance_of!(shared_directory, SharedBed::new());
// Its puts are slow, and it differs from a directory in nothing but the store.
conformance!(
    shared_s3,
    S3Bed::new(),
    [
        what_was_acknowledged_is_there_after_a_restart,
        a_newer_epoch_fences_the_older_one,
        the_version_of_the_layout_goes_with_its_record,
        a_repeated_idempotency_key_gets_its_answer_and_is_not_applied,
        a_removed_partition_starts_empty,
        meters_and_sizes_add_up_over_restarts,
    ]
);
