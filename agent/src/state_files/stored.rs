//! What state is on this host, and whether it is whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use hvm_api::{ErrorKind, Failure, v1};
use hvm_runtime::Hvm;
use hvm_runtime::state::{ImportError, PartitionInfo, ReadError, Scan, StateEngine, file};
use hvm_types::{HostId, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::failure_text::with_causes;
use crate::images::{ImageStore, Trust};
use crate::logs::Prefix;
use crate::reconcile::Registry;

/// Exports, imports and checks at a time; further ones wait. Each takes a thread and some MiB.
pub(crate) const AT_A_TIME: usize = 4;

/// What the operations on state need.
#[derive(Clone)]
pub(crate) struct StateFiles {
    pub(crate) host: HostId,
    pub(crate) engine: Arc<dyn StateEngine>,
    pub(crate) hvm: Hvm,
    pub(crate) registry: Arc<Registry>,
    pub(crate) images: ImageStore,
    pub(crate) trust: Trust,
    pub(crate) places: Arc<Semaphore>,
}

impl std::fmt::Debug for StateFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateFiles").field("host", &self.host).finish_non_exhaustive()
    }
}

impl StateFiles {
    /// The partitions with state here.
    pub(crate) async fn list(&self, prefix: &Prefix) -> Result<Vec<v1::StoredState>, Failure> {
        let engine = Arc::clone(&self.engine);
        let stored = blocking(move || engine.partitions()).await.map_err(read_failure)?;
        let running = self.running();
        let selected = stored.iter().filter(|info| prefix.selects(&info.id));
        Ok(selected.map(|info| wire(info, &running)).collect())
    }

    /// Reads all state of the selected partitions, one after another.
    pub(crate) async fn check(
        &self,
        prefix: &Prefix,
    ) -> Result<impl Stream<Item = Result<v1::CheckedState, Status>> + Send + use<>, Failure> {
        let mut stored = self.list(prefix).await?;
        // What another host has claimed in a store is read there.
        stored.retain(|partition| partition.owner.is_empty() || partition.owner == self.host.as_str());
        let place = Arc::new(self.place().await?);
        let this = self.clone();
        Ok(stream::iter(stored).then(move |partition| {
            let (this, place) = (this.clone(), Arc::clone(&place));
            async move {
                let checked = this.check_one(partition).await;
                drop(place);
                checked
            }
        }))
    }

    async fn check_one(&self, partition: v1::StoredState) -> Result<v1::CheckedState, Status> {
        let id = partition.replica.parse::<ReplicaId>();
        let id = id.map_err(|error| Failure::new(ErrorKind::Internal, error))?;
        let engine = Arc::clone(&self.engine);
        let checked = blocking(move || match engine.scan(&id)? {
            Some(scan) => file::check(&*scan),
            None => Err(ReadError::Removed),
        });
        Ok(match checked.await {
            Ok((head, entries)) => {
                let partition = v1::StoredState {
                    epoch: head.epoch.0,
                    sequence: head.sequence.0,
                    stored_bytes: head.stored.0,
                    answers: head.answers,
                    ..partition
                };
                v1::CheckedState { partition: Some(partition), entries, problem: String::new() }
            }
            Err(error) => {
                v1::CheckedState { partition: Some(partition), entries: 0, problem: with_causes(&error) }
            }
        })
    }

    /// All that is committed to a partition.
    pub(super) async fn scan(&self, id: &ReplicaId) -> Result<Box<dyn Scan>, Failure> {
        let (engine, scanned) = (Arc::clone(&self.engine), id.clone());
        let scan = blocking(move || engine.scan(&scanned)).await.map_err(read_failure)?;
        scan.ok_or_else(|| {
            let text = format!("there is no state of {id} on host {}: deploy it first", self.host);
            Failure::new(ErrorKind::NotFound, text)
        })
    }

    /// Waits until few enough others are at work.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.map_err(|_| Failure::new(ErrorKind::Unavailable, "the agent is stopping"))
    }

    /// The states of the partitions that run, in one word each.
    pub(super) fn running(&self) -> BTreeMap<ReplicaId, &'static str> {
        self.hvm.observe().into_iter().map(|status| (status.id, status.state.word())).collect()
    }
}

pub(super) fn wire(info: &PartitionInfo, running: &BTreeMap<ReplicaId, &'static str>) -> v1::StoredState {
    v1::StoredState {
        replica: info.id.to_string(),
        epoch: info.epoch.0,
        sequence: info.sequence.0,
        stored_bytes: info.stored.0,
        answers: info.answers,
        running: running.get(&info.id).copied().unwrap_or_default().to_owned(),
        owner: info.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Does what waits for the disk off the executor.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

pub(super) fn read_failure(error: ReadError) -> Failure {
    let kind = match error {
        ReadError::Fenced { .. } => ErrorKind::Fenced,
        ReadError::Removed => ErrorKind::NotFound,
        ReadError::Corrupt { .. } => ErrorKind::Corrupt,
        ReadError::Unavailable { .. } => ErrorKind::Unavailable,
    };
    Failure::new(kind, with_causes(&error))
}

pub(super) fn import_failure(error: &ImportError) -> Failure {
    let kind = match error {
        ImportError::Fenced { .. } => ErrorKind::Fenced,
        ImportError::HasRecords { .. } => ErrorKind::Conflict,
        ImportError::Invalid { .. } => ErrorKind::Invalid,
        ImportError::Corrupt { .. } => ErrorKind::Corrupt,
        ImportError::StorageFull { .. } | ImportError::Unavailable { .. } => ErrorKind::Unavailable,
    };
    Failure::new(kind, with_causes(error))
}
