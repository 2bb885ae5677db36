//! Importing state into a partition that runs: between two commands, its state is replaced by what was imported.
//! Requests wait meanwhile, and none fails.

use std::rc::Rc;

use hvm_types::{ReplicaId, ReplicaState, Sequence};

use super::Partition;
use super::upgrade::{Next, QueriesHalted, Swap};
use super::version::{self, Version};
use super::{open, pinned::Work};
use crate::state::{Import, ImportError, ImportHead};
use crate::worker::{Local, Slot};
use crate::{LogLevel, UpgradeError};

/// Finishes an import for the partition on this worker. Upgrades and imports of it are made one after another.
pub(crate) async fn import(
    id: ReplicaId,
    import: Box<dyn Import>,
    head: ImportHead,
) -> Result<(), UpgradeError> {
    let Some(Slot::Open(partition)) = Local::current().and_then(|local| local.partition(&id)) else {
        return Err(UpgradeError::Unknown { id });
    };
    let _alone = partition.upgrading.lock().await;
    partition.check_ready()?;
    let current = partition.version();
    if !current.spec.stateful {
        return Err(UpgradeError::StateChange { id });
    }
    let (imported, known) = (head.schema.unwrap_or(1), current.spec.schema.version);
    if head.sequence > Sequence(0) && imported != known && !current.spec.grants.keyvalue.is_empty() {
        return Err(UpgradeError::ImportLayout { id, imported, known });
    }
    let (swap, result) = Swap::new(Next::Import(import, head));
    partition.commands.push_front(Work::Swap(Box::new(swap)));
    partition.run_lane(|partition| &partition.commands);
    let stopped = UpgradeError::NotServing { id, state: "stopping".to_owned() };
    result.await.unwrap_or(Err(stopped))
}

impl Partition {
    /// Puts the imported state in place and goes on with it. No command runs meanwhile: this is one of them.
    pub(super) async fn take_over_import(
        self: &Rc<Self>,
        import: Box<dyn Import>,
        head: ImportHead,
    ) -> Result<(), UpgradeError> {
        // A query would find the state removed that it reads.
        let _halted = QueriesHalted::begin(self).await;
        let id = self.observed.id.clone();
        let finished = tokio::task::spawn_blocking(move || import.finish(&head)).await;
        let unavailable = |reason: String| ImportError::Unavailable { id: id.clone(), reason };
        let info = finished.unwrap_or_else(|error| Err(unavailable(error.to_string())))?;
        let spec = self.version().spec.clone();
        let opened = open::open_state(&self.host, &id, spec.epoch).await;
        let state = opened.inspect_err(|error| {
            // What it has open is gone: it must be closed and opened again.
            let state = match error.fenced_by() {
                Some(epoch) => ReplicaState::Fenced { epoch },
                None => ReplicaState::Failed { reason: error.to_string() },
            };
            self.observed.set_state(state);
        })?;
        let egress = version::check(&self.host, &spec)?;
        self.install(Version::new(&self.host, &self.observed, &self.log, spec, egress, Some(state)));
        self.observed.set_committed(info.sequence, Some(info.stored));
        self.log.host(LogLevel::Info, &format!("its state was imported, at sequence {}", info.sequence));
        Ok(())
    }
}
