//! What every state engine promises of the records that it keeps. Listed in [`conformance`](crate::conformance).

use std::time::Duration;

use bytes::Bytes;
use hvm_runtime::state::{
    CommitRecord, Exchange, HistoryPage, HistoryWindow, IdempotencyWindow, KeptRecord, PartitionState,
    Retention, StoredResponse,
};
use hvm_types::{ByteSize, Digest, Epoch, Meter, Sequence};

use crate::bed::{Bed, Numbers, keyed, open, record};

/// No limit but those that a test sets.
const ALL: HistoryWindow = HistoryWindow { records: u64::MAX, bytes: ByteSize(u64::MAX), age: Duration::MAX };

fn keeping(history: Option<HistoryWindow>, record: CommitRecord) -> CommitRecord {
    CommitRecord { retention: Retention { history, idempotency: None }, ..record }
}

fn commit(partition: &dyn PartitionState, history: Option<HistoryWindow>, value: &str) -> Sequence {
    let record = keeping(history, record(&[("a", value)]));
    partition.commit(record).wait().expect("the record is committed")
}

/// All that is kept, read in pages of `limit`.
fn read_all(partition: &dyn PartitionState, limit: usize) -> Vec<KeptRecord> {
    let (mut records, mut after) = (Vec::new(), Sequence(0));
    loop {
        let page = partition.history(after, limit).expect("a page");
        assert!(page.records.len() <= limit);
        records.extend(page.records);
        match page.next {
            Some(next) => after = next,
            None => return records,
        }
    }
}

fn kept(partition: &dyn PartitionState) -> Vec<u64> {
    read_all(partition, 1000).iter().map(|record| record.sequence.0).collect()
}

pub(crate) fn nothing_is_kept_unless_a_record_asks_for_it(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    assert_eq!(partition.history(Sequence(0), 10), Ok(HistoryPage::default()));
    partition.commit(keyed("k", "body", &[("a", "1")])).wait().expect("the record is committed");
    assert_eq!(partition.history(Sequence(0), 10), Ok(HistoryPage::default()));
}

pub(crate) fn kept_records_are_whole_and_in_order_over_restarts(bed: &impl Bed) {
    let exchange = Exchange {
        request: Digest::of(b"asked"),
        response: StoredResponse {
            status: 200,
            headers: vec![("x-a".to_owned(), Bytes::from_static(b"1"))],
            body: Bytes::from_static(b"done"),
        },
    };
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    let mut first = record(&[("a", "1"), ("b", "2")]);
    first.writes.put("other", "a", Bytes::new());
    first.writes.delete("other", "b");
    first.exchange = Some(exchange.clone());
    first.meter = Meter { cpu: Duration::from_micros(77), ..Meter::default() };
    let second = keyed("k", "answered", &[]);
    for record in [first.clone(), second.clone()] {
        partition.commit(keeping(Some(ALL), record)).wait().expect("the record is committed");
    }
    drop((partition, engine));

    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 5);
    partition.commit(keeping(Some(ALL), record(&[("c", "3")]))).wait().expect("the record is committed");
    let page = partition.history(Sequence(0), 10).expect("a page");
    assert_eq!((page.oldest, page.next), (Some(Sequence(1)), None));
    let idempotency = second.idempotency.expect("it has a key");
    let kept = |epoch, sequence, record: CommitRecord| KeptRecord {
        epoch: Epoch(epoch),
        sequence: Sequence(sequence),
        key: None,
        exchange: None,
        writes: record.writes,
        meter: record.meter,
        unix_millis: record.unix_millis,
    };
    let expected = [
        KeptRecord { exchange: Some(exchange), ..kept(1, 1, first) },
        KeptRecord {
            key: Some(idempotency.key),
            exchange: Some(Exchange { request: idempotency.request, response: idempotency.response }),
            ..kept(1, 2, keyed("k", "", &[]))
        },
        kept(5, 3, record(&[("c", "3")])),
    ];
    assert_eq!(page.records, expected);
}

pub(crate) fn history_is_read_in_pages_from_any_record(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    for i in 0..25 {
        commit(&*partition, Some(ALL), &i.to_string());
    }
    for limit in [1, 7, 25, 1000] {
        assert_eq!(read_all(&*partition, limit).len(), 25, "in pages of {limit}");
    }
    let page = partition.history(Sequence(20), 3).expect("a page");
    let sequences: Vec<_> = page.records.iter().map(|record| record.sequence.0).collect();
    assert_eq!((sequences, page.next), (vec![21, 22, 23], Some(Sequence(23))));
    for after in [25, 26, u64::MAX] {
        let page = partition.history(Sequence(after), 10).expect("a page");
        assert_eq!((page.records.len(), page.oldest, page.next), (0, Some(Sequence(1)), None));
    }
}

pub(crate) fn history_is_bounded_by_count_over_restarts(bed: &impl Bed) {
    let window = Some(HistoryWindow { records: 5, ..ALL });
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    // Also within one batch.
    let futures: Vec<_> = (0..20).map(|_| partition.commit(keeping(window, record(&[("a", "1")])))).collect();
    for future in futures {
        future.wait().expect("the record is committed");
    }
    assert_eq!(kept(&*partition), [16, 17, 18, 19, 20]);
    drop((partition, engine));

    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    assert_eq!(kept(&*partition), [16, 17, 18, 19, 20]);
    commit(&*partition, window, "1");
    assert_eq!(kept(&*partition), [17, 18, 19, 20, 21]);
    let page = partition.history(Sequence(3), 10).expect("a page");
    assert_eq!(page.oldest, Some(Sequence(17)), "a reader sees that records are gone");
}

pub(crate) fn history_is_bounded_by_age_and_bytes(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    let aged = Some(HistoryWindow { age: Duration::from_secs(10), ..ALL });
    let at = |seconds: u64| {
        let record = CommitRecord { unix_millis: seconds * 1000, ..record(&[]) };
        partition.commit(keeping(aged, record)).wait().expect("the record is committed");
    };
    for seconds in [100, 105, 110] {
        at(seconds);
    }
    assert_eq!(kept(&*partition), [1, 2, 3], "at the limit it is kept");
    at(112);
    assert_eq!(kept(&*partition), [2, 3, 4]);
    at(200);
    assert_eq!(kept(&*partition), [5]);

    let sized = Some(HistoryWindow { bytes: ByteSize(1000), ..ALL });
    for _ in 0..4 {
        commit(&*partition, sized, &"x".repeat(300));
    }
    assert_eq!(kept(&*partition), [8, 9]);
    commit(&*partition, sized, &"x".repeat(5000));
    assert_eq!(kept(&*partition), [10], "the newest stays, whatever its size");
}

pub(crate) fn a_changed_history_holds_from_the_next_record_on(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let partition = open(&*engine, 0, 1);
    for _ in 0..100 {
        commit(&*partition, Some(ALL), "1");
    }
    let few = Some(HistoryWindow { records: 3, ..ALL });
    commit(&*partition, few, "1");
    let left = kept(&*partition).len();
    assert!(left > 3, "one record removes a bounded number, and {left} are left");
    for _ in 0..10 {
        commit(&*partition, few, "1");
    }
    assert_eq!(kept(&*partition), [109, 110, 111]);

    commit(&*partition, None, "1");
    assert_eq!(kept(&*partition), [0; 0], "what is not kept would leave a gap");
    commit(&*partition, Some(ALL), "1");
    commit(&*partition, Some(ALL), "1");
    assert_eq!(kept(&*partition), [113, 114]);
    engine.remove(&crate::bed::replica(0)).expect("the partition is removed");
    let again = open(&*engine, 0, 1);
    assert_eq!(kept(&*again), [0; 0], "a new partition has no past");
}

/// The setting changes at random; what is kept is always the end of what was committed.
pub(crate) fn history_is_always_an_unbroken_end(bed: &impl Bed) {
    let mut numbers = Numbers::printed();
    let mut engine = bed.start(IdempotencyWindow::default());
    let mut partition = open(&*engine, 0, 1);
    let (mut sequence, mut since) = (0, 1);
    for step in 0..120 {
        let history = match numbers.below(3) {
            0 => None,
            1 => Some(HistoryWindow { records: 1 + numbers.next() % 40, ..ALL }),
            _ => Some(ALL),
        };
        for _ in 0..numbers.below(30) {
            sequence += 1;
            if history.is_none() {
                since = sequence + 1;
            }
            assert_eq!(commit(&*partition, history, &sequence.to_string()), Sequence(sequence));
        }
        if step % 30 == 29 {
            drop((partition, engine));
            engine = bed.start(IdempotencyWindow::default());
            partition = open(&*engine, 0, 1);
        }
        let records = read_all(&*partition, 1000);
        for (record, expected) in records.iter().rev().zip((since..=sequence).rev()) {
            assert_eq!(record.sequence.0, expected);
            let value = record.writes.get("default", "a").expect("it wrote it").expect("a value");
            assert_eq!(*value, Bytes::from(expected.to_string()));
        }
        assert!(records.len() as u64 <= sequence + 1 - since, "what was not kept is there");
        assert_eq!(records.is_empty(), since > sequence, "the newest is not kept");
    }
}

pub(crate) fn records_strictly_grow_in_epoch_and_sequence(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let mut handles = Vec::new();
    for epoch in [1, 2, 5, 6] {
        handles.push(open(&*engine, 0, epoch));
        // Those of older epochs try too.
        let futures: Vec<_> = handles
            .iter()
            .flat_map(|handle| (0..10).map(|_| handle.commit(keeping(Some(ALL), record(&[("a", "1")])))))
            .collect();
        let committed = futures.into_iter().filter_map(|future| future.wait().ok()).count();
        assert_eq!(committed, 10, "in epoch {epoch}");
    }
    let records = read_all(&**handles.last().expect("a handle"), 7);
    let numbers: Vec<_> = records.iter().map(|record| (record.epoch, record.sequence.0)).collect();
    let expected: Vec<_> = (1..=40)
        .zip([1, 2, 5, 6].into_iter().flat_map(|epoch| [Epoch(epoch); 10]))
        .map(|(sequence, epoch)| (epoch, sequence))
        .collect();
    assert_eq!(numbers, expected);
}

pub(crate) fn history_of_a_fenced_owner_is_not_read(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow::default());
    let old = open(&*engine, 0, 1);
    commit(&*old, Some(ALL), "1");
    let new = open(&*engine, 0, 2);
    assert!(old.history(Sequence(0), 1).is_err());
    assert_eq!(kept(&*new), [1]);
}

pub(crate) fn a_record_brings_its_own_idempotency_window(bed: &impl Bed) {
    let engine = bed.start(IdempotencyWindow { answers: 5, ..IdempotencyWindow::default() });
    let partition = open(&*engine, 0, 1);
    let commit = |name: String, answers: u64| {
        let idempotency = Some(IdempotencyWindow { answers, ..IdempotencyWindow::default() });
        let retention = Retention { history: None, idempotency };
        let record = CommitRecord { retention, ..keyed(&name, "", &[]) };
        partition.commit(record).wait().expect("the record is committed");
    };
    let answers = || engine.partitions().expect("a list")[0].answers;
    (0..20).for_each(|i| commit(format!("k{i}"), 10));
    assert_eq!(answers(), 10, "it is wider than the engine's");
    commit("k20".to_owned(), 2);
    assert_eq!(answers(), 2);
}

pub(crate) fn an_answer_stays_in_its_window_over_restarts(bed: &impl Bed) {
    let window = IdempotencyWindow { answers: 100, ..IdempotencyWindow::default() };
    for round in 0..4_u64 {
        let engine = bed.start(window);
        // A new owner each time: the window belongs to the partition.
        let partition = open(&*engine, 0, round + 1);
        for i in 0..round * 25 {
            let key = format!("k{i}").parse().expect("a valid key");
            let answer = partition.answer(&key).expect("a read").expect("an answer");
            assert_eq!(answer.sequence, Sequence(i + 1), "round {round}");
        }
        for i in round * 25..round * 25 + 25 {
            let name = format!("k{i}");
            assert_eq!(partition.commit(keyed(&name, "", &[])).wait(), Ok(Sequence(i + 1)));
        }
        let again = partition.commit(keyed("k0", "", &[])).wait();
        assert_eq!(again, Err(hvm_runtime::state::CommitError::AlreadyApplied), "round {round}");
    }
}
