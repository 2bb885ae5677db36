//! The same database for an engine whose truth is elsewhere: nothing is synced, and it is made anew at each
//! start. Records are checked and staged as in the local engine, but written in two steps: what a batch changes
//! is handed out first, and applied when it is durable where the truth is.
//!
//! The entries that are handed out and taken in are the keys of the [`layout`] without the
//! partition's number, because that differs from host to host.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use hvm_types::{ByteSize, Epoch, ReplicaId, Sequence};
use tokio::sync::Notify;

use super::codec::{seal, unseal};
use super::config::LocalConfig;
use super::directory::Directory;
use super::layout::{self, Head, Number, Past, Place};
use super::open::OpenPartitions;
use super::shared::{Cell, CommitJob, Job, Shared};
use super::stage::{Newest, Stage, corrupt, read_head, read_newest};
use super::store::{Store, Writes};
use crate::state::{CommitError, CommitReply, PartitionInfo, ReadError, StartError};

/// The head's key among a partition's entries: no other is so short.
const HEAD_KEY: &[u8] = b"h";
/// The key of what is known of its kept records, once there was one.
const PAST_KEY: &[u8] = b"k";
/// An image is taken in by batches of about this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Keys of a removed partition that are deleted in one batch.
const PURGED_PER_BATCH: usize = 1_000;

/// Entries of a partition: key and value.
pub(in crate::state) type Entries = BTreeMap<Bytes, Bytes>;

/// What a batch changes of one partition.
pub(in crate::state) struct PartitionWrites {
    pub(in crate::state) id: ReplicaId,
    /// The record before the first one.
    pub(in crate::state) after: Sequence,
    pub(in crate::state) last: Sequence,
    pub(in crate::state) writes: Vec<(Bytes, Option<Bytes>)>,
}

/// Why the database can't go on. It is made anew by a restart.
#[derive(Debug, thiserror::Error)]
#[error("keep state at hand in {path}: {reason}; restart the host's agent")]
pub(in crate::state) struct CacheFailure {
    path: String,
    reason: String,
}

/// Records that were staged together.
pub(in crate::state) struct CacheBatch {
    writes: Writes,
    newest: HashMap<Number, Option<Newest>>,
    waiting: Vec<(Number, Sequence, CommitReply)>,
    /// The sequence of each partition before the batch.
    before: HashMap<Number, Sequence>,
}

/// The database and the partitions in it.
pub(in crate::state) struct Cache {
    shared: Arc<Shared>,
    store: Store,
    directory: Arc<Directory>,
    next_number: u64,
    partitions: HashMap<ReplicaId, Arc<Cell>>,
    ids: HashMap<Number, ReplicaId>,
}

impl Cache {
    /// Makes an empty database in the directory. Its jobs arrive at the receiver, and each is notified.
    pub(in crate::state) fn create(
        config: LocalConfig,
        notify: Arc<Notify>,
    ) -> Result<(Self, Arc<Shared>, Receiver<Job>), StartError> {
        let directory = Arc::new(Directory::lock(&config.directory)?);
        let path = directory.database();
        if path.exists() {
            remove(&path)?;
        }
        let (store, _) = Store::open(&directory, config.cache.0, None)?;
        #[allow(
            clippy::disallowed_methods,
            reason = "bounded by what is counted in and out of it; a bounded channel makes room for all of it at once"
        )]
        let (sender, jobs) = channel();
        let shared = Arc::new(Shared::new(config, sender, store.view()).notifying(notify));
        let cache = Self {
            shared: Arc::clone(&shared),
            store,
            directory,
            next_number: 1,
            partitions: HashMap::new(),
            ids: HashMap::new(),
        };
        Ok((cache, shared, jobs))
    }

    pub(in crate::state) fn cell(&self, id: &ReplicaId) -> Option<&Arc<Cell>> {
        self.partitions.get(id)
    }

    /// Checks records, each against those before it, and answers those that can't be committed.
    pub(in crate::state) fn stage(&self, jobs: Vec<CommitJob>) -> CacheBatch {
        let mut batch = CacheBatch {
            writes: Writes::new(),
            newest: HashMap::new(),
            waiting: Vec::new(),
            before: HashMap::new(),
        };
        let view = match self.shared.view() {
            Ok(view) => view,
            Err(error) => {
                let error = CommitError::from(error);
                jobs.into_iter().for_each(|job| job.reply.send(Err(error.clone())));
                return batch;
            }
        };
        let none = OpenPartitions::default();
        let mut stage = Stage::new(&view, &none, self.shared.config.window);
        for CommitJob { cell, epoch, record, reply, .. } in jobs {
            let number = cell.number;
            let staged = cell.check(epoch).map_err(CommitError::from);
            match staged.and_then(|()| stage.commit(number, epoch, record)) {
                Ok(sequence) => {
                    batch.before.entry(number).or_insert(Sequence(sequence.0 - 1));
                    batch.waiting.push((number, sequence, reply));
                }
                Err(error) => reply.send(Err(error)),
            }
        }
        let bytes = stage.batch.bytes();
        (batch.writes, batch.newest) = (stage.batch.writes, stage.batch.newest);
        if !batch.waiting.is_empty()
            && let Err(error) = self.check_space(bytes)
        {
            batch.waiting.drain(..).for_each(|(_, _, reply)| reply.send(Err(error.clone())));
            (batch.writes, batch.newest, batch.before) = Default::default();
        }
        batch
    }

    fn check_space(&self, bytes: u64) -> Result<(), CommitError> {
        let config = &self.shared.config;
        let needed = config.reserve.0.saturating_add(self.store.unflushed_bytes());
        let needed = ByteSize(needed.saturating_add(bytes.saturating_mul(2)));
        let free = config.free_space.measure(self.directory.path()).map_err(|error| {
            CommitError::Unavailable { reason: format!("the disk's free space can't be measured: {error}") }
        })?;
        if free < needed { Err(CommitError::StorageFull { free, needed }) } else { Ok(()) }
    }

    /// What a batch changes, partition by partition.
    pub(in crate::state) fn changes(&self, batch: &CacheBatch) -> Vec<PartitionWrites> {
        let changed = batch.before.iter().filter_map(|(number, after)| {
            let (id, newest) = (self.ids.get(number)?, batch.newest.get(number)?.as_ref()?);
            let head = &newest.head;
            let prefix = number.everything();
            let range = batch.writes.range(prefix.clone()..);
            let own = range
                .take_while(|(place, _)| place.space == prefix.space && place.key.starts_with(&prefix.key));
            let mut writes: Vec<_> = own
                .map(|(place, value)| {
                    let key = Bytes::copy_from_slice(&place.key[prefix.key.len()..]);
                    (key, value.as_ref().map(|value| Bytes::copy_from_slice(value)))
                })
                .collect();
            writes.push((Bytes::from_static(HEAD_KEY), Some(Bytes::from(seal(head, &[])))));
            if let Some(Some(past)) = batch.writes.get(&number.past()) {
                writes.push((Bytes::from_static(PAST_KEY), Some(Bytes::copy_from_slice(past))));
            }
            Some(PartitionWrites { id: id.clone(), after: *after, last: head.sequence, writes })
        });
        let mut changes: Vec<_> = changed.collect();
        changes.sort_by(|a, b| a.id.cmp(&b.id));
        changes
    }

    /// Takes a partition's records out of a batch.
    pub(in crate::state) fn withdraw(&self, batch: &mut CacheBatch, id: &ReplicaId, why: &CommitError) {
        let Some(cell) = self.partitions.get(id) else { return };
        let number = cell.number;
        let (prefix, named) = (number.everything(), [number.head(), number.past()]);
        let is_own = |place: &Place| {
            named.contains(place) || (place.space == prefix.space && place.key.starts_with(&prefix.key))
        };
        batch.writes.retain(|place, _| !is_own(place));
        batch.newest.remove(&number);
        batch.before.remove(&number);
        for (_, _, reply) in batch.waiting.extract_if(.., |(of, ..)| *of == number) {
            reply.send(Err(why.clone()));
        }
    }

    /// Answers whoever waits for a batch.
    pub(in crate::state) fn give_up(batch: &mut CacheBatch, why: &CommitError) {
        batch.waiting.drain(..).for_each(|(_, _, reply)| reply.send(Err(why.clone())));
    }

    /// Makes a batch visible, and then answers.
    pub(in crate::state) fn apply(&mut self, batch: CacheBatch) -> Result<(), CacheFailure> {
        let CacheBatch { writes, newest, waiting, .. } = batch;
        self.write(writes, &newest)?;
        waiting.into_iter().for_each(|(_, sequence, reply)| reply.send(Ok(sequence)));
        Ok(())
    }

    fn write(&self, writes: Writes, newest: &HashMap<Number, Option<Newest>>) -> Result<(), CacheFailure> {
        if writes.is_empty() {
            return Ok(());
        }
        if let Err(failure) = self.store.apply(writes) {
            let failure = self.failure(format!("{failure:?}"));
            *self.shared.published() = Err(failure.to_string());
            return Err(failure);
        }
        let view = self.store.view();
        let mut published = self.shared.published();
        let before = std::mem::replace(&mut *published, Ok(view));
        for (number, newest) in newest {
            let cell = self.ids.get(number).and_then(|id| self.partitions.get(id));
            if let (Some(cell), Some(newest)) = (cell.filter(|cell| cell.number == *number), newest) {
                cell.publish(&newest.head);
            }
        }
        drop(published);
        drop(before);
        Ok(())
    }

    fn failure(&self, reason: String) -> CacheFailure {
        CacheFailure { path: self.directory.path().display().to_string(), reason }
    }

    /// Replaces a partition by these entries, or by an empty one.
    pub(in crate::state) fn install(
        &mut self,
        id: &ReplicaId,
        epoch: Epoch,
        entries: Option<&Entries>,
    ) -> Result<(), CacheFailure> {
        self.remove(id)?;
        let view = self.shared.view().map_err(|error| self.failure(error.to_string()))?;
        let none = OpenPartitions::default();
        let mut stage = Stage::new(&view, &none, self.shared.config.window);
        let opened = stage.open(id, epoch, &mut self.next_number);
        let Newest { mut head, .. } = opened.map_err(|error| self.failure(error.to_string()))?;
        let (mut last, newest) = (stage.batch.writes, stage.batch.newest);
        let number = head.number;
        let mut batch = (Writes::new(), 0);
        for (key, value) in entries.into_iter().flatten() {
            if key == HEAD_KEY {
                let (stored, _): (Head, _) =
                    unseal(value).map_err(|damage| self.failure(damage.to_string()))?;
                head = Head { number, epoch, ..stored };
                continue;
            }
            if key == PAST_KEY {
                let (stored, _): (Past, _) =
                    unseal(value).map_err(|damage| self.failure(damage.to_string()))?;
                last.insert(number.past(), Some(seal(&Past { number, ..stored }, &[])));
                continue;
            }
            let Place { space, key: mut place } = number.everything();
            place.extend_from_slice(key);
            batch.1 += place.len() + value.len();
            batch.0.insert(Place { space, key: place }, Some(value.to_vec()));
            if batch.1 >= BATCH_BYTES {
                self.write(std::mem::take(&mut batch.0), &newest)?;
                batch.1 = 0;
            }
        }
        self.write(batch.0, &newest)?;
        last.insert(number.head(), Some(seal(&head, &[])));
        self.write(last, &newest)?;
        self.ids.insert(number, id.clone());
        self.partitions.insert(id.clone(), Arc::new(Cell::new(&head)));
        Ok(())
    }

    /// Gives a partition this epoch; handles of older ones are fenced.
    pub(in crate::state) fn raise(&mut self, id: &ReplicaId, epoch: Epoch) -> Result<(), CacheFailure> {
        let failed = |error: ReadError| self.failure(error.to_string());
        let view = self.shared.view().map_err(failed)?;
        let Some(cell) = self.partitions.get(id) else {
            return Err(self.failure(format!("{id} is not there")));
        };
        let newest = read_newest(&view, cell.number).map_err(failed)?;
        let newest = newest.ok_or_else(|| self.failure(format!("{id} has no head")))?;
        let head = Head { epoch, ..newest.head };
        let writes = Writes::from([(head.number.head(), Some(seal(&head, &[])))]);
        let newest = Newest { head: head.clone(), ..newest };
        self.write(writes, &HashMap::from([(head.number, Some(newest))]))?;
        // A cell that was fenced stays so: the handles that have it are of an older claim.
        if cell.check(epoch).is_err() {
            self.partitions.insert(id.clone(), Arc::new(Cell::new(&head)));
        }
        Ok(())
    }

    /// Fences all handles of a partition.
    pub(in crate::state) fn fence(&self, id: &ReplicaId, newest: Epoch) {
        if let Some(cell) = self.partitions.get(id) {
            cell.fence(newest);
        }
    }

    /// Forgets a partition and deletes what it has.
    pub(in crate::state) fn remove(&mut self, id: &ReplicaId) -> Result<(), CacheFailure> {
        let Some(cell) = self.partitions.remove(id) else { return Ok(()) };
        cell.remove();
        let number = cell.number;
        self.ids.remove(&number);
        let view = self.shared.view().map_err(|error| self.failure(error.to_string()))?;
        let nothing = HashMap::new();
        let named = Writes::from([(layout::name(id), None), (number.head(), None), (number.past(), None)]);
        self.write(named, &nothing)?;
        let prefix = number.everything();
        let mut writes = Writes::new();
        for key in view.keys(&prefix, None) {
            let key = key.map_err(|error| self.failure(error.to_string()))?.to_vec();
            writes.insert(Place { space: prefix.space, key }, None);
            if writes.len() >= PURGED_PER_BATCH {
                self.write(std::mem::take(&mut writes), &nothing)?;
            }
        }
        self.write(writes, &nothing)
    }

    /// All entries of a partition and the sequence that they are of.
    pub(in crate::state) fn entries(&self, id: &ReplicaId) -> Result<(Sequence, Entries), ReadError> {
        let view = self.shared.view()?;
        let cell = self.partitions.get(id).ok_or(ReadError::Removed)?;
        let lost = || ReadError::Corrupt { what: "a partition has no head".to_owned() };
        let head = read_head(&view, cell.number)?.ok_or_else(lost)?;
        let prefix = cell.number.everything();
        let mut entries = Entries::new();
        for entry in view.entries(&prefix, None) {
            let (key, value) = entry?;
            let key = Bytes::copy_from_slice(&key[prefix.key.len()..]);
            entries.insert(key, Bytes::copy_from_slice(&value));
        }
        entries.insert(Bytes::from_static(HEAD_KEY), Bytes::from(seal(&head, &[])));
        if let Some(past) = view.get(&cell.number.past())? {
            entries.insert(Bytes::from_static(PAST_KEY), Bytes::copy_from_slice(&past));
        }
        Ok((head.sequence, entries))
    }

    /// What there is to say of a partition in here.
    pub(in crate::state) fn own_info(
        &self,
        id: &ReplicaId,
        epoch: Epoch,
    ) -> Result<PartitionInfo, ReadError> {
        let cell = self.partitions.get(id).ok_or(ReadError::Removed)?;
        let head = read_head(&self.shared.view()?, cell.number)?;
        let head = head.map(|head| (Bytes::from_static(HEAD_KEY), Bytes::from(seal(&head, &[]))));
        Self::info(id, epoch, &head.into_iter().collect())
    }

    /// What a partition's entries say of it.
    pub(in crate::state) fn info(
        id: &ReplicaId,
        epoch: Epoch,
        entries: &Entries,
    ) -> Result<PartitionInfo, ReadError> {
        let empty = PartitionInfo {
            id: id.clone(),
            epoch,
            sequence: Sequence(0),
            stored: ByteSize(0),
            answers: 0,
            meter: hvm_types::Meter::default(),
            owner: None,
        };
        let Some(head) = entries.get(HEAD_KEY) else { return Ok(empty) };
        let (head, _): (Head, _) = unseal(head).map_err(corrupt)?;
        Ok(PartitionInfo {
            sequence: head.sequence,
            stored: ByteSize(head.stored),
            answers: head.answers.next - head.answers.first,
            meter: head.meter,
            ..empty
        })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        *self.shared.published() = Err("the state engine has stopped".to_owned());
    }
}

fn remove(path: &Path) -> Result<(), StartError> {
    let io =
        |source| StartError::Io { action: "remove the old state at hand in", path: path.to_owned(), source };
    std::fs::remove_dir_all(path).map_err(io)
}
