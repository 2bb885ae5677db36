//! Closing a partition: it finishes what it accepted, and goes.

use std::rc::Rc;

use hvm_types::{ReplicaId, ReplicaState};

use super::{Partition, migrate};
use crate::state::CommitRecord;
use crate::worker::{Local, Slot};
use crate::{CloseError, LogLevel};

/// Closes a partition on this worker. Every request that it has accepted is bounded by its deadline, and so
/// is this.
pub(crate) async fn close(id: ReplicaId) -> Result<(), CloseError> {
    let unknown = CloseError::Unknown { id: id.clone() };
    let Some(local) = Local::current() else { return Err(unknown) };
    let Some(Slot::Open(partition)) = local.partition(&id) else { return Err(unknown) };
    if !matches!(partition.observed.state(), ReplicaState::Fenced { .. } | ReplicaState::Failed { .. }) {
        partition.observed.set_state(ReplicaState::Draining);
    }
    partition.changed.notify_waiters();
    // Nothing of a change of version may come after it.
    let _alone = partition.upgrading.lock().await;
    partition.drained().await;
    partition.commit_meter().await;
    let is_same = |slot: &Slot| matches!(slot, Slot::Open(open) if Rc::ptr_eq(open, &partition));
    let mut partitions = local.partitions.borrow_mut();
    if partitions.get(&id).is_some_and(is_same) {
        partitions.remove(&id);
        partition.observed.set_state(ReplicaState::Stopped);
        partition.log.host(LogLevel::Info, "stopped");
        partition.host.unregister(&partition.observed);
        drop(partitions);
        partition.version().drop_idle();
    }
    Ok(())
}

impl Partition {
    /// Resolves when no accepted request is left.
    async fn drained(&self) {
        self.draining.set(true);
        loop {
            let drained = self.drained.notified();
            if self.accepted.get() == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Makes durable what was used since the last record.
    async fn commit_meter(&self) {
        self.slices.settle();
        let version = self.version();
        let Some(state) = &version.state else { return };
        let meter = self.observed.read_meter();
        let used = meter.saturating_sub(&self.committed_meter.borrow());
        if used.requests() == 0 {
            return;
        }
        let schema = migrate::first_mark(&version.spec, &**state);
        let record = CommitRecord { schema, ..self.record(&version, &meter) };
        match state.commit(record).await {
            Ok(_) => drop(self.committed_meter.replace(meter)),
            Err(error) => tracing::warn!(id = %self.observed.id, %error, "the last meter is not durable"),
        }
    }
}
