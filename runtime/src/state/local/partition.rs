//! Handles and snapshots of partitions of the local engine.

use std::sync::Arc;

use bytes::Bytes;
use hvm_types::{ByteSize, Digest, Epoch, Meter, Sequence};

use super::codec::unseal;
use super::kept;
use super::layout::{AnswerEntry, Number};
use super::shared::{Cell, CommitJob, Shared};
use super::stage::{corrupt, read_head, read_schema};
use super::store::View;
use crate::state::{
    CommitFuture, CommitRecord, HistoryPage, IdempotencyKey, KeyPage, MAX_BUCKET_BYTES, MAX_PAGE_KEYS,
    PartitionState, ReadError, Snapshot, StoredAnswer, StoredResponse,
};

/// Memory that a queued record takes beside its bytes, about.
const RECORD_OVERHEAD_BYTES: usize = 512;
/// Smaller values are copied out of their block, so that they don't keep it in memory.
const COPIED_BYTES: usize = 4096;

pub(in crate::state) struct LocalPartition {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    epoch: Epoch,
}

impl LocalPartition {
    pub(in crate::state) const fn new(shared: Arc<Shared>, cell: Arc<Cell>, epoch: Epoch) -> Self {
        Self { shared, cell, epoch }
    }
}

impl PartitionState for LocalPartition {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn sequence(&self) -> Result<Sequence, ReadError> {
        self.cell.check(self.epoch)?;
        Ok(self.cell.sequence())
    }

    fn stored_bytes(&self) -> Result<ByteSize, ReadError> {
        self.cell.check(self.epoch)?;
        Ok(ByteSize(self.cell.stored()))
    }

    fn schema(&self) -> Result<Option<u32>, ReadError> {
        self.cell.check(self.epoch)?;
        read_schema(&self.shared.view()?, self.cell.number)
    }

    fn meter(&self) -> Result<Meter, ReadError> {
        self.cell.check(self.epoch)?;
        let head = read_head(&self.shared.view()?, self.cell.number)?;
        head.map(|head| head.meter)
            .ok_or_else(|| ReadError::Corrupt { what: "a partition has no head".to_owned() })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        let published = self.shared.published();
        self.cell.check(self.epoch)?;
        let view = published.clone().map_err(|reason| ReadError::Unavailable { reason })?;
        let sequence = self.cell.sequence();
        drop(published);
        Ok(Box::new(LocalSnapshot { view, number: self.cell.number, sequence }))
    }

    fn commit(&self, record: CommitRecord) -> CommitFuture {
        if let Err(error) = record.check() {
            return CommitFuture::refused(error);
        }
        let (reply, future) = CommitFuture::pending();
        let bytes = record.bytes() + RECORD_OVERHEAD_BYTES;
        let cell = Arc::clone(&self.cell);
        self.shared.enqueue(CommitJob { cell, epoch: self.epoch, record, bytes, reply });
        future
    }

    fn answer(&self, key: &IdempotencyKey) -> Result<Option<StoredAnswer>, ReadError> {
        self.cell.check(self.epoch)?;
        let Some(bytes) = self.shared.view()?.get(&self.cell.number.answer(key.as_str()))? else {
            return Ok(None);
        };
        let (entry, body): (AnswerEntry, _) = unseal(&bytes).map_err(corrupt)?;
        let headers = entry.headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect();
        Ok(Some(StoredAnswer {
            request: Digest::from_bytes(entry.request),
            sequence: entry.sequence,
            response: StoredResponse { status: entry.status, headers, body: Bytes::copy_from_slice(body) },
        }))
    }

    fn history(&self, after: Sequence, limit: usize) -> Result<HistoryPage, ReadError> {
        self.cell.check(self.epoch)?;
        kept::page(&self.shared.view()?, self.cell.number, after, limit)
    }
}

struct LocalSnapshot {
    view: View,
    number: Number,
    sequence: Sequence,
}

impl Snapshot for LocalSnapshot {
    fn sequence(&self) -> Sequence {
        self.sequence
    }

    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, ReadError> {
        if bucket.len() > MAX_BUCKET_BYTES {
            return Ok(None);
        }
        let value = self.view.get(&self.number.value(bucket, key))?;
        Ok(value.map(|value| {
            if value.len() > COPIED_BYTES { Bytes::from_owner(value) } else { Bytes::copy_from_slice(&value) }
        }))
    }

    fn list_keys(&self, bucket: &str, cursor: Option<&str>, limit: usize) -> Result<KeyPage, ReadError> {
        if bucket.len() > MAX_BUCKET_BYTES {
            return Ok(KeyPage::default());
        }
        let limit = limit.clamp(1, MAX_PAGE_KEYS);
        let prefix = self.number.bucket(bucket);
        let after = cursor.map(|cursor| self.number.value(bucket, cursor).key);
        let mut keys = Vec::new();
        for key in self.view.keys(&prefix, after.as_deref()).take(limit + 1) {
            let key = key?;
            let name = String::from_utf8(key[prefix.key.len()..].to_vec())
                .map_err(|_| ReadError::Corrupt { what: "a key is not text".to_owned() })?;
            keys.push(name);
        }
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = if more { keys.last().cloned() } else { None };
        Ok(KeyPage { keys, next })
    }
}
