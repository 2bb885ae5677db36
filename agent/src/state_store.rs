//! Where the state of this host's partitions is, and that a data directory stays with the store it began with: under
//! another one its partitions would be opened empty.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hvm_runtime::state::{
    IdentityError, LocalConfig, LocalEngine, S3Config, SharedConfig, SharedEngine, SharedStore, StateEngine,
};
use hvm_types::{HostId, StoreId};

use crate::data_dir::replace_file;

/// Names in the data directory: the local engine's state; what a shared engine keeps at hand, which is made anew at
/// each start; which store the directory's partitions have their state in.
const LOCAL: &str = "state";
const AT_HAND: &str = "state-at-hand";
const MARK: &str = "state-store";

/// What stands in the mark for the host's own disk: no identity of a store, because those have 32 characters.
const OWN_DISK: &str = "own-disk";

/// Where the state of partitions is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StateStore {
    /// On this host's disk, in the data directory. It goes with the host.
    #[default]
    Local,
    /// In a directory that all hosts which share it have mounted, see [`SharedStore::directory`].
    Directory(PathBuf),
    /// In a bucket behind the S3 API.
    S3(S3Config),
}

/// Why the state store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateStoreError {
    /// The engine can't start on it.
    #[error("open the durable state")]
    Engine(#[from] hvm_runtime::state::StartError),
    /// It does not say which store it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory belongs to another store.
    #[error(
        "use {told} for state: the partitions of the data directory {} have theirs {had}; start the agent with that, or \
         with an empty data directory and a host name of its own (`hvm state export` and `import` take state along)",
        dir.display()
    )]
    Other {
        /// The data directory.
        dir: PathBuf,
        /// What it belongs to.
        had: String,
        /// What the agent was told.
        told: String,
    },
    /// The directory of the store can't be made.
    #[error("make {} to keep state in", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The mark can't be read or written.
    #[error("keep in {} which store its partitions have their state in", path.display())]
    Mark {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A store that was opened.
pub(crate) struct OpenedState {
    pub(crate) engine: Arc<dyn StateEngine>,
    /// The identity of a store that several hosts reach.
    pub(crate) store: Option<StoreId>,
}

impl fmt::Debug for OpenedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedState").field("store", &self.store).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens it for the host of a data directory that is locked. Waits for disk and network: not to be called on an
    /// executor's thread.
    pub(crate) fn open(&self, host: &HostId, data_dir: &Path) -> Result<OpenedState, StateStoreError> {
        let shared = match self {
            Self::Local => None,
            Self::Directory(path) => {
                ensure_private(path)?;
                Some(SharedStore::directory(path)?)
            }
            Self::S3(config) => Some(SharedStore::s3(config.clone())?),
        };
        let Some(shared) = shared else {
            ensure_mark(data_dir, OWN_DISK, "the host's own disk")?;
            let engine = LocalEngine::start(LocalConfig::new(data_dir.join(LOCAL)))?;
            return Ok(OpenedState { engine: Arc::new(engine), store: None });
        };
        let id = shared.identity()?;
        ensure_mark(data_dir, id.as_str(), &shared.to_string())?;
        tracing::info!(store = %id, "state is kept in {shared}");
        let config = SharedConfig::new(host.clone(), shared, data_dir.join(AT_HAND));
        Ok(OpenedState { engine: Arc::new(SharedEngine::start(config)?), store: Some(id) })
    }
}

/// Makes the directory where it is missing, for its owner alone: state of apps is in it.
fn ensure_private(path: &Path) -> Result<(), StateStoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StateStoreError::Directory { path: path.to_owned(), source })
}

/// Writes the mark where there is none, and refuses where it names another store.
fn ensure_mark(data_dir: &Path, mark: &str, told: &str) -> Result<(), StateStoreError> {
    let path = data_dir.join(MARK);
    let known = match std::fs::read_to_string(&path) {
        Ok(known) => Some(known.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(StateStoreError::Mark { path, source }),
    };
    // Directories from before there were marks have their own disk.
    let known = known.or_else(|| data_dir.join(LOCAL).exists().then(|| OWN_DISK.to_owned()));
    if let Some(known) = &known
        && known != mark
    {
        let had = if known == OWN_DISK {
            "in it, on the host's own disk".to_owned()
        } else {
            format!("in store {known}")
        };
        return Err(StateStoreError::Other { dir: data_dir.to_owned(), had, told: told.to_owned() });
    }
    replace_file(&path, format!("{mark}\n").as_bytes())
        .map_err(|source| StateStoreError::Mark { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(store: &StateStore, data: &Path) -> Result<Option<StoreId>, String> {
        std::fs::create_dir_all(data).expect("a data directory");
        let host = "a".parse().expect("a valid name");
        store.open(&host, data).map(|opened| opened.store).map_err(|error| error.to_string())
    }

    #[test]
    fn a_data_directory_stays_with_the_store_it_began_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let (one, other) = (StateStore::Directory(path("one")), StateStore::Directory(path("other")));
        let (first, second, own) = (path("a"), path("b"), path("c"));

        let id = open(&one, &first).expect("it is new").expect("a shared store");
        assert_eq!(open(&one, &second), Ok(Some(id.clone())), "all hosts know it by one identity");
        assert_eq!(open(&one, &first), Ok(Some(id.clone())), "and again");
        for refused in [&other, &StateStore::Local] {
            let text = open(refused, &first).expect_err("its state is elsewhere");
            assert!(text.contains(&format!("in store {id}")), "{text}");
        }
        assert_eq!(open(&StateStore::Local, &own), Ok(None));
        std::fs::remove_file(own.join(MARK)).expect("as one of before there were marks");
        let text = open(&one, &own).expect_err("its state is on its disk");
        assert!(text.contains("on the host's own disk"), "{text}");
        assert_eq!(open(&StateStore::Local, &own), Ok(None));
    }
}
