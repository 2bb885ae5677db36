//! What a shared engine is told, and where its objects are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hvm_types::{ByteSize, HostId};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::state::{LocalConfig, StartError};

/// Longest time for one attempt of one operation on the store, and how many there are, unless something else is said.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
pub(super) const ATTEMPTS: u32 = 4;

/// Configuration of a shared engine. [`SharedConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct SharedConfig {
    /// The host. Two engines of one host are taken for an old one and its successor: the newer one ends the
    /// other.
    pub host: HostId,
    /// Where the state is.
    pub store: SharedStore,
    /// The directory in which the state is kept at hand, with its limits and the idempotency window. What is in
    /// it is deleted at each start: nothing there is needed.
    pub local: LocalConfig,
    /// Longest time for one attempt of one operation on the store.
    pub attempt: Duration,
    /// Attempts after which an operation fails as unavailable. Between them it waits up to a second.
    pub attempts: u32,
    /// Bytes of records in the log after which partitions are checkpointed and old segments deleted.
    pub upkeep: ByteSize,
}

impl SharedConfig {
    /// The defaults, for a host whose state is in `store`, and kept at hand in `directory`.
    #[must_use]
    pub fn new(host: HostId, store: SharedStore, directory: impl Into<PathBuf>) -> Self {
        Self {
            host,
            store,
            local: LocalConfig::new(directory),
            attempt: ATTEMPT,
            attempts: ATTEMPTS,
            upkeep: ByteSize::mib(8),
        }
    }
}

/// Where the state of many hosts is: they all must see the same objects.
#[derive(Clone)]
pub struct SharedStore {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// For people: an address without any secret.
    pub(super) name: Arc<str>,
}

impl SharedStore {
    /// A directory, which is made where it does not exist. All hosts must have it mounted from a file system on
    /// which making a hard link is atomic and seen by all at once.
    ///
    /// # Errors
    /// [`StartError::Io`] where it can't be made.
    pub fn directory(path: &Path) -> Result<Self, StartError> {
        let io = |source| StartError::Io {
            action: "create the directory of shared state",
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|error| io(error.into()))?;
        let name = format!("the directory {}", path.display()).into();
        Ok(Self { objects: Arc::new(store.with_fsync(true)), name })
    }
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedStore({})", self.name)
    }
}

impl fmt::Display for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
