//! The store of a single process: a redb database in the data directory. Every transaction is on disk
//! (fsync) before it is answered.
//!
//! One lock orders all writes; reads go beside them on redb's snapshots. One background loop, the
//! `LeaseLoop`, ends the leases that nobody renewed.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use redb::{Database, DatabaseError, ReadableDatabase as _};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::history::History;
use super::leases::Leases;
use super::table::{self, ENTRIES};
use super::{
    Change, ChangeStream, CoordinationStore, Entry, LeaseId, Listing, MAX_KEY_BYTES, MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES, Revision, StoreError, Transaction, Write,
};

const FILE_NAME: &str = "coordination.redb";
const CACHE_BYTES: usize = 32 << 20;
const MAX_LEASES: usize = 100_000;
/// How long the lease loop waits after the disk failed it.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The store of a single process, in one file.
#[derive(Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    lease_loop: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    /// Held while a transaction is written.
    writing: Mutex<()>,
    leases: Mutex<Leases>,
    leases_changed: Arc<Notify>,
    history: Mutex<History>,
    revision: watch::Sender<Revision>,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, and creates both where they are missing. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StoreError::DirectoryInUse`] where another process has it open, [`StoreError::Unavailable`] where
    /// the disk refuses or the file is damaged.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| StoreError::DirectoryUnusable { directory: directory.to_owned(), source })?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(directory.join(FILE_NAME))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => {
                    StoreError::DirectoryInUse { directory: directory.to_owned() }
                }
                other => StoreError::unavailable("open", other),
            })?;
        let transaction = begin(&database)?;
        let (revision, stored_leases) = table::prepare(&transaction)?;
        commit(transaction)?;
        let now = Instant::now();
        let mut leases = Leases::default();
        for (id, ttl) in stored_leases {
            leases.add(id, ttl, now);
        }
        let inner = Arc::new(Inner {
            database,
            writing: Mutex::new(()),
            leases: Mutex::new(leases),
            leases_changed: Arc::default(),
            history: Mutex::new(History::new(revision)),
            revision: watch::channel(revision).0,
        });
        let lease_loop = tokio::spawn(end_leases(Arc::downgrade(&inner), Arc::clone(&inner.leases_changed)));
        Ok(Self { inner, lease_loop })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| StoreError::unavailable("use", error))?
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.lease_loop.abort();
    }
}

#[async_trait]
impl CoordinationStore for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| {
            let read = || -> Result<_, redb::Error> {
                let entries = inner.database.begin_read()?.open_table(ENTRIES)?;
                Ok(entries.get(key.as_str())?.map(|row| table::entry(&key, row.value())))
            };
            read().map_err(|error| StoreError::unavailable("read", error))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| {
            // Read before the snapshot is taken: the snapshot may be newer, never older.
            let revision = *inner.revision.borrow();
            let read = || -> Result<_, redb::Error> {
                let table = inner.database.begin_read()?.open_table(ENTRIES)?;
                let mut entries = Vec::new();
                for row in table.range(prefix.as_str()..)? {
                    let (key, value) = row?;
                    if !key.value().starts_with(&prefix) {
                        break;
                    }
                    entries.push(table::entry(key.value(), value.value()));
                }
                Ok(entries)
            };
            let entries = read().map_err(|error| StoreError::unavailable("read", error))?;
            Ok(Listing { entries, revision })
        })
        .await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        check_limits(&transaction)?;
        self.blocking(move |inner| inner.transact(transaction)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        let missed = lock(&self.inner.history).after(prefix, after)?;
        let watch = Watch {
            inner: Arc::clone(&self.inner),
            prefix: prefix.to_owned(),
            after: missed.last().map_or(after, Change::revision),
            pending: missed.into(),
            revision: self.inner.revision.subscribe(),
        };
        Ok(futures::stream::unfold(Some(watch), next_change).boxed())
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.blocking(move |inner| {
            let _writing = lock(&inner.writing);
            if lock(&inner.leases).len() >= MAX_LEASES {
                let limit = format!("a store has at most {MAX_LEASES}");
                return Err(StoreError::TooLarge { what: "one more lease".to_owned(), limit });
            }
            let transaction = begin(&inner.database)?;
            let id = table::add_lease(&transaction, ttl)?;
            commit(transaction)?;
            lock(&inner.leases).add(id, ttl, Instant::now());
            inner.leases_changed.notify_one();
            Ok(id)
        })
        .await
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        lock(&self.inner.leases).renew(lease, Instant::now())
    }
}

impl Inner {
    fn transact(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let _writing = lock(&self.writing);
        for write in &transaction.writes {
            if let Write::Put { lease: Some(lease), .. } = write
                && !lock(&self.leases).contains(*lease)
            {
                return Err(StoreError::LeaseExpired { lease: *lease });
            }
        }
        let database = begin(&self.database)?;
        let (revision, changes) = table::apply(&database, transaction)?;
        commit(database)?;
        self.publish(revision, changes);
        Ok(revision)
    }

    fn publish(&self, revision: Revision, changes: Vec<Change>) {
        lock(&self.history).push(changes);
        self.revision.send_replace(revision);
    }

    fn end_leases(&self) -> Result<(), StoreError> {
        let _writing = lock(&self.writing);
        let ended = lock(&self.leases).take_ended(Instant::now());
        if ended.is_empty() {
            return Ok(());
        }
        let delete = || {
            let database = begin(&self.database)?;
            let keys = table::end_leases(&database, &ended)?;
            let writes = keys.into_iter().map(|key| Write::Delete { key }).collect();
            let done = table::apply(&database, Transaction { expects: Vec::new(), writes })?;
            commit(database)?;
            Ok(done)
        };
        match delete() {
            Ok((revision, changes)) => {
                self.publish(revision, changes);
                Ok(())
            }
            Err(error) => {
                // Their keys are still there, so they must go on ending.
                for (id, ttl) in ended {
                    lock(&self.leases).add(id, ttl, Instant::now());
                }
                Err(error)
            }
        }
    }
}

/// The `LeaseLoop`. It keeps no store open that everybody else has dropped.
async fn end_leases(store: Weak<Inner>, leases_changed: Arc<Notify>) {
    loop {
        let Some(next) = store.upgrade().map(|inner| lock(&inner.leases).next_end()) else { return };
        match next {
            Some(end) => tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = leases_changed.notified() => continue,
            },
            None => {
                leases_changed.notified().await;
                continue;
            }
        }
        let Some(inner) = store.upgrade() else { return };
        match tokio::task::spawn_blocking(move || inner.end_leases()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "ending leases failed");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(_) => return,
        }
    }
}

struct Watch {
    inner: Arc<Inner>,
    prefix: String,
    after: Revision,
    pending: VecDeque<Change>,
    revision: watch::Receiver<Revision>,
}

async fn next_change(watch: Option<Watch>) -> Option<(Result<Change, StoreError>, Option<Watch>)> {
    let mut watch = watch?;
    loop {
        if let Some(change) = watch.pending.pop_front() {
            return Some((Ok(change), Some(watch)));
        }
        let newest = *watch.revision.borrow_and_update();
        if newest > watch.after {
            let later = lock(&watch.inner.history).after(&watch.prefix, watch.after);
            match later {
                Ok(later) => {
                    watch.after = later.last().map_or(newest, |change| change.revision().max(newest));
                    watch.pending = later.into();
                }
                Err(error) => return Some((Err(error), None)),
            }
        } else if watch.revision.changed().await.is_err() {
            return None;
        }
    }
}

fn check_limits(transaction: &Transaction) -> Result<(), StoreError> {
    let too_large = |what: String, limit: String| Err(StoreError::TooLarge { what, limit });
    let Transaction { expects, writes } = transaction;
    let operations = expects.len().max(writes.len());
    if operations > MAX_OPERATIONS {
        let what = format!("a transaction of {operations} operations");
        return too_large(what, format!("one has at most {MAX_OPERATIONS}"));
    }
    let mut bytes = 0;
    let mut keys = BTreeSet::new();
    for write in writes {
        let key = write.key();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let limit = format!("a key has 1 to {MAX_KEY_BYTES} bytes");
            return too_large(format!("a key of {} bytes", key.len()), limit);
        }
        if !keys.insert(key) {
            return too_large(format!("`{key}` twice"), "a transaction writes a key once".to_owned());
        }
        bytes += key.len();
        if let Write::Put { value, .. } = write {
            bytes += value.len();
        }
    }
    if bytes > MAX_TRANSACTION_BYTES {
        let what = format!("a transaction of {bytes} bytes");
        return too_large(what, format!("one has at most {MAX_TRANSACTION_BYTES}"));
    }
    Ok(())
}

fn begin(database: &Database) -> Result<redb::WriteTransaction, StoreError> {
    database.begin_write().map_err(|error| StoreError::unavailable("write to", error))
}

fn commit(transaction: redb::WriteTransaction) -> Result<(), StoreError> {
    transaction.commit().map_err(|error| StoreError::unavailable("write to", error))
}

/// What these locks guard is valid between any two statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
