//! Upgrading a partition: the new version is made ready beside the old one and takes over between two
//! commands. Queries that run keep the version they began with.

use std::rc::Rc;
use std::sync::Arc;

use hvm_types::ReplicaState;
use tokio::sync::oneshot;

use super::version::{self, Version};
use super::{Partition, Work, open};
use crate::egress::EgressPolicy;
use crate::worker::{Local, Slot};
use crate::{LogLevel, OpenError, PartitionSpec, UpgradeError};

/// A change of version that waits for the commands before it.
pub(super) struct Swap {
    next: Next,
    done: oneshot::Sender<Result<(), UpgradeError>>,
}

enum Next {
    /// It is ready.
    Ready(Rc<Version>),
    /// It comes with a new ownership. Opening the state for it fences the old one, so that may only happen
    /// when no command runs.
    NewEpoch(PartitionSpec, EgressPolicy),
}

/// Upgrades a partition on this worker.
pub(crate) async fn upgrade(spec: PartitionSpec) -> Result<(), UpgradeError> {
    let id = spec.id.clone();
    let Some(Slot::Open(partition)) = Local::current().and_then(|local| local.partition(&id)) else {
        return Err(UpgradeError::Unknown { id });
    };
    let state = partition.observed.state();
    if state != ReplicaState::Ready {
        return Err(UpgradeError::NotServing { id, state: state.to_string() });
    }
    let current = partition.version();
    if current.spec.stateful != spec.stateful {
        return Err(UpgradeError::StateChange { id });
    }
    let egress = version::check(&partition.host, &spec)?;
    let next = if current.spec.epoch == spec.epoch || !spec.stateful {
        let state = current.state.clone();
        Next::Ready(partition.prepare(spec, egress, state).await?)
    } else {
        Next::NewEpoch(spec, egress)
    };
    let (done, result) = oneshot::channel();
    partition.commands.push_front(Work::Swap(Box::new(Swap { next, done })));
    partition.run_lane(|partition| &partition.commands);
    let stopped = UpgradeError::NotServing { id, state: "stopping".to_owned() };
    result.await.unwrap_or(Err(stopped))
}

impl Partition {
    /// Makes a version ready: an instance of it stands by.
    async fn prepare(
        &self,
        spec: PartitionSpec,
        egress: EgressPolicy,
        state: Option<Arc<dyn crate::state::PartitionState>>,
    ) -> Result<Rc<Version>, OpenError> {
        let version = Version::new(&self.host, &self.observed, &self.log, spec, egress, state);
        let warming = version.warm(&self.host, &self.observed);
        self.slices.metered(&self.observed.meter, warming).await?;
        Ok(version)
    }

    /// Takes the next version into use. No command runs meanwhile: this is one of them.
    pub(super) async fn swap(self: &Rc<Self>, swap: Swap) {
        let result = match swap.next {
            Next::Ready(version) => Ok(version),
            Next::NewEpoch(spec, egress) => self.take_over(spec, egress).await,
        };
        let result = result.map(|version| {
            let (epoch, generation) = (version.spec.epoch, version.spec.generation);
            self.observed.set_version(epoch, generation, &version.memory);
            self.log.host(LogLevel::Info, &format!("generation {generation} took over"));
            // The old version goes with its idle instances, or with its last query.
            drop(self.version.replace(version));
        });
        drop(swap.done.send(result.map_err(UpgradeError::Open)));
    }

    async fn take_over(
        self: &Rc<Self>,
        spec: PartitionSpec,
        egress: EgressPolicy,
    ) -> Result<Rc<Version>, OpenError> {
        let (id, epoch) = (spec.id.clone(), spec.epoch);
        let state = match open::open_state(&self.host, &id, epoch).await {
            Ok(state) => state,
            Err(error) => {
                if let Some(newest) = error.fenced_by() {
                    self.observed.set_state(ReplicaState::Fenced { epoch: newest });
                }
                return Err(error);
            }
        };
        // From here the old version's handle is fenced: where the new one fails, the partition has failed.
        let prepared = self.prepare(spec, egress, Some(state)).await;
        if let Err(error) = &prepared {
            self.observed.set_state(ReplicaState::Failed { reason: error.to_string() });
        }
        prepared
    }
}
