//! The object store as the engine uses it: create if absent, get, list, delete, each tried again for a bounded
//! time. Only create-if-absent and consistent reads and lists give safety.
//!
//! An answer can be lost, so "exists" may speak of our own object: every object carries a nonce of its writer,
//! and what is there is compared with what was to be created.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::surroundings::Surroundings;
use super::wire::Broken;

/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why an operation on the store ended without its result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ObjectError {
    /// The store did not answer in time. A create may take effect later.
    #[error("{action} `{path}` in the object store: {reason}")]
    Unavailable { action: &'static str, path: String, reason: String },
    /// An object is not what it must be.
    #[error("`{path}` in the object store {what}")]
    Corrupt { path: String, what: String },
}

impl ObjectError {
    pub(super) fn corrupt(path: &Path, Broken(what): Broken) -> Self {
        Self::Corrupt { path: path.to_string(), what: what.to_owned() }
    }
}

/// What came of a create.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there, as it was to be.
    Yes,
    /// Something else is there.
    Exists(Bytes),
}

/// How long an operation is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Longest time of one attempt.
    pub(super) attempt: Duration,
    /// Attempts.
    pub(super) attempts: u32,
}

/// The store.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    surroundings: Arc<dyn Surroundings>,
    patience: Patience,
}

impl Objects {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        surroundings: Arc<dyn Surroundings>,
        patience: Patience,
    ) -> Self {
        Self { store, surroundings, patience }
    }

    pub(super) fn surroundings(&self) -> &dyn Surroundings {
        &*self.surroundings
    }

    /// Creates an object unless one is there. An error leaves it unknown: the same bytes may be given again.
    pub(super) async fn create(&self, path: &Path, object: &Bytes) -> Result<Created, ObjectError> {
        loop {
            if self.create_blind(path, object).await? {
                return Ok(Created::Yes);
            }
            // Who deleted it meanwhile left room for another attempt.
            if let Some(found) = self.get(path).await? {
                return Ok(if found == *object { Created::Yes } else { Created::Exists(found) });
            }
        }
    }

    /// As [`create`](Self::create); `false` when something is there, which may be this very object.
    pub(super) async fn create_blind(&self, path: &Path, object: &Bytes) -> Result<bool, ObjectError> {
        self.attempt("create", path, || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.store.put_opts(path, object.clone().into(), options).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// An object's bytes; `None` when there is none.
    pub(super) async fn get(&self, path: &Path) -> Result<Option<Bytes>, ObjectError> {
        self.get_with(path, None).await
    }

    /// Some bytes of an object.
    pub(super) async fn get_range(
        &self,
        path: &Path,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, ObjectError> {
        self.get_with(path, Some(GetRange::Bounded(offset..offset + length))).await
    }

    async fn get_with(&self, path: &Path, range: Option<GetRange>) -> Result<Option<Bytes>, ObjectError> {
        self.attempt("read", path, || async {
            let options = GetOptions { range: range.clone(), ..GetOptions::default() };
            let read = async { self.store.get_opts(path, options).await?.bytes().await };
            match read.await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The paths below a prefix, sorted.
    pub(super) async fn list(&self, prefix: &Path) -> Result<Vec<Path>, ObjectError> {
        let list = || self.store.list(Some(prefix)).map_ok(|object| object.location).try_collect();
        let mut paths: Vec<Path> = self.attempt("list", prefix, list).await?;
        paths.sort();
        Ok(paths)
    }

    /// Deletes objects. What is not there is no error.
    pub(super) async fn delete(&self, paths: &[Path]) -> Result<(), ObjectError> {
        const AT_ONCE: usize = 8;
        let delete = |path: &Path| {
            let path = path.clone();
            async move {
                self.attempt("delete", &path, || async {
                    match self.store.delete(&path).await {
                        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                        Err(error) => Err(error),
                    }
                })
                .await
            }
        };
        futures::stream::iter(paths.iter().map(delete)).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn attempt<T, F>(
        &self,
        action: &'static str,
        path: &Path,
        operation: impl Fn() -> F,
    ) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut tried = 0;
        loop {
            let limit = self.surroundings.sleep(self.patience.attempt);
            let reason = match select(std::pin::pin!(operation()), limit).await {
                Either::Left((Ok(result), _)) => return Ok(result),
                Either::Left((Err(error), _)) => error.to_string(),
                Either::Right(_) => format!("no answer in {:?}", self.patience.attempt),
            };
            tried += 1;
            if tried >= self.patience.attempts {
                return Err(ObjectError::Unavailable { action, path: path.to_string(), reason });
            }
            tracing::debug!(action, %path, reason, "the object store is tried again");
            self.surroundings.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
