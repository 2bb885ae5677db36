//! What a command commits: its writes, its answer and its meter, as one record.

use std::collections::BTreeMap;

use bytes::Bytes;
use hvm_types::{ByteSize, Meter};

use super::{CommitError, Exchange, Idempotency, Retention};

/// Longest name of a bucket.
pub const MAX_BUCKET_BYTES: usize = 255;
/// Longest key.
pub const MAX_KEY_BYTES: usize = 4096;
/// Most bytes in all parts of one record.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// One command's durable effect. It is committed wholly or not at all.
#[derive(Debug, Clone)]
pub struct CommitRecord {
    /// What it wrote.
    pub writes: WriteSet,
    /// Its idempotency key and answer, if the request had a key.
    pub idempotency: Option<Idempotency>,
    /// The request and its answer where they have no key: only history keeps them.
    pub exchange: Option<Exchange>,
    /// What it says of the layout of the partition's state; none where that stays.
    pub schema: Option<SchemaMark>,
    /// What it used, and what was used since the last record.
    pub meter: Meter,
    /// Most bytes of keys and values that the partition may hold. A record that makes it smaller passes
    /// even above it.
    pub quota: ByteSize,
    /// What the partition keeps of its past from this record on.
    pub retention: Retention,
    /// Time of the commit in milliseconds since 1970: history and the idempotency window age by it.
    pub unix_millis: u64,
}

/// What a record says of the layout of the partition's state, whose versions are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaMark {
    /// It is in this one.
    Is(u32),
    /// This record brings it into this one. Where it is in it, the record is refused as already applied: nothing is
    /// migrated twice.
    Migrated(u32),
}

impl CommitRecord {
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let limit = |what, bytes, limit| {
            if bytes > limit { Err(CommitError::TooLarge { what, bytes, limit }) } else { Ok(()) }
        };
        for (bucket, writes) in &self.writes.buckets {
            limit("the name of a bucket", bucket.len(), MAX_BUCKET_BYTES)?;
            for key in writes.keys() {
                limit("a key", key.len(), MAX_KEY_BYTES)?;
            }
        }
        limit("the record", self.bytes(), MAX_RECORD_BYTES)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.writes.bytes()
            + self.idempotency.as_ref().map_or(0, |i| i.key.as_str().len() + i.response.bytes())
            + self.exchange.as_ref().map_or(0, |exchange| exchange.response.bytes())
    }
}

/// Writes of one command, by bucket and key, the last one of each. `None` deletes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    buckets: BTreeMap<String, BTreeMap<String, Option<Bytes>>>,
    bytes: usize,
}

impl WriteSet {
    /// Sets a key.
    pub fn put(&mut self, bucket: &str, key: &str, value: Bytes) {
        self.insert(bucket, key, Some(value));
    }

    /// Deletes a key.
    pub fn delete(&mut self, bucket: &str, key: &str) {
        self.insert(bucket, key, None);
    }

    fn insert(&mut self, bucket: &str, key: &str, value: Option<Bytes>) {
        if !self.buckets.contains_key(bucket) {
            self.buckets.insert(bucket.to_owned(), BTreeMap::new());
        }
        let writes = self.buckets.get_mut(bucket).expect("the bucket was just made");
        let size = |value: &Option<Bytes>| key.len() + value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        if let Some(old) = writes.get_mut(key) {
            self.bytes -= size(old);
            *old = value;
        } else {
            writes.insert(key.to_owned(), value);
        }
    }

    /// What was written to a key: `None` where nothing was, `Some(None)` where it was deleted.
    #[must_use]
    pub fn get(&self, bucket: &str, key: &str) -> Option<Option<&Bytes>> {
        self.buckets.get(bucket)?.get(key).map(Option::as_ref)
    }

    /// The writes to one bucket, in byte order of their keys.
    #[must_use]
    pub fn bucket(&self, bucket: &str) -> Option<&BTreeMap<String, Option<Bytes>>> {
        self.buckets.get(bucket)
    }

    /// All writes: bucket, key, value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Option<&Bytes>)> {
        self.buckets.iter().flat_map(|(bucket, writes)| {
            writes.iter().map(|(key, value)| (bucket.as_str(), key.as_str(), value.as_ref()))
        })
    }

    /// Bytes of the keys and values here.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}
