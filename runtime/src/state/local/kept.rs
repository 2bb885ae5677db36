//! Kept records: how one is written down, and reading a page of them.
//!
//! A record is its fields, then, as raw bytes without limits between them, the written values in their order and
//! the answer's body. The fields say how long each is.

use bytes::Bytes;
use hvm_types::{Digest, Epoch, Meter, Sequence};
use serde::{Deserialize, Serialize};

use super::codec::{seal, unseal};
use super::layout::{Number, Past};
use super::stage::{corrupt, read_past};
use super::store::View;
use crate::state::{
    CommitRecord, Exchange, HistoryPage, KeptRecord, MAX_PAGE_RECORDS, ReadError, StoredResponse, WriteSet,
};

/// A page ends with the record that reaches this.
const PAGE_BYTES: usize = 4 << 20;

/// A record without its values and body.
#[derive(Serialize, Deserialize)]
struct Fields {
    epoch: Epoch,
    sequence: Sequence,
    unix_millis: u64,
    meter: Meter,
    key: Option<String>,
    exchange: Option<ExchangeFields>,
    writes: Vec<BucketFields>,
}

#[derive(Serialize, Deserialize)]
struct ExchangeFields {
    request: [u8; 32],
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: usize,
}

/// A bucket's name, and each key with its value's length; none where it was deleted.
type BucketFields = (String, Vec<(String, Option<usize>)>);

/// The record as it is stored.
pub(super) fn encode(record: &CommitRecord, epoch: Epoch, sequence: Sequence) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut writes: Vec<BucketFields> = Vec::new();
    for (bucket, key, value) in record.writes.iter() {
        if writes.last().is_none_or(|(last, _)| last != bucket) {
            writes.push((bucket.to_owned(), Vec::new()));
        }
        let (_, keys) = writes.last_mut().expect("the bucket was just made");
        keys.push((key.to_owned(), value.map(Bytes::len)));
        tail.extend_from_slice(value.map_or(&[][..], |value| &value[..]));
    }
    let idempotency = record.idempotency.as_ref();
    let answered = idempotency.map(|idempotency| (&idempotency.request, &idempotency.response));
    let answered =
        answered.or_else(|| record.exchange.as_ref().map(|exchange| (&exchange.request, &exchange.response)));
    let exchange = answered.map(|(request, response)| {
        tail.extend_from_slice(&response.body);
        ExchangeFields {
            request: *request.as_bytes(),
            status: response.status,
            headers: response.headers.iter().map(|(name, value)| (name.clone(), value.to_vec())).collect(),
            body: response.body.len(),
        }
    });
    let fields = Fields {
        epoch,
        sequence,
        unix_millis: record.unix_millis,
        meter: record.meter.clone(),
        key: idempotency.map(|idempotency| idempotency.key.as_str().to_owned()),
        exchange,
        writes,
    };
    seal(&fields, &tail)
}

fn decode(bytes: &[u8]) -> Result<KeptRecord, ReadError> {
    let damaged = |what: &str| ReadError::Corrupt { what: format!("a kept record has {what}") };
    let (fields, mut tail): (Fields, _) = unseal(bytes).map_err(corrupt)?;
    let mut take = |length: usize| -> Result<Bytes, ReadError> {
        let (taken, rest) = tail.split_at_checked(length).ok_or_else(|| damaged("too few bytes"))?;
        tail = rest;
        Ok(Bytes::copy_from_slice(taken))
    };
    let mut writes = WriteSet::default();
    for (bucket, keys) in &fields.writes {
        for (key, length) in keys {
            match length {
                Some(length) => writes.put(bucket, key, take(*length)?),
                None => writes.delete(bucket, key),
            }
        }
    }
    let exchange = match fields.exchange {
        None => None,
        Some(exchange) => {
            let headers = exchange.headers.into_iter().map(|(name, value)| (name, Bytes::from(value)));
            let headers = headers.collect();
            let response = StoredResponse { status: exchange.status, headers, body: take(exchange.body)? };
            Some(Exchange { request: Digest::from_bytes(exchange.request), response })
        }
    };
    if !tail.is_empty() {
        return Err(damaged("more bytes than it says"));
    }
    let key = fields.key.map(|key| key.parse().map_err(|_| damaged("no valid idempotency key")));
    Ok(KeptRecord {
        epoch: fields.epoch,
        sequence: fields.sequence,
        key: key.transpose()?,
        exchange,
        writes,
        meter: fields.meter,
        unix_millis: fields.unix_millis,
    })
}

/// When a stored record was committed.
pub(super) fn unix_millis(bytes: &[u8]) -> Result<u64, ReadError> {
    let (fields, _): (Fields, _) = unseal(bytes).map_err(corrupt)?;
    Ok(fields.unix_millis)
}

/// What a record that should be there and is not means.
pub(super) fn lost(sequence: u64) -> ReadError {
    ReadError::Corrupt { what: format!("record {sequence} of its history is missing") }
}

/// The kept records after `after`.
pub(super) fn page(
    view: &View,
    number: Number,
    after: Sequence,
    limit: usize,
) -> Result<HistoryPage, ReadError> {
    let Past { first, next, .. } = read_past(view, number)?;
    if first == next {
        return Ok(HistoryPage::default());
    }
    let (mut records, mut bytes): (Vec<KeptRecord>, usize) = (Vec::new(), 0);
    let mut expected = after.0.saturating_add(1).max(first);
    while expected < next && records.len() < limit.clamp(1, MAX_PAGE_RECORDS) && bytes < PAGE_BYTES {
        let stored = view.get(&number.record(expected))?.ok_or_else(|| lost(expected))?;
        let record = decode(&stored)?;
        let in_order = records.last().is_none_or(|last| last.epoch <= record.epoch);
        if record.sequence.0 != expected || !in_order {
            let what = format!(
                "record {expected} of its history is record {} of epoch {}",
                record.sequence, record.epoch
            );
            return Err(ReadError::Corrupt { what });
        }
        bytes += stored.len();
        records.push(record);
        expected += 1;
    }
    let last = records.last().map(|record| record.sequence);
    Ok(HistoryPage { records, oldest: Some(Sequence(first)), next: last.filter(|_| expected < next) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hvm_types::ByteSize;

    use super::super::acknowledged::Acknowledged;
    use super::super::batch::Batch;
    use super::super::directory::Directory;
    use super::super::store::Store;
    use super::super::{LocalConfig, LocalEngine};
    use super::*;
    use crate::state::{HistoryWindow, Idempotency, Retention, StateEngine};

    #[test]
    fn a_record_reads_back_whole_and_every_flipped_bit_is_found() {
        let mut writes = WriteSet::default();
        writes.put("a", "k", Bytes::from_static(b"value"));
        writes.put("a", "empty", Bytes::new());
        writes.delete("b", "gone");
        let response = StoredResponse {
            status: 201,
            headers: vec![("x-a".to_owned(), Bytes::from_static(b"1"))],
            body: Bytes::from_static(b"done"),
        };
        let exchange = Exchange { request: Digest::of(b"request"), response: response.clone() };
        let record = CommitRecord {
            writes: writes.clone(),
            idempotency: None,
            exchange: Some(exchange.clone()),
            schema: None,
            meter: Meter { succeeded: 3, ..Meter::default() },
            quota: ByteSize(0),
            retention: Retention::default(),
            unix_millis: 77,
        };
        let expected = KeptRecord {
            epoch: Epoch(2),
            sequence: Sequence(9),
            key: None,
            exchange: Some(exchange.clone()),
            writes,
            meter: record.meter.clone(),
            unix_millis: 77,
        };
        let stored = encode(&record, Epoch(2), Sequence(9));
        assert_eq!(decode(&stored).as_ref(), Ok(&expected));
        assert_eq!(unix_millis(&stored), Ok(77));
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit} was flipped unseen");
        }

        let key: crate::state::IdempotencyKey = "k".parse().expect("a valid key");
        let idempotency = Some(Idempotency { key: key.clone(), request: exchange.request, response });
        let keyed = CommitRecord { idempotency, exchange: None, ..record };
        let stored = encode(&keyed, Epoch(2), Sequence(9));
        assert_eq!(decode(&stored), Ok(KeptRecord { key: Some(key), ..expected }));
    }

    #[test]
    fn a_record_whose_lengths_do_not_fit_its_bytes_is_damage() {
        let fields = |body| Fields {
            epoch: Epoch(1),
            sequence: Sequence(1),
            unix_millis: 0,
            meter: Meter::default(),
            key: None,
            exchange: Some(ExchangeFields { request: [0; 32], status: 200, headers: Vec::new(), body }),
            writes: Vec::new(),
        };
        assert!(decode(&seal(&fields(4), b"body")).is_ok());
        for body in [0, 3, 5, usize::MAX] {
            assert!(decode(&seal(&fields(body), b"body")).is_err(), "{body} bytes of 4");
        }
    }

    const RECORDS: u64 = 5;

    fn kept_record() -> CommitRecord {
        let window = HistoryWindow { records: 100, bytes: ByteSize::mib(1), age: Duration::MAX };
        CommitRecord {
            writes: WriteSet::default(),
            idempotency: None,
            exchange: None,
            schema: None,
            meter: Meter::default(),
            quota: ByteSize(0),
            retention: Retention { history: Some(window), idempotency: None },
            unix_millis: 0,
        }
    }

    /// Reads a history that was damaged in this way while its engine was not running.
    fn history_after(damage: impl FnOnce(&Store, &mut Batch)) -> Result<HistoryPage, ReadError> {
        let directory = tempfile::tempdir().expect("a directory");
        let id = "ledger/accounts/0".parse().expect("a valid id");
        let start = || LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts");
        let engine = start();
        let partition = engine.open(&id, Epoch(1)).expect("the partition opens");
        for _ in 0..RECORDS {
            partition.commit(kept_record()).wait().expect("the record is committed");
        }
        drop((partition, engine));
        {
            let directory = Arc::new(Directory::lock(directory.path()).expect("nobody has it"));
            let count = Acknowledged::read(&directory.acknowledged()).expect("the file");
            let (store, chain) = Store::open(&directory, 1 << 20, count).expect("the database opens");
            let mut batch = Batch::default();
            damage(&store, &mut batch);
            batch.close(chain.expect("it has batches"));
            store.commit(batch.writes).expect("it is written");
        }
        let engine = start();
        engine.open(&id, Epoch(1)).expect("the partition opens").history(Sequence(0), 100)
    }

    #[test]
    fn a_history_that_is_not_as_it_was_committed_is_an_error_that_says_where() {
        // The first partition of a database has the number 1.
        let number = Number(1);
        assert_eq!(history_after(|_, _| {}).map(|page| page.records.len() as u64), Ok(RECORDS));
        let lost = history_after(|_, batch| drop(batch.writes.insert(number.record(3), None)));
        assert_eq!(lost, Err(super::lost(3)));
        let replaced = history_after(|store, batch| {
            let other = store.view().get(&number.record(2)).expect("a read").expect("the second record");
            batch.writes.insert(number.record(4), Some(other.to_vec()));
        });
        let what = "record 4 of its history is record 2 of epoch 1".to_owned();
        assert_eq!(replaced, Err(ReadError::Corrupt { what }));
        let back = history_after(|_, batch| {
            batch.writes.insert(number.record(5), Some(encode(&kept_record(), Epoch(0), Sequence(5))));
        });
        let what = "record 5 of its history is record 5 of epoch 0".to_owned();
        assert_eq!(back, Err(ReadError::Corrupt { what }));
        let torn = history_after(|_, batch| {
            let mut record = encode(&kept_record(), Epoch(1), Sequence(1));
            record.pop();
            batch.writes.insert(number.record(1), Some(record));
        });
        assert!(matches!(torn, Err(ReadError::Corrupt { .. })), "{torn:?}");
    }
}
