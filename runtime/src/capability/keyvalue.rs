//! `wasi:keyvalue`: a partition's durable state as its guest sees it.
//!
//! A guest reads the snapshot of its request with its own writes laid over it. Writes stay in the overlay;
//! committing or dropping them is decided when the command has ended. Queries are refused to write.
//!
//! Limits: keys of 1 to 1,024 bytes, values up to 1 MiB, 16 MiB of writes in one command, 1,000 keys and
//! 4 MiB of values in one batch.

use std::sync::Arc;

use bytes::Bytes;
use hvm_types::Sequence;
use wasmtime::component::{Resource, ResourceTable, ResourceTableError};

use super::bindings::wasi::keyvalue::{atomics, batch, store};
use super::listing;
use crate::memory::{Charge, Limiter};
use crate::progress::{Progress, Step};
use crate::state::{PartitionState, ReadError, Snapshot, WriteSet};
use crate::worker::give_way_in_time;

/// Longest key in bytes.
const MAX_KEY_BYTES: usize = 1 << 10;
/// Longest value in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most bytes that one command may write.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Most bytes of values that one batch may read or write: they are copied in one go.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Most keys of one batch.
const MAX_BATCH_KEYS: usize = 1_000;
/// What a write costs in memory beside its key and value.
const WRITE_OVERHEAD_BYTES: u64 = 128;

/// What the running request may do with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// No request runs.
    None,
    /// Read only.
    Query,
    /// Read and write.
    Command,
}

/// A store that a guest has opened.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Bucket {
    name: String,
}

/// Why an operation was refused; the guest sees it as the `error` of `wasi:keyvalue`.
#[derive(Debug)]
pub(crate) enum KeyvalueError {
    /// The store is not granted.
    AccessDenied,
    /// Anything else, in words.
    Other(String),
}

impl From<ResourceTableError> for KeyvalueError {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

/// The state as one instance reaches it.
pub(crate) struct Keyvalue {
    granted: Arc<[String]>,
    state: Option<Arc<dyn PartitionState>>,
    access: Access,
    /// Taken at the first use in a request.
    snapshot: Option<Box<dyn Snapshot>>,
    writes: WriteSet,
    held_bytes: u64,
    /// A failure to read, which fails the request whatever the guest makes of it.
    broken: Option<ReadError>,
}

/// What a request did to the state.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) writes: WriteSet,
    /// The last record in the snapshot that it read, if it read.
    pub(crate) seen: Option<Sequence>,
    pub(crate) broken: Option<ReadError>,
}

impl Keyvalue {
    pub(crate) fn new(granted: Arc<[String]>, state: Option<Arc<dyn PartitionState>>) -> Self {
        Self {
            granted,
            state,
            access: Access::None,
            snapshot: None,
            writes: WriteSet::default(),
            held_bytes: 0,
            broken: None,
        }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, access: Access) {
        self.access = access;
    }

    /// Takes the request's snapshot now, so that its last record is known before the guest answers. Nothing where there
    /// is no state.
    pub(crate) fn look(&mut self) -> Result<Option<Sequence>, ReadError> {
        let Some(state) = &self.state else { return Ok(None) };
        if self.granted.is_empty() {
            return state.sequence().map(Some);
        }
        let snapshot = state.snapshot()?;
        Ok(Some(self.snapshot.insert(snapshot).sequence()))
    }

    /// The request has ended; hands out what it did and forgets it.
    pub(crate) fn end(&mut self, limiter: &mut Limiter) -> Effects {
        self.access = Access::None;
        let seen = self.snapshot.take().map(|snapshot| snapshot.sequence());
        if self.held_bytes > 0 {
            limiter.release(std::mem::take(&mut self.held_bytes));
        }
        Effects { writes: std::mem::take(&mut self.writes), seen, broken: self.broken.take() }
    }
}

/// The state, and what it needs of the rest of the instance.
pub(crate) struct KeyvalueView<'a> {
    pub(crate) keyvalue: &'a mut Keyvalue,
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) limiter: &'a mut Limiter,
    /// The request that runs.
    pub(crate) progress: Option<&'a Progress>,
}

impl KeyvalueView<'_> {
    fn name(&self, bucket: &Resource<Bucket>) -> Result<String, KeyvalueError> {
        Ok(self.table.get(bucket)?.name.clone())
    }

    fn snapshot(&mut self) -> Result<&dyn Snapshot, KeyvalueError> {
        let keyvalue = &mut *self.keyvalue;
        if keyvalue.access == Access::None {
            return Err(KeyvalueError::Other("state can be used within a request only".to_owned()));
        }
        if keyvalue.snapshot.is_none() {
            let state = keyvalue.state.as_ref().ok_or(KeyvalueError::AccessDenied)?;
            match state.snapshot() {
                Ok(snapshot) => keyvalue.snapshot = Some(snapshot),
                Err(error) => return Err(Self::broken(&mut keyvalue.broken, error)),
            }
        }
        Ok(keyvalue.snapshot.as_deref().expect("it was taken above"))
    }

    fn broken(broken: &mut Option<ReadError>, error: ReadError) -> KeyvalueError {
        let told = KeyvalueError::Other(error.to_string());
        *broken = Some(error);
        told
    }

    fn read_one(&mut self, bucket: &str, key: &str) -> Result<Option<Bytes>, KeyvalueError> {
        let _reading = self.progress.map(|progress| progress.during(Step::State { keys: 1 }));
        self.read(bucket, key)
    }

    fn read(&mut self, bucket: &str, key: &str) -> Result<Option<Bytes>, KeyvalueError> {
        check_key(key)?;
        if let Some(written) = self.keyvalue.writes.get(bucket, key) {
            return Ok(written.cloned());
        }
        match self.snapshot()?.get(bucket, key) {
            Ok(value) => {
                self.limiter.count_read((key.len() + value.as_ref().map_or(0, Bytes::len)) as u64);
                Ok(value)
            }
            Err(error) => Err(Self::broken(&mut self.keyvalue.broken, error)),
        }
    }

    fn write(&mut self, bucket: &str, key: &str, value: Option<Vec<u8>>) -> Result<(), KeyvalueError> {
        match self.keyvalue.access {
            Access::Command => {}
            Access::Query => {
                return Err(KeyvalueError::Other(
                    "a query can't write: send a command (in HTTP: not GET, HEAD or OPTIONS)".to_owned(),
                ));
            }
            Access::None => {
                return Err(KeyvalueError::Other("state can be used within a request only".to_owned()));
            }
        }
        check_key(key)?;
        let value_bytes = value.as_ref().map_or(0, Vec::len);
        if value_bytes > MAX_VALUE_BYTES {
            return Err(too_much("a value", value_bytes, MAX_VALUE_BYTES));
        }
        // What is written again replaces what was written before.
        let bytes_with = |value_bytes: usize| key.len() + value_bytes;
        let before = self.keyvalue.writes.get(bucket, key).map(|old| bytes_with(old.map_or(0, Bytes::len)));
        let written = self.keyvalue.writes.bytes() - before.unwrap_or(0) + bytes_with(value_bytes);
        if written > MAX_REQUEST_BYTES {
            return Err(too_much("what one command writes", written, MAX_REQUEST_BYTES));
        }
        let held = |bytes: usize| bytes as u64 + WRITE_OVERHEAD_BYTES;
        let (held, given_back) = (held(bytes_with(value_bytes)), before.map_or(0, held));
        self.limiter.hold(held).map_err(|denied| KeyvalueError::Other(denied.to_string()))?;
        self.limiter.release(given_back);
        self.keyvalue.held_bytes = self.keyvalue.held_bytes + held - given_back;
        match value {
            Some(value) => self.keyvalue.writes.put(bucket, key, value.into()),
            None => self.keyvalue.writes.delete(bucket, key),
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), KeyvalueError> {
    match key.len() {
        0 => Err(KeyvalueError::Other("a key has at least one byte".to_owned())),
        bytes if bytes > MAX_KEY_BYTES => Err(too_much("a key", bytes, MAX_KEY_BYTES)),
        _ => Ok(()),
    }
}

fn check_batch(keys: usize) -> Result<(), KeyvalueError> {
    if keys > MAX_BATCH_KEYS {
        return Err(KeyvalueError::Other(format!(
            "a batch of {keys} keys is too long: {MAX_BATCH_KEYS} is the limit"
        )));
    }
    Ok(())
}

fn too_much(what: &str, bytes: usize, limit: usize) -> KeyvalueError {
    KeyvalueError::Other(format!("{what} of {bytes} bytes is too long: {limit} is the limit"))
}

impl store::Host for KeyvalueView<'_> {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, KeyvalueError> {
        // The stock host calls its only store by the empty name, and so do many guests.
        let name = if identifier.is_empty() { "default".to_owned() } else { identifier };
        if !self.keyvalue.granted.contains(&name) {
            return Err(KeyvalueError::AccessDenied);
        }
        Ok(self.table.push(Bucket { name })?)
    }

    fn convert_error(&mut self, error: KeyvalueError) -> wasmtime::Result<store::Error> {
        Ok(match error {
            KeyvalueError::AccessDenied => store::Error::AccessDenied,
            KeyvalueError::Other(text) => store::Error::Other(text),
        })
    }
}

impl store::HostBucket for KeyvalueView<'_> {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, KeyvalueError> {
        let bucket = self.name(&bucket)?;
        Ok(self.read_one(&bucket, &key)?.map(Vec::from))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), KeyvalueError> {
        let bucket = self.name(&bucket)?;
        self.write(&bucket, &key, Some(value))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), KeyvalueError> {
        let bucket = self.name(&bucket)?;
        self.write(&bucket, &key, None)
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, KeyvalueError> {
        let bucket = self.name(&bucket)?;
        Ok(self.read_one(&bucket, &key)?.is_some())
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, KeyvalueError> {
        let bucket = self.name(&bucket)?;
        self.snapshot()?;
        let _listing = self.progress.map(|progress| progress.during(Step::State { keys: 0 }));
        let Keyvalue { snapshot, writes, broken, .. } = &mut *self.keyvalue;
        let snapshot = snapshot.as_mut().expect("it was taken above");
        let page = listing::page(snapshot, writes.bucket(&bucket), &bucket, cursor.unwrap_or(0))
            .await
            .map_err(|error| Self::broken(broken, error))?;
        self.limiter.count_read(page.keys.iter().map(|key| key.len() as u64).sum());
        Ok(store::KeyResponse { keys: page.keys, cursor: page.next })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyvalueView<'_> {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, KeyvalueError> {
        let bucket = self.name(&bucket)?;
        let not_a_number = || KeyvalueError::Other(format!("the value of `{key}` is not a number"));
        let current = match self.read_one(&bucket, &key)? {
            None => 0,
            Some(value) => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(not_a_number)?,
        };
        let overflow = || KeyvalueError::Other(format!("incrementing `{key}` by {delta} overflows"));
        let sum: u64 = u64::checked_add(current, delta).ok_or_else(overflow)?;
        self.write(&bucket, &key, Some(sum.to_string().into_bytes()))?;
        Ok(sum)
    }
}

impl batch::Host for KeyvalueView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, KeyvalueError> {
        check_batch(keys.len())?;
        keys.iter().try_for_each(|key| check_key(key))?;
        let bucket = self.name(&bucket)?;
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let _reading = self.progress.map(|progress| progress.during(Step::State { keys: count }));
        let mut values = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        let mut held = Charge::none(Arc::clone(self.limiter.account()));
        for key in keys {
            let value = self.read(&bucket, &key)?;
            let length = value.as_ref().map_or(0, Bytes::len);
            bytes += length;
            if bytes > MAX_BATCH_BYTES {
                return Err(too_much("what one batch reads", bytes, MAX_BATCH_BYTES));
            }
            held.add(length as u64).map_err(|denied| KeyvalueError::Other(denied.to_string()))?;
            values.push(value.map(|value| (key, Vec::from(value))));
            // Each may come from the disk.
            give_way_in_time().await;
        }
        Ok(values)
    }

    fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> Result<(), KeyvalueError> {
        check_batch(key_values.len())?;
        let bytes = key_values.iter().map(|(_, value)| value.len()).sum();
        if bytes > MAX_BATCH_BYTES {
            return Err(too_much("what one batch writes", bytes, MAX_BATCH_BYTES));
        }
        let bucket = self.name(&bucket)?;
        key_values.into_iter().try_for_each(|(key, value)| self.write(&bucket, &key, Some(value)))
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), KeyvalueError> {
        check_batch(keys.len())?;
        let bucket = self.name(&bucket)?;
        keys.iter().try_for_each(|key| self.write(&bucket, key, None))
    }
}

#[cfg(test)]
mod tests {
    use hvm_types::ByteSize;

    use super::*;
    use crate::memory::{HostMemory, MemoryAccount};

    #[test]
    fn a_key_that_is_written_again_and_again_takes_the_room_of_one() {
        let host = HostMemory::new(ByteSize::mib(1));
        let account = MemoryAccount::new(ByteSize::kib(8), host, Arc::default());
        let mut limiter = Limiter::new(Arc::clone(&account));
        let mut keyvalue = Keyvalue::new(["default".to_owned()].into(), None);
        let mut table = ResourceTable::new();
        keyvalue.begin(Access::Command);
        let mut view = KeyvalueView {
            keyvalue: &mut keyvalue,
            table: &mut table,
            limiter: &mut limiter,
            progress: None,
        };
        for turn in 0..100 {
            let value = (turn % 10 > 0).then(|| vec![0; 100 * (turn % 10)]);
            view.write("default", "key", value).expect("it fits each time");
        }
        view.write("default", "other", Some(vec![0; 8 << 10])).expect_err("more than there is");
        assert_eq!(account.observe(), ByteSize(3 + 900 + WRITE_OVERHEAD_BYTES));
        keyvalue.end(&mut limiter);
        assert_eq!(account.observe(), ByteSize(0));
    }
}
