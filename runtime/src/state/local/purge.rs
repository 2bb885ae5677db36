//! Purging and recovering: what the committer does beside committing.

use std::time::{Duration, Instant};

use super::acknowledged::Count;
use super::batch::Batch;
use super::committer::Committer;
use super::failure::Setback;
use super::layout::{self, Number};
use super::store::{Store, View};
use crate::state::{CommitError, ReadError, StartError};

/// Keys that are purged in one batch.
const PURGED_PER_BATCH: usize = 1_000;
/// How long a recovery waits for readers to finish.
const READER_LIMIT: Duration = Duration::from_secs(2);
const READER_STEP: Duration = Duration::from_millis(5);

/// A removed partition whose keys are being purged.
#[derive(Debug)]
pub(super) struct Purge {
    number: Number,
    /// The last key that was purged.
    after: Option<Vec<u8>>,
}

impl Purge {
    pub(super) const fn new(number: Number) -> Self {
        Self { number, after: None }
    }

    /// The purges that an earlier run left unfinished.
    pub(super) fn unfinished(view: &View) -> Result<Vec<Self>, ReadError> {
        let prefix = layout::purges();
        let number =
            |key: &[u8]| Some(Number(u64::from_be_bytes(key.get(prefix.key.len()..)?.try_into().ok()?)));
        view.keys(&prefix, None)
            .map(|key| {
                let lost = || ReadError::Corrupt { what: "a purge has no number".to_owned() };
                number(&key?).map(Self::new).ok_or_else(lost)
            })
            .collect()
    }
}

impl Committer {
    /// Purges some keys. Where that fails, purging waits until a commit has passed.
    pub(super) fn purge_some(&mut self) {
        if let Err(error) = self.try_purge() {
            tracing::warn!(%error, "purging a removed partition waits");
            self.purge_waits = true;
        }
    }

    fn try_purge(&mut self) -> Result<(), CommitError> {
        let Some(purge) = self.purges.front() else { return Ok(()) };
        let view = self.shared.view()?;
        let mut batch = Batch::default();
        let prefix = purge.number.everything();
        let mut last = None;
        let mut keys = 0;
        for key in view.keys(&prefix, purge.after.as_deref()).take(PURGED_PER_BATCH) {
            let key = key?.to_vec();
            batch.writes.insert(layout::Place { space: prefix.space, key: key.clone() }, None);
            last = Some(key);
            keys += 1;
        }
        let finished = keys < PURGED_PER_BATCH;
        if finished {
            batch.writes.insert(purge.number.purge(), None);
        }
        self.write(batch)?;
        if finished {
            self.purges.pop_front();
        } else if let Some(purge) = self.purges.front_mut() {
            purge.after = last;
        }
        Ok(())
    }

    /// Closes the database and opens it again, at what was acknowledged. Readers are refused meanwhile.
    pub(super) fn recover(&mut self) -> Result<(), Setback> {
        let reason = "the database is being opened again".to_owned();
        let before = std::mem::replace(&mut *self.shared.published(), Err(reason));
        drop(before);
        if let Some(store) = self.store.take() {
            if !wait_for_readers(&store) {
                *self.shared.published() = Ok(store.view());
                self.store = Some(store);
                return Err(Setback::Later("readers did not finish".to_owned()));
            }
            drop(store);
        }
        let count = Count { failed: true, ..self.count() };
        let cache_bytes = self.shared.config.cache.0;
        let (store, chain) = Store::open(&self.directory, cache_bytes, Some(count)).map_err(|error| {
            *self.shared.published() = Err(error.to_string());
            match error {
                StartError::Corrupt { .. } => Setback::Forever(error.to_string()),
                error => Setback::Later(error.to_string()),
            }
        })?;
        if chain.map_or(0, |chain| chain.count) != self.chain.count {
            return Err(Setback::Forever("the database has another end than it had".to_owned()));
        }
        *self.shared.published() = Ok(store.view());
        self.store = Some(store);
        self.acknowledged.write_durably(self.count()).map_err(|error| Setback::Later(error.to_string()))
    }
}

fn wait_for_readers(store: &Store) -> bool {
    let started = Instant::now();
    while !store.is_unused() {
        if started.elapsed() > READER_LIMIT {
            return false;
        }
        std::thread::sleep(READER_STEP);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hvm_types::{ByteSize, Epoch, Meter, ReplicaId};

    use super::*;
    use crate::state::local::{LocalConfig, LocalEngine};
    use crate::state::{CommitRecord, Retention, StateEngine, WriteSet};

    const KEYS: usize = 4_500;

    fn engine_with_keys(directory: &std::path::Path, id: &ReplicaId) -> LocalEngine {
        let engine = LocalEngine::start(LocalConfig::new(directory)).expect("the engine starts");
        let partition = engine.open(id, Epoch(1)).expect("the partition opens");
        let mut writes = WriteSet::default();
        for key in 0..KEYS {
            writes.put("default", &key.to_string(), bytes::Bytes::from_static(b"value"));
        }
        let quota = ByteSize::mib(1);
        let record = CommitRecord {
            writes,
            idempotency: None,
            exchange: None,
            schema: None,
            meter: Meter::default(),
            quota,
            retention: Retention::default(),
            unix_millis: 0,
        };
        partition.commit(record).wait().expect("the record is committed");
        engine
    }

    fn keys_left(engine: &LocalEngine) -> usize {
        let view = engine.view().expect("a view");
        // The first partition of a database has the number 1.
        view.keys(&Number(1).everything(), None).count() + view.keys(&layout::purges(), None).count()
    }

    fn wait_until_purged(engine: &LocalEngine) {
        let started = Instant::now();
        while keys_left(engine) > 0 {
            assert!(started.elapsed() < Duration::from_secs(30), "{} keys are left", keys_left(engine));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_removed_partitions_keys_are_purged_in_the_background() {
        let directory = tempfile::tempdir().expect("a directory");
        let id: ReplicaId = "ledger/accounts/0".parse().expect("a valid id");
        let engine = engine_with_keys(directory.path(), &id);
        assert!(keys_left(&engine) >= KEYS);
        engine.remove(&id).expect("the partition is removed");
        wait_until_purged(&engine);
    }

    #[test]
    fn a_purge_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let id: ReplicaId = "ledger/accounts/0".parse().expect("a valid id");
        let engine = engine_with_keys(directory.path(), &id);
        engine.remove(&id).expect("the partition is removed");
        drop(engine);
        wait_until_purged(
            &LocalEngine::start(LocalConfig::new(directory.path())).expect("the engine starts"),
        );
    }
}
